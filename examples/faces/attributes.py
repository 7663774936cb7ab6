"""The nine attributes of a face, drawn independently and uniformly, and how DiceBear's "Pixel Art" draws each.

Every value is visible whatever the others are: hats end above the row where all hair shows, beards have the hair's
colour, and no colour of hair, hat or clothing is close to one of the background.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

Options: TypeAlias = Mapping[str, tuple[str | int, ...]]
"""DiceBear's options, each with alternatives that show the same value."""
Attributes: TypeAlias = Mapping[str, str]
"""Values by attribute, of all nine attributes or some."""


def _variants(option: str, kind: str, *numbers: int) -> Options:
    return {option: tuple(f"{kind}{number:02}" for number in numbers)}


def _mouth(kind: str, *numbers: int) -> Options:
    return _variants("mouth", kind, *numbers)


def _hair(*variants: str) -> Options:
    return {"hair": variants}


def _glasses(kind: str) -> Options:
    frames = ("191919", "323232", "2b2f4a", "4a2328")
    return {"glassesProbability": (100,), "glassesColor": frames, **_variants("glasses", kind, 2, 5, 6, 7)}


def _hat(*colours: str) -> Options:
    return {"hatProbability": (100,), "hatColor": colours, **_variants("hat", "variant", 2, 6, 7)}


VALUES: dict[str, dict[str, Options]] = {
    "expression": {
        "smiling":    _mouth("happy", 6, 7, 8, 9, 10, 11),
        "serious":    _mouth("sad", 4, 5, 6),
        "sad":        _mouth("sad", 1, 2, 3, 8, 9),
        "surprised":  _mouth("happy", 1, 13),
    },
    "hair_style": {
        "long":       _hair("long01", "long02", "long03", "long07", "long09", "long12", "long13", "long20", "long21"),
        "short":      _hair("short01", "short02", "short14", "short15", "short17", "short22"),
        "curly":      _hair("long15", "short11"),
        "braids":     _hair("long06", "long18", "long19"),
    },
    "hair_colour": {
        "black":      {"hairColor": ("0f0f12", "1c1a1d", "14161f")},
        "brown":      {"hairColor": ("6a3d1c", "734420", "5e3518")},
        "blond":      {"hairColor": ("f0cf4e", "e6c03c", "f2d768")},
        "red":        {"hairColor": ("c9461a", "bd3b12", "d4551f")},
        "grey":       {"hairColor": ("a8a8ad", "9b9ba2", "b4b4b8")},
    },
    "glasses": {
        "none":       {"glassesProbability": (0,)},
        "glasses":    _glasses("light"),
        "sunglasses": _glasses("dark"),
    },
    "hat": {
        "none":       {"hatProbability": (0,)},
        "red":        _hat("a62116", "c01f2a", "9c1526"),
        "blue":       _hat("2663a3", "1f4fb0", "2a49c0"),
    },
    "beard": {
        "none":       {"beardProbability": (0,)},
        "beard":      {"beardProbability": (100,), **_variants("beard", "variant", 1, 3, 5, 6, 7, 8)},
    },
    "clothing": {
        "red":        {"clothingColor": ("d11141", "c8202c", "b3122e")},
        "blue":       {"clothingColor": ("2a62c8", "1f4fb0", "3a6fd8")},
        "green":      {"clothingColor": ("00a150", "1f8f3c", "2aa845")},
        "yellow":     {"clothingColor": ("f5c518", "ffcf25", "e8b90c")},
        "purple":     {"clothingColor": ("7d3fb5", "6b2fa0", "8a45c8")},
        "black":      {"clothingColor": ("1e1e22", "2a2a2e", "141418")},
    },
    "skin": {
        "light":      {"skinColor": ("ffdbac", "f9d3a5", "fcd9b8")},
        "tan":        {"skinColor": ("cb9658", "c48d55", "d09d64")},
        "dark":       {"skinColor": ("8d5524", "80491f", "965c2e")},
    },
    "background": {
        "blue":       {"backgroundColor": ("9cc7f0", "8dbceb", "abd2f5")},
        "green":      {"backgroundColor": ("a5e3b0", "95dba3", "b3ebbd")},
        "pink":       {"backgroundColor": ("f7b3d2", "f2a4c8", "fac2db")},
        "purple":     {"backgroundColor": ("c3aef0", "b8a0ea", "cdbcf5")},
        "white":      {"backgroundColor": ("f4f4f6", "fafafa", "eeeef2")},
    },
}  # fmt: skip
"""The options for each value of each attribute."""

UNSAID: Options = {
    "eyes": tuple(f"variant{number:02}" for number in range(1, 13)),
    "eyesColor": ("76778b", "697b94", "647b90", "5b7c8b", "588387", "876658"),
    "mouthColor": ("de0f0d", "c8102e", "e0323f"),
    "clothing": tuple(f"variant{number:02}" for number in (1, 2, 3, 4, 5, 6, 8, 10, 11, 12, 13, 17, 23)),
    "accessoriesProbability": (0,),
}
"""Options that vary besides the attributes and that no caption mentions."""

PARTED_BY = ("hair_colour", "background", "clothing")
"""The attributes with held-out combinations."""
HELD_OUT_OF = 10  # one combination in so many, about


@dataclass(frozen=True)
class Face:
    """A face's nine attributes, and one of the many drawings that show them."""

    attributes: Attributes
    options: dict[str, list[str] | int]
    """For DiceBear, without any random choice left."""


def draw_attributes(rng: np.random.Generator) -> Attributes:
    """Nine values, each uniform and independent of the others."""
    return {name: list(values)[rng.integers(len(values))] for name, values in VALUES.items()}


def draw_face(attributes: Attributes, rng: np.random.Generator) -> Face:
    """One of the faces that show the nine values; `ValueError` if one is unknown or missing."""
    check(attributes)
    for name in VALUES:
        if name not in attributes:
            raise ValueError(f"attributes = {dict(attributes)}: must have {name}, as all nine")
    chosen = dict(UNSAID)
    for name, values in VALUES.items():
        chosen |= values[attributes[name]]
    drawn = {option: several[rng.integers(len(several))] for option, several in chosen.items()}
    return Face(attributes, {option: one if isinstance(one, int) else [one] for option, one in drawn.items()})


def held_out(attributes: Attributes) -> bool:
    """Whether the face belongs to the held-out part: by its combination of `PARTED_BY` alone, for all seeds."""
    combination = " ".join(attributes[name] for name in PARTED_BY)
    return hashlib.sha256(combination.encode()).digest()[0] % HELD_OUT_OF == 0


def check(attributes: Attributes) -> None:
    """Raise `ValueError` for an unknown attribute or value."""
    for name, value in attributes.items():
        if name not in VALUES:
            raise ValueError(f"attribute = {name!r}: must be one of {', '.join(VALUES)}")
        if value not in VALUES[name]:
            raise ValueError(f"{name} = {value!r}: must be one of {', '.join(VALUES[name])}")
