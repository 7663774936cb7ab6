"""The charts of a report: inline SVG that takes its colours and its font from the page around it."""

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator, StrMethodFormatter

from simdistill.evaluation.table import RANKED_BY
from simdistill.runs.progress import Record

LEVELS = [f"level-{k}" for k in range(32)]
LINES = ["violet", "orange", "teacher", "real"]
"""Colours of the metrics in one chart, in turn."""
COLOURS = ["muted", "line", "teacher", "student", "real", "violet", "orange", *LEVELS]
INK = {name: f"#fe00{k:02x}" for k, name in enumerate(COLOURS)}
"""Placeholders for the page's colours, light and dark: matplotlib only takes its own names."""


def learning_curve(milestones: Sequence[Record], figures: Record, colour: str, distance: str = RANKED_BY) -> str:
    """The `distance` over the training, and if there are `figures`, those of teacher and real (held-out) samples."""
    seconds = [record["seconds"] for record in milestones]
    distances = [record["quality"][distance] for record in milestones]
    low, high = ([f["mean"] + sign * f["std"] for f in distances] for sign in (-1, 1))
    figure, axes = _chart("seconds of training", log=True)
    axes.fill_between(seconds, low, high, color=INK[colour], alpha=0.2, linewidth=0)
    axes.plot(seconds, [f["mean"] for f in distances], color=INK[colour], marker="o", markersize=3.5)
    if figures:
        axes.axhline(figures["teacher"][distance]["mean"], color=INK["teacher"], linestyle="--")
    if figures.get("real"):
        axes.axhline(figures["real"][distance]["mean"], color=INK["real"], linestyle=":")
    return _svg(figure, axes, "learning")


def shares(milestones: Sequence[Record], figures: Record, names: Sequence[str]) -> str:
    """Metrics that are shares over the training, and if there are `figures`, the teacher's."""
    figure, axes = _chart("seconds of training")
    axes.set_ylim(0, 1.03)
    for name, colour in zip(names, LINES, strict=False):
        known = [record for record in milestones if name in record["quality"]]
        seconds, values = [r["seconds"] for r in known], [r["quality"][name]["mean"] for r in known]
        axes.plot(seconds, values, color=INK[colour], marker="o", markersize=3.5)
        if name in figures.get("teacher", {}):
            axes.axhline(figures["teacher"][name]["mean"], color=INK[colour], linestyle="--", linewidth=1)
    return _svg(figure, axes, "shares")


@dataclass(frozen=True)
class Band:
    """A line with a band: a variant over its training seeds."""

    x: Sequence[float]
    middle: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]


def bands(lines: Sequence[Band], label: str, salt: str, log: bool = False, level: float | None = None) -> str:
    """Lines with bands, in the `LEVELS` colours; `level` is the teacher's value."""
    figure, axes = _chart(label, log=log)
    for line, colour in zip(lines, LEVELS, strict=False):
        axes.fill_between(line.x, line.low, line.high, color=INK[colour], alpha=0.15, linewidth=0)
        axes.plot(line.x, line.middle, color=INK[colour])
    if level is not None:
        axes.axhline(level, color=INK["teacher"], linestyle="--")
    return _svg(figure, axes, salt)


def profile(lines: Sequence[Record], metric: str, levels: Sequence[str]) -> str:
    """A metric by noise level over the iterations, a line for every level; logarithmic if all are positive."""
    found = [(line["iteration"], line["levels"][metric]) for line in lines if metric in line.get("levels", {})]
    positive = all(value > 0 for _, values in found for value in values.values())
    figure, axes = _chart("iteration", log=positive)
    for level, colour in zip(levels, LEVELS, strict=False):
        known = [(iteration, values[level]) for iteration, values in found if level in values]
        x, y = [iteration for iteration, _ in known], [value for _, value in known]
        axes.plot(x, y, color=INK[colour], marker="o" if len(x) < 20 else "", markersize=3.5)
    return _svg(figure, axes, f"profile {metric}")


def curve(points: Sequence[tuple[int, float]], colour: str, salt: str, from_zero: bool = False) -> str:
    """(iteration, value) pairs as a line in a smaller chart; logarithmic if all are positive, unless `from_zero`."""
    x, y = [x for x, _ in points], [y for _, y in points]
    figure, axes = _chart("iteration", log=min(y) > 0 and not from_zero, size=(3.8, 2.5))
    axes.plot(x, y, color=INK[colour], marker="o" if len(x) < 20 else "", markersize=3.5)
    if from_zero:
        axes.set_ylim(0, 1.08 * max(y))
        axes.yaxis.set_major_formatter(StrMethodFormatter("{x:,g}"))
    return _svg(figure, axes, salt)


def told_apart(n: int) -> list[str]:
    """`n` colours for lines without an order, on a light or dark page."""
    names = [name for name, most in (("tab10", 10), ("tab20", 20)) if n <= most]
    if names:
        return [to_hex(mpl.colormaps[names[0]](k)) for k in range(n)]
    return [to_hex(mpl.colormaps["turbo"](0.1 + 0.8 * k / (n - 1))) for k in range(n)]


def level_colours(n: int, mode: str) -> list[str]:
    """Colours of `n` noise levels from low to high, visible on a "light" or "dark" page."""
    first, last = {"light": (0.0, 0.68), "dark": (0.4, 1.0)}[mode]
    return [to_hex(mpl.colormaps["plasma"](first + (last - first) * k / max(n - 1, 1))) for k in range(n)]


def _chart(label: str, log: bool = False, size: tuple[float, float] = (5, 3.1)) -> tuple[Figure, Axes]:
    """An empty chart, small enough for its text to be readable on a phone."""
    figure = Figure(figsize=size, layout="constrained", facecolor="none")
    axes = figure.add_subplot(facecolor="none", yscale="log" if log else "linear")
    axes.set_xlabel(label, color=INK["muted"], fontsize=10.5)
    axes.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 2.5, 5, 10]))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,g}"))
    axes.tick_params(color=INK["line"], labelcolor=INK["muted"], labelsize=10.5)
    axes.tick_params("y", length=0)
    axes.grid(axis="y", color=INK["line"])
    axes.set_axisbelow(True)
    axes.spines[["left", "top", "right"]].set_visible(False)
    axes.spines["bottom"].set_color(INK["line"])
    return figure, axes


def _svg(figure: Figure, axes: Axes, salt: str) -> str:
    """The chart as an SVG element with the page's colours and font; `salt` separates its ids from other charts'."""
    if axes.get_yscale() == "log":
        low, high = axes.get_ylim()
        decades = LogLocator(subs=(1, 2, 5) if high < 1000 * low else (1,))
        axes.yaxis.set_major_locator(MaxNLocator(5) if high < 5 * low else decades)
        axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.yaxis.set_minor_locator(NullLocator())
    buffer = io.StringIO()
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": salt}):
        figure.savefig(buffer, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    drawing = buffer.getvalue().partition("</defs>")[2]  # before it are a header, and a style that is for a whole page
    drawing = re.sub(r'(?<=<g) id="[^"]*"| font-family: [^;"]*;?', "", drawing)
    drawing = re.sub("#fe00([0-9a-f]{2})", lambda found: f"var(--{COLOURS[int(found[1], 16)]})", drawing)
    width, height = figure.get_size_inches() * 72
    return f'<svg viewBox="0 0 {width:g} {height:g}" aria-hidden="true">{drawing}'
