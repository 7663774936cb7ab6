"""Images that reveal nothing but their pixels: equal in size and format, without metadata."""

import io
import random

import numpy as np
from PIL import Image

from simdistill.support.checks import require

SMALL = 64  # pixels per side up to which images are enlarged without smoothing
SHAPES = 0.02  # the largest relative difference between the aspect ratios of a pair


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
