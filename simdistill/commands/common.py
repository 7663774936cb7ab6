"""What several verbs share: the device, resuming, figures as a table."""

import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import torch
from rich.console import Console
from rich.table import Table
from tyro.conf import arg

from simdistill.evaluation.figures import in_short, metrics_of
from simdistill.evaluation.table import RANKED_BY
from simdistill.support.checks import require
from simdistill.teachers.loading import load_teacher
from simdistill.teachers.teacher import SMALL, Teacher
from simdistill.workflows.models import levels_of

ABOUT_RESUMING = "Go on with an interrupted run, with its own settings; on a CPU to the same weights bit by bit."

EvaluationSamples: TypeAlias = Annotated[
    int,
    arg(
        help="Samples of student, teacher and start for each of 5 evaluation seeds at the end; 0 for no evaluation, as "
        "where a teacher takes too long."
    ),
]


@dataclass(frozen=True)
class Common:
    """The options of every verb that computes."""

    device: str = "cuda" if torch.cuda.is_available() else "cpu"
    """Where to compute: cpu, cuda, cuda:1, …"""
    json: bool = False
    """Print the results as JSON, and nothing else, on stdout."""

    def __post_init__(self) -> None:
        try:
            torch.empty(0, device=self.device)
        except (RuntimeError, AssertionError) as error:
            raise ValueError(f"device = {self.device!r}: must be one that this machine has, as cpu") from error


@dataclass(frozen=True)
class Resume(Common):
    """The options of every verb that goes on with a run."""

    resume: Path = Path()
    """Folder of the run to go on with."""
    log: tuple[str, ...] = ()
    """Services that get the metrics besides the run's folder: tensorboard, wandb, trackio."""


def asks_to_resume(words: Sequence[str]) -> bool:
    """Whether --resume is among the words."""
    return any(word.split("=")[0] == "--resume" for word in words)


def own_teacher(name: str | None, run: Path) -> Teacher | None:
    """The teacher that --teacher names, if it does; one in a folder has the noise levels that `run` gives it."""
    return None if name is None else load_teacher(name, levels_of(run))


def chosen_features(inception: Path | None, features: str) -> str:
    """The features that --inception and --features name: a name or a file, "" for neither."""
    require(inception is None or not features, "--features", features, "left out beside --inception")
    return features if inception is None else str(inception)


def parameters(teacher: Teacher) -> int:
    """The number of the parameters that the teacher's copies train."""
    return sum(p.numel() for p in teacher.trainable.parameters()) if teacher.trainable else 0


def limit_threads(parameters: int) -> None:
    """Compute on one thread for a network too small to gain from more; OMP_NUM_THREADS overrides it.

    With the passive waiting that `cli` sets, the digits' iteration takes half as long on one thread as on two, on idle
    cores and on busy ones. The weights that a seed gives then do not depend on the number of cores either.
    """
    if parameters < SMALL and "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(1)


def print_figures(figures: dict[str, Any], out: Path, as_json: bool) -> None:
    """The figures of the run in `out`, as a table or as JSON."""
    if as_json:
        return print(json.dumps(figures))
    rows = {"teacher": "teacher", "student": "student", **figures["ema"], "undistilled": "undistilled"}
    print_table({title: figures[name] for name, title in rows.items() if name in figures}, figures)
    real = figures["real"]
    if real:
        print(f"real (held-out), {real['samples']} samples: {in_short(real, figures.get('features'))}")
    if not any(metric.needs == "features" and metric.name in figures["student"] for metric in metrics_of(figures)):
        print("the reference has only the moments of its images: no metric that needs their features was taken")
    if "speedup" in figures:
        print(f"student / teacher images per second: {figures['speedup']}x   report: {out / 'report.html'}")
    return None


def print_table(rows: Mapping[str, Mapping[str, Any]], about: Mapping[str, Any] | None = None) -> None:
    """The main metrics of samplers by their names; `about` tells what features they are in, and of your own metrics."""
    table = Table(box=None, pad_edge=False)
    cells = {name: _cells(row, about or {}) for name, row in rows.items()}
    headings = list(dict.fromkeys(heading for row in cells.values() for heading in row))
    for heading in ("", *headings):
        table.add_column(heading, justify="left" if not heading else "right", overflow="fold")
    for name, row in cells.items():
        table.add_row(name, *(row.get(heading, "") for heading in headings))
    Console(file=sys.stdout, width=None if sys.stdout.isatty() else 120, markup=False).print(table)


def _cells(row: Mapping[str, Any], about: Mapping[str, Any]) -> dict[str, str]:
    """A row of figures as text, by heading."""
    cells: dict[str, str] = {}
    features = about.get("features")
    for metric in (metric for metric in metrics_of(about) if metric.heading and metric.name in row):
        figure = row[metric.name]
        cells[metric.heading_in(features)] = metric.text(figure, spread=metric.name == RANKED_BY)
        if metric.shows_minimum(figure, features):
            cells[f"min of {figure['seeds']}"] = f"{figure['minimum']:{metric.format}}"
    return cells | {"NFE": str(row["nfe"]), "images/s": f"{row['images_per_second']:,.0f}"}
