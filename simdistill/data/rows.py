"""Rows of tables and JSON lines, each with the place where it stands."""

import io
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import polars as pl

from simdistill.data.notes import Notes
from simdistill.support.checks import require
from simdistill.support.json_text import BOM, json_object

Row: TypeAlias = dict[str, Any]
Rows: TypeAlias = Iterator[tuple[str, Row]]
"""Where each row stands, such as "captions.jsonl, line 3", and its values by column."""

COLUMNS = ("prompt", "caption", "text", "txt")
"""Columns or JSON keys that may hold texts, in order of preference."""
MOST_COLUMNS = 1000
NO_TEXT, SEVERAL_TEXTS = "rows without a text", "rows with several texts, of which the first is taken"


def json_lines(where: str, lines: Iterable[bytes]) -> Rows:
    """The objects in JSON lines. A line ends at a line feed only: strings may hold other separators."""
    for number, line in enumerate(lines, 1):
        if line.removeprefix(BOM).strip():
            yield f"{where}, line {number}", json_object(f"{where}, line {number}", line)


def table_rows(where: str, table: pl.DataFrame) -> Rows:
    """The rows of a table, numbered from 1."""
    for number, row in enumerate(table.iter_rows(named=True), 1):
        yield f"{where}, row {number}", row


def csv_rows(where: str, content: bytes | Path, separator: str = ",") -> Rows:
    """The rows of a .csv with a header, every value as text; `ValueError` if it has more than 1,000 columns."""
    head = next(_lines(content), b"")
    columns = head.count(separator.encode()) + 1
    require(columns <= MOST_COLUMNS, f"{where}: columns", columns, f"at most {MOST_COLUMNS:,}")
    return table_rows(where, pl.read_csv(content, separator=separator, infer_schema=False))


READERS: Mapping[str, Callable[[str, bytes | Path], Rows]] = {
    ".csv": csv_rows,
    ".tsv": lambda where, content: csv_rows(where, content, "\t"),
    ".parquet": lambda where, content: table_rows(
        where, pl.read_parquet(io.BytesIO(content) if isinstance(content, bytes) else content)
    ),
    **dict.fromkeys((".jsonl", ".ndjson"), lambda where, content: json_lines(where, _lines(content))),
}
"""The kinds of files that have rows, by suffix."""


def _lines(content: bytes | Path) -> Iterator[bytes]:
    with io.BytesIO(content) if isinstance(content, bytes) else content.open("rb") as file:
        yield from file


def rows_of(where: str, suffix: str, content: bytes | Path) -> Rows:
    """The rows of a file, or of its content, by its suffix; `ValueError` of one sentence if it is damaged."""
    try:
        yield from READERS[suffix](where, content)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise ValueError(f"{where}: cannot be read ({type(error).__name__}: {error})") from error


def column_of(where: object, names: Iterable[str], asked: str = "") -> str:
    """The column that is `asked`, or the first of `COLUMNS`; `ValueError` if it is not among the `names`."""
    there = list(names)
    known = [name for name in ((asked,) if asked else COLUMNS) if name in there]
    if not known:
        what = f"no {asked}" if asked else f"none of {', '.join(COLUMNS)}"
        raise ValueError(f"{where}: {what} among {', '.join(there[:8])}; give the prompts' column with --column")
    return known[0]


def text_of(where: str, value: Any, notes: Notes) -> str | None:
    """A text with single spaces; None, counted in `notes`, if it is null or blank. Of a list of texts, the first.

    Raises `ValueError` for anything else, and for text that is no Unicode.
    """
    texts: list[Any] = value if isinstance(value, list) and value else [value]
    textual = all(isinstance(text, str) for text in texts) or value is None
    require(textual, where, value, "text, a list of texts, or null")
    if len(texts) > 1:
        notes.count(SEVERAL_TEXTS)
    try:
        str(texts[0] or "").encode()
    except UnicodeError:
        raise ValueError(f"{where}: its text has half of a surrogate pair, which is no Unicode") from None
    text = " ".join((texts[0] or "").split())
    if not text:
        notes.count(NO_TEXT)
    return text or None
