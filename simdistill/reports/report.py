"""The report of a run: one HTML page that needs nothing but itself, made from whatever the run's folder holds."""

import base64
import io
import json
import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from PIL import Image

from simdistill.config.settings import to_toml
from simdistill.evaluation.extractors import of_inception
from simdistill.evaluation.statistics import KEPT
from simdistill.reports import charts
from simdistill.runs.folder import RunFolder
from simdistill.runs.progress import Progress, Record, State, duration, log_lines, losses_of, short, titled
from simdistill.support.files import write_atomically

Contents: TypeAlias = Mapping[str, Any]
Item = TypeVar("Item")

TITLES = {"teacher": "Teacher", "student": "Student", "undistilled": "Undistilled start", "real": "Held-out samples"}
SHARES = ("precision", "recall", "density", "coverage")
SPEED = "images_per_second"
COLOURS = ("precision", "student", "teacher", "recall")  # of the losses, in turn
FILM = 8  # pictures over time
POINTS = 400  # of a curve: more than can be told apart


@dataclass(frozen=True)
class Live:
    """What a page that is watched says beyond the report."""

    state: State
    silence: float
    """Seconds since the last sign of life."""


def write_report(run: RunFolder) -> None:
    """Write `report.html` from the configuration, metrics, pictures and figures in the folder of `run`.

    An interrupted run, or one that was not evaluated, gets a page too, which says what is missing.
    """
    write_atomically(run.report, page(contents(run)).encode())


def page(filling: Contents, live: Live | None = None) -> str:
    """The HTML of what `contents` gave: a report, or with `live` a page that renews itself from where it came from."""
    return (
        templates()
        .get_template("report.html.jinja")
        .render(**filling, live=live, duration=duration, short=short, titled=titled)
    )


def contents(run: RunFolder) -> Contents:
    """All that the page of a run shows, its charts drawn and its pictures embedded; reads the folder, writes nothing.

    The records of the metrics may be in any order, and hold more than the page knows of.
    """
    config, records = run.configuration(), sorted(run.read_metrics(), key=lambda record: record["iteration"])
    film = [(int(file.stem), embedded(file)) for file in _film(run)]  # now: drawing takes time, and the run goes on
    figures: Record = json.loads(run.evaluation.read_text()) if run.evaluation.exists() else {}
    milestones = [record for record in records if "quality" in record]
    lines = _evenly(log_lines(records), POINTS)
    profiles = [line["levels"] for line in lines if line.get("levels")]
    levels = sorted({level for line in profiles for metric in line.values() for level in metric}, key=float)
    who = "teacher" if config.get("verb") == "pretrain" else "student"
    last: Record = milestones[-1]["quality"] if milestones else {}
    told = [name for name in ("features", "reference") if name in last]  # by older runs nothing
    beside = figures if all(last[name] == figures.get(name) for name in told) else {}  # or not to be compared
    path = Path(run.path.name) if run.path.is_absolute() else run.path  # the page may go to others
    return {
        "name": run.path.resolve().name,
        "run_path": shlex.quote(path.as_posix()),
        "config_path": shlex.quote((path / run.config.name).as_posix()),
        "who": who,
        "outcome": _outcome(figures) if figures else "",
        "distance": _distance(figures),
        "milestones_distance": _distance(last),
        "beside": beside,
        "kept": KEPT,
        "config": config,
        "settings": {key: _setting(value) for key, value in config.items()},
        "progress": Progress.of(records, config.get("iterations")),
        "rollbacks": [record for record in records if "rollback" in record],
        "titles": _titles(figures),
        "pictures": {name: embedded(file) for name in TITLES if (file := run.picture(name)).exists()},
        "figures": figures,
        "column": partial(_column, figures),
        "milestones": milestones,
        "frechet": {record["iteration"]: record["quality"]["frechet"]["mean"] for record in milestones},
        "learning_curve": charts.learning_curve(milestones, beside, who) if milestones else "",
        "shares": charts.shares(milestones, beside) if "recall" in last else "",
        "curves": _curves(lines),
        "levels": levels,
        "level_colours": {mode: charts.level_colours(len(levels), mode) for mode in ("light", "dark")},
        "profiles": _profiles(lines, levels),
        "film": film,
    }


def _distance(figures: Record) -> str:
    """What the Fréchet distance of such figures is called: in Inception's features it is the FID."""
    return "FID" if of_inception(figures.get("features")) else "Fréchet distance"


def _curves(lines: Sequence[Record]) -> list[tuple[str, str, str]]:
    """(title, last value, chart) of each loss that there is, and of the speed."""
    drawn: list[tuple[str, str, str]] = []
    losses = list(dict.fromkeys(name for line in lines for name in losses_of(line)))
    colours = [*(COLOURS[k % len(COLOURS)] for k in range(len(losses))), "real"]
    for name, colour in zip([*losses, SPEED], colours, strict=True):
        points = [(line["iteration"], line[name]) for line in lines if name in line]
        if points:
            title = "Training speed, images per second" if name == SPEED else titled(name)
            picture = charts.curve(points, colour, name, from_zero=name == SPEED)
            drawn.append((title, short(points[-1][1]), picture))
    return drawn


