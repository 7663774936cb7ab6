"""Lists of prompts in text files, tables, JSON lines, and tar archives (webdataset)."""

import json
import tarfile
from collections.abc import Callable, Iterator
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import polars as pl

from simdistill.support.checks import require

COLUMNS = ("prompt", "caption", "text", "txt")
"""Columns or JSON keys that may hold the prompts, in order of preference."""
BUNDLED = ("figure-3", "fashion-mnist", "faces")
"""Lists shipped with the package: the three prompts of the paper's Figure 3, the class names of Fashion-MNIST, and
captions of faces with held-out combinations (docs/faces.md)."""
LONGEST = 100_000  # bytes: a longer file is not a caption


def read_prompts(path: Path, column: str = "", repeated: bool = False) -> list[str]:
    """The prompts in a file, or in all files of a folder (sorted by name), in their order, without blank ones.

    Repeated prompts are kept only if `repeated`.

    A .txt has one prompt per line. A .csv, .tsv, .parquet, .jsonl or .ndjson has them in `column`, by default the first
    of `COLUMNS` that it has. A .tar or .tar.gz (such as webdataset or SAM-LLaVA-Captions10M) has them in its .txt
    members, or in its .json members under `column` or one of `COLUMNS`; members over 100 kB are skipped, and nothing is
    unpacked to disk. If there is no such file, `path` may be one of `BUNDLED`. Raises `ValueError` if there are no
    prompts, or if a file is of another kind, damaged, or without the column.
    """
    if str(path) in BUNDLED and not path.exists():
        with as_file(files("simdistill") / "data" / f"{path}.txt") as bundled:
            return read_prompts(bundled, repeated=repeated)
    parts = sorted(file for file in path.rglob("*") if _reader(file)) if path.is_dir() else [path]
    if not path.exists() or not parts:
        what = "no such file" if not path.exists() else "no prompts in it"
        raise ValueError(
            f"prompts = '{path}': {what}; must be a .txt, .csv, .tsv, .parquet, .jsonl or .tar, or a folder of them"
        )
    found: list[str] = []
    for file in parts:
        reader = _reader(file)
        if reader is None:
            raise ValueError(f"prompts = '{file}': must be one of {', '.join(READERS)}, or a folder of them")
        try:
            found += [text for prompt in reader(file, column) if (text := " ".join(prompt.split()))]
        except UnicodeError as error:
            raise ValueError(f"prompts = '{file}': must be UTF-8 text ({error})") from error
        except (
            OSError,
            tarfile.TarError,
            EOFError,
            pl.exceptions.PolarsError,
            json.JSONDecodeError,
        ) as error:
            raise ValueError(f"prompts = '{file}': cannot be read ({type(error).__name__}: {error})") from error
    require(len(found) > 0, f"prompts = '{path}': the number of prompts", 0, "at least 1")
    return found if repeated else list(dict.fromkeys(found))


def read_named_prompts(path: Path, column: str = "") -> dict[str, str] | None:
    """The prompts in a table or JSON lines with a column `file_name`, by these names of images.

    Unlike `read_prompts`, this keeps repeated prompts. None for files without such a column, and for other kinds of
    files. Raises `ValueError` if a row has no name or no text, or if a name is repeated.
    """
    reader = NAMING.get(path.suffix.lower()) if path.is_file() else None
    try:
        rows = [] if reader is None else reader(path)
    except (OSError, UnicodeError, pl.exceptions.PolarsError, json.JSONDecodeError) as error:
        raise ValueError(f"prompts = '{path}': cannot be read ({type(error).__name__}: {error})") from error
    if not any(FILE_NAME in row for row in rows):
        return None
    found: dict[str, str] = {}
    for number, row in enumerate(rows, 1):
        where, name = f"{path}, row {number}", row.get(FILE_NAME)
        require(isinstance(name, str) and name != "", f"{where}: {FILE_NAME}", name, "the name of an image")
        require(name not in found, f"{where}: {FILE_NAME}", name, "in one row only")
        found[str(name)] = " ".join(_value(where, row, column).split())
        require(found[str(name)] != "", f"{where}: prompt", "", "given")
    return found


