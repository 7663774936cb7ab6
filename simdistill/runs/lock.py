"""The lock of a folder: one process at a time trains in it."""

import os
import platform
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from simdistill.support.locks import lock

LOCK = ".lock"
"""The file that is locked. It says who holds the lock; it is never deleted, since others may have opened it."""
PATIENCE = 1.0  # seconds: whoever only looks holds a lock for a moment, too


@contextmanager
def locked(folder: Path) -> Generator[None]:
    """Hold the lock of `folder`, which is made if it is missing, in the block.

    Raises `ValueError` with process and host of another holder. Where files cannot be locked, warns and goes on.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOCK).open("a+", encoding="utf-8") as file:
        try:
            _wait(file.fileno(), PATIENCE)
        except BlockingIOError as error:
            remedy = "wait for it, stop it, or take another folder"
            raise ValueError(f"{folder}: in use by {_holder(folder)}; {remedy}") from error
        except OSError as error:
            why = error.strerror or error
            print(f"warning: {folder}: cannot be locked ({why}): start no other process in it", file=sys.stderr)
        file.truncate(0)
        file.write(f"{_me()}, since {time.strftime('%Y-%m-%d %H:%M')}\n")
        file.flush()
        try:
            yield
        finally:
            file.truncate(0)


def in_use(folder: Path) -> str | None:
    """Which other process holds the lock of `folder`, as text; None if none does."""
    try:
        with (folder / LOCK).open(encoding="utf-8") as file:
            lock(file.fileno(), shared=True)
    except BlockingIOError:
        holder = _holder(folder)
        return None if holder.startswith(f"{_me()},") else holder
    except OSError:  # no such file, or no locks
        pass
    return None


def wait_until_free(folder: Path, seconds: float) -> None:
    """Wait until no other process holds the lock of `folder`, for some `seconds` at most."""
    end = time.monotonic() + seconds
    while in_use(folder) and time.monotonic() < end:
        time.sleep(0.1)


def _wait(handle: int, seconds: float) -> None:
    """Lock an open file, within some seconds."""
    end = time.monotonic() + seconds
    while True:
        try:
            return lock(handle)
        except BlockingIOError:
            if time.monotonic() > end:
                raise
            time.sleep(0.05)


def _holder(folder: Path) -> str:
    return (folder / LOCK).read_text(encoding="utf-8", errors="replace").strip() or "another process"


def _me() -> str:
    return f"process {os.getpid()} on {platform.node()}"
