"""Tar archives as a stream, plain or packed, of which neither names nor unpacked bytes grow without bound."""

import bz2
import gzip
import lzma
import tarfile
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

LARGEST_NAME = 2**20  # bytes of a member that names or describes the next one
PACKED: dict[bytes, Callable[[Path], Any]] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ": lzma.open}
"""The programs that pack archives, by the first bytes of their files."""
ROOM, DENSEST = 2**30, 100  # bytes that any archive may unpack to, and more for each byte of it
DESCRIBES = (
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
)


class _Member(tarfile.TarInfo):
    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> "_Member":
        """A member's head; tarfile would read a description of any size into memory."""
        member = super().frombuf(buf, encoding, errors)
        if member.type in DESCRIBES and member.size > LARGEST_NAME:
            raise ValueError(f"a member's name or description has {member.size:,} bytes, more than {LARGEST_NAME:,}")
        return member


class _Counted:
    """A stream that ends with an error after so many bytes."""

    def __init__(self, stream: Any, most: int) -> None:
        self._stream, self._left, self._most = stream, most, most

    def read(self, size: int) -> bytes:
        """The next bytes."""
        content: bytes = self._stream.read(size)
        self._left -= len(content)
        if self._left < 0:
            raise ValueError(f"it unpacks to more than {self._most:,} bytes, {DENSEST} for each of its own")
        return content


@contextmanager
def open_tar(path: Path) -> Generator[tarfile.TarFile]:
    """The archive, to be read once from start to end.

    Raises `tarfile.TarError` and what the unpacking raises (`OSError`, `EOFError`, `zlib.error`, `lzma.LZMAError`) if
    it is damaged, and `ValueError` for names of more than 1 MiB and for packed archives that unpack without end.
    """
    with path.open("rb") as file:
        head = file.read(6)
    opener = next((opener for magic, opener in PACKED.items() if head.startswith(magic)), None)
    most = ROOM + DENSEST * path.stat().st_size
    with path.open("rb") if opener is None else opener(path) as stream:
        source: Any = stream if opener is None else _Counted(stream, most)
        with tarfile.open(fileobj=source, mode="r|", tarinfo=_Member) as archive:
            yield archive