def _reader(path: Path) -> "Callable[[Path, str], Iterator[str]] | None":
    found = [READERS[suffix] for suffix in READERS if path.name.lower().endswith(suffix) and path.is_file()]
    return found[0] if found else None


def _lines(path: Path, column: str) -> Iterator[str]:
    with path.open(encoding="utf-8-sig") as file:
        yield from file


def _csv(path: Path, column: str) -> Iterator[str]:
    yield from _table(path, _read_csv(path), column)


def _read_csv(path: Path) -> pl.DataFrame:
    return pl.read_csv(path, separator="\t" if path.suffix.lower() == ".tsv" else ",", infer_schema=False)


def _parquet(path: Path, column: str) -> Iterator[str]:
    names = pl.read_parquet_schema(path)
    yield from _table(path, pl.read_parquet(path, columns=[_column(path, list(names), column)]), column)


def _json_lines(path: Path, column: str) -> Iterator[str]:
    for number, row in _read_json_lines(path):
        yield _value(f"{path}, line {number}", row, column)


def _read_json_lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                yield number, _object(f"{path}, line {number}", line)


def _tar(path: Path, column: str) -> Iterator[str]:
    """Stream the archive once, since it may be compressed and gigabytes large."""
    with tarfile.open(path, "r|*") as archive:
        for member in archive:
            suffix = Path(member.name).suffix
            if not member.isfile() or suffix not in (".txt", ".json") or member.size > LONGEST:
                continue
            file = archive.extractfile(member)
            text = "" if file is None else file.read().decode("utf-8-sig")
            if suffix == ".txt":
                yield text
                continue
            where = f"{path}: {member.name}"
            values = _object(where, text)
            if column or any(name in values for name in COLUMNS):  # otherwise it is other metadata
                yield _value(where, values, column)


def _table(path: Path, table: pl.DataFrame, column: str) -> Iterator[str]:
    values = table[_column(path, table.columns, column)]
    require(values.dtype == pl.String, f"prompts = '{path}': column {values.name}", values.dtype, "of text")
    yield from values.drop_nulls()


def _object(where: str, text: str) -> dict[str, Any]:
    values: Any = json.loads(text)
    require(isinstance(values, dict), where, text[:40], "a JSON object")
    return values


def _value(where: str, values: dict[str, Any], column: str) -> str:
    value = values[_column(where, list(values), column)]
    require(isinstance(value, str), where, value, "text")
    return value


def _column(where: object, names: list[str], asked: str) -> str:
    known = [name for name in ((asked,) if asked else COLUMNS) if name in names]
    if not known:
        what = f"no {asked}" if asked else f"none of {', '.join(COLUMNS)}"
        raise ValueError(f"{where}: {what} among {', '.join(names[:8])}; give the prompts' column with --column")
    return known[0]


FILE_NAME = "file_name"
"""The column with the name of a prompt's image, as in Hugging Face's image folders."""
NAMING: dict[str, Callable[[Path], list[dict[str, Any]]]] = {
    **dict.fromkeys((".csv", ".tsv"), lambda path: _read_csv(path).to_dicts()),
    ".parquet": lambda path: pl.read_parquet(path).to_dicts(),
    **dict.fromkeys((".jsonl", ".ndjson"), lambda path: [row for _, row in _read_json_lines(path)]),
}
"""Kinds of files that can name each prompt's image, with the functions that read their rows."""
READERS: dict[str, Callable[[Path, str], Iterator[str]]] = {
    ".txt": _lines,
    ".csv": _csv,
    ".tsv": _csv,
    ".parquet": _parquet,
    ".jsonl": _json_lines,
    ".ndjson": _json_lines,
    ".tar": _tar,
    ".tar.gz": _tar,
    ".tgz": _tar,
}
