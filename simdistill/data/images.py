"""Sets of images: EDM's zip files, folders, CIFAR-10's archives, IDX files; decoded on demand.

A set is opened by the name of its file or folder. Nothing in it is executed, and its sizes are limited.
"""

import math
import os
import shlex
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor

from simdistill.data.archives import cifar10, idx_folder
from simdistill.data.digits import digits
from simdistill.data.framing import Framing
from simdistill.data.image_files import ImageFiles, files_in_folder, files_in_zip
from simdistill.data.notes import Notes
from simdistill.data.pictures import decoded, picture_of, seen_size, tensor_of
from simdistill.method.shapes import Data
from simdistill.support.checks import require

PART = 1000  # images decoded at a time, if all are needed
LOOKED_AT = 1000  # files whose headers tell what would make a set alike
IN_MEMORY = 2**32  # largest set, in bytes of pixels, that is decoded once and kept in memory


@dataclass(frozen=True)
class ImageSet:
    """Images of one `shape` in [-1, 1], with class `labels` `[count]`, `captions` and a `held_out` part, if they exist.

    `read` returns the images at some indices, as uint8 in [0, 255] or float in [-1, 1]. A caption of "" is none. The
    `notes` count what was passed over and, of the images read so far, what was converted.
    """

    name: str
    shape: tuple[int, ...]
    count: int
    read: Callable[[Sequence[int]], Tensor]
    labels: Int[Tensor, " count"] | None = None
    held_out: "ImageSet | None" = None
    captions: Sequence[str] | None = None
    notes: Notes = field(default_factory=Notes, compare=False)

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

    def moments(
        self, advance: Callable[[int], None] = lambda _: None
    ) -> tuple[Float[Tensor, "*shape"], Float[Tensor, "*shape"]]:
        """The mean image and the mean of the squared images, float64; decodes every image once.

        `advance` is called with the number of images done.
        """
        total, squares = torch.zeros(2, *self.shape, dtype=torch.float64)
        for part in _parts(range(self.count)):
            values = self.batch(part).double()
            total, squares = total + values.sum(0), squares + values.square().sum(0)
            advance(len(part))
        return total / self.count, squares / self.count

    def without_labels(self) -> "ImageSet":
        """The same images, unlabelled."""
        held_out = None if self.held_out is None else self.held_out.without_labels()
        return replace(self, labels=None, held_out=held_out)

    def padded(self, edge: int) -> "ImageSet":
        """The same images, centred on black of `edge`×`edge` pixels; unchanged for 0; `ValueError` if they are larger.

        28×28 pixels, such as MNIST's, can thus be halved five times.
        """
        if edge == 0 or self.shape[1:] == (edge, edge):
            return self
        fits = len(self.shape) == 3 and max(self.shape[1:]) <= edge <= 2**14
        shown = "×".join(map(str, self.shape))
        require(fits, "--pad", edge, f"0, or at least the height and width of the images, which are {shown}")
        (top, bottom), (left, right) = (((edge - own) // 2, (edge - own + 1) // 2) for own in self.shape[1:])

        def read(indices: Sequence[int]) -> Tensor:
            values = self.read(indices)
            black = 0 if values.dtype == torch.uint8 else -1
            return torch.nn.functional.pad(values, (left, right, top, bottom), value=black)

        held_out = None if self.held_out is None else self.held_out.padded(edge)
        return replace(self, shape=(self.shape[0], edge, edge), read=read, held_out=held_out)


class Unlike(ValueError):  # noqa: N818
    """Images of a set differ in `what`, and are alike with this `framing`; the message has the command."""

    def __init__(self, what: str, path: Path, framing: Framing, background: str) -> None:
        command = convert_command(str(path), f"{path.stem}-alike.zip", framing, background)
        super().__init__(f"{what}; `{command}` makes them alike")
        self.what, self.framing = what, framing


def convert_command(source: str, out: str, framing: Framing, background: str = "white", *more: str) -> str:
    """The command that converts images so, to be pasted."""
    colour = [] if background == "white" else ["--background", background]
    return shlex.join(["simdistill", "convert", source, out, *framing.words, *colour, *more])


def open_images(data: str | Path, framing: Framing | None = None, background: str = "white") -> ImageSet:
    """Open a set of images, each made alike by `framing`, transparent ones on the colour `background`.

    `data` is one of:
    - "digits";
    - a .zip in EDM's format: images, with labels in `dataset.json`;
    - a folder of images, with labels in `dataset.json` or else one subfolder per class;
    - `cifar-10-python.tar.gz` or `cifar-10-binary.tar.gz`;
    - a folder with `train-images-idx3-ubyte` and its companions (MNIST, Fashion-MNIST).

    A .zip or folder of images may have captions in `metadata.jsonl`, .csv or .parquet, in Hugging Face's form; if all
    its images lie in train/ and test/ (or val/), the latter are the held-out part. So have the other sets one.

    Raises `ValueError` if there is no such set, or if it is damaged.
    """
    path, framing = Path(data), framing or Framing()
    if str(data) == "digits":
        (images, labels), held_out = digits()
        rest = _array("held out", *held_out)
        return _framed(_array("the digits' 1,348 training images", images, labels, rest), framing)
    require(path.exists(), "data", str(data), "digits, or an existing .zip, .tar.gz or folder of images")
    notes = Notes()
    if path.is_dir():
        parts = idx_folder(path)
        if parts is not None:
            return _framed(_in_parts(path, parts), framing)
        return _files(path, files_in_folder(path, notes), notes, framing, background)
    if path.suffix.lower() == ".zip":
        return _files(path, files_in_zip(path, notes), notes, framing, background)
    if path.name.endswith((".tar.gz", ".tgz")):
        return _framed(_in_parts(path, cifar10(path)), framing)
    what = f"data = {str(data)!r}: must be a .zip, CIFAR-10's .tar.gz, or a folder"
    if path.suffix.lower() == ".tar":  # such as img2dataset's: their captions are read as prompts, by encode
        folder, file = shlex.quote(path.stem), shlex.quote(str(path))
        what += f"; unpack it by `mkdir {folder} && tar -xf {file} -C {folder}`, and give the folder {folder}"
    raise ValueError(what)


def array_set(name: str, samples: Data, labels: Int[Tensor, " n"] | None = None) -> ImageSet:
    """A set of samples of any shape in memory, float in [-1, 1]; `ValueError` for labels below 0."""
    lowest = 0 if labels is None else int(labels.min())
    require(lowest >= 0, "labels", lowest, "class numbers from 0 on")
    return _array(name, samples, labels)


def _array(name: str, values: Tensor, labels: Tensor | None, held_out: ImageSet | None = None) -> ImageSet:
    def read(indices: Sequence[int]) -> Tensor:
        return values[torch.as_tensor(list(indices))]

    return ImageSet(name, tuple(values.shape[1:]), len(values), read, labels, held_out)


def _in_parts(path: Path, parts: Sequence[tuple[Tensor, Tensor]]) -> ImageSet:
    (images, labels), test = parts
    return _array(path.name, images, labels, _array(f"{path.name}, test images", *test))


def _framed(images: ImageSet, framing: Framing) -> ImageSet:
    """The same set, each image made alike by `framing`."""
    if framing == Framing():
        return images

    def one(index: int) -> Tensor:
        return tensor_of(framing(f"image {index}", picture_of(pixels_of(images.batch([index]))[0]), images.notes))

    def read(indices: Sequence[int]) -> Tensor:
        return torch.stack([one(index) for index in indices])

    held_out = None if images.held_out is None else _framed(images.held_out, framing)
    return _kept(replace(images, shape=tuple(one(0).shape), read=read, held_out=held_out))


def _files(
    path: Path,
    files: ImageFiles,
    notes: Notes,
    framing: Framing,
    background: str,
    shape: tuple[int, ...] = (),
) -> ImageSet:
    """The set of these files; their `shape` is that of the first one if it is not given."""

    def framed(index: int) -> Tensor:
        name = f"{path}/{files.names[index]}"
        image = decoded(name, files.load(files.names[index]), notes, background)
        if framing.size and framing.crop == "none" and image.width != image.height:
            what = f"{name}: size = '{image.width}×{image.height}': must be square for --size without --crop"
            raise Unlike(what, path, _all_alike(files, framing, [image.size]), background)
        return tensor_of(framing(name, image, notes))

    def one(index: int) -> Tensor:
        pixels = framed(index)
        if pixels.shape != shape:
            both = {files.names[0]: shape, files.names[index]: tuple(pixels.shape)}
            shown = " and ".join(f"{name} has {'×'.join(map(str, own))}" for name, own in both.items())
            needed = _all_alike(files, framing, [(own[2], own[1]) for own in both.values()])
            what = f"{path}: images of one set have one size and number of channels, but {shown}"
            raise Unlike(what, path, needed, background)
        return pixels

    def read(indices: Sequence[int]) -> Tensor:
        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as threads:
            return torch.stack(list(threads.map(one, indices)))

    shape, held_out = shape or tuple(framed(0).shape), None
    if files.held_out is not None:
        held_out = _files(path, files.held_out, notes, framing, background, shape)
    found = ImageSet(path.name, shape, len(files.names), read, files.labels, held_out, files.captions, notes)
    return found if math.prod(shape) * len(found) > IN_MEMORY else _kept(found)


def _all_alike(files: ImageFiles, framing: Framing, sizes: Sequence[tuple[int, int]]) -> Framing:
    """What makes all these files alike, by the headers of some, and the `sizes` that are known; keeps the `framing`."""
    some = files.names[:: max(1, len(files.names) // LOOKED_AT)]
    found = [seen for name in some if (seen := seen_size(files.load(name))) is not None]
    return framing.completed([*sizes, *((width, height) for width, height, _ in found)], {seen[2] for seen in found})


def _kept(images: ImageSet) -> ImageSet:
    """The same set, each image decoded once and kept in memory."""
    kept = torch.empty(len(images), *images.shape, dtype=torch.uint8)  # memory is taken only as it is filled
    there = torch.zeros(len(images), dtype=torch.bool)

    def read(indices: Sequence[int]) -> Tensor:
        rows = torch.as_tensor(list(indices), dtype=torch.int64)
        missing = rows[~there[rows]].unique()
        if len(missing):
            kept[missing], there[missing] = images.read(missing.tolist()), True
        return kept[rows]

    return replace(images, read=read)


def _parts(indices: range) -> Iterable[range]:
    return (indices[start : start + PART] for start in range(0, len(indices), PART))


def pixels_of(images: Tensor) -> Tensor:
    """The 8-bit pixels, 0 … 255, of images in [-1, 1]; values outside are clipped."""
    return ((images.clamp(-1, 1) + 1) * 127.5).round().byte()
