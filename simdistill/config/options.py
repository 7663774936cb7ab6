"""Command-line options from dataclasses: tyro's parsing, with building blocks as expressions and errors of one line."""

import argparse
import dataclasses
import difflib
from collections.abc import Collection, Sequence
from dataclasses import MISSING, fields
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, cast, get_type_hints

import tyro
from tyro._errors import (  # its own hooks for errors
    BadValue,
    InstantiationFailure,
    InvalidChoice,
    ParseErrorEvent,
    UnrecognizedArgs,
    on_parse_error,
)
from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, PrimitiveTypeInfo

from simdistill.config.expressions import PLACES, arguments_of, choices, convert, expression
from simdistill.support.checks import FEW, one_of, require

Options = TypeVar("Options")

NUMBERS = {"invalid literal for int()": "a whole number", "could not convert string to float": "a number"}
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

    with on_parse_error(partial(_refuse, verb, list(words), names_of(type(default)))):
        return tyro.cli(
            type(default),
            args=list(words),
            default=default,
            prog=f"simdistill {verb}",
            description=about,
            registry=registry,
        )


def _refuse(verb: str, words: Sequence[str], known: Sequence[str], event: ParseErrorEvent) -> None:
    """Raise what is wrong with the words as a `ValueError` of one line, in place of tyro's box."""
    lowered: Any = cast(Any, getattr(getattr(event, "argument", None), "lowered", None))
    option = "" if lowered is None else lowered.name_or_flags[-1]
    said = ""
    if isinstance(event, UnrecognizedArgs):
        options = [token for token in event.tokens if token.startswith("-")] or event.tokens
        said = f"{', '.join(options)}: no such option"
        if options[0].startswith("-"):
            close = difflib.get_close_matches(options[0].split("=")[0], known, 1)
            said += f"; did you mean {close[0]}?" if close else ""
    elif isinstance(event, InvalidChoice):
        said = f"{option} = {event.value!r}: must be one of {', '.join(event.choices)}"
    elif isinstance(event, BadValue):
        said = f"{option}: must be followed by {event.argument.lowered.nargs} value(s)"
    elif isinstance(event, InstantiationFailure):
        given = _given(option, words)
        wanted = next((kind for python, kind in NUMBERS.items() if event.message.startswith(python)), None)
        said = f"{option} = {given!r}: must be {wanted}" if wanted else f"{option} = {event.message}"
    if said:
        raise ValueError(f"{said}; see simdistill {verb} --help")


def _given(option: str, words: Sequence[str]) -> str:
    """What follows an option among the words."""
    for word, following in zip(words, [*words[1:], ""], strict=True):
        if word == option or word.startswith(f"{option}="):
            return word.partition("=")[2] or following
    return ""


def names_of(kind: Any) -> list[str]:
    """The options that a dataclass gives, those of dataclasses in it without a prefix."""
    names: list[str] = []
    for name, inner in get_type_hints(kind).items():
        nested = dataclasses.is_dataclass(inner) and inner not in PLACES and name == "settings"
        names += names_of(inner) if nested else [f"--{name.replace('_', '-')}"]
    return names


def refuse_others(words: Sequence[str], fresh: type, taken: type, command: str) -> None:
    """Raise `ValueError` for options of the dataclass `fresh` that `taken`, the options of --resume, does not have.

    `command` starts a new run, where they may be given.
    """
    left_out = set(names_of(fresh)) - set(names_of(taken))
    for word in words:
        name = word.split("=")[0]
        if name.replace("--no-", "--") in left_out:
            why = "a run goes on with its own settings and only --iterations may be raised"
            raise ValueError(f"{name}: must be left out with --resume: {why}; for another setting: {command} {name} …")


def named_file(words: Sequence[str], option: str) -> Path | None:
    """The file that an option names, looked for before all others are read."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument(option, dest="file", type=Path, nargs="?")
    return parser.parse_known_args(list(words))[0].file


def first_word(words: Sequence[str], verb: str, what: str, known: Collection[str] = ()) -> tuple[str, Sequence[str]]:
    """The word that must come first, and the rest; a request for help may leave it out."""
    choices = f", as {', '.join(list(known)[:FEW])}" if known else ""
    if not words or (words[0].startswith("-") and "--help" not in words and "-h" not in words):
        raise ValueError(f"{what} is missing; write `simdistill {verb} {what} …`{choices}")
    if words[0].startswith("-"):
        return next(iter(known), "."), words
    if known and words[0] not in known:
        remedy = one_of(words[0], known, f"simdistill {verb} --help")
        raise ValueError(f"{what} = {words[0]!r}: must be {remedy}")
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
