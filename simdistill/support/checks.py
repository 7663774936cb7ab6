"""Error messages for invalid settings: the name, the value found, and the remedy."""

import difflib
from collections.abc import Iterable

FEW = 6  # names that a message lists


def require(holds: bool, name: str, value: object, remedy: str) -> None:
    """Raise `ValueError("name = value: must be remedy")` unless `holds`; the command line prints it as one line."""
    if not holds:
        raise ValueError(f"{name} = {value!r}: must be {remedy}")


def printable(text: str) -> str:
    """`text` with control characters escaped: a stranger's file name must not control a terminal."""
    return "".join(c if c.isprintable() or c in "\n\t\u00a0\u202f" else ascii(c)[1:-1] for c in text)


LARGEST_SEED, LARGEST_COUNT, LARGEST_BATCH = 2**63 - 1, 999_999_999, 1_000_000


def check_count(count: int, name: str) -> None:
    """Raise `ValueError` unless a number of iterations, or the size of a batch, is one that can be."""
    most = LARGEST_BATCH if name == "batch" else LARGEST_COUNT
    require(count >= 1, name, count, "at least 1")
    require(count <= most, name, count, f"at most {most:,}")


def check_seed(seed: int, name: str = "seed") -> None:
    """Raise `ValueError` unless a random seed is in the range that all generators take."""
    require(0 <= seed <= LARGEST_SEED, name, seed, "in 0 … 2⁶³ - 1")


def one_of(name: str, known: Iterable[str], command: str) -> str:
    """The remedy for an unknown name: the closest known one, or the first few and the `command` that lists all."""
    known = list(known)
    close = difflib.get_close_matches(name, known, 1)
    if close:
        return f"one of {len(known)}; did you mean {close[0]}?"
    few = ", ".join(known[:FEW])
    return f"one of {few}" + (f", …: `{command}` lists all {len(known)}" if known[FEW:] else "")


def suggest(name: str, known: Iterable[str]) -> str:
    """The text after "unknown name": the closest known name, or all of them."""
    close = difflib.get_close_matches(name, list(known), 1)
    return f"; did you mean {close[0]}?" if close else f"; known: {', '.join(known)}"
