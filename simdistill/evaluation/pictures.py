"""Samples as PNG pictures: a grid of images, or a scatter of vectors."""

import io

import torch
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from simdistill.data.images import pixels_of
from simdistill.shapes import Data


def picture(samples: Data, columns: int = 10, edge: int = 32) -> bytes:
    """A PNG of `samples`: images `[n, 1 or 3, height, width]` in [-1, 1] as a grid, vectors by their first two axes."""
    return _grid(samples, columns, edge) if samples.ndim == 4 and samples.shape[1] in (1, 3) else _scatter(samples)


def side_by_side(left: bytes, right: bytes, gap: int = 24) -> bytes:
    """Two PNGs as one, the tops aligned, on white."""
    images = [Image.open(io.BytesIO(png)).convert("RGB") for png in (left, right)]
    width, height = sum(image.width for image in images) + gap, max(image.height for image in images)
    sheet = Image.new("RGB", (width, height), "white")
    sheet.paste(images[0], (0, 0))
    sheet.paste(images[1], (images[0].width + gap, 0))
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def _grid(images: Tensor, columns: int, edge: int) -> bytes:
    """`columns` images a row, pixels enlarged until an image is at least `edge` pixels wide, a gap between them."""
    n, channels, height, width = images.shape
    zoom, gap = max(1, -(-edge // width)), max(1, edge // 16)
    pixels = pixels_of(images)
    tiles = pixels.repeat_interleave(zoom, 2).repeat_interleave(zoom, 3)
    rows = -(-n // columns)
    sheet = torch.full((channels, rows * (height * zoom + gap) - gap, columns * (width * zoom + gap) - gap), 255)
    sheet = sheet.byte()
    for i, tile in enumerate(tiles):
        top, left = i // columns * (height * zoom + gap), i % columns * (width * zoom + gap)
        sheet[:, top : top + height * zoom, left : left + width * zoom] = tile
    array = sheet[0].numpy() if channels == 1 else sheet.permute(1, 2, 0).numpy()
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def _scatter(samples: Tensor) -> bytes:
    points = samples.flatten(1)
    figure = Figure(figsize=(4, 4), dpi=120, layout="constrained")
    axes = figure.subplots()
    axes.scatter(points[:, 0], points[:, min(1, points.shape[1] - 1)], s=2, alpha=0.4, linewidths=0)
    axes.set_aspect("equal", adjustable="datalim")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()
