"""The report of a run: one HTML page that needs nothing but itself, made from whatever the run's folder holds."""

import base64
import io
import json
import math
import os
import platform
import re
import shlex
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import matplotlib as mpl
import torch
from jinja2 import Environment, PackageLoader, StrictUndefined
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator, StrMethodFormatter
from PIL import Image

from simdistill.configuration import to_toml
from simdistill.files import write_atomically
from simdistill.runs import RunFolder

Record: TypeAlias = Mapping[str, Any]

TITLES = {"teacher": "Teacher", "student": "Student", "undistilled": "Undistilled start", "floor": "Held-out samples"}
SHARES = ("precision", "recall", "density", "coverage")
FILM = 8  # pictures over time
LEVELS = [f"level-{k}" for k in range(32)]
COLOURS = ["muted", "line", "teacher", "student", "floor", "precision", "recall", *LEVELS]
INK = {name: f"#fe00{k:02x}" for k, name in enumerate(COLOURS)}
"""Stand-ins for the colours that the page defines, for light and for dark: matplotlib takes no names but its own."""


def write_report(run: RunFolder) -> None:
    """Write `report.html` from the configuration, metrics, pictures and figures in the folder of `run`.

    An interrupted run, or one that was not evaluated, gets a page too, which says what is missing.
    """
    config, records = run.configuration(), run.records()
    figures: Record = json.loads(run.evaluation.read_text()) if run.evaluation.exists() else {}
    milestones = [record for record in records if "quality" in record]
    profiles = [record for record in records if record.get("y")]
    levels = sorted({level for record in profiles for level in record["y"]}, key=float)
    path = Path(run.path.name) if run.path.is_absolute() else run.path  # the page may go to others
    environment = Environment(
        loader=PackageLoader("simdistill.evaluation", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template("report.html.jinja").render(
        name=run.path.resolve().name,
        run_path=shlex.quote(path.as_posix()),
        config_path=shlex.quote((path / run.config.name).as_posix()),
        outcome=_outcome(figures) if figures else "",
        config=config,
        settings={key: _setting(value) for key, value in config.items()},
        last=records[-1] if records else {"iteration": 0, "seconds": 0.0},
        titles=TITLES,
        pictures={name: _embedded(file) for name in TITLES if (file := run.picture(name)).exists()},
        figures=figures,
        column=partial(_column, figures),
        machine=_machine(),
        milestones=milestones,
        frechet={record["iteration"]: record["quality"]["frechet"]["mean"] for record in milestones},
        learning_curve=_learning_curve(milestones, figures) if milestones else "",
        shares=_shares(milestones, figures) if milestones else "",
        levels=levels,
        level_colours={mode: _level_colours(len(levels), mode) for mode in ("light", "dark")},
        profile=_profile(profiles, levels) if profiles else "",
        film=[(int(file.stem), _embedded(file)) for file in _film(run)],
    )
    write_atomically(run.report, page.encode())


def _outcome(figures: Record) -> str:
    """The result in plain words, whichever way it went."""
    teacher, student, speedup = figures["teacher"], figures["student"], figures["speedup"]
    written = {name: " ± ".join(cell) for name, cell in _column(figures, "frechet").items()}
    text = (
        f"One network evaluation instead of {teacher['evaluations']}: {speedup:,.{0 if speedup >= 10 else 1}f}× the "
        f"images per second, Fréchet distance {written['student']} where the teacher has {written['teacher']}."
    )
    t, s = teacher["frechet"], student["frechet"]
    if s["seeds"] < 2:
        return text  # without a spread there is no telling
    if abs(s["mean"] - t["mean"]) <= s["std"] + t["std"]:
        return f"{text} The two agree within their spread."
    return f"{text} Lower is better: the student is {'ahead' if s['mean'] < t['mean'] else 'behind'}."


def _column(figures: Record, metric: str) -> dict[str, list[str]]:
    """A metric of every sampler as [mean, spread] or [mean], rounded alike: the smallest spread keeps two digits."""
    found: dict[str, list[float]] = {}
    for name in (name for name in TITLES if figures.get(name)):
        sampler, value = figures[name], figures[name][metric]
        mean, std = (value["mean"], value["std"]) if isinstance(value, dict) else (value, None)
        std = sampler["spread"][metric] if metric in SHARES and "spread" in sampler else std
        found[name] = [mean] if std is None or sampler["frechet"]["seeds"] < 2 else [mean, std]
    spreads = [std for _, *rest in found.values() for std in rest if std > 0]
    most = 3 if metric in SHARES else 5
    decimals = min(max(1 - math.floor(math.log10(min(spreads))), 2), most) if spreads else 3
    return {name: [_number(value, decimals) for value in cell] for name, cell in found.items()}


def _number(value: float, decimals: int) -> str:
    return f"{value:,.{decimals}f}".replace("-", "−")


def _setting(value: Any) -> str:
    """A value as TOML writes it, text without its quotes; of a path on this machine only the name."""
    if isinstance(value, str):
        return f"…/{Path(value).name}" if Path(value).is_absolute() else value
    return to_toml({"key": value}).partition("=")[2].strip()


def _machine() -> str:
    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    threads = torch.get_num_threads()
    cores = f"{platform.machine()}, {os.cpu_count()} CPU cores{gpu}"
    return f"{cores}; PyTorch {torch.__version__}, {threads} thread{'s' if threads > 1 else ''}"


def _embedded(path: Path) -> dict[str, Any]:
    """A picture as a data URI, its size, and whether it is a grid of images: a scatter plot has an alpha channel."""
    content = path.read_bytes()
    with Image.open(io.BytesIO(content)) as image:
        (width, height), grid = image.size, image.mode != "RGBA"
    uri = f"data:image/png;base64,{base64.b64encode(content).decode()}"
    return {"uri": uri, "width": width, "height": height, "grid": grid}


def _film(run: RunFolder) -> list[Path]:
    """At most `FILM` of the pictures over time, evenly spaced, the first and the last among them."""
    paths = sorted(path for path in run.picture("0").parent.glob("*.png") if path.stem.isdigit())
    n = min(FILM, len(paths))
    return [paths[round(i * (len(paths) - 1) / max(n - 1, 1))] for i in range(n)]


def _learning_curve(milestones: Sequence[Record], figures: Record) -> str:
    seconds = [record["seconds"] for record in milestones]
    frechet = [record["quality"]["frechet"] for record in milestones]
    low, high = ([f["mean"] + sign * f["std"] for f in frechet] for sign in (-1, 1))
    figure, axes = _chart("seconds of training", log=True)
    axes.fill_between(seconds, low, high, color=INK["student"], alpha=0.2, linewidth=0)
    axes.plot(seconds, [f["mean"] for f in frechet], color=INK["student"], marker="o", markersize=3.5)
    if figures:
        axes.axhline(figures["teacher"]["frechet"]["mean"], color=INK["teacher"], linestyle="--")
    if figures.get("floor"):
        axes.axhline(figures["floor"]["frechet"], color=INK["floor"], linestyle=":")
    return _svg(figure, axes, "learning")


def _shares(milestones: Sequence[Record], figures: Record) -> str:
    """Precision and recall over the training, and the teacher's."""
    figure, axes = _chart("seconds of training")
    axes.set_ylim(0, 1.03)
    for name in ("precision", "recall"):
        values = [record["quality"][name] for record in milestones]
        axes.plot([record["seconds"] for record in milestones], values, color=INK[name], marker="o", markersize=3.5)
        if figures:
            axes.axhline(figures["teacher"][name], color=INK[name], linestyle="--", linewidth=1)
    return _svg(figure, axes, "shares")


def _profile(profiles: Sequence[Record], levels: Sequence[str]) -> str:
    """‖y‖ over the iterations, a line for every noise level."""
    figure, axes = _chart("iteration", log=True)
    for level, colour in zip(levels, LEVELS, strict=False):
        known = [record for record in profiles if level in record["y"]]
        x, y = [record["iteration"] for record in known], [record["y"][level] for record in known]
        axes.plot(x, y, color=INK[colour], marker="o" if len(x) < 20 else "", markersize=3.5)
    return _svg(figure, axes, "profile")


def _level_colours(n: int, mode: str) -> list[str]:
    """Colours of `n` noise levels from low to high that stand out from a "light" or a "dark" page."""
    first, last = {"light": (0.0, 0.68), "dark": (0.4, 1.0)}[mode]
    return [to_hex(mpl.colormaps["plasma"](first + (last - first) * k / max(n - 1, 1))) for k in range(n)]


def _chart(label: str, log: bool = False) -> tuple[Figure, Axes]:
    """An empty chart, small enough that its text can be read on a telephone."""
    figure = Figure(figsize=(5, 3.1), layout="constrained", facecolor="none")
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
    """The chart as an element that takes colours and font from the page; `salt` keeps its ids from other charts'."""
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
