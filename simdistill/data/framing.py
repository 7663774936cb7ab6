"""Pictures of all sizes made into a set of one: cropped, resized, grey or in colour."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal, TypeAlias

from PIL import Image

from simdistill.data.notes import Notes
from simdistill.support.checks import require

Crop: TypeAlias = Literal["none", "centre", "adm"]


@dataclass(frozen=True)
class Framing:
    """How to frame each picture: its edge `size` in pixels (0 keeps it), the `crop`, its `channels` (0 keeps them).

    - "centre" is EDM's `center-crop` (Karras et al. 2022, dataset_tool.py): the largest centred square, then Lanczos.
    - "adm" is ADM's crop (Dhariwal & Nichol 2021; EDM's `center-crop-dhariwal`), as for their ImageNet: halved by
      averages while it is at least twice as large, bicubic to the shorter edge, then the centred square.
    - "none" takes square pictures only, if they are resized.

    Raises `ValueError` for a size or a crop that cannot be.
    """

    size: int = 0
    crop: Crop = "none"
    channels: Literal[0, 1, 3] = 0

    def __post_init__(self) -> None:
        require(0 <= self.size <= 2**14, "--size", self.size, "1 … 16384, or 0 to keep the size")
        require(self.crop != "adm" or self.size > 0, "--crop", self.crop, "with --size")

    @property
    def words(self) -> list[str]:
        """The options of `simdistill convert` for it."""
        found = ["--size", str(self.size)] if self.size else []
        found += ["--crop", self.crop] if self.crop != "none" else []
        return found + (["--channels", str(self.channels)] if self.channels else [])

    def completed(self, sizes: Collection[tuple[int, int]], channels: Collection[int]) -> "Framing":
        """With what else makes pictures of these sizes (width, height) and channels alike."""
        several = len(set(sizes)) > 1
        size = self.size or (min(min(one) for one in sizes) if several else 0)
        uncropped = self.crop == "none" and (several or (size > 0 and any(width != height for width, height in sizes)))
        mixed: Literal[0, 3] = 3 if len(set(channels)) > 1 else 0
        return Framing(size, "centre" if uncropped else self.crop, self.channels or mixed)

    def __call__(self, name: str, image: Image.Image, notes: Notes) -> Image.Image:
        """The picture `name` as framed; what was done is counted in `notes`."""
        mode = {0: image.mode, 1: "L", 3: "RGB"}[self.channels]
        if mode != image.mode:
            notes.add("images made grey" if mode == "L" else "images made RGB from grey", name)
            image = image.convert(mode)
        square = image.width == image.height
        if self.crop != "none" and not square:
            notes.add("images cropped to a centred square", name)
        if self.size:
            shape = f"{image.width}×{image.height}"
            require(square or self.crop != "none", f"{name}: size", shape, "square; give --crop centre")
            if min(image.size) != self.size:
                done = "shrunk" if min(image.size) > self.size else "enlarged"
                notes.add(f"images {done} to {self.size}×{self.size}", name)
        if self.crop == "adm":
            return _adm(image, self.size)
        if self.crop == "centre":
            image = _centre(image, min(image.size))
        return image.resize((self.size, self.size), Image.Resampling.LANCZOS) if self.size else image


def _centre(image: Image.Image, edge: int) -> Image.Image:
    left, top = (image.width - edge) // 2, (image.height - edge) // 2
    return image.crop((left, top, left + edge, top + edge))


def _adm(image: Image.Image, size: int) -> Image.Image:
    while min(image.size) >= 2 * size:
        image = image.resize((image.width // 2, image.height // 2), Image.Resampling.BOX)
    scale = size / min(image.size)
    width, height = (round(edge * scale) for edge in image.size)
    return _centre(image.resize((width, height), Image.Resampling.BICUBIC), size)