def _profiles(lines: Sequence[Record], levels: Sequence[str]) -> dict[str, str]:
    """A chart of each metric by noise level, by the metric's name."""
    metrics = dict.fromkeys(metric for line in lines for metric in line.get("levels", {}))
    return {metric: charts.profile(lines, metric, levels) for metric in metrics}


def _evenly(items: Sequence[Item], most: int) -> Sequence[Item]:
    """At most so many of the items, evenly spaced, the first and the last among them."""
    n = min(most, len(items))
    return [items[round(i * (len(items) - 1) / max(n - 1, 1))] for i in range(n)]


@cache
def templates(package: str = "simdistill.reports") -> Environment:
    """The templates of pages in `package`, with the parts that all pages share."""
    return Environment(
        loader=ChoiceLoader([PackageLoader(name, ".") for name in (package, "simdistill.reports")]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _outcome(figures: Record) -> str:
    """The result in plain words, whichever way it went."""
    teacher, student, speedup = figures["teacher"], figures["student"], figures["speedup"]
    written = {name: " ± ".join(cell) for name, cell in _column(figures, "frechet").items()}
    text = (
        f"One network evaluation instead of {teacher['nfe']}: {speedup:,.{0 if speedup >= 10 else 1}f}× the "
        f"images per second, {_distance(figures)} {written['student']} where the teacher has {written['teacher']}."
    )
    t, s = teacher["frechet"], student["frechet"]
    if s["seeds"] < 2:
        return text  # without a spread there is no telling
    if abs(s["mean"] - t["mean"]) <= s["std"] + t["std"]:
        return f"{text} The two agree within their spread."
    return f"{text} Lower is better: the student is {'ahead' if s['mean'] < t['mean'] else 'behind'}."


def _titles(figures: Record) -> dict[str, str]:
    """What the samples are called, in the order of the tables: the student's other EMAs follow it."""
    others = {name: f"Student, {average}" for name, average in figures.get("ema", {}).items()}
    first = {name: TITLES[name] for name in ("teacher", "student")}
    return {**first, **others, **TITLES}


def _column(figures: Record, metric: str) -> dict[str, list[str]]:
    """A metric of every sampler that has it, as [mean, spread] or [mean]; "minimum" is the least Fréchet distance.

    All are rounded alike: the smallest spread keeps two digits.
    """
    if metric == "minimum":
        return _least(figures)
    found: dict[str, list[float]] = {}
    for name in (name for name in _titles(figures) if figures.get(name) and metric in figures[name]):
        sampler, value = figures[name], figures[name][metric]
        mean, std = (value["mean"], value["std"]) if isinstance(value, dict) else (value, None)
        std = sampler["spread"][metric] if metric in SHARES and "spread" in sampler else std
        found[name] = [mean] if std is None or sampler["frechet"]["seeds"] < 2 else [mean, std]
    spreads = [std for _, *rest in found.values() for std in rest if std > 0]
    most = 3 if metric in SHARES else 5
    counted = all(float(value).is_integer() for cell in found.values() for value in cell)
    decimals = min(max(1 - math.floor(math.log10(min(spreads))), 2), most) if spreads else 0 if counted else 3
    return {name: [_number(value, decimals) for value in cell] for name, cell in found.items()}


def _least(figures: Record) -> dict[str, list[str]]:
    """The least Fréchet distance of every sampler over the seeds, rounded as their mean."""
    cells = _column(figures, "frechet")
    decimals = len(cells["student"][0].partition(".")[2])
    values = {name: figures[name]["frechet"] for name in cells}
    return {name: [_number(v["minimum"], decimals)] for name, v in values.items() if isinstance(v, dict)}


def _number(value: float, decimals: int) -> str:
    return f"{value:,.{decimals}f}".replace("-", "−")


def _setting(value: Any) -> str:
    """A value as TOML writes it, text without its quotes; of a path on this machine only the name."""
    if isinstance(value, str):
        return f"…/{Path(value).name}" if Path(value).is_absolute() else value
    return to_toml({"key": value}).partition("=")[2].strip()


def embedded(path: Path) -> dict[str, Any]:
    """A picture as a data URI, its size, and whether it is a grid of images: a scatter plot has an alpha channel."""
    content = path.read_bytes()
    with Image.open(io.BytesIO(content)) as image:
        (width, height), grid = image.size, image.mode != "RGBA"
    uri = f"data:image/png;base64,{base64.b64encode(content).decode()}"
    return {"uri": uri, "width": width, "height": height, "grid": grid}


def _film(run: RunFolder) -> Sequence[Path]:
    """The pictures over time that are shown."""
    return _evenly(sorted(path for path in run.picture("0").parent.glob("*.png") if path.stem.isdigit()), FILM)
