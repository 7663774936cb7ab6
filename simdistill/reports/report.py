"""The report of a run: a self-contained HTML page, made from whatever the run's folder has."""

import base64
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape
from PIL import Image

from simdistill.config.settings import to_toml
from simdistill.evaluation.quality import SAMPLES, SEEDS
from simdistill.evaluation.statistics import KEPT
from simdistill.evaluation.table import OF_FEW, RANKED_BY, metric_named, quick_metrics
from simdistill.reports import charts
from simdistill.reports.headline import headline
from simdistill.reports.tables import TITLES, cells, measured, measured_with, tables, titles
from simdistill.runs.folder import UNNAMED, RunFolder, repeating
from simdistill.runs.progress import Progress, Record, State, log_lines, losses_of, short, titled
from simdistill.support.bar import duration
from simdistill.support.files import write_atomically
from simdistill.teachers.loading import named_run

Contents: TypeAlias = Mapping[str, Any]
Item = TypeVar("Item")

SPEED = "images_per_second"
COLOURS = ("violet", "student", "teacher", "orange")  # of the losses, in turn
FILM = 8  # samples over time
POINTS = 400  # per curve: more cannot be seen


@dataclass(frozen=True)
class Chart:
    """A chart with its title, its text alternative, and its legend as (label, colour, style)."""

    title: str
    svg: str
    alt: str
    legend: Sequence[tuple[str, str, str]]


@dataclass(frozen=True)
class Live:
    """What a watched page shows beyond the report."""

    state: State
    silence: float
    """Seconds since the run last wrote something."""


def write_report(run: RunFolder) -> None:
    """Write `report.html` from the configuration, metrics, pictures and evaluation in the folder of `run`.

    An interrupted run, or one without an evaluation, gets a page too, which says what is missing.
    """
    write_atomically(run.report, page(contents(run)).encode())


def page(filling: Contents, live: Live | None = None) -> str:
    """The HTML of `contents`: a report, or with `live` a page that updates itself."""
    return (
        templates()
        .get_template("report.html.jinja")
        .render(**filling, live=live, duration=duration, short=short, titled=titled)
    )


def contents(run: RunFolder) -> Contents:
    """The content of a run's page, with charts drawn and pictures embedded; reads the folder, writes nothing.

    The records of the metrics may be in any order, and have more than the page shows.
    """
    config, records = run.configuration(), sorted(run.read_metrics(), key=lambda record: record["iteration"])
    film = [(int(file.stem), embedded(file)) for file in _film(run)]  # now: drawing takes time, and the run continues
    figures: Record = run.read_evaluation()
    milestones = [record for record in records if "quality" in record]
    tracked = OF_FEW if milestones and OF_FEW in milestones[-1]["quality"] else RANKED_BY
    milestones = [record for record in milestones if tracked in record["quality"]]
    lines = _evenly(log_lines(records), POINTS)
    profiles = [line["levels"] for line in lines if line.get("levels")]
    levels = sorted({level for line in profiles for metric in line.values() for level in metric}, key=float)
    who = "teacher" if config.get("verb") == "pretrain" else "student"
    last: Record = milestones[-1]["quality"] if milestones else {}
    told = [name for name in ("features", "reference", "samples") if name in last]  # nothing in older runs
    known = {**figures, "samples": figures["student"]["samples"]} if figures else {}
    beside = figures if all(last[name] == known.get(name) for name in told) else {}  # otherwise not comparable
    ranked, found = metric_named(tracked), measured(figures)
    path = Path(run.path.name) if run.path.is_absolute() else run.path  # the page may be shared
    named = named_run(path, str(config.get("teacher", "")))
    return {
        "name": run.path.resolve().name,
        "run_path": named,
        "repeat": repeating(config, path / run.config.name),
        "unnamed": config.get("teacher") == UNNAMED,
        "who": who,
        "outcome": _coded(headline(figures, named)) if figures else "",
        "ranked_by": RANKED_BY,
        "tracked": tracked,
        "distances": cells(figures, tracked),
        "milestones_distance": ranked.title_in(last.get("features")),
        "milestones_heading": ranked.heading_in(last.get("features")) or ranked.title.lower(),
        "beside": beside,
        "kept": KEPT,
        "full": (SAMPLES, SEEDS),
        "config": config,
        "settings": {key: _setting(value) for key, value in config.items()},
        "progress": Progress.of(records, config.get("iterations")),
        "rollbacks": [record for record in records if "rollback" in record],
        "titles": titles(figures),
        "pictures": {name: embedded(file) for name in TITLES if (file := run.picture(name)).exists()},
        "figures": figures,
        "tables": tables(figures),
        "measured_with": measured_with(figures) if figures else {},
        "of_all": [m.title_in(figures.get("features")) for m in found if m.needs in ("moments", "classes")],
        "of_features": any(m.needs in ("features", "mixture") for m in found),
        "milestones": milestones,
        "by_iteration": {record["iteration"]: record["quality"][tracked]["mean"] for record in milestones},
        "learning_curve": charts.learning_curve(milestones, beside, who, tracked) if milestones else "",
        "shares": _shares(milestones, beside),
        "curves": _curves(lines),
        "levels": levels,
        "level_colours": {mode: charts.level_colours(len(levels), mode) for mode in ("light", "dark")},
        "profiles": _profiles(lines, levels),
        "film": film,
    }


