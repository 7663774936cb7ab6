"""Samples as PNG pictures: a grid of images, images beside their captions, or a scatter plot of vectors."""

import io
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import torch
from matplotlib.figure import Figure
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from simdistill.data.images import pixels_of
from simdistill.method.shapes import Data

LINES, WIDE = 8, 34  # of a caption, and characters per line
LINE, WIDTH, GAP = 12, 216, 12  # pixels: line height and width of a caption, gap between pictures
ACROSS = 1600  # largest width in pixels of captions and their pictures


@dataclass(frozen=True)
class Window:
    """The part of the plane that a scatter plot shows: a square of side 2 `half`."""

    x: float
    y: float
    half: float

    @classmethod
    def around(cls, points: Tensor) -> "Window":
        """The square around the first two coordinates of `points`, with a margin; one in a thousand may lie outside."""
        seen = _plane(points)
        low, high = (seen.quantile(q, dim=0) for q in (0.001, 0.999))
        x, y = ((low + high) / 2).tolist()
        return cls(x, y, max(float((high - low).max()) * 0.6, 1e-6))


def picture(samples: Data, columns: int = 10, edge: int = 32, window: Window | None = None) -> bytes:
    """A PNG of `samples`: images `[n, 1 or 3, height, width]` in [-1, 1] as a grid, vectors by their first two axes.

    Scatter plots that are looked at side by side need one `window`; without one, it is that of the samples.
    """
    if samples.ndim == 4 and samples.shape[1] in (1, 3):
        return _png(_grid(samples, columns, edge, gap=max(1, edge // 16)))
    return _scatter(samples, window or Window.around(samples))


def captioned(rows: Sequence[tuple[str, Tensor]], heads: Sequence[str] = (), edge: int = 128) -> bytes:
    """A PNG of captions, each truncated if too long and followed by its pictures `[n, 3, height, width]`.

    Pixels are enlarged until a picture is at least `edge` pixels wide. Many pictures of a caption are
    wrapped, and captions with few pictures stand side by side, unless there are `heads`, the titles of the columns.
    """
    zoom = max(1, -(-edge // rows[0][1].shape[3]))
    high, wide = (size * zoom + GAP for size in rows[0][1].shape[2:])
    most = max(len(pictures) for _, pictures in rows)
    across = most if heads else min(most, max(1, (ACROSS - WIDTH - 2 * GAP) // wide))
    block = WIDTH + GAP + across * wide
    beside = 1 if heads else max(1, (ACROSS - GAP) // block)
    lines = [rows[start : start + beside] for start in range(0, len(rows), beside)]
    heights = [max(LINES * LINE + GAP, *(-(-len(pictures) // across) * high for _, pictures in line)) for line in lines]
    y = LINE + GAP if heads else GAP
    sheet = Image.new("RGB", (GAP + min(beside, len(rows)) * block, y + sum(heights)), "white")
    pen, font = ImageDraw.Draw(sheet), caption_font()
    for k, head in enumerate(heads):
        pen.text((WIDTH + 2 * GAP + k * wide, GAP // 2), head, fill="black", font=font)
    for line, height in zip(lines, heights, strict=True):
        for place, (caption, pictures) in enumerate(line):
            x = GAP + place * block
            for k, words in enumerate(textwrap.wrap(caption, WIDE, max_lines=LINES)):
                pen.text((x, y + k * LINE), words, fill="black", font=font)
            sheet.paste(_grid(pictures, across, edge, GAP), (x + WIDTH + GAP, y))
        y += height
    return _png(sheet)


def caption_font() -> ImageFont.FreeTypeFont:
    """The font of captions: matplotlib's own, which has the accents and dashes that Pillow's lacks."""
    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf", 10)


def side_by_side(left: bytes, right: bytes, gap: int = 24) -> bytes:
    """Two PNGs as one, the tops aligned, on white."""
    images = [Image.open(io.BytesIO(png), formats=["PNG"]).convert("RGB") for png in (left, right)]
    width, height = sum(image.width for image in images) + gap, max(image.height for image in images)
    sheet = Image.new("RGB", (width, height), "white")
    sheet.paste(images[0], (0, 0))
    sheet.paste(images[1], (images[0].width + gap, 0))
    return _png(sheet)


def _grid(images: Tensor, columns: int, edge: int, gap: int) -> Image.Image:
    """`columns` images per row, pixels enlarged until an image is at least `edge` pixels wide, `gap` between them."""
    n, channels, height, width = images.shape
    zoom = max(1, -(-edge // width))
    pixels = pixels_of(images)
    tiles = pixels.repeat_interleave(zoom, 2).repeat_interleave(zoom, 3)
    rows = -(-n // columns)
    sheet = torch.full((channels, rows * (height * zoom + gap) - gap, columns * (width * zoom + gap) - gap), 255)
    sheet = sheet.byte()
    for i, tile in enumerate(tiles):
        top, left = i // columns * (height * zoom + gap), i % columns * (width * zoom + gap)
        sheet[:, top : top + height * zoom, left : left + width * zoom] = tile
    return Image.fromarray(sheet[0].numpy() if channels == 1 else sheet.permute(1, 2, 0).numpy())


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def _plane(samples: Tensor) -> Tensor:
    """The first two coordinates `[n, 2]`; a single one twice."""
    points = samples.flatten(1).float().cpu()
    return points[:, [0, min(1, points.shape[1] - 1)]]


def _scatter(samples: Tensor, window: Window) -> bytes:
    """The samples in the window, and how many lie outside of it."""
    points = _plane(samples)
    inside = ((points - torch.tensor([window.x, window.y])).abs() <= window.half).all(1)
    figure = Figure(figsize=(4, 4), dpi=120, layout="constrained")
    axes = figure.subplots()
    axes.scatter(*points[inside].T, s=2, alpha=0.4, linewidths=0)
    axes.set(xlim=(window.x - window.half, window.x + window.half), aspect="equal")
    axes.set(ylim=(window.y - window.half, window.y + window.half))
    if not inside.all():
        text = f"{int((~inside).sum()):,} of {len(points):,} outside"
        axes.text(0.02, 0.02, text, transform=axes.transAxes, bbox={"color": "white", "alpha": 0.8, "pad": 2})
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()
