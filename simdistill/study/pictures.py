"""Images that reveal nothing but their pixels: equal in size and format, without metadata."""

import io
import random
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms, ImageOps

from simdistill.support.checks import require

LARGEST_FILE = 2**26  # bytes
SMALL = 64  # pixels per side up to which images are enlarged without smoothing
DEEP = ("I;16", "I;16L", "I;16B", "I")  # Pillow's modes of 16-bit grey images
SHAPES = 0.02  # the largest relative difference between the aspect ratios of a pair


def read_picture(path: Path) -> Image.Image:
    """The image in a file as browsers show it: upright, in 8-bit sRGB, transparent parts on white.

    Raises `ValueError` if it is not an image, damaged, of more than 16 bits or larger than 64 MiB.
    """
    require(path.stat().st_size <= LARGEST_FILE, f"{path}: bytes", path.stat().st_size, f"at most {LARGEST_FILE}")
    try:
        with Image.open(path) as image:
            upright = ImageOps.exif_transpose(image)
            return _coloured(_eight_bits(upright) if upright.mode in DEEP else _in_srgb(upright))
    except (Image.DecompressionBombError, OSError, SyntaxError, ValueError) as error:
        raise ValueError(f"{path}: cannot be decoded as an image ({error})") from error


def _eight_bits(image: Image.Image) -> Image.Image:
    """A 16-bit grey image in 8 bits; Pillow's own conversion would clip everything above 255."""
    levels = np.asarray(image).astype(np.int64)
    if levels.min() < 0 or levels.max() >= 2**16:
        raise ValueError("its values do not fit into 16 bits")
    return Image.fromarray(np.round(levels / 257).astype(np.uint8))


def _in_srgb(image: Image.Image) -> Image.Image:
    """An image converted to sRGB from its colour profile; an unreadable profile is ignored, as in browsers."""
    profile = image.info.get("icc_profile")
    if not profile:
        return image
    mode = "RGBA" if image.has_transparency_data else "RGB"
    source = image.convert(mode) if image.mode in ("P", "PA", "LA", "La", "RGBa", "1") else image
    try:
        given, wanted = ImageCms.ImageCmsProfile(io.BytesIO(profile)), ImageCms.createProfile("sRGB")
        return ImageCms.profileToProfile(source, given, wanted, outputMode=mode) or source
    except (ImageCms.PyCMSError, OSError):
        return image


def _coloured(image: Image.Image) -> Image.Image:
    """An image in RGB, on white where it is transparent."""
    if not image.has_transparency_data:
        return image.convert("RGB")
    layer = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")


def is_small(size: tuple[int, int]) -> bool:
    """Whether an image of this size is enlarged without smoothing."""
    return max(size) <= SMALL


def equal_sizes(a: Image.Image, b: Image.Image, name: str) -> tuple[Image.Image, Image.Image]:
    """Both images at the size of the smaller one; `ValueError` if their aspect ratios differ."""
    ratio = (a.width * b.height) / (b.width * a.height)
    require(abs(ratio - 1) <= SHAPES, f"{name}: sizes", (a.size, b.size), "of the same aspect ratio")
    size = min(a.size, b.size)
    resized = [one if one.size == size else one.resize(size, Image.Resampling.LANCZOS) for one in (a, b)]
    return resized[0], resized[1]


def bare_png(image: Image.Image) -> bytes:
    """The pixels as an 8-bit RGB PNG without metadata: it reveals nothing about the original file."""
    buffer = io.BytesIO()
    Image.fromarray(np.asarray(image.convert("RGB"))).save(buffer, "PNG")
    return buffer.getvalue()


def scrambled(image: Image.Image, seed: int) -> Image.Image:
    """The same pixels in random order, for attention checks: nobody should prefer this."""
    pixels = np.asarray(image.convert("RGB"))
    order = list(range(pixels.shape[0] * pixels.shape[1]))
    random.Random(seed).shuffle(order)
    return Image.fromarray(pixels.reshape(-1, 3)[order].reshape(pixels.shape))
