"""Settings as text: `Name(argument=value)` for the building blocks of a recipe, TOML for whole recipes.

The same text stands on the command line, in a configuration file, in a run's folder and in `repr`.
"""

import ast
import dataclasses
import difflib
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

import pydantic
import tomlkit
import tomlkit.exceptions

from simdistill.method.distances import Distance
from simdistill.method.ema import Average
from simdistill.method.noise import Law
from simdistill.method.objectives import Objective
from simdistill.method.weightings import Weighting

Settings = TypeVar("Settings")

BLOCKS: dict[str, tuple[type, ...]] = {
    "objectives": get_args(Objective),
    "distances": get_args(Distance),
    "noise levels": get_args(Law),
    "weights": get_args(Weighting),
    "averages": get_args(Average),
}
"""The building blocks of a recipe, by what they are for."""

VOCABULARY: dict[str, type] = {kind.__name__: kind for kinds in BLOCKS.values() for kind in kinds}
"""Every name that an expression may use."""


def parse_expression(text: str) -> Any:
    """The object that `text` says, as "Karras(sigma_max=20)" or "ScoreImplicitMatching(PseudoHuber(c=0.1))".

    Names are those of `VOCABULARY`, arguments are literals or such calls; nothing else is evaluated. Raises
    `ValueError` with the remedy.
    """
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except SyntaxError as error:
        raise ValueError(f"{text!r} is not of the form Name(argument=value)") from error
    return _evaluate(tree, text)


def settings_from_mapping(base: Settings, values: Mapping[str, Any]) -> Settings:
    """The dataclass `base` with `values` in place of its own; a `ValueError` lists every key that is wrong, and why."""
    kinds = field_types(type(base))
    parsed: dict[str, Any] = {}
    problems: list[str] = []
    for key, value in values.items():
        try:
            if key not in kinds:
                raise ValueError(f"unknown setting{_suggest(key, kinds)}")  # noqa: TRY301
            parsed[key] = convert(value, kinds[key])
        except ValueError as error:
            problems.append(f"{key}: {error}")
    if problems:
        raise ValueError("; ".join(problems))
    return dataclasses.replace(base, **parsed)  # pyright: ignore[reportArgumentType, reportUnknownVariableType]


def field_types(kind: type) -> dict[str, Any]:
    """The fields of a dataclass and their types."""
    return get_type_hints(kind)


def convert(value: Any, kind: Any) -> Any:
    """`value` as a field of type `kind`, an expression where the type is a choice of building blocks.

    Several numbers may be text: "0.0 0.999" or "(0.0, 0.999)".
    """
    if is_choice(kind):
        found = parse_expression(value) if isinstance(value, str) else value
        if not isinstance(found, get_args(kind)):
            raise ValueError(f"{found!r} is not one of {choices(kind)}")
        return found
    if is_list_of_choices(kind):
        return tuple(convert(one, get_args(kind)[0]) for one in ([value] if isinstance(value, str) else value))
    try:
        return pydantic.TypeAdapter(kind).validate_python(_numbers(value) if get_origin(kind) is tuple else value)
    except pydantic.ValidationError as error:
        raise ValueError(f"{value!r}: {error.errors()[0]['msg'].lower()}") from error


def _numbers(value: Any) -> Any:
    """The numbers that a text tells, each as text; what is no text as it is."""
    return value.strip(" ()[]").replace(",", " ").split() if isinstance(value, str) else value


def is_choice(kind: Any) -> bool:
    """Whether a field's type is a choice of building blocks, written as an expression."""
    return isinstance(kind, types.UnionType) and set(get_args(kind)) <= set(VOCABULARY.values())


def is_list_of_choices(kind: Any) -> bool:
    """Whether a field's type is any number of building blocks."""
    return get_origin(kind) is tuple and is_choice(get_args(kind)[0])


def choices(kind: Any) -> str:
    """The building blocks that a field takes, as text."""
    return ", ".join(option.__name__ for option in get_args(kind))


def to_mapping(settings: Any) -> dict[str, Any]:
    """A dataclass as TOML values: numbers, strings and lists as they are, building blocks as expressions."""
    values = {field.name: getattr(settings, field.name) for field in dataclasses.fields(settings)}
    return {name: _plain(value) for name, value in values.items() if value is not None}


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_plain(one) for one in value]
    return repr(value) if dataclasses.is_dataclass(value) else value


def to_toml(values: Mapping[str, Any]) -> str:
    """TOML text of plain values."""
    return tomlkit.dumps(values)


def read_toml(path: Path) -> dict[str, Any]:
    """The values of a TOML file; `ValueError` if it is missing or not TOML."""
    if not path.is_file():
        raise ValueError(f"{path}: no such file")
    try:
        return tomlkit.parse(path.read_text(encoding="utf-8")).unwrap()
    except (OSError, UnicodeDecodeError, tomlkit.exceptions.TOMLKitError) as error:
        raise ValueError(f"{path}: cannot be read as TOML ({error})") from error


def _evaluate(node: ast.expr, text: str) -> Any:
    if isinstance(node, ast.Name):  # Uniform for Uniform()
        node = ast.Call(node, [], [])
    if not isinstance(node, ast.Call):
        try:
            return ast.literal_eval(node)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{text!r}: only names, numbers and calls of names are allowed") from error
    name = ast.unparse(node.func)
    if name not in VOCABULARY:
        raise ValueError(f"{text!r}: unknown name {name}{_suggest(name, VOCABULARY)}")
    kind = VOCABULARY[name]
    kinds = field_types(kind)
    if len(node.args) > len(kinds):
        raise ValueError(f"{text!r}: {name} takes {len(kinds)} argument(s)")
    written = [*zip(kinds, node.args, strict=False), *((k.arg or "**", k.value) for k in node.keywords)]
    if len(dict(written)) < len(written):
        raise ValueError(f"{text!r}: {name} is given an argument twice")
    try:
        arguments = _converted(kinds, {key: _evaluate(value, text) for key, value in written})
        return kind(**arguments)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name}: {error}") from error


def _converted(kinds: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """`values` converted to the types `kinds`; `ValueError` for an unknown name or a value that does not fit."""
    unknown = [key for key in values if key not in kinds]
    if unknown:
        raise ValueError(f"no argument {unknown[0]}{_suggest(unknown[0], kinds)}")
    arguments: dict[str, Any] = {}
    for key, value in values.items():
        try:
            arguments[key] = convert(value, kinds[key])
        except ValueError as error:
            raise ValueError(f"{key} = {error}") from error
    return arguments


def _suggest(name: str, known: Mapping[str, Any]) -> str:
    close = difflib.get_close_matches(name, known, 1)
    return f"; did you mean {close[0]}?" if close else f"; known: {', '.join(known)}"
