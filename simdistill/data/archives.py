"""Image sets in their original formats: CIFAR-10's archives and IDX files, with training and test images."""

import gzip
import io
import pickle
import tarfile
import zlib
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from jaxtyping import Int, UInt8
from numpy.typing import NDArray
from torch import Tensor

from simdistill.support.checks import require
from simdistill.support.pickle_steps import check_steps
from simdistill.support.tar_files import open_tar

Labelled: TypeAlias = tuple[UInt8[Tensor, "_ _ _ _"], Int[Tensor, " _"]]

_LARGEST = 2**28  # bytes of one file, unpacked
_PART, PARTS = 2**26, 6  # bytes of one of CIFAR-10's files; their number


def idx_folder(path: Path) -> tuple[Labelled, Labelled] | None:
    """Training and test images of a folder of IDX files like MNIST's (LeCun et al. 1998), plain or .gz; else None."""
    if not list(path.glob("train-images*idx3-ubyte*")):
        return None
    training, test = (_idx_pair(path, part) for part in ("train", "t10k"))
    return training, test


def _idx_pair(path: Path, part: str) -> Labelled:
    images, labels = (_idx(path, f"{part}-{what}", axes) for what, axes in (("images", 3), ("labels", 1)))
    require(len(images) == len(labels), f"{path}: labels of {part}", len(labels), f"{len(images)}, one per image")
    return torch.from_numpy(images)[:, None], torch.from_numpy(labels.astype(np.int64))


def _idx(path: Path, name: str, axes: int) -> NDArray[np.uint8]:
    found = sorted(path.glob(f"{name}*idx{axes}-ubyte*"))
    require(len(found) > 0, f"{path}: {name}-idx{axes}-ubyte", None, "in the folder, plain or .gz")
    file = found[0]
    content = _unpacked(file)
    # two zeros, the type (8: bytes), the number of axes, their lengths (32 bits, big-endian), the values
    lengths = [int.from_bytes(content[4 + 4 * k : 8 + 4 * k], "big") for k in range(axes)]
    sound = content[:4] == bytes([0, 0, 8, axes]) and len(content) == 4 + 4 * axes + int(np.prod(lengths))
    if not sound:
        raise ValueError(f"{file}: not a complete IDX file of {axes}-dimensional bytes")
    return np.frombuffer(content, np.uint8, offset=4 + 4 * axes).reshape(lengths).copy()


def _unpacked(file: Path) -> bytes:
    try:
        with gzip.open(file) if file.suffix == ".gz" else file.open("rb") as stream:
            content = stream.read(_LARGEST + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{file}: damaged ({error})") from error
    require(len(content) <= _LARGEST, f"size of {file}", len(content), "at most 256 MiB unpacked")
    return content


def cifar10(path: Path) -> tuple[Labelled, Labelled]:
    """Training and test images of `cifar-10-python.tar.gz` or `cifar-10-binary.tar.gz` (Krizhevsky 2009).

    The former holds pickles, which are read by an unpickler restricted to numpy arrays. Raises `ValueError` for any
    other archive.
    """
    parts: dict[str, Labelled] = {}
    try:
        with open_tar(path) as archive:
            for member in archive:
                name = Path(member.name).name
                if member.isfile() and member.size <= _PART and name.startswith(("data_batch_", "test_batch")):
                    require(len(parts) < PARTS, "batches", "more", f"{PARTS}")
                    stream = archive.extractfile(member)
                    assert stream is not None
                    content = stream.read()
                    parts[name] = _binary(content) if name.endswith(".bin") else _pickled(content)
    except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{path}: not a valid .tar.gz ({error})") from error
    except _REFUSED as error:
        raise ValueError(f"{path}: not CIFAR-10's archive ({error})") from error
    training = [parts[name] for name in sorted(parts) if name.startswith("data_batch_")]
    test = [parts[name] for name in sorted(parts) if name.startswith("test_batch")]
    if len(training) != 5 or len(test) != 1:
        what = "which has five data_batch files and one test_batch; unpack other ones and give the folder"
        raise ValueError(f"{path}: not CIFAR-10's archive, {what}")
    return (torch.cat([images for images, _ in training]), torch.cat([labels for _, labels in training])), test[0]


def _binary(content: bytes) -> Labelled:
    """Parse rows of a label and 3,072 pixels: red, green, blue."""
    rows = torch.frombuffer(bytearray(content), dtype=torch.uint8).reshape(-1, 3073)
    return _labelled(rows[:, 1:], rows[:, 0].long())


def _pickled(content: bytes) -> Labelled:
    """Parse a dict of rows of 3,072 pixels and a list of labels, with bytes as keys."""
    check_steps(io.BytesIO(content), len(content))
    batch: Any = _Unpickler(io.BytesIO(content), encoding="bytes").load()
    return _labelled(torch.from_numpy(batch[b"data"].values), torch.tensor(batch[b"labels"]))


def _labelled(rows: Tensor, labels: Tensor) -> Labelled:
    sound = rows.shape == (len(labels), 3072) and labels.dtype == torch.int64
    require(sound, "rows", list(rows.shape), "of 3,072 bytes, one per label")
    require(bool(((labels >= 0) & (labels < 10)).all()), "labels", labels.unique().tolist(), "in 0 … 9")
    return rows.reshape(-1, 3, 32, 32), labels


class _ByteType:
    """Stands for numpy's uint8 type, the only one in CIFAR-10's archive."""

    def __init__(self, code: Any, *_: Any) -> None:
        require(code in ("u1", b"u1"), "type of an array", code, "u1")

    def __setstate__(self, state: Any) -> None: ...


class _Array:
    """Stands for numpy's array; its `values` are set with its state."""

    def __init__(self, *_: Any) -> None: ...

    def __setstate__(self, state: Any) -> None:
        _, shape, kind, fortran, content = state
        require(isinstance(kind, _ByteType) and not fortran, "array", kind, "of bytes, row by row")
        self.values = np.frombuffer(bytearray(content), np.uint8).reshape(shape)


class _Unpickler(pickle.Unpickler):
    """Unpickles numbers, bytes, lists, dicts and arrays of bytes; refuses all other names, and calls nothing."""

    def find_class(self, module_name: str, global_name: str) -> Any:
        asked = f"{module_name}.{global_name}"
        if asked in ("numpy.core.multiarray._reconstruct", "numpy._core.multiarray._reconstruct", "numpy.ndarray"):
            return _Array
        if asked == "numpy.dtype":
            return _ByteType
        raise pickle.UnpicklingError(f"it asks for {asked}")


_REFUSED = (pickle.UnpicklingError, ValueError, TypeError, KeyError, IndexError, AttributeError, RuntimeError, EOFError)
