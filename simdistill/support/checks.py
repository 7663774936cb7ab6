"""Error messages for invalid settings: the name, the value found, and the remedy."""

import difflib
from collections.abc import Iterable


def require(holds: bool, name: str, value: object, remedy: str) -> None:
    """Raise `ValueError("name = value: must be remedy")` unless `holds`; the command line prints it as one line."""
    if not holds:
        raise ValueError(f"{name} = {value!r}: must be {remedy}")


def suggest(name: str, known: Iterable[str]) -> str:
    """The text after "unknown name": the closest known name, or all of them."""
    close = difflib.get_close_matches(name, list(known), 1)
    return f"; did you mean {close[0]}?" if close else f"; known: {', '.join(known)}"
