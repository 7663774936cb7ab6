"""Files of `torch.save`: read by torch's restricted unpickler, in time and memory that the file's size bounds."""

import zipfile
from collections.abc import Iterator, Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from simdistill.support.pickle_steps import check_steps

LARGEST_PICKLE = 2**26  # bytes of the part that is no numbers
PICKLES = 5  # of the format before 2020, then the numbers
SLACK = 2**16  # bytes


def load_torch(path: Path, device: torch.device | str = "cpu") -> Any:
    """The content of a `torch.save` file of tensors and plain values, on `device`; on "meta", no numbers are read.

    Nothing is executed: torch's restricted unpickler refuses everything else. The pickle's steps are looked at first,
    and its tensors are laid out without memory: together they must not be larger than the file, as torch would enlarge
    a storage that is too small. Raises `ValueError` for that, and whatever torch raises for damaged files.
    """
    _check_pickles(path)
    laid_out = torch.load(path, map_location="meta", weights_only=True)
    room = sum({id(s): s.nbytes() for s in _storages(laid_out)}.values())
    if room > path.stat().st_size + SLACK:
        raise ValueError(f"its tensors would take {room:,} bytes, and it has {path.stat().st_size:,}")
    return laid_out if str(device) == "meta" else torch.load(path, map_location=device, weights_only=True)


def _check_pickles(path: Path) -> None:
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            for entry in archive.infolist():
                if entry.compress_type != zipfile.ZIP_STORED:
                    raise ValueError("is compressed, which torch.save never does")
                if entry.filename.endswith(".pkl"):
                    if entry.file_size > LARGEST_PICKLE:
                        raise ValueError(f"has a pickle of {entry.file_size:,} bytes")
                    check_steps(BytesIO(archive.read(entry)), entry.file_size)
        return
    with path.open("rb") as file:
        if file.read(1) != b"\x80":
            raise ValueError("is no file of torch.save")
        file.seek(0)
        for _ in range(PICKLES):
            check_steps(file, path.stat().st_size)


def _storages(value: Any) -> Iterator[torch.UntypedStorage]:
    """The storages of all tensors in nested containers."""
    if isinstance(value, Tensor):
        if value.layout != torch.strided:
            raise ValueError(f"has a tensor of layout {value.layout}")
        yield value.untyped_storage()
    elif isinstance(value, torch.storage.TypedStorage):
        yield value.untyped()
    elif isinstance(value, Mapping):
        for one in value.values():
            yield from _storages(one)
    elif isinstance(value, (list, tuple, set)):
        for one in value:
            yield from _storages(one)
