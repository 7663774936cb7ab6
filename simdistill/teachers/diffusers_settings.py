"""Settings of diffusers' classes: each value is compared with the type that the class itself gives for it."""

from collections.abc import Mapping
from inspect import formatannotation, signature
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from simdistill.support.checks import require
from simdistill.support.libraries import library

PLAIN = {str, int, float, bool, type(None)}
MOST_LAYERS = 1000
"""Largest number of layers or blocks: more would take longer to build than anybody waits."""


def check_settings(config: Mapping[str, Any], kind: str, path: Path) -> None:
    """Raise `ValueError` for a setting in the file `path` that diffusers' class `kind` cannot take.

    These are text for a number and the reverse, deeper lists than the class's annotation has, negative whole numbers,
    and more than `MOST_LAYERS` layers. Settings without an annotation, or that the class does not know, pass.
    """
    with library() as diffusers:
        function = getattr(diffusers, kind).__init__
        hints = get_type_hints(function)
        defaults = {name: known.default for name, known in signature(function).parameters.items()}
    for name, value in config.items():
        if name in hints and _kinds(hints[name]) <= PLAIN:
            kinds = formatannotation(hints[name]) + (", none negative" if min([0, *_numbers(value)]) < 0 else "")
            remedy = f"{kinds}, as {kind} takes it; download the file again"
            require(value == defaults[name] or _fits(value, hints[name]), f"{path}: {name}", value, remedy)
            few = "layers" not in name or max([0, *_numbers(value)]) <= MOST_LAYERS
            require(few, f"{path}: {name}", value, f"at most {MOST_LAYERS:,}")


def _fits(value: Any, hint: Any) -> bool:
    kinds = _kinds(hint)
    texts = [leaf for leaf in _leaves(value) if isinstance(leaf, str)]
    sound = not texts or str in kinds
    sound = sound and (not _numbers(value) or bool(kinds & {int, float, bool}))
    whole = [number for number in _numbers(value) if isinstance(number, int) and float not in kinds]
    plain = not any(isinstance(leaf, dict) for leaf in _leaves(value))
    return sound and plain and min([0, *whole]) == 0 and _depth(value) <= _levels(hint)


def _kinds(hint: Any) -> set[Any]:
    """The types in an annotation, without the lists around them."""
    if get_origin(hint) is Literal:
        return {type(value) for value in get_args(hint)}
    inside = [part for part in get_args(hint) if part is not ...]
    return {kind for part in inside for kind in _kinds(part)} if inside else {hint}


def _levels(hint: Any) -> int:
    """How deep the lists in an annotation are nested."""
    inside = [_levels(part) for part in get_args(hint) if part is not ... and get_origin(hint) is not Literal]
    return max(inside, default=0) + (get_origin(hint) in (list, tuple))


def _depth(value: Any) -> int:
    return 1 + max(map(_depth, value), default=0) if isinstance(value, (list, tuple)) else 0


def _leaves(value: Any) -> list[Any]:
    return [leaf for part in value for leaf in _leaves(part)] if isinstance(value, (list, tuple)) else [value]


def _numbers(value: Any) -> list[float]:
    return [leaf for leaf in _leaves(value) if isinstance(leaf, (int, float)) and not isinstance(leaf, bool)]
