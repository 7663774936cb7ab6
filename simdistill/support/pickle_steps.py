"""A pickle's steps, looked at before anything follows them: no unpickler restricts what they cost."""

from io import BufferedIOBase
from pickletools import genops
from typing import Any

MOST_STEPS = 1_000_000
"""Of one pickle; the largest checkpoints take less than a tenth."""
LARGE, MOST_LARGE = 2**31, 1000
"""From this size on, integers may have equal hashes: a dict of 60,000 such keys takes hours, of so many no time."""
ALLOCATES = ("builtins bytearray", "__builtin__ bytearray")


class _Within:
    """A stream of which no more is asked for than there is: a length of 2⁶⁰ must not become a buffer."""

    def __init__(self, stream: BufferedIOBase, size: int) -> None:
        self._stream, self._size, self.tell = stream, size, stream.tell

    def read(self, size: int) -> bytes:
        """At most what is left."""
        return self._stream.read(min(size, self._size - self.tell()))

    def readline(self) -> bytes:
        """A line of at most 64 KiB."""
        return self._stream.readline(2**16)


def check_steps(stream: BufferedIOBase, size: int) -> None:
    """Follow the steps of the pickle at the start of a stream of `size` bytes, which then stands behind it.

    Raises `ValueError` for too many steps, places in the memo beyond them, many large integers (as keys, their hashes
    would collide), calls that allocate, and anything that is no pickle.
    """
    large, before = 0, ""
    argument: Any
    bounded: Any = _Within(stream, size)
    for count, (opcode, argument, _) in enumerate(genops(bounded)):
        if count >= MOST_STEPS:
            raise ValueError(f"has more than {MOST_STEPS:,} steps")
        match opcode.name:
            case "LONG_BINPUT" | "PUT" if int(argument) > count:
                raise ValueError(f"has the place {argument} in its memo after {count} steps")
            case "INT" | "LONG" | "LONG1" | "LONG4" | "BININT" if abs(int(argument)) >= LARGE:
                large += 1
            case "GLOBAL" if argument in ALLOCATES:
                raise ValueError("asks for a bytearray")
            case "STACK_GLOBAL" if before == "bytearray":
                raise ValueError("asks for a bytearray")
            case _:
                pass
        before = argument if isinstance(argument, str) else before
        if large > MOST_LARGE:
            raise ValueError(f"has more than {MOST_LARGE:,} integers of {LARGE:,} and above")
