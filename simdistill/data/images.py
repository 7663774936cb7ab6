"""Sets of images: EDM's zip files, folders, CIFAR-10's archives, IDX files; decoded on demand.

A set is opened by the name of its file or folder. Nothing in it is executed, and its sizes are limited.
"""

import os
import re
import zipfile
import zlib
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path, PurePosixPath

import numpy as np
import torch
from jaxtyping import Float, Int
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from simdistill.data.archives import cifar10, idx_folder
from simdistill.data.digits import digits
from simdistill.data.listings import CAPTIONS, LABELS, listed_captions, listed_labels
from simdistill.method.shapes import Data
from simdistill.support.checks import require

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
LARGEST_FILE = 2**26  # bytes of one image
PART = 1000  # images decoded at a time, if all are needed
IN_MEMORY = 2**32  # largest set, in bytes of pixels, that is decoded once and kept in memory


@dataclass(frozen=True)
class ImageSet:
    """Images of one `shape` in [-1, 1], with class `labels` `[count]`, `captions` and a `held_out` part, if they exist.

    `read` returns the images at some indices, as uint8 in [0, 255] or float in [-1, 1].
    """

    name: str
    shape: tuple[int, ...]
    count: int
    read: Callable[[Sequence[int]], Tensor]
    labels: Int[Tensor, " count"] | None = None
    held_out: "ImageSet | None" = None
    captions: Sequence[str] | None = None

    def __len__(self) -> int:
        return self.count

    @property
    def classes(self) -> int:
        """Class labels are 0 … classes - 1; 0 without labels."""
        return 0 if self.labels is None else int(self.labels.max()) + 1

    def batch(self, indices: Sequence[int]) -> Data:
        """The images at `indices`, float32 in [-1, 1]; `ValueError` for one that is damaged or of another shape."""
        values = self.read(indices)
        return values.float() / 127.5 - 1 if values.dtype == torch.uint8 else values

    def at(self, rows: Tensor) -> Data:
        """The images in these rows, as from `batch`."""
        return self.batch(rows.tolist())

    def moments(self) -> tuple[Float[Tensor, "*shape"], Float[Tensor, "*shape"]]:
        """The mean image and the mean of the squared images, float64; decodes every image once."""
        total, squares = torch.zeros(2, *self.shape, dtype=torch.float64)
        for part in _parts(range(self.count)):
            values = self.batch(part).double()
            total, squares = total + values.sum(0), squares + values.square().sum(0)
        return total / self.count, squares / self.count

    def without_labels(self) -> "ImageSet":
        """The same images, unlabelled."""
        held_out = None if self.held_out is None else self.held_out.without_labels()
        return replace(self, labels=None, held_out=held_out)


def open_images(data: str | Path) -> ImageSet:
    """Open a set of images.

    `data` is one of:
    - "digits";
    - a .zip in EDM's format: images, with labels in `dataset.json`;
    - a folder of images, with labels in `dataset.json` or else one subfolder per class;
    - `cifar-10-python.tar.gz` or `cifar-10-binary.tar.gz`;
    - a folder with `train-images-idx3-ubyte` and its companions (MNIST, Fashion-MNIST; 28×28 images are padded with
      black to 32×32).

    A .zip or folder of images may have captions in `metadata.jsonl`. The other sets have a held-out part.

    Raises `ValueError` if there is no such set, or if it is damaged.
    """
    path = Path(data)
    if str(data) == "digits":
        (images, labels), held_out = digits()
        return _array("the digits' 1,348 training images", images, labels, _array("held out", *held_out))
    require(path.exists(), "data", str(data), "digits, or an existing .zip, .tar.gz or folder of images")
    if path.is_dir():
        parts = idx_folder(path)
        return _folder(path) if parts is None else _in_parts(path, parts)
    if path.suffix == ".zip":
        return _zip(path)
    if path.name.endswith((".tar.gz", ".tgz")):
        return _in_parts(path, cifar10(path))
    raise ValueError(f"data = {str(data)!r}: must be a .zip, CIFAR-10's .tar.gz, or a folder")


def array_set(name: str, samples: Data, labels: Int[Tensor, " n"] | None = None) -> ImageSet:
    """A set of samples of any shape in memory, float in [-1, 1]."""
    return _array(name, samples, labels)


def _array(name: str, values: Tensor, labels: Tensor | None, held_out: ImageSet | None = None) -> ImageSet:
    def read(indices: Sequence[int]) -> Tensor:
        return values[torch.as_tensor(list(indices))]

    return ImageSet(name, tuple(values.shape[1:]), len(values), read, labels, held_out)


def _in_parts(path: Path, parts: Sequence[tuple[Tensor, Tensor]]) -> ImageSet:
    (images, labels), test = parts
    return _array(path.name, images, labels, _array(f"{path.name}, test images", *test))


