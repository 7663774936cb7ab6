"""The tables of a report: a row for each measured metric, a column for each set of samples.

There are at most a handful of sets, so that a table fits on a phone.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from simdistill.evaluation.figures import metrics_of
from simdistill.evaluation.table import RANKED_BY, Metric, Section
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
class MetricRow:
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
    rows: Sequence[MetricRow]


def tables(figures: Record) -> list[MetricsTable]:
    """The sections with measured metrics."""
    found: list[MetricsTable] = []
    for section, caption in SECTIONS.items():
        metrics = [metric for metric in measured(figures) if metric.section == section]
        rows = [row for metric in metrics for row in _rows(metric, figures)]
        if rows:
            found.append(MetricsTable(section, caption, rows))
    return found


def measured(figures: Record) -> list[Metric]:
    """The measured metrics."""
    return [metric for metric in metrics_of(figures) if metric.name in figures["student"]] if figures else []


def titles(figures: Record) -> dict[str, str]:
    """The names of the sets of samples, in the order of the columns; the student's other EMAs follow it."""
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


def measured_with(figures: Record) -> dict[str, str]:
    """How many samples each set's metrics rest on: "2,000 × 5" for 5 evaluation seeds, "449" for one set."""
    found = {who: figures[who] for who in titles(figures) if figures.get(who)}
    counts = {who: (row["samples"], row[RANKED_BY]["seeds"]) for who, row in found.items()}
    return {who: f"{samples:,} × {seeds}" if seeds > 1 else f"{samples:,}" for who, (samples, seeds) in counts.items()}


def _rows(metric: Metric, figures: Record) -> list[MetricRow]:
    """The row of a metric, and of its minimum if that is shown."""
    features, found = figures.get("features"), cells(figures, metric.name)
    title = metric.title_in(features)
    rows = [MetricRow(title, metric.better, metric.meaning, found)]
    if metric.shows_minimum(figures["student"][metric.name], features):
        meaning = "minimum over the evaluation seeds; the literature reports it for three"
        rows.append(MetricRow(f"{title}, minimum", metric.better, meaning, _minima(figures, metric.name, found)))
    return rows


def _minima(figures: Record, name: str, means: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """The minimum of each set of samples with several seeds, rounded as the `means`."""
    decimals = len(means["student"][0].partition(".")[2])
    least = {who: figures[who][name]["minimum"] for who in means if figures[who][name]["seeds"] > 1}
    return {who: [_number(value, decimals)] for who, value in least.items()}


def _number(value: float, decimals: int) -> str:
    return f"{value:,.{decimals}f}".replace("-", "−")