def _shares(milestones: Sequence[Record], beside: Record) -> Chart | None:
    """The chart of the quick metrics except the distance; None if the last milestone has none."""
    last: Record = milestones[-1]["quality"] if milestones else {}
    metrics = [metric for metric in quick_metrics() if metric.name in last and metric.name != RANKED_BY]
    if not metrics:
        return None
    names = {metric.name: metric.title.lower() for metric in metrics}
    title, end = " and ".join(names.values()).capitalize(), [f"{names[k]} {last[k]['mean']:.2f}" for k in names]
    legend = [(name, colour, "2px solid") for name, colour in zip(names.values(), charts.LINES, strict=False)]
    if any(name in beside.get("teacher", {}) for name in names):
        legend.append(("teacher", "muted", "1px dashed"))
    drawing = charts.shares(milestones, beside, list(names))
    alt = f"{title} against seconds of training; at the end {' and '.join(end)}"
    return Chart(f"{title}, {metrics[0].better} is better", drawing, alt, legend)


def _curves(lines: Sequence[Record]) -> list[tuple[str, str, str]]:
    """(title, last value, chart) of each recorded loss, and of the speed."""
    drawn: list[tuple[str, str, str]] = []
    losses = list(dict.fromkeys(name for line in lines for name in losses_of(line)))
    colours = [*(COLOURS[k % len(COLOURS)] for k in range(len(losses))), "real"]
    for name, colour in zip([*losses, SPEED], colours, strict=True):
        points = [(line["iteration"], line[name]) for line in lines if name in line]
        if points:
            title = "Training speed, samples per second" if name == SPEED else titled(name)
            picture = charts.curve(points, colour, name, from_zero=name == SPEED)
            drawn.append((title, short(points[-1][1]), picture))
    return drawn


def _profiles(lines: Sequence[Record], levels: Sequence[str]) -> dict[str, str]:
    """A chart of each metric by noise level, by the metric's name."""
    metrics = dict.fromkeys(metric for line in lines for metric in line.get("levels", {}))
    return {metric: charts.profile(lines, metric, levels) for metric in metrics}


def _evenly(items: Sequence[Item], most: int) -> Sequence[Item]:
    """At most so many of the items, evenly spaced, including the first and the last."""
    n = min(most, len(items))
    return [items[round(i * (len(items) - 1) / max(n - 1, 1))] for i in range(n)]


@cache
def templates(package: str = "simdistill.reports") -> Environment:
    """The templates of pages in `package`, with the macros that all pages share."""
    return Environment(
        loader=ChoiceLoader([PackageLoader(name, ".") for name in (package, "simdistill.reports")]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _coded(text: str) -> Markup:
    """Text with what is in backticks as code."""
    return Markup(re.sub("`([^`]*)`", r"<code>\1</code>", str(escape(text))))


def _setting(value: Any) -> str:
    """A value as in TOML, text without quotes; for an absolute path only the name."""
    if isinstance(value, str):
        return f"…/{Path(value).name}" if Path(value).is_absolute() else value
    return to_toml({"key": value}).partition("=")[2].strip()


def embedded(path: Path) -> dict[str, Any]:
    """A picture as a data URI, its size, and whether it is a grid of images: a scatter plot has an alpha channel."""
    content = path.read_bytes()
    with Image.open(io.BytesIO(content), formats=["PNG"]) as image:
        (width, height), grid = image.size, image.mode != "RGBA"
    uri = f"data:image/png;base64,{base64.b64encode(content).decode()}"
    return {"uri": uri, "width": width, "height": height, "grid": grid}


def _film(run: RunFolder) -> Sequence[Path]:
    """The samples over time that are shown."""
    return _evenly(sorted(path for path in run.picture("0").parent.glob("*.png") if path.stem.isdigit()), FILM)
