"""Atomic writing of files, outputs that cannot be written, and hashes."""

import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

from simdistill.support.locks import lock

MARK = ".simdistill-"  # in the names of temporary files: .NAME.simdistill- and some letters

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


@contextmanager
def temporary_folder(path: Path) -> Generator[Path]:
    """A temporary folder beside `path`, in which to make what is then renamed to it; deleted at the end."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}{MARK}") as name:
        handle = os.open(name, os.O_RDONLY)
        try:
            with suppress(OSError):
                lock(handle)
            yield Path(name)
        finally:
            os.close(handle)


def is_temporary(path: Path) -> bool:
    """Whether this is a temporary file of `replacing`, or a `temporary_folder`."""
    return path.name.startswith(".") and MARK in path.name


def remove_leftovers(folder: Path, name: str = "") -> None:
    """Delete what killed processes left in `folder` of the file or folder `name`, by default of any.

    What a process is still writing stays; where files cannot be locked, everything does.
    """
    for path in folder.iterdir() if folder.is_dir() else ():
        if not is_temporary(path) or (name and not path.name.startswith(f".{name}{MARK}")):
            continue
        with suppress(OSError):
            handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
            try:
                lock(handle)
                shutil.rmtree(path) if path.is_dir() else path.unlink()
            finally:
                os.close(handle)


def check_output(path: Path, folder: bool = False, option: str = "--out") -> None:
    """Raise `ValueError`, which names the `option`, unless `path` can be written; a `folder` or a file, new or not.

    To be called before the work whose result it is. Removes what killed processes left of it.
    """
    try:
        if path.exists() and path.is_dir() != folder:
            what = "is a file; give a folder" if folder else "is a folder; give a file"
            raise ValueError(f"{option} = {str(path)!r}: {what}")
        place = path if folder else path.parent
        while not place.exists():
            place = place.parent
        tempfile.TemporaryFile(dir=place).close()
        remove_leftovers(path.parent, path.name)
    except OSError as error:
        why = (error.strerror or str(error)).lower()
        raise ValueError(f"{option} = {str(path)!r}: cannot be written ({why}); give another {option}") from error


def file_name(*parts: str) -> str:
    """A file's name without suffix that tells its `parts`, as "samples-labels-3-a-happy-cactus"."""
    return "-".join(re.sub(r"(?:[^\w.,]|,(?!\d))+", "-", part).strip("-.")[:LONGEST_PART] for part in parts if part)


def digest(*paths: Path) -> str:
    """The hexadecimal SHA-256 of the concatenated files; `OSError` if one is missing."""
    sha256 = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            while block := file.read(2**20):
                sha256.update(block)
    return sha256.hexdigest()
