"""The gallery's pictures: an animation of the samples as they converge, and the student's samples beside exact ones."""

import io
from collections.abc import Sequence

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from simdistill.gallery.frames import EDGE, LEVEL, Frame, grid
from simdistill.method.denoisers import GaussianMixture

LARGEST = 2_000_000
"""Largest size of an animation in bytes."""
QUALITIES = (50, 35, 20)  # of the lossy WebP: the first that is small enough
MILLISECONDS, LAST = 120, 2500  # that a frame is shown, and the last one
PIXELS, DOTS = 420, 105  # of an animation's side, and an inch
LENGTH = 0.5  # of the arrows, as a multiple of y: whole ones would cross each other
VISIBLE = 6.0  # nats below its maximum at which the density ends, and with it the arrows
STUDENT, TRUTH, ARROW = "#bf4116", "#2c62ad", "#23272e"


def animation(frames: Sequence[Frame], mixture: GaussianMixture) -> bytes:
    """An animated WebP of at most 2 MB: samples on the density, and -y/2 = (d_q - d_psi)/2 at level 0.3 as arrows.

    Arrows are drawn only where the teacher's distribution at that level has some mass: the online network is called
    nowhere else.
    """
    figure, axes = _square(PIXELS)
    _density(axes, mixture)
    start = grid()
    level = mixture.log_density(start, torch.full((len(start),), LEVEL))
    seen = level > level.max() - VISIBLE
    dots = axes.scatter([], [], s=3, color=STUDENT, alpha=0.5, linewidths=0)
    at = start[seen].numpy()
    none = np.zeros(len(at))
    arrows = axes.quiver(at[:, 0], at[:, 1], none, none, angles="xy", scale_units="xy", scale=1 / LENGTH, width=0.0032)
    arrows.set(color=ARROW, alpha=0.8)
    label = axes.text(0.02, 0.98, "", transform=axes.transAxes, va="top", fontsize=9, color=ARROW)
    drawn: list[Image.Image] = []
    for frame in frames:
        dots.set_offsets(frame.samples.numpy())
        pull = frame.pull[seen].numpy()
        arrows.set_UVC(pull[:, 0], pull[:, 1])
        label.set_text(f"iteration {frame.iteration:,}")
        drawn.append(Image.fromarray(_pixels(figure)))
    for quality in QUALITIES:
        content = _webp(drawn, quality)
        if len(content) <= LARGEST:
            return content
    return _webp(drawn[::-2][::-1], QUALITIES[-1])  # every other frame, and the last one


def beside(student: Tensor, truth: Tensor, nfe: int) -> bytes:
    """A PNG: the student's samples, of `nfe` network evaluations each, on the left, exact ones on the right."""
    figure = Figure(figsize=(8, 4.2), dpi=DOTS)
    panels = figure.subplots(1, 2)
    figure.subplots_adjust(left=0.01, right=0.99, bottom=0.02, top=0.92, wspace=0.03)
    for axes, samples, title, colour in zip(
        panels, (student, truth), (f"student, NFE {nfe}", "exact samples"), (STUDENT, TRUTH), strict=True
    ):
        _frame(axes)
        axes.set_title(title, fontsize=10, color=ARROW)
        axes.scatter(samples[:, 0], samples[:, 1], s=2, alpha=0.4, linewidths=0, color=colour)
    buffer = io.BytesIO()
    Image.fromarray(_pixels(figure)).quantize(64).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def _square(pixels: int) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(pixels / DOTS, pixels / DOTS), dpi=DOTS)
    axes = figure.add_axes((0, 0, 1, 1))
    _frame(axes)
    return figure, axes


def _frame(axes: Axes) -> None:
    """The same square everywhere, without numbers: what matters is the shape."""
    axes.set(xlim=(-EDGE, EDGE), ylim=(-EDGE, EDGE), xticks=[], yticks=[], aspect="equal")
    for spine in axes.spines.values():
        spine.set_color("#dfdad0")


def _density(axes: Axes, mixture: GaussianMixture) -> None:
    """The density in the background, in pale blue."""
    axis = torch.linspace(-EDGE, EDGE, 240)
    points = torch.cartesian_prod(axis, axis)
    log_density = mixture.log_density(points, torch.full((len(points),), 1e-3))
    shown = ((log_density - log_density.max()) / VISIBLE + 1).clamp(0, 1).reshape(240, 240).T
    axes.imshow(shown.numpy(), extent=(-EDGE, EDGE, -EDGE, EDGE), origin="lower", cmap="Blues", vmin=0, vmax=2.5)


def _pixels(figure: Figure) -> NDArray[np.uint8]:
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _webp(images: Sequence[Image.Image], quality: int) -> bytes:
    buffer = io.BytesIO()
    durations = [MILLISECONDS] * (len(images) - 1) + [LAST]
    images[0].save(
        buffer, "WEBP", save_all=True, append_images=images[1:], duration=durations, loop=0, quality=quality, method=4
    )
    return buffer.getvalue()
