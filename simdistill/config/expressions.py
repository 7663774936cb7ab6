"""Building blocks as text: `Name(argument=value)`, or `package.module:Name(argument=value)` for code of the user's own.

The same text stands on the command line, in a configuration file and in a run's folder. A block is a frozen dataclass
with the methods that its place asks for; only those are ever called.
"""

import ast
import dataclasses
import importlib
import inspect
import re
import types
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, get_args, get_origin, get_type_hints

import pydantic

from simdistill.config.former import FORMER_ARGUMENTS, FORMER_NAMES
from simdistill.method.algorithm import Method
from simdistill.method.distances import DISTANCES, Distance
from simdistill.method.ema import AVERAGINGS, Averaging
from simdistill.method.metrics import OwnMetric
from simdistill.method.noise import DISTRIBUTIONS, NoiseDistribution
from simdistill.method.objectives import OBJECTIVES, Objective
from simdistill.method.weightings import WEIGHTINGS, Weighting
from simdistill.support.checks import suggest


@dataclass(frozen=True)
class Place:
    """A kind of building block: what it is called, and the classes that need no module before their name."""

    title: str
    known: tuple[type, ...]


# fmt: off
PLACES: dict[Any, Place] = {
    Objective:         Place("objectives",          OBJECTIVES),
    Distance:          Place("distances",           DISTANCES),
    NoiseDistribution: Place("noise distributions", DISTRIBUTIONS),
    Weighting:         Place("weights",             WEIGHTINGS),
    Averaging:         Place("EMA",                 AVERAGINGS),
    Method:            Place("methods",             ()),
    OwnMetric:         Place("metrics",             ()),
}
# fmt: on
"""By the protocol that a block must satisfy; a field of that type takes any class that does."""

VOCABULARY: dict[str, type] = {kind.__name__: kind for place in PLACES.values() for kind in place.known}
"""Every class that an expression may name without its module."""

OPEN_NAME = re.compile(r"""("[^"]*"|'[^']*')|\b((?:[A-Za-z_]\w*\.)*[A-Za-z_]\w*):([A-Za-z_]\w*)""")


class UntrustedCode(ValueError):  # noqa: N818
    """A text that is not trusted names code of the user's own."""


def parse_expression(text: str, trusted: bool = True) -> Any:
    """The object that `text` says, as "Karras(sigma_max=20)" or "mine.losses:Cauchy(c=0.1)".

    Arguments are literals or such calls; nothing else is evaluated. Raises `UntrustedCode`
    for code of the user's own in a text that is not `trusted`, before it is imported; `ValueError` with the remedy for
    anything else that is wrong.
    """
    dotted = OPEN_NAME.sub(lambda found: found[1] or f"{found[2]}.{found[3]}", text.strip())
    try:
        tree = ast.parse(dotted, mode="eval").body
    except SyntaxError as error:
        raise ValueError(f"{text!r} is not of the form Name(argument=value)") from error
    return _evaluate(tree, text, trusted)


def names_code(value: Any, kind: Any) -> bool:
    """Whether a setting of type `kind` names code of the user's own; nothing is imported."""
    try:
        convert(value, kind, trusted=False)
    except UntrustedCode:
        return True
    except ValueError:
        return False
    return False


def expression(block: Any) -> str:
    """The text that `parse_expression` turns into `block` again.

    Raises `ValueError` for an object that no text gives back: one that is no frozen dataclass, or whose class cannot be
    imported by its name.
    """
    if isinstance(block, tuple):
        inside = ", ".join(map(expression, block))
        return f"({inside},)" if len(block) == 1 else f"({inside})"
    if not dataclasses.is_dataclass(block):
        plain = block is None or isinstance(block, (bool, int, float, str))
        if not plain:
            raise ValueError(
                f"{block!r}: cannot be written into the run's configuration: make it a frozen dataclass in a module of "
                "its own, whose fields are numbers, texts or other such dataclasses"
            )
        return repr(block)
    fields = [field.name for field in dataclasses.fields(block) if field.init and field.repr]
    arguments = ", ".join(f"{name}={expression(getattr(block, name))}" for name in fields)
    return f"{_name(type(block))}({arguments})"


def fitting(found: Any, place: Any) -> Any:
    """`found`, if it may stand where a block of the kind `place` is expected; `ValueError` if not."""
    known = PLACES[place].known
    elsewhere = any(isinstance(found, other.known) for kind, other in PLACES.items() if kind is not place)
    own = not isinstance(found, known)
    if own and (elsewhere or not isinstance(found, place) or not _satisfies(type(found), place)):
        raise ValueError(f"{found!r} is not one of {choices(place)}")
    if own:
        expression(found)  # what cannot be written down is refused before the first iteration
    return found


def convert(value: Any, kind: Any, trusted: bool = True) -> Any:
    """`value` as a field of type `kind`, an expression where the type is one of `PLACES`.

    Several numbers may be text: "0.0 0.999" or "(0.0, 0.999)". Raises `ValueError` for what does not fit, and as
    `parse_expression` does.
    """
    place = place_of(kind)
    if place is not None and is_optional(kind) and value in (None, ""):
        return None
    if place is not None:
        return fitting(parse_expression(value, trusted) if isinstance(value, str) else value, place)
    if is_list_of_blocks(kind):
        blocks = [value] if isinstance(value, str) else value
        return tuple(convert(one, get_args(kind)[0], trusted) for one in blocks)
    if isinstance(kind, type) and kind in VOCABULARY.values():
        found = parse_expression(value, trusted) if isinstance(value, str) else value
        if not isinstance(found, kind):
            raise ValueError(f"{found!r} is not one of {kind.__name__}")
        return found
    try:
        return pydantic.TypeAdapter(kind).validate_python(_numbers(value) if get_origin(kind) is tuple else value)
    except pydantic.ValidationError as error:
        raise ValueError(f"{value!r}: {error.errors()[0]['msg'].lower()}") from error


