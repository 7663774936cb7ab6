"""`compare.html`: a self-contained page with the ranking, curves and samples of a comparison."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from simdistill.comparison.results import LEVEL, Row
from simdistill.evaluation.quality import SAMPLES
from simdistill.evaluation.table import RANKED_BY, Metric, metric_named, quick_metrics
from simdistill.reports import charts
from simdistill.reports.charts import Band
from simdistill.reports.report import embedded, templates
from simdistill.support.bar import duration

SHOWN = len(charts.LEVELS)  # variants with a line and a picture; all are in the table


@dataclass(frozen=True)
class Comparison:
    """The content of a page."""

    name: str
    command: str
    machine: str
    budget: str
    rows: Sequence[Row]
    metrics: Sequence[Metric]
    """Those that its cells may have."""
    milestones: pl.DataFrame
    teacher: Mapping[str, Any] | None
    pictures: Mapping[str, Path]
    """Of the teacher and of the variants, by name."""
    failures: Mapping[str, str]
    """Why cells failed, by cell."""
    seeds: int


def compare_page(comparison: Comparison) -> str:
    """The HTML of a comparison."""
    shown = [row for row in comparison.rows if row.distance is not None][:SHOWN]
    names = [row.variant for row in shown]
    teacher = comparison.teacher or {}
    alike = teacher.get("samples") == SAMPLES  # most metrics depend on how many samples there are
    levels = {m.name: teacher[m.name]["mean"] for m in quick_metrics() if alike and m.name in teacher}
    others = [metric for metric in quick_metrics() if metric.name != RANKED_BY]
    drawn = {
        "iteration": _curves(comparison.milestones, names, RANKED_BY, "iteration", levels),
        "seconds": _curves(comparison.milestones, names, RANKED_BY, "seconds", levels),
        "others": {m: _curves(comparison.milestones, names, m.name, "iteration", levels) for m in others},
    }
    colours = charts.told_apart(len(shown))
    return (
        templates("simdistill.comparison")
        .get_template("compare.html.jinja")
        .render(
            c=comparison,
            ranked_by=RANKED_BY,
            distance=metric_named(RANKED_BY).title_in(teacher.get("features")),
            columns=columns(comparison.rows, comparison.metrics),
            told=_told(teacher, comparison.metrics),
            shown=names,
            drawn=drawn,
            dashed=_dashed(teacher),
            level_colours={"light": colours, "dark": colours},
            images={name: embedded(path) for name, path in comparison.pictures.items() if path.exists()},
            verdict=verdict,
            lede=_lede(comparison.rows),
            number=number,
            duration=duration,
            level=LEVEL,
        )
    )


def columns(rows: Sequence[Row], metrics: Sequence[Metric]) -> list[Metric]:
    """The metrics that a table of variants shows besides the distance: those with a heading, if a variant has them."""
    known = {name for row in rows for name in row.metrics}
    return [metric for metric in metrics if metric.heading and metric.name in known and metric.name != RANKED_BY]


def verdict(row: Row) -> str:
    """How a variant compares with the best one, in words."""
    if row.failed == row.cells:
        return "failed"
    if row.distance is None and not row.failed:
        return "not measured"
    if not row.complete:
        lacking = {"failed": row.failed, "open": row.open}
        return ", ".join(f"{count} of {row.cells} {how}" for how, count in lacking.items() if count)
    if row.times_best == 1.0:
        return "best"
    if row.p is None:
        return "one training seed: no test"
    return f"{'worse' if row.differs else 'within noise'}, p = {row.p:.2g}"


def number(value: float) -> str:
    """Three significant digits, zeros included, so that a column aligns: 0.200, 4.18, 1,230."""
    return f"{value:,.0f}" if value >= 1000 else f"{value:#.3g}".rstrip(".")


def _lede(rows: Sequence[Row]) -> str:
    """The result in one or two sentences, after what is still missing."""
    cells, missing = sum(row.cells for row in rows), sum(row.open for row in rows)
    text = f"{missing} of {cells} cells are still open. " if missing else ""
    measured = [row for row in rows if row.times_best is not None]
    if not measured:
        return f"{text}No cell has been measured."
    whole = [row for row in measured if row.complete]
    if not whole:
        return f"{text}No variant is complete, so none is called the best."
    best, others = whole[0], whole[1:]
    text += f"Lowest distance{' so far' if missing else ''}: {best.variant}, {_interval(best)}."
    near = [row.variant for row in others if row.differs is False]
    worse = sum(row.differs is True for row in others)
    if near:
        text += f" Within noise of it: {'; '.join(near)}."
    if worse:
        text += f" Significantly worse: {worse} of the {len(others)} others."
    if others and not near and not worse:
        text += " With one training seed per variant, differences cannot be tested."
    return text


def _told(teacher: Mapping[str, Any], metrics: Sequence[Metric]) -> str:
    """The teacher's metrics in a sentence, and those of real (held-out) samples if there are any."""
    if not teacher:
        return ""
    title, real = metric_named(RANKED_BY).title_in(teacher.get("features")), teacher.get("real")

    def said(figures: Mapping[str, Any]) -> str:
        others = [m for m in metrics if m.heading and m.name in figures and m.name != RANKED_BY]
        distance = f"{title} {number(figures[RANKED_BY]['mean'])}"
        return ", ".join([distance, *(f"{m.heading} {m.text(figures[m.name])}" for m in others)])

    return said(teacher) + (f"; real (held-out): {said(real)}" if real else "")


def _dashed(teacher: Mapping[str, Any]) -> str:
    """What the curves' caption says about the teacher's line."""
    if not teacher:
        return ""
    if teacher["samples"] == SAMPLES:
        return "; dashed: the teacher"
    few, many = f"{SAMPLES:,}", f"{teacher['samples']:,}"
    return f"; the teacher is not shown, as its metrics are of {many} samples and the milestones' of {few}"


def _interval(row: Row) -> str:
    text = number(row.distance or 0.0)
    return text if row.low is None or row.high is None else f"{text} ({number(row.low)} to {number(row.high)})"


def _curves(table: pl.DataFrame, names: Sequence[str], metric: str, x: str, levels: Mapping[str, float]) -> str:
    """A metric against iterations or seconds: means over the training seeds, with their range, and the teacher's."""
    if table.is_empty() or metric not in table.columns:
        return ""
    log = metric == RANKED_BY
    lines: list[Band] = []
    for name in names:
        group = table.filter((pl.col("variant") == name) & pl.col(metric).is_not_null())
        points = [part for _, part in group.sort("iteration").group_by("iteration", maintain_order=True)]
        values = [part[metric].to_list() for part in points]
        middle = [_mean(value, log) for value in values]
        where = [float(math.fsum(part[x]) / part.height) for part in points]
        lines.append(Band(where, middle, [min(v) for v in values], [max(v) for v in values]))
    label = {"iteration": "iteration", "seconds": "seconds of training"}[x]
    return charts.bands(lines, label, f"{metric} {x}", log, levels.get(metric))


def _mean(values: Sequence[float], log: bool) -> float:
    """The mean; of distances the geometric one, as in the table."""
    return math.exp(math.fsum(map(math.log, values)) / len(values)) if log else math.fsum(values) / len(values)
