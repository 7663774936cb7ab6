"""Lists of prompts in text files, tables, JSON lines, and tar archives (webdataset)."""

import posixpath
import tarfile
from collections.abc import Callable, Iterator
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import polars as pl

from simdistill.data.file_names import Selection, names_in, with_suffix
from simdistill.data.listings import FILE_NAME
from simdistill.data.notes import Notes
from simdistill.data.rows import COLUMNS, Rows, column_of, rows_of, text_of
from simdistill.data.rows import READERS as WITH_ROWS
from simdistill.support.checks import require
from simdistill.support.json_text import json_object
from simdistill.support.tar_files import open_tar

BUNDLED = ("figure-3", "fashion-mnist", "faces")
"""Lists shipped with the package: the three prompts of the paper's Figure 3, the class names of Fashion-MNIST, and
captions of faces with held-out combinations (docs/faces.md)."""
LONGEST = 100_000  # bytes: a longer file is not a caption
REPEATED = "texts repeated, each of which counts once"


def read_prompts(path: Path, column: str = "", repeated: bool = False, notes: Notes | None = None) -> list[str]:
    """The prompts in a file, or in all files of a folder (sorted by name), in their order, without blank ones.

    Repeated prompts are kept only if `repeated`. What is left out is counted in `notes`.

    A .txt has one prompt per line. A .csv, .tsv, .parquet, .jsonl or .ndjson has them in `column`, by default the first
    of `COLUMNS` that it has; of a list of texts, the first is taken. A .tar or .tar.gz (such as webdataset, img2dataset
    or SAM-LLaVA-Captions10M) has one per key, the name up to its first dot: in its .txt, or in its .json under `column`
    or one of `COLUMNS`; members over 100 kB are skipped, and nothing is unpacked to disk. If there is no such file,
    `path` may be one of `BUNDLED`. Raises `ValueError` if there are no prompts, or if a file is of another kind,
    damaged, or without the column.
    """
    notes = notes or Notes()
    if str(path) in BUNDLED and not path.exists():
        with as_file(files("simdistill") / "data" / f"{path}.txt") as bundled:
            return read_prompts(bundled, repeated=repeated)
    parts = [path]
    if path.is_dir():
        parts = sorted(path / name for name in with_suffix(names_in(path), tuple(READERS), notes))
    if not path.exists() or not parts:
        what = "no such file" if not path.exists() else "no prompts in it"
        raise ValueError(
            f"prompts = '{path}': {what}; must be a .txt, .csv, .tsv, .parquet, .jsonl or .tar, or a folder of them"
        )
    found: list[str] = []
    for file in parts:
        reader = next((READERS[suffix] for suffix in READERS if file.name.lower().endswith(suffix)), None)
        if reader is None:
            raise ValueError(f"prompts = '{file}': must be one of {', '.join(READERS)}, or a folder of them")
        try:
            found += reader(file, column, notes)
        except UnicodeError as error:
            raise ValueError(f"prompts = '{file}': must be UTF-8 text ({error})") from error
        except (OSError, tarfile.TarError, EOFError, pl.exceptions.PolarsError) as error:
            raise ValueError(f"prompts = '{file}': cannot be read ({type(error).__name__}: {error})") from error
    require(len(found) > 0, f"prompts = '{path}': the number of prompts", 0, "at least 1")
    if repeated:
        return found
    distinct = list(dict.fromkeys(found))
    if len(distinct) < len(found):
        notes.count(REPEATED, len(found) - len(distinct))
    return distinct


