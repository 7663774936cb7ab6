"""The tables of a report: a row for each set of samples, a column for each measured metric."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from simdistill.evaluation.figures import metrics_of
from simdistill.evaluation.table import Metric, Section
from simdistill.runs.progress import Record

TITLES = {"teacher": "Teacher", "student": "Student", "undistilled": "Undistilled start", "real": "Real (held-out)"}
SECTIONS: dict[Section, str] = {
    "main": "Fidelity, diversity and speed",
    "modes": "Modes of the exact mixture",
    "own": "Custom metrics",
    "further": "Further metrics",
}
DECIMALS = 5  # at most


@dataclass(frozen=True)
class Column:
    """A metric; its `cells` are mean and standard deviation, if any, as text, by set of samples."""

    title: str
    better: str
    meaning: str
    cells: Mapping[str, Sequence[str]]


@dataclass(frozen=True)
class MetricsTable:
    """One of the sections, with its measured metrics."""

    section: Section
    caption: str
    columns: Sequence[Column]


def tables(figures: Record) -> list[MetricsTable]:
    """The sections with measured metrics."""
    found: list[MetricsTable] = []
    for section, caption in SECTIONS.items():
        metrics = [metric for metric in measured(figures) if metric.section == section]
        columns = [column for metric in metrics for column in _columns(metric, figures)]
        if columns:
            found.append(MetricsTable(section, caption, columns))
    return found


def measured(figures: Record) -> list[Metric]:
    """The measured metrics."""
    return [metric for metric in metrics_of(figures) if metric.name in figures["student"]] if figures else []


def titles(figures: Record) -> dict[str, str]:
    """The names of the sets of samples, in the order of the rows; the student's other EMAs follow it."""
    others = {name: f"Student, {average}" for name, average in figures.get("ema", {}).items()}
    first = {name: TITLES[name] for name in ("teacher", "student")}
    return {**first, **others, **TITLES}


def cells(figures: Record, name: str) -> dict[str, list[str]]:
    """A metric of each set of samples that has it, as [mean, standard deviation], or [mean] for one seed.

    All are rounded to the same digits: two of the smallest standard deviation.
    """
    found = {who: figures[who][name] for who in titles(figures) if figures.get(who) and name in figures[who]}
    numbers = {who: [f["mean"], f["std"]] if f["seeds"] > 1 else [f["mean"]] for who, f in found.items()}
    spreads = [std for _, *rest in numbers.values() for std in rest if std > 0]
    counted = all(float(value).is_integer() for cell in numbers.values() for value in cell)
    decimals = min(max(1 - math.floor(math.log10(min(spreads))), 2), DECIMALS) if spreads else 0 if counted else 3
    return {who: [_number(value, decimals) for value in cell] for who, cell in numbers.items()}


def _columns(metric: Metric, figures: Record) -> list[Column]:
    """The column of a metric, and of its minimum if that is shown."""
    features, found = figures.get("features"), cells(figures, metric.name)
    title = metric.title_in(features)
    columns = [Column(title, metric.better, metric.meaning, found)]
    if metric.shows_minimum(figures["student"][metric.name], features):
        meaning = "minimum over the evaluation seeds; the literature reports it for three"
        columns.append(Column(f"{title}, minimum", metric.better, meaning, _minima(figures, metric.name, found)))
    return columns


def _minima(figures: Record, name: str, means: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """The minimum of each set of samples with several seeds, rounded as the `means`."""
    decimals = len(means["student"][0].partition(".")[2])
    least = {who: figures[who][name]["minimum"] for who in means if figures[who][name]["seeds"] > 1}
    return {who: [_number(value, decimals)] for who, value in least.items()}


def _number(value: float, decimals: int) -> str:
    return f"{value:,.{decimals}f}".replace("-", "−")
