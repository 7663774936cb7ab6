"""Captions in varied wording: each mentions some of a face's attributes, and which ones is recorded."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from examples.faces.attributes import VALUES, Attributes, check
from examples.faces.wording import HAIR_COLOURS, HAIR_STYLES, HEADINGS, OPENINGS, PEOPLE, STYLED, WORDS, Words

FEWEST = 2  # attributes in a caption
HAIR = ("hair_style", "hair_colour")
PLACES = ("adjectives", "having", "wearing", "lacking", "placed")
ADJECTIVES = 2  # before one noun, at most


@dataclass(frozen=True)
class Caption:
    """A caption, and the values that it specifies, in the order of the table; it mentions no other attributes."""

    text: str
    specified: dict[str, str]


def write_caption(attributes: Attributes, rng: np.random.Generator, always: Collection[str] = ()) -> Caption:
    """Describe random attributes, two to all of them, and those in `always`, in random words that depend only on `rng`.

    Raises `ValueError` for unknown attributes or values, and for fewer than two.
    """
    check(attributes)
    if len(attributes) < FEWEST:
        raise ValueError(f"attributes = {dict(attributes)}: must be at least {FEWEST}, for a caption to tell")
    names = [name for name in VALUES if name in attributes]
    told = {names[k] for k in rng.permutation(len(names))[: rng.integers(FEWEST, len(names) + 1)]}.union(always)
    specified = {name: attributes[name] for name in names if name in told}
    parts = [WORDS[name][value] for name, value in specified.items() if name not in HAIR]
    if specified.keys() & set(HAIR):
        parts.append(_hair(specified.get("hair_style"), specified.get("hair_colour"), rng))
    parts = [parts[k] for k in rng.permutation(len(parts))]
    form = (_sentence, _sentence, _sentence_and_clauses, _list)[int(rng.integers(4))]
    return Caption(_spelt(form(parts, rng), rng), specified)


def _hair(style: str | None, colour: str | None, rng: np.random.Generator) -> Words:
    """Style and colour in one phrase, or the one that is specified."""
    shade = _one(HAIR_COLOURS[colour], rng) if colour else ""
    patterns = HAIR_STYLES[style] if style else ("{} hair",)
    qualities = [*([STYLED[style]] if style else []), *([shade] if shade else [])]
    return Words(
        adjectives=(f"{qualities[0]}-haired",) if len(qualities) == 1 else (),
        having=tuple(" ".join(pattern.format(shade).split()) for pattern in patterns),
        saying=(f"the hair is {_joined(qualities)}",),
    )


# --- The forms: each gives sentences without their punctuation --------------------------------------------------------


def _sentence(parts: Sequence[Words], rng: np.random.Generator) -> list[str]:
    """a smiling person with long red hair, wearing a green shirt, on a blue background"""
    phrases: dict[str, list[str]] = {place: [] for place in PLACES}
    for part in parts:
        full = len(phrases["adjectives"]) == ADJECTIVES
        place = _one([p for p in PLACES if getattr(part, p) and not (full and p == "adjectives")], rng)
        phrases[place].append(_one(getattr(part, place), rng))
    noun = " ".join([", ".join(phrases["adjectives"]), _one(PEOPLE, rng)]).strip()
    subject = f"{_one(OPENINGS, rng)}{_with_article(noun)}"
    tail = [
        f"{_one(before, rng)} {_joined(phrases[place], joint)}"
        for place, before, joint in (
            ("having", ("with",), "and"),
            ("wearing", ("wearing", "in", "who wears"), "and"),
            ("lacking", ("without",), "or"),
        )
        if phrases[place]
    ]
    tail = [tail[k] for k in rng.permutation(len(tail))]
    ahead = phrases["placed"] if rng.random() < 0.3 else []
    behind = [] if ahead else phrases["placed"]
    described = _one((", ", " "), rng).join([*tail, *behind])
    return [", ".join([*ahead, f"{subject} {described}".strip()])]


def _sentence_and_clauses(parts: Sequence[Words], rng: np.random.Generator) -> list[str]:
    """a person with long red hair. the shirt is green and the background is blue"""
    told = int(rng.integers(len(parts)))
    clauses = [_one(part.saying, rng) for part in parts[told:]]
    return [*_sentence(parts[:told], rng), _joined(clauses)]


def _list(parts: Sequence[Words], rng: np.random.Generator) -> list[str]:
    """portrait, blue background: green shirt, no hat, long red hair"""
    items: list[str] = []
    for part in parts:
        place = _one([p for p in PLACES if getattr(part, p)], rng)
        phrase = _one(getattr(part, place), rng)
        bare = phrase.removeprefix("a ").removeprefix("an ")
        items.append(f"no {bare}" if place == "lacking" else bare)
    heading = _one(HEADINGS, rng)
    separator = _one((", ", "; "), rng)
    if not heading:
        return [separator.join(items)]
    if len(items) > 1 and rng.random() < 0.3:
        return [f"{heading}, {items[0]}: {separator.join(items[1:])}"]
    return [f"{heading}{_one((': ', ', '), rng)}{separator.join(items)}"]


# --- Spelling ---------------------------------------------------------------------------------------------------------


def _one(several: Sequence[str], rng: np.random.Generator) -> str:
    return several[int(rng.integers(len(several)))]


def _joined(phrases: Sequence[str], last: str = "and") -> str:
    """a, b and c"""
    return f" {last} ".join([*([", ".join(phrases[:-1])] if phrases[1:] else []), phrases[-1]])


def _with_article(noun: str) -> str:
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def _spelt(sentences: Sequence[str], rng: np.random.Generator) -> str:
    """In lower case or with capitals, with a full stop at the end or without."""
    if rng.random() < 0.4:
        text = ". ".join(sentences).lower()
    else:
        text = ". ".join(sentence[0].upper() + sentence[1:] for sentence in sentences)
    return text + ("." if rng.random() < 0.5 else "")
