"""Atomic writing of files, outputs that cannot be written, and hashes."""

import hashlib
import os
import re
import tempfile
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

from simdistill.support.checks import require
from simdistill.support.locks import lock

MARK = ".simdistill-"  # in the names of temporary files: .NAME.simdistill-XXXXXXXX

LONGEST_PART = 40  # characters of a file's name that tell one thing


def write_atomically(path: Path, content: bytes) -> None:
    """Write `content` to `path` so that a crash at any moment leaves either the old file or the new one."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)


@contextmanager
def replacing(path: Path) -> Generator[Path]:
    """A temporary file to write in the block; it replaces `path` at the end, or is deleted if the block fails.

    A kill leaves it behind, for `remove_leftovers`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}{MARK}")
    temporary = Path(name)
    try:
        with suppress(OSError):
            lock(handle)  # while it is written it is no leftover
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o644)  # mkstemp makes it private
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    finally:
        os.close(handle)


def is_temporary(path: Path) -> bool:
    """Whether this is a temporary file of `replacing`."""
    return path.name.startswith(".") and MARK in path.name


def remove_leftovers(folder: Path, name: str = "*") -> None:
    """Delete the temporary files for `name`, by default for any, that killed processes left in `folder`.

    Those that a process is still writing stay; where files cannot be locked, all stay.
    """
    for path in folder.glob(f".{name}{MARK}*"):
        with suppress(OSError), path.open("rb+") as file:
            lock(file.fileno())
            path.unlink()


def check_output(path: Path, folder: bool = False, option: str = "--out") -> None:
    """Raise `ValueError`, which names the `option`, unless `path` can be written; a `folder` or a file, new or not.

    To be called before the work whose result it is. Removes what killed processes left of it.
    """
    try:
        wrong = path.exists() and path.is_dir() != folder
        require(not wrong, option, str(path), "a folder: it is a file" if folder else "a file: it is a folder")
        place = path if folder else path.parent
        while not place.exists():
            place = place.parent
        tempfile.TemporaryFile(dir=place).close()
        if not folder:
            remove_leftovers(place, path.name)
    except OSError as error:
        why = (error.strerror or str(error)).lower()
        raise ValueError(f"{option} = {str(path)!r}: cannot be written ({why}); give another {option}") from error


def file_name(*parts: str) -> str:
    """A file's name without suffix that tells its `parts`, as "samples-labels-3-a-happy-cactus"."""
    return "-".join(re.sub(r"[^\w.,]+", "-", part).strip("-.")[:LONGEST_PART] for part in parts if part)


def digest(*paths: Path) -> str:
    """The hexadecimal SHA-256 of the concatenated files; `OSError` if one is missing."""
    sha256 = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            while block := file.read(2**20):
                sha256.update(block)
    return sha256.hexdigest()
