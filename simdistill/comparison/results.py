"""The results of a comparison as tidy tables, and which differences are significant.

Distances are compared as ratios: means and intervals are those of their logarithms. With x the logarithms over a
variant's training seeds, n of them, the interval is mean(x) ± t(0.975, n - 1) std(x) / √n (Student), and a variant
differs from the best one by Welch's test (1947), with the p values adjusted for the number of variants by Holm (1979).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import polars as pl
from scipy import stats

from simdistill.comparison.grid import Cell
from simdistill.comparison.jobs import Job
from simdistill.config.settings import to_mapping
from simdistill.evaluation.figures import metrics_of, over_seeds
from simdistill.evaluation.table import RANKED_BY, Metric, all_metrics, quick_metrics
from simdistill.support.files import replacing
from simdistill.support.tables import without_formulas

LEVEL = 0.05


@dataclass(frozen=True)
class Row:
    """A variant over its training seeds."""

    variant: str
    cells: int
    failed: int
    """Cells that failed: a variant with any is not called the best."""
    open: int
    """Cells that are not finished: the same applies."""
    distance: float | None = None
    """Geometric mean of the cells' values of `RANKED_BY`."""
    low: float | None = None
    high: float | None = None
    """The 95 % interval of `distance`; None for fewer than two cells."""
    metrics: Mapping[str, Mapping[str, Any]] = field(default_factory=dict[str, Any])
    """By metric {mean, std, seeds, values} of the cells, one a training seed."""
    seconds: float | None = None
    """Mean time of training."""
    times_best: float | None = None
    """Distance over that of the best variant."""
    p: float | None = None
    """Holm-adjusted; None for the best itself and where no test is possible."""

    @property
    def complete(self) -> bool:
        """Whether all its cells were evaluated, so that it may be the best."""
        return not self.failed and not self.open

    @property
    def differs(self) -> bool | None:
        """Whether it is significantly worse than the best; None where no test is possible."""
        return None if self.p is None else self.p < LEVEL


def finals(cells: Sequence[Cell], jobs: Sequence[Job], keys: Sequence[str], samples: int, seeds: int) -> pl.DataFrame:
    """A row for each cell: variant, training seed, the settings `keys`, status, time, metrics."""
    rows: list[dict[str, Any]] = []
    for cell, job in zip(cells, jobs, strict=True):
        figures, settings = job.figures(samples, seeds), to_mapping(cell.recipe)
        status = "done" if figures else "failed" if job.failure else "open"
        rows.append(
            {
                "variant": cell.variant,
                "training_seed": cell.seed,
                **{key: _text(settings[key]) for key in keys},
                "status": status,
                "failure": job.failure,
                "iterations": cell.recipe.iterations,
                "images": cell.recipe.iterations * cell.recipe.batch,
                "seconds": max((record["seconds"] for record in job.run.read_metrics()), default=None),
                **_flat(figures or {}, metrics_of(figures or {})),
            }
        )
    return pl.DataFrame(rows, infer_schema_length=None)


def milestones(cells: Sequence[Cell], jobs: Sequence[Job]) -> pl.DataFrame:
    """A row for each milestone of each cell: variant, training seed, iteration, images, seconds, metrics."""
    rows = [
        {
            "variant": cell.variant,
            "training_seed": cell.seed,
            "iteration": record["iteration"],
            "images": record["iteration"] * cell.recipe.batch,
            "seconds": record["seconds"],
            **_flat(record["quality"], quick_metrics()),
        }
        for cell, job in zip(cells, jobs, strict=True)
        for record in job.run.read_metrics()
        if "quality" in record
    ]
    return pl.DataFrame(rows, infer_schema_length=None)


