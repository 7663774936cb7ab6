"""What a comparison found, as tidy tables, and which of its differences are more than noise.

Distances are compared as ratios: means and intervals are those of their logarithms. With x the logarithms over a
variant's training seeds, n of them, the interval is mean(x) ± t(0.975, n - 1) std(x) / √n (Student), and a variant
differs from the best one by Welch's test (1947), with the p values adjusted for the number of variants by Holm (1979).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import polars as pl
from scipy import stats

from simdistill.comparison.grid import Cell
from simdistill.comparison.jobs import Job
from simdistill.config.settings import to_mapping
from simdistill.support.files import replacing

LEVEL = 0.05
DISTANCES = ("frechet", "kernel", "energy", "sliced_wasserstein", "inception_score")
SHARES = ("precision", "recall", "density", "coverage")


@dataclass(frozen=True)
class Row:
    """A variant over its training seeds."""

    variant: str
    cells: int
    failed: int
    """Cells that came to nothing: a variant with any is not ranked by the others alone."""
    open: int
    """Cells that have not ended yet: nor is one with any of these."""
    frechet: float | None = None
    """Geometric mean of the distances."""
    low: float | None = None
    high: float | None = None
    """The 95 % interval of `frechet`; None for fewer than two cells."""
    precision: float | None = None
    recall: float | None = None
    seconds: float | None = None
    """Mean time of training."""
    times_best: float | None = None
    """Distance over that of the best variant."""
    p: float | None = None
    """Adjusted; None for the best itself and where there is no telling."""

    @property
    def complete(self) -> bool:
        """Whether each of its cells was measured, so that it may be the best."""
        return not self.failed and not self.open

    @property
    def differs(self) -> bool | None:
        """Whether it is worse than the best by more than noise; None where there is no telling."""
        return None if self.p is None else self.p < LEVEL


def finals(cells: Sequence[Cell], jobs: Sequence[Job], keys: Sequence[str], samples: int, seeds: int) -> pl.DataFrame:
    """A row for each cell: variant, training seed, the settings `keys`, how it ended, time, figures."""
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
                **_flat(figures or {}),
            }
        )
    return pl.DataFrame(rows, infer_schema_length=None)


def milestones(cells: Sequence[Cell], jobs: Sequence[Job]) -> pl.DataFrame:
    """A row for each milestone of each cell: variant, training seed, iteration, images, seconds, figures."""
    rows = [
        {
            "variant": cell.variant,
            "training_seed": cell.seed,
            "iteration": record["iteration"],
            "images": record["iteration"] * cell.recipe.batch,
            "seconds": record["seconds"],
            "frechet": record["quality"]["frechet"]["mean"],
            "frechet_std": record["quality"]["frechet"]["std"],
            **{name: record["quality"][name] for name in ("precision", "recall") if name in record["quality"]},
        }
        for cell, job in zip(cells, jobs, strict=True)
        for record in job.run.read_metrics()
        if "quality" in record
    ]
    return pl.DataFrame(rows, infer_schema_length=None)


def summary(table: pl.DataFrame) -> list[Row]:
    """The variants of `finals`, best first; those without a figure last.

    The best one, which the others are judged against, is a complete one if there is any.
    """
    rows = [_row(str(name), group) for (name,), group in table.group_by(["variant"], maintain_order=True)]
    ranked = sorted((row for row in rows if row.frechet is not None), key=lambda row: row.frechet or 0.0)
    if not ranked:
        return rows
    best = next((row for row in ranked if row.complete), ranked[0])
    logs = {row.variant: _logs(table.filter(pl.col("variant") == row.variant)) for row in ranked}
    raw = {row.variant: _welch(logs[row.variant], logs[best.variant]) for row in ranked if row is not best}
    adjusted = holm({name: p for name, p in raw.items() if p is not None})
    judged = [
        replace(row, times_best=(row.frechet or 0.0) / (best.frechet or 1.0), p=adjusted.get(row.variant))
        for row in ranked
    ]
    return judged + [row for row in rows if row.frechet is None]


def holm(p: Mapping[str, float]) -> dict[str, float]:
    """p values adjusted for how many there are: p_(k) becomes max over j ≤ k of (m - j) p_(j), j from 0, at most 1."""
    adjusted: dict[str, float] = {}
    highest = 0.0
    for k, (name, value) in enumerate(sorted(p.items(), key=lambda item: item[1])):
        highest = max(highest, min(1.0, (len(p) - k) * value))
        adjusted[name] = highest
    return adjusted


def write_table(table: pl.DataFrame, path: Path) -> None:
    """The table as `path`.csv and `path`.parquet."""
    with replacing(path.with_suffix(".csv")) as file:
        table.write_csv(file)
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
    shares = {name: _mean(done, name) for name in ("precision", "recall")}
    return Row(
        variant,
        group.height,
        failed,
        open_,
        math.exp(mean),
        None if half is None else math.exp(mean - half),
        None if half is None else math.exp(mean + half),
        **shares,
        seconds=_mean(done, "seconds"),
    )


def _logs(group: pl.DataFrame) -> list[float]:
    """Logarithms of the distances of the cells that have one."""
    if "frechet" not in group.columns:
        return []
    return [math.log(value) for value in group["frechet"].drop_nulls() if value > 0]


def _mean(group: pl.DataFrame, name: str) -> float | None:
    values = group[name].drop_nulls().to_list() if name in group.columns else []
    return math.fsum(values) / len(values) if values else None


def _welch(x: Sequence[float], y: Sequence[float]) -> float | None:
    """The p value of Welch's test for equal means; None if either has no spread to judge by."""
    if len(x) < 2 or len(y) < 2:
        return None
    return float(stats.ttest_ind(x, y, equal_var=False).pvalue)


def _flat(figures: Mapping[str, Any]) -> dict[str, float]:
    """The figures of a sampler as columns: a distance's mean, and its spread over the evaluation seeds."""
    flat = {name: figures[name] for name in SHARES if name in figures}
    for name in (name for name in DISTANCES if name in figures):
        flat |= {name: figures[name]["mean"], f"{name}_std": figures[name]["std"]}
    return flat


def _text(value: Any) -> Any:
    """A setting as a cell of a table: numbers and text as they are, lists as text."""
    return ", ".join(map(str, value)) if isinstance(value, list) else value
