"""Pickles that are read and never executed.

A pickle is a program that may import and call anything. Here its steps are followed only as far as they build numbers,
strings, lists, tuples and dicts; a call becomes a `Call` object, and nothing is ever imported or called. Protocols 2 to
5 are read; the older two write bytes and sets as calls, which are read as such.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pickletools import OpcodeInfo, genops
from typing import Any

MAX_STEPS = 1_000_000
"""Most steps of a pickle that is read; EDM's largest network takes less than a tenth."""

_CONSTANTS = {
    *("NONE", "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"),
    *("SHORT_BINBYTES", "BINBYTES", "BINBYTES8"),
}
_DICTS = ("collections.OrderedDict", "dnnlib.util.EasyDict")
_SETS = ("builtins.set", "__builtin__.set")
_BYTES = ("builtins.bytes", "__builtin__.bytes")  # empty ones: others are text and its encoding
_ENCODED = "_codecs.encode"
_VALUES = {*_SETS, *_BYTES, _ENCODED}
"""What protocols 2 and 3 name for values that have steps of their own since."""
_OLD_STEPS = {"INT", "LONG", "FLOAT", "STRING", "UNICODE", "BINSTRING", "SHORT_BINSTRING", "PUT", "GET", "LIST", "DICT"}
_OLD_NAMES = {"copy_reg._reconstructor", "copyreg._reconstructor"}
"""Harmless parts of protocols 0 and 1, and of Python 2."""
_AGAIN = "save it again with protocol 2 or later"
_KEYS = (str, int, float, type(None))  # their hashes are cheap and run no code
_LARGE = 2**31  # integers below have different hashes


@dataclass(frozen=True)
class Name:
    """What a pickle would import."""

    path: str


@dataclass(eq=False, repr=False)
class Call:
    """`function(*arguments)`, which was not called, and the state that its result would have got."""

    function: str
    arguments: tuple[Any, ...]
    state: Any = None


def read_pickle(data: bytes, allowed: Collection[str]) -> Any:
    """The content of the pickle: plain values, `Name` and `Call`; ordered dicts and EasyDicts are dicts.

    Raises `ValueError` for a name that is not `allowed`, for unsupported steps (persistent ids, extension codes,
    those of protocols 0 and 1, …), for more than `MAX_STEPS`, and for an incomplete pickle.
    """
    reader = _Reader(allowed, len(data))
    for count, (opcode, argument) in enumerate(_steps(data)):
        if count >= MAX_STEPS:
            raise ValueError(f"has more than {MAX_STEPS:,} steps: a checkpoint needs fewer; do not trust it")
        try:
            reader.follow(opcode.name, argument)
        except (IndexError, KeyError, TypeError, AttributeError, UnicodeError) as error:
            what = f"{type(error).__name__} at {opcode.name}"
            raise ValueError(f"is damaged ({what}); download it again") from error
    if len(reader.stack) != 1 or reader.below:
        raise ValueError("is damaged (it ends too early); download it again")
    return reader.stack[0]


def _steps(data: bytes) -> Iterator[tuple[OpcodeInfo, Any]]:
    try:
        for opcode, argument, _ in genops(data):
            yield opcode, argument
    except ValueError as error:
        raise ValueError(f"is not a complete pickle ({error}); download it again") from error


class _Reader:
    """A pickle's stack and memo; `below` holds the stacks under the open marks."""

    def __init__(self, allowed: Collection[str], size: int) -> None:
        self.allowed, self.left = allowed, size
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []
        self.memo: dict[int, Any] = {}

    def follow(self, step: str, argument: Any) -> None:
        """One step of the pickle."""
        push, pop = self.stack.append, self.stack.pop
        if step in _CONSTANTS:
            return push(argument)
        match step:
            case "PROTO" | "FRAME" | "STOP":
                pass
            case "NEWTRUE" | "NEWFALSE":
                push(step == "NEWTRUE")
            case "MARK":
                self.below.append(self.stack)
                self.stack = []
            case "EMPTY_LIST":
                push([])
            case "EMPTY_DICT":
                push({})
            case "EMPTY_TUPLE":
                push(())
            case "EMPTY_SET":
                push(set())
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                push(tuple([pop() for _ in range(int(step[-1]))][::-1]))
            case "TUPLE":
                items = self._marked()
                self.stack.append(tuple(items))
            case "APPEND" | "APPENDS":
                items = [pop()] if step == "APPEND" else self._marked()
                _is_a(list, self.stack[-1]).extend(items)
            case "ADDITEMS":
                items = [_key(item) for item in self._marked()]
                _is_a(set, self.stack[-1]).update(items)
            case "SETITEM" | "SETITEMS":
                items = [pop(), pop()][::-1] if step == "SETITEM" else self._marked()
                keys = [_key(item) for item in items[::2]]
                _is_a(dict, self.stack[-1]).update({key: items[2 * i + 1] for i, key in enumerate(keys)})
            case "MEMOIZE":
                self.memo[len(self.memo)] = self.stack[-1]
            case "BINPUT" | "LONG_BINPUT":
                self.memo[argument] = self.stack[-1]
            case "BINGET" | "LONG_BINGET":
                push(self.memo[argument])
            case "STACK_GLOBAL":
                name, module = _is_a(str, pop()), _is_a(str, pop())
                push(self._name(module, name))
            case "GLOBAL":
                module, _, name = argument.partition(" ")
                push(self._name(module, name))
            case "REDUCE" | "NEWOBJ":
                arguments, name = _is_a(tuple, pop()), _is_a(Name, pop())
                push(self._called(name.path, arguments))
            case "BUILD":
                state = pop()
                _is_a(Call, self.stack[-1]).state = state
            case _ if step in _OLD_STEPS:
                raise ValueError(f"has the step {step} of an old pickle protocol; {_AGAIN}")
            case _:
                raise ValueError(f"has the step {step}, which no checkpoint needs: do not trust it")
        return None

    def _marked(self) -> list[Any]:
        items, self.stack = self.stack, self.below.pop()
        return items

    def _name(self, module: str, name: str) -> Name:
        path = f"{module}.{name}"
        if path in _OLD_NAMES:
            raise ValueError(f"asks for {path!r}, as old pickle protocols do; {_AGAIN}")
        if path not in self.allowed and path not in _VALUES:
            raise ValueError(f"asks for {path[:80]!r}, which no checkpoint needs: do not trust it; none of it was run")
        return Name(path)

    def _called(self, path: str, arguments: tuple[Any, ...]) -> Any:
        """A dict, set or bytes for the calls that stand for one, and for any other a `Call`."""
        if path in _DICTS and not arguments:
            return {}
        if path in _BYTES and not arguments:
            return b""
        if path in _SETS and len(arguments) == 1:
            return {_key(item) for item in self._copied(_is_a(list, arguments[0]))}
        if path == _ENCODED and len(arguments) == 2 and arguments[1] == "latin1":
            return self._copied(_is_a(str, arguments[0])).encode("latin1")
        return Call(path, arguments)

    def _copied(self, value: Any) -> Any:
        """`value`, of which a copy is made: all copies together must not be longer than the pickle."""
        self.left -= len(value)
        if self.left < 0:
            raise ValueError("makes copies of its own content without end: do not trust it")
        return value


def _is_a(kind: type[Any] | tuple[type[Any], ...], value: Any) -> Any:
    if not isinstance(value, kind):
        raise TypeError
    return value


def _key(value: Any) -> Any:
    if isinstance(value, (int, float)) and abs(value) >= _LARGE:
        raise ValueError(f"has the key {value:g}, whose hash others may share: do not trust it")
    return _is_a(_KEYS, value)
