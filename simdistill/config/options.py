"""Command-line options from dataclasses: tyro's parsing, with building blocks as expressions and errors of one line."""

import io
import re
from collections.abc import Collection, Sequence
from contextlib import redirect_stderr
from dataclasses import MISSING, fields
from typing import Any, TypeVar

import tyro
from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, PrimitiveTypeInfo

from simdistill.config.expressions import PLACES, arguments_of, choices, convert, expression
from simdistill.support.checks import require

Options = TypeVar("Options")

NUMBERS = {
    r"invalid literal for int\(\) with base 10": "a whole number",
    "could not convert string to float": "a number",
}
"""What Python says of a word that is no number, and what we do."""


def parse_options(default: Options, words: Sequence[str], verb: str, about: str) -> Options:
    """The options of a verb; a `ValueError` of one line for what cannot be understood."""
    registry = ConstructorRegistry()

    @registry.primitive_rule
    def building_block(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[Any] | None:
        kind: Any = info.type
        if kind not in PLACES:
            return None
        return PrimitiveConstructorSpec(
            nargs=1,
            metavar="|".join(choices(kind).split(", ")),
            instance_from_str=lambda words: convert(words[0], kind),
            is_instance=lambda value: isinstance(value, kind),
            str_from_instance=lambda value: [expression(value)],
        )

    complaint = io.StringIO()
    try:
        with redirect_stderr(complaint):
            return tyro.cli(
                type(default),
                args=list(words),
                default=default,
                prog=f"simdistill {verb}",
                description=about,
                registry=registry,
            )
    except SystemExit as stop:
        if not stop.code:
            raise
        raise ValueError(f"{_first_paragraph(complaint.getvalue())}; see simdistill {verb} --help") from None


def _first_paragraph(box: str) -> str:
    """What tyro's framed message says before its first rule."""
    lines = [line.strip("│╭╮╰╯ ") for line in box.splitlines()[1:]]
    said: list[str] = []
    for line in lines:
        if line.startswith("─"):
            break
        said.append(line)
    text = re.sub(r"Error parsing _\w+: ", "", " ".join(said))  # a class of ours, not an option
    for complaint, remedy in NUMBERS.items():
        text = re.sub(rf"Error parsing (--[\w.-]+): {complaint}: ('.*')", rf"\1 = \2: must be {remedy}", text)
    return text


def first_word(words: Sequence[str], verb: str, what: str, known: Collection[str] = ()) -> tuple[str, Sequence[str]]:
    """The word that must come first, and the rest; a request for help may leave it out."""
    choices = f": {', '.join(known)}" if known else ""
    if not words or (words[0].startswith("-") and "--help" not in words and "-h" not in words):
        raise ValueError(f"{what} is missing; write `simdistill {verb} {what} …`{choices}")
    if words[0].startswith("-"):
        return next(iter(known), "."), words
    if known and words[0] not in known:
        raise ValueError(f"{what} = {words[0]!r}: must be one of {', '.join(known)}")
    return words[0], words[1:]


def parse_numbers(option: str, text: str) -> list[int]:
    """The numbers that "0-3,8" says."""
    numbers: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        digits = first.isdigit() and (last.isdigit() if dash else True)
        require(digits and int(first) <= int(last or first), option, text, "numbers and ranges, as 0-63 or 1,5,8-11")
        few = int(last or first) < 2**32 and int(last or first) - int(first) < 1_000_000
        require(few, option, text, "below 2³², and at most a million at a time")
        numbers.extend(range(int(first), int(last or first) + 1))
    return numbers


def building_blocks() -> str:
    """Every name that an option's expression may use, with its arguments and their defaults, by what it is for."""
    places = [place for place in PLACES.values() if place.known]
    return "\n".join(f"  {place.title}\n" + "\n".join(map(_signature, place.known)) for place in places)


def _signature(kind: type) -> str:
    """A building block with its arguments and their defaults, as text."""
    shown = [f for f in fields(kind) if f.name in arguments_of(kind)]
    given = [f.name if f.default is MISSING else f"{f.name}={expression(f.default)}" for f in shown]
    return f"    {kind.__name__}({', '.join(given)})"
