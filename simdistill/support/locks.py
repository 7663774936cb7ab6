"""Locks of open files. They end with their process, so that none outlives a kill."""

from importlib import import_module
from types import ModuleType


def lock(handle: int, shared: bool = False) -> None:
    """Lock an open file until it is closed; many may hold a `shared` lock.

    Raises `BlockingIOError` if the lock is another's, and another `OSError` where there are none: on Windows, and on
    some network file systems.
    """
    fcntl = _fcntl()
    if fcntl is None:
        raise OSError("this platform has no locks of files")
    fcntl.flock(handle, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)


def _fcntl() -> ModuleType | None:
    try:
        return import_module("fcntl")
    except ImportError:
        return None
