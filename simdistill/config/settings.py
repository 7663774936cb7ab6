"""Settings in files: a dataclass as TOML, its building blocks as expressions."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

import tomlkit
import tomlkit.exceptions

from simdistill.config.expressions import convert, expression
from simdistill.config.former import FORMER_SETTINGS, present
from simdistill.support.checks import suggest

Settings = TypeVar("Settings")


def settings_from_mapping(base: Settings, values: Mapping[str, Any]) -> Settings:
    """The dataclass `base` with `values` in place of its own; a `ValueError` lists every key that is wrong, and why."""
    kinds = field_types(type(base))
    parsed: dict[str, Any] = {}
    problems: list[str] = []
    for key, value in present(values, FORMER_SETTINGS).items():
        try:
            if key not in kinds:
                raise ValueError(f"unknown setting{suggest(key, kinds)}")  # noqa: TRY301
            parsed[key] = convert(value, kinds[key])
        except ValueError as error:
            problems.append(f"{key}: {error}")
    if problems:
        raise ValueError("; ".join(problems))
    return dataclasses.replace(base, **parsed)  # pyright: ignore[reportArgumentType, reportUnknownVariableType]


def field_types(kind: type) -> dict[str, Any]:
    """The fields of a dataclass and their types."""
    return get_type_hints(kind)


def to_mapping(settings: Any) -> dict[str, Any]:
    """A dataclass as TOML values: numbers, strings and lists as they are, building blocks as expressions.

    Raises `ValueError` for a block that cannot be written (see `expression`).
    """
    values = {field.name: getattr(settings, field.name) for field in dataclasses.fields(settings)}
    found: dict[str, Any] = {}
    for name, value in values.items():
        if value is None:
            continue
        try:
            found[name] = _plain(value)
        except ValueError as error:
            raise ValueError(f"{name} = {error}") from error
    return found


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_plain(one) for one in value]
    return value if isinstance(value, (bool, int, float, str)) else expression(value)


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
