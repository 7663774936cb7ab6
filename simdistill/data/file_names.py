"""Names of files: which ones file managers leave behind, and which ones have a suffix that is read."""

import os
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path, PurePosixPath

from simdistill.data.notes import Notes

LEFT_BEHIND = ("__macosx", "thumbs.db", "desktop.ini", "@eadir")
"""What macOS's archives, Windows and Synology's servers leave beside the data, in lower case."""


def is_left_behind(part: str) -> bool:
    """Whether a file or folder of that name is hidden (.DS_Store, ._x.png, .ipynb_checkpoints) or no data."""
    return part.startswith(".") or part.lower() in LEFT_BEHIND


def left_behind(name: str) -> str | None:
    """The path `name` up to its first part that `is_left_behind`; None if it has none."""
    parts = PurePosixPath(name).parts
    for depth, part in enumerate(parts, 1):
        if part not in (".", "..") and is_left_behind(part):
            return "/".join(parts[:depth])
    return None


def names_in(folder: Path) -> Iterator[str]:
    """The files at any depth of a folder, as relative paths; of folders that are left behind or links, only the name.

    What a link points to may lie outside, or be the folder itself.
    """
    for place, folders, files in os.walk(folder):
        inner = Path(place).relative_to(folder)
        closed = [name for name in folders if is_left_behind(name) or (Path(place) / name).is_symlink()]
        folders[:] = [name for name in folders if name not in closed]
        yield from ((inner / name).as_posix() for name in [*files, *closed])


class Selection:
    """Whether a name ends in one of `suffixes` and is not left behind, name by name.

    All others are counted in `notes`, but for files named as one of `known`.
    """

    def __init__(self, suffixes: tuple[str, ...], notes: Notes, known: Collection[str] = ()) -> None:
        self._suffixes, self._notes, self._known = suffixes, notes, known
        self._closed = set[str]()

    def __call__(self, name: str) -> bool:
        """Whether the file is to be read."""
        hidden, last = left_behind(name), PurePosixPath(name).name
        if hidden is None and name.lower().endswith(self._suffixes):
            return True
        if hidden is not None and hidden not in self._closed:  # a folder counts once, whatever is in it
            self._closed.add(hidden)
            own = PurePosixPath(hidden).name
            self._notes.pass_over("._*" if own.startswith("._") else own)
        elif hidden is None and not name.endswith("/") and last not in self._known:
            self._notes.pass_over(PurePosixPath(name).suffix.lower() or last)
        return False


def with_suffix(
    names: Iterable[str], suffixes: tuple[str, ...], notes: Notes, known: Collection[str] = ()
) -> list[str]:
    """The names that a `Selection` takes, sorted."""
    return sorted(filter(Selection(suffixes, notes, known), names))