def _zip(path: Path) -> ImageSet:
    try:
        archive = zipfile.ZipFile(path)  # stays open: reading the list of a large one takes long; threads may share it
        entries = archive.infolist()
    except (zipfile.BadZipFile, OSError) as error:
        raise ValueError(f"{path}: not a valid zip file ({error})") from error
    sizes = {entry.filename: entry.file_size for entry in entries}
    large = [name for name, size in sizes.items() if size > LARGEST_FILE]
    require(not large, f"{path}: size of {(large or [''])[0]}", max(sizes.values(), default=0), "at most 64 MiB")

    def load(name: str) -> bytes:
        try:
            return archive.read(name)
        # RuntimeError: an encrypted entry, or an unsupported compression method
        except (zipfile.BadZipFile, zlib.error, OSError, RuntimeError) as error:
            raise ValueError(f"{path}: {name} cannot be read ({error})") from error

    labels, captions = (load(listing) if listing in sizes else None for listing in (LABELS, CAPTIONS))
    names = sorted(name for name in sizes if name.lower().endswith(SUFFIXES))
    return _files(path, names, load, listed_labels(path, names, labels), listed_captions(path, names, captions))


def _folder(path: Path) -> ImageSet:
    found = (file.relative_to(path) for file in path.rglob("*") if file.suffix.lower() in SUFFIXES)
    names = sorted(str(PurePosixPath(name)) for name in found if not name.name.startswith("."))
    listing, captions = path / LABELS, path / CAPTIONS
    if listing.is_file():
        labels = listed_labels(path, names, listing.read_bytes())
    else:
        folders = [name.rpartition("/")[0] for name in names]
        classes = sorted(set(folders))
        labels = torch.tensor([classes.index(folder) for folder in folders]) if len(classes) > 1 else None

    def load(name: str) -> bytes:
        file = path / name
        require(file.stat().st_size <= LARGEST_FILE, f"size of {file}", file.stat().st_size, "at most 64 MiB")
        return file.read_bytes()

    said = listed_captions(path, names, captions.read_bytes() if captions.is_file() else None)
    return _files(path, names, load, labels, said)


def _files(
    path: Path,
    names: Sequence[str],
    load: Callable[[str], bytes],
    labels: Tensor | None,
    captions: Sequence[str] | None,
) -> ImageSet:
    require(len(names) > 0, f"{path}: images", 0, f"at least one of {', '.join(SUFFIXES)}")
    first = decoded(f"{path}/{names[0]}", load(names[0]))
    shape = tuple(first.shape)

    def one(index: int) -> Tensor:
        pixels = decoded(f"{path}/{names[index]}", load(names[index]))
        like_first = f"{list(shape)}, as of {names[0]}: all images need the same size and number of channels"
        require(tuple(pixels.shape) == shape, f"{path}: shape of {names[index]}", list(pixels.shape), like_first)
        return pixels

    def read(indices: Sequence[int]) -> Tensor:
        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as threads:
            return torch.stack(list(threads.map(one, indices)))

    found = ImageSet(path.name, shape, len(names), read, labels, captions=captions)
    return found if first.numel() * len(names) > IN_MEMORY else _kept(found)


def _kept(images: ImageSet) -> ImageSet:
    """The same set, decoded as a whole at the first batch."""
    kept: list[Tensor] = []

    def read(indices: Sequence[int]) -> Tensor:
        if not kept:
            kept.append(torch.cat([images.read(part) for part in _parts(range(len(images)))]))
        return kept[0][torch.as_tensor(list(indices))]

    return replace(images, read=read)


def _parts(indices: range) -> Iterable[range]:
    return (indices[start : start + PART] for start in range(0, len(indices), PART))


def pixels_of(images: Tensor) -> Tensor:
    """The 8-bit pixels, 0 … 255, of images in [-1, 1]; values outside are clipped."""
    return ((images.clamp(-1, 1) + 1) * 127.5).round().byte()


def numbered_pictures(folder: Path) -> list[Path]:
    """The images in a folder, in natural order: 2.png before 10.png."""

    def place(file: Path) -> list[tuple[int, str]]:
        parts = (part for part in re.split(r"(\d+)", file.stem) if part)
        return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts]

    return sorted((file for file in folder.iterdir() if file.suffix.lower() in SUFFIXES), key=place)


def decoded(name: str, content: bytes) -> Tensor:
    """Decode an image file to uint8 `[channels, height, width]`: one channel for grey images, three for all others.

    Raises `ValueError` if it is damaged.
    """
    try:
        with Image.open(BytesIO(content)) as image:
            pixels = np.asarray(image if image.mode == "L" else image.convert("RGB"))
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, SyntaxError, ValueError) as error:
        raise ValueError(f"{name}: cannot be decoded as an image ({error})") from error
    tensor = torch.from_numpy(pixels.copy())
    return tensor[None] if tensor.ndim == 2 else tensor.permute(2, 0, 1)