def place_of(kind: Any) -> Any:
    """The kind of building block that a field's type takes, perhaps or nothing (`X | None`); None if none."""
    options = [option for option in get_args(kind) if option is not type(None)] if is_optional(kind) else [kind]
    return options[0] if len(options) == 1 and options[0] in PLACES else None


def is_optional(kind: Any) -> bool:
    """Whether a field's type takes None."""
    return isinstance(kind, types.UnionType) and type(None) in get_args(kind)


def is_list_of_blocks(kind: Any) -> bool:
    """Whether a field's type is any number of building blocks."""
    return get_origin(kind) is tuple and place_of(get_args(kind)[0]) is not None


def _numbers(value: Any) -> Any:
    """The numbers that a text tells, each as text; what is no text as it is."""
    return value.strip(" ()[]").replace(",", " ").split() if isinstance(value, str) else value


def choices(place: Any) -> str:
    """The blocks of a kind, as text."""
    return ", ".join([*(kind.__name__ for kind in PLACES[place].known), "package.module:Class"])


def arguments_of(kind: type) -> dict[str, Any]:
    """The arguments of a block and their types."""
    hints = get_type_hints(kind)
    return {field.name: hints[field.name] for field in dataclasses.fields(kind) if field.init and field.repr}


def _name(kind: type) -> str:
    if VOCABULARY.get(kind.__name__) is kind:
        return kind.__name__
    where = f"{kind.__module__}:{kind.__qualname__}"
    try:
        same = getattr(importlib.import_module(kind.__module__), kind.__qualname__, None) is kind
    except ImportError:
        same = False
    if not same or kind.__module__ == "__main__":
        raise ValueError(f"{where}: cannot be imported by that name: define it in a module, at its top level")
    return where


def _satisfies(kind: type, place: Any) -> bool:
    """Whether a class has the properties and methods of a protocol, which take as many arguments as the protocol's."""
    fields = {field.name for field in dataclasses.fields(kind)} if dataclasses.is_dataclass(kind) else set[str]()
    for name, wanted in vars(place).items():
        if isinstance(wanted, property) and name not in fields and not hasattr(kind, name):
            return False
        if not inspect.isfunction(wanted) or (name.startswith("_") and name != "__call__"):
            continue
        own, count = getattr(kind, name, None), len(inspect.signature(wanted).parameters)
        if not callable(own):
            return False
        try:
            inspect.signature(own).bind(*range(count))
        except (TypeError, ValueError):
            return False
    return True


def _evaluate(node: ast.expr, text: str, trusted: bool) -> Any:
    if isinstance(node, (ast.Name, ast.Attribute)):  # Uniform for Uniform()
        node = ast.Call(node, [], [])
    if isinstance(node, ast.Tuple):
        return tuple(_evaluate(one, text, trusted) for one in node.elts)
    if not isinstance(node, ast.Call):
        try:
            return ast.literal_eval(node)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{text!r}: only names, numbers and calls of names are allowed") from error
    name = FORMER_NAMES.get(ast.unparse(node.func), ast.unparse(node.func))
    if "." in name and not trusted:
        raise UntrustedCode(f"{text!r}: names code of your own")
    kind = _imported(name, text) if "." in name else VOCABULARY.get(name)
    if kind is None:
        raise ValueError(f"{text!r}: unknown name {name}{suggest(name, VOCABULARY)}, or package.module:Class")
    kinds = arguments_of(kind)
    if len(node.args) > len(kinds):
        raise ValueError(f"{text!r}: {name} takes {len(kinds)} argument(s)")
    former = FORMER_ARGUMENTS.get(name, {})
    named = [(former.get(k.arg or "**", k.arg or "**"), k.value) for k in node.keywords]
    written = [*zip(kinds, node.args, strict=False), *named]
    if len(dict(written)) < len(written):
        raise ValueError(f"{text!r}: {name} is given an argument twice")
    try:
        values = {key: _evaluate(value, text, trusted) for key, value in written}
        return kind(**_converted(kinds, values, trusted))
    except UntrustedCode:
        raise
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name}: {error}") from error


def _imported(name: str, text: str) -> type:
    """The class `module.Class`; `ValueError` unless it is a dataclass, so that nothing else can be called."""
    module, _, own = name.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), own)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"{text!r}: {error}; is the module on PYTHONPATH?") from error
    if not (isinstance(found, type) and dataclasses.is_dataclass(found)):
        raise ValueError(f"{text!r}: {module}:{own} must be a dataclass")
    return found


def _converted(kinds: Mapping[str, Any], values: Mapping[str, Any], trusted: bool) -> dict[str, Any]:
    """`values` converted to the types `kinds`; `ValueError` for an unknown name or a value that does not fit."""
    unknown = [key for key in values if key not in kinds]
    if unknown:
        raise ValueError(f"no argument {unknown[0]}{suggest(unknown[0], kinds)}")
    arguments: dict[str, Any] = {}
    for key, value in values.items():
        try:
            arguments[key] = convert(value, kinds[key], trusted)
        except UntrustedCode:
            raise
        except ValueError as error:
            raise ValueError(f"{key} = {error}") from error
    return arguments