def summary(table: pl.DataFrame) -> list[Row]:
    """The variants of `finals`, best first; those without metrics last.

    The best one, which the others are tested against, is a complete one if there is any.
    """
    rows = [_row(str(name), group) for (name,), group in table.group_by(["variant"], maintain_order=True)]
    ranked = sorted((row for row in rows if row.distance is not None), key=lambda row: row.distance or 0.0)
    if not ranked:
        return rows
    best = next((row for row in ranked if row.complete), ranked[0])
    logs = {row.variant: _logs(table.filter(pl.col("variant") == row.variant)) for row in ranked}
    raw = {row.variant: _welch(logs[row.variant], logs[best.variant]) for row in ranked if row is not best}
    adjusted = holm({name: p for name, p in raw.items() if p is not None})
    tested = [
        replace(row, times_best=(row.distance or 0.0) / (best.distance or 1.0), p=adjusted.get(row.variant))
        for row in ranked
    ]
    return tested + [row for row in rows if row.distance is None]


def holm(p: Mapping[str, float]) -> dict[str, float]:
    """p values adjusted for their number: p_(k) becomes max over j ≤ k of (m - j) p_(j), j from 0, at most 1."""
    adjusted: dict[str, float] = {}
    highest = 0.0
    for k, (name, value) in enumerate(sorted(p.items(), key=lambda item: item[1])):
        highest = max(highest, min(1.0, (len(p) - k) * value))
        adjusted[name] = highest
    return adjusted


def write_table(table: pl.DataFrame, path: Path) -> None:
    """The table as `path`.csv and `path`.parquet."""
    with replacing(path.with_suffix(".csv")) as file:
        without_formulas(table).write_csv(file)
    with replacing(path.with_suffix(".parquet")) as file:
        table.write_parquet(file)


def _row(variant: str, group: pl.DataFrame) -> Row:
    done = group.filter(pl.col("status") == "done")
    failed, open_ = (group.filter(pl.col("status") == status).height for status in ("failed", "open"))
    x = _logs(group)
    if not x:
        return Row(variant, group.height, failed, open_)
    mean = math.fsum(x) / len(x)
    half = float(stats.t.ppf(1 - LEVEL / 2, len(x) - 1) * stats.sem(x)) if len(x) > 1 else None
    values = {name: done[name].drop_nulls().to_list() for name in _metrics_in(group)}
    return Row(
        variant,
        group.height,
        failed,
        open_,
        math.exp(mean),
        None if half is None else math.exp(mean - half),
        None if half is None else math.exp(mean + half),
        {name: over_seeds(found) for name, found in values.items() if found},
        seconds=_mean(done, "seconds"),
    )


def _metrics_in(table: pl.DataFrame) -> list[str]:
    """The columns that are metrics: those of the table of metrics, and any other with a spread beside it."""
    known = [metric.name for metric in all_metrics()]
    return [name for name in table.columns if name in known or f"{name}_std" in table.columns]


def _logs(group: pl.DataFrame) -> list[float]:
    """Logarithms of the distances of the cells that have one."""
    if RANKED_BY not in group.columns:
        return []
    return [math.log(value) for value in group[RANKED_BY].drop_nulls() if value > 0]


def _mean(group: pl.DataFrame, name: str) -> float | None:
    values = group[name].drop_nulls().to_list() if name in group.columns else []
    return math.fsum(values) / len(values) if values else None


def _welch(x: Sequence[float], y: Sequence[float]) -> float | None:
    """The p value of Welch's test for equal means; None if either has fewer than two values."""
    if len(x) < 2 or len(y) < 2:
        return None
    return float(stats.ttest_ind(x, y, equal_var=False).pvalue)


def _flat(figures: Mapping[str, Any], metrics: Sequence[Metric]) -> dict[str, float]:
    """The metrics of a sampler as columns: mean and standard deviation over the evaluation seeds."""
    flat: dict[str, float] = {}
    for name in (metric.name for metric in metrics if metric.name in figures):
        flat |= {name: figures[name]["mean"], f"{name}_std": figures[name]["std"]}
    return flat


def _text(value: Any) -> Any:
    """A setting as a cell of a table: numbers and text as they are, lists as text."""
    return ", ".join(map(str, value)) if isinstance(value, list) else value