def read_named_prompts(path: Path, column: str = "", notes: Notes | None = None) -> dict[str, str] | None:
    """The prompts in a table or JSON lines with a column `file_name`, by these names of images.

    Unlike `read_prompts`, this keeps repeated prompts. None for files without such a column, and for other kinds of
    files. Raises `ValueError` if a row has no name or no text, or if a name is repeated.
    """
    suffix = path.suffix.lower()
    rows = list(rows_of(str(path), suffix, path)) if path.is_file() and suffix in WITH_ROWS else []
    if not any(FILE_NAME in row for _, row in rows):
        return None
    found: dict[str, str] = {}
    for where, row in rows:
        name = row.get(FILE_NAME)
        require(isinstance(name, str) and name != "", f"{where}: {FILE_NAME}", name, "the name of an image")
        require(name not in found, f"{where}: {FILE_NAME}", name, "in one row only")
        text = text_of(where, row[column_of(where, row, column)], notes or Notes())
        require(text is not None, f"{where}: prompt", text, "given")
        found[str(name)] = str(text)
    return found


def _lines(path: Path, column: str, notes: Notes) -> Iterator[str]:
    with path.open(encoding="utf-8-sig") as file:
        yield from (text for line in file if (text := " ".join(line.split())))


def _with_rows(path: Path, column: str, notes: Notes) -> Iterator[str]:
    """The texts of a .csv or JSON lines."""
    yield from _texts(rows_of(str(path), path.suffix.lower(), path), column, notes)


def _parquet(path: Path, column: str, notes: Notes) -> Iterator[str]:
    """Read only the column, since the others may be images."""
    where = f"prompts = '{path}'"
    name = column_of(where, pl.read_parquet_schema(path), column)
    values = pl.read_parquet(path, columns=[name])[name]
    textual = values.dtype in (pl.String, pl.List(pl.String), pl.Null)
    require(textual, f"{where}: column {name}", values.dtype, "of text")
    texts = (text_of(f"{where}, row {number}", value, notes) for number, value in enumerate(values.to_list(), 1))
    yield from (text for text in texts if text)


def _texts(rows: Rows, column: str, notes: Notes) -> Iterator[str]:
    for where, row in rows:
        text = text_of(where, row[column_of(where, row, column)], notes)
        if text:
            yield text


def _tar(path: Path, column: str, notes: Notes) -> Iterator[str]:
    """Stream the archive once, since it may be compressed and gigabytes large; members of a key stand side by side."""
    key, members, chosen = "", dict[str, bytes](), Selection((".txt", ".json"), notes)
    with open_tar(path) as archive:
        for member in archive:
            if not member.isfile() or not chosen(member.name):
                continue
            if member.size > LONGEST:
                notes.pass_over("longer than 100 kB")
                continue
            suffix = posixpath.splitext(member.name)[1].lower()
            folder, name = posixpath.split(member.name)
            own = posixpath.join(folder, name.partition(".")[0])
            if own != key or suffix in members:
                yield from _of_key(f"{path}: {key}", members, column, notes)
                key, members = own, {}
            file = archive.extractfile(member)
            members[suffix] = b"" if file is None else file.read()
    yield from _of_key(f"{path}: {key}", members, column, notes)


def _of_key(where: str, members: dict[str, bytes], column: str, notes: Notes) -> Iterator[str]:
    """The text of a key: of its .json if a `column` is asked for, else of its .txt, else of its .json."""
    values: dict[str, Any] = json_object(f"{where}.json", members[".json"]) if ".json" in members else {}
    known = [name for name in ((column,) if column else COLUMNS) if name in values]
    value: Any = None
    if ".txt" in members and not (column and known):
        value = members[".txt"].decode("utf-8-sig")
    elif known:
        value = values[known[0]]
    elif values and column:
        column_of(f"{where}.json", values, column)  # says what there is
    else:
        return  # other metadata
    text = text_of(where, value, notes)
    if text:
        yield text


READERS: dict[str, Callable[[Path, str, Notes], Iterator[str]]] = {
    ".txt": _lines,
    ".csv": _with_rows,
    ".tsv": _with_rows,
    ".parquet": _parquet,
    ".jsonl": _with_rows,
    ".ndjson": _with_rows,
    ".tar": _tar,
    ".tar.gz": _tar,
    ".tgz": _tar,
}
"""Kinds of files, with the functions that read their prompts."""
