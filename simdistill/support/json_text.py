"""JSON that somebody else may have written: read within bounds, and refused in one sentence."""

import json
from pathlib import Path
from typing import Any

from simdistill.support.checks import require

BOM = b"\xef\xbb\xbf"
LARGEST = 2**26  # bytes of a file


def json_value(where: str, content: bytes | str) -> Any:
    """The JSON value in UTF-8 `content`; `ValueError` of one sentence, with `where` it stands, for anything else."""
    try:
        return json.loads(content.removeprefix(BOM).decode() if isinstance(content, bytes) else content)
    except RecursionError:
        raise ValueError(f"{where}: cannot be read (its JSON is nested too deeply)") from None
    except UnicodeError as error:
        raise ValueError(f"{where}: must be UTF-8 text ({error})") from error
    except ValueError as error:
        raise ValueError(f"{where}: cannot be read ({type(error).__name__}: {error})") from error


def json_object(where: str, content: bytes | str) -> dict[str, Any]:
    """The JSON object in `content`, as from `json_value`."""
    value = json_value(where, content)
    start = content if isinstance(content, str) else content.decode()
    require(isinstance(value, dict), where, start.strip()[:40], "a JSON object")
    return value


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file of up to 64 MiB; `ValueError` of one sentence if there is none."""
    try:
        size = path.stat().st_size
        require(size <= LARGEST, f"size of {path}", size, f"at most {LARGEST:,} bytes")
        content = path.read_bytes()
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({(error.strerror or str(error)).lower()})") from error
    return json_object(str(path), content)
