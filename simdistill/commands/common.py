"""Options and output shared by several verbs: the device, resuming, tables of metrics."""

import json
import os
import sys
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import torch
from rich.console import Console
from rich.table import Table
from tyro.conf import arg

from simdistill.evaluation.figures import in_short, metrics_of
from simdistill.evaluation.table import RANKED_BY
from simdistill.reports.headline import headline
from simdistill.runs.folder import RunFolder
from simdistill.support.checks import require
from simdistill.teachers.loading import load_teacher, named_run
from simdistill.teachers.teacher import SMALL, Teacher
from simdistill.workflows.models import levels_of

ABOUT_RUN = """\
- RUN is the folder of a run, or a shipped student: fashion-mnist, faces,
  faces-unguided."""

# options of several verbs, with one help text each
Column: TypeAlias = Annotated[
    str, arg(help="Column or JSON key of the prompts; the first of prompt, caption, text and txt if empty.")
]
Config: TypeAlias = Annotated[
    Path | None,
    arg(help="TOML file with settings of the recipe, such as a run's config.toml; the command line overrides it."),
]
DatabaseURL: TypeAlias = Annotated[
    str,
    arg(
        help="URL of the votes' database, such as postgresql+psycopg://user@host/name; votes.sqlite3 in STUDY if not "
        "given."
    ),
]
EmaPlace: TypeAlias = Annotated[int, arg(help="Which EMA of the generator to use: its place in the recipe, from 0.")]
FirstSeed: TypeAlias = Annotated[int, arg(help="Random seed of the first sample; each further one has the next.")]
Host: TypeAlias = Annotated[str, arg(help="Address to listen on; 0.0.0.0 shows the page to the whole network.")]
PublicName: TypeAlias = Annotated[
    tuple[str, ...],
    arg(help="Names that the page is reached by, as study.example.org; requests for others are refused."),
]
Inception: TypeAlias = Annotated[
    Path | None,
    arg(help="Weights of Inception-v3 for the FID: inception-2015-12-05.pt or pt_inception-2015-12-05-6726825d.pth."),
]
Json: TypeAlias = Annotated[bool, arg(help="Print the results to stdout as JSON, and nothing else.")]
Overwrite: TypeAlias = Annotated[bool, arg(help="Replace the output if it exists.")]
Pad: TypeAlias = Annotated[
    int, arg(help="Add black margins to the images, up to this many pixels a side: 32 for MNIST's 28×28; 0 adds none.")
]
Prompts: TypeAlias = Annotated[
    Path | None,
    arg(
        help="Prompts to draw: figure-3 (the paper's), faces, or a file: .txt (one per line), .csv, .tsv, .parquet, "
        ".jsonl, .tar."
    ),
]
TeacherOfRun: TypeAlias = Annotated[
    str | None,
    arg(help="The run's teacher: package.module:function if it is your own code, or its folder if that has moved."),
]


@dataclass(frozen=True)
class Common:
    """The options of every verb that computes."""

    device: str = "cuda" if torch.cuda.is_available() else "cpu"
    """Device to compute on: cpu, cuda, cuda:1, …"""
    json: Json = False

    def __post_init__(self) -> None:
        try:
            torch.empty(0, device=self.device)
        except (RuntimeError, AssertionError) as error:
            raise ValueError(f"device = {self.device!r}: must be a device of this machine, such as cpu") from error


def own_teacher(name: str | None, run: Path) -> Teacher | None:
    """The teacher that --teacher names, or None; a folder's teacher gets the noise levels of `run`."""
    return None if name is None else load_teacher(name, levels_of(run))


def chosen_features(inception: Path | None, features: str) -> str:
    """The feature space that --inception or --features names: a name or a file; "" for neither."""
    require(inception is None or not features, "--features", features, "left out with --inception")
    return features if inception is None else str(inception)


def parameters(teacher: Teacher) -> int:
    """The number of parameters in a trainable copy of the teacher."""
    return sum(p.numel() for p in teacher.trainable.parameters()) if teacher.trainable else 0


def limit_threads(parameters: int) -> None:
    """Use one thread for networks too small to gain from more; OMP_NUM_THREADS overrides this.

    With the passive waiting that `cli` sets, an iteration on digits takes half as long on one thread as on two, on idle
    and busy cores. The weights for a seed then do not depend on the number of cores either.
    """
    if parameters < SMALL and "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(1)


def print_figures(figures: dict[str, Any], out: Path, as_json: bool) -> None:
    """Print the metrics of the run in `out`, as a table or as JSON."""
    if as_json:
        return print(json.dumps(figures))
    rows = {"teacher": "teacher", "student": "student", **figures["ema"], "undistilled": "undistilled"}
    print_table({title: figures[name] for name, title in rows.items() if name in figures}, figures)
    real = figures["real"]
    if real:
        print(f"real (held-out), {real['samples']} samples: {in_short(real, figures.get('features'))}")
    if not any(metric.needs == "features" and metric.name in figures["student"] for metric in metrics_of(figures)):
        print("the reference has only moments, no features: metrics that need features were skipped")
    if "speedup" in figures:
        run = RunFolder(out)
        teacher = str(run.configuration().get("teacher", "")) if run.config.exists() else ""
        said = headline(figures, named_run(out, teacher))
        print(textwrap.fill(said, 120, break_long_words=False, break_on_hyphens=False))
        print(f"report: {out / 'report.html'}")
    return None


def print_table(rows: Mapping[str, Mapping[str, Any]], about: Mapping[str, Any] | None = None) -> None:
    """Print a table of the main metrics, one row per sampler; `about` has the feature space and custom metrics."""
    table = Table(box=None, pad_edge=False)
    cells = {name: _cells(row, about or {}) for name, row in rows.items()}
    headings = list(dict.fromkeys(heading for row in cells.values() for heading in row))
    for heading in ("", *headings):
        table.add_column(heading, justify="left" if not heading else "right", overflow="fold")
    for name, row in cells.items():
        table.add_row(name, *(row.get(heading, "") for heading in headings))
    Console(file=sys.stdout, width=None if sys.stdout.isatty() else 120, markup=False).print(table)


def _cells(row: Mapping[str, Any], about: Mapping[str, Any]) -> dict[str, str]:
    """A row of metrics as text, by heading."""
    cells: dict[str, str] = {}
    features = about.get("features")
    for metric in (metric for metric in metrics_of(about) if metric.heading and metric.name in row):
        figure = row[metric.name]
        cells[metric.heading_in(features)] = metric.text(figure, spread=metric.name == RANKED_BY)
        if metric.shows_minimum(figure, features):
            cells[f"min of {figure['seeds']}"] = f"{figure['minimum']:{metric.format}}"
    return cells | {"NFE": str(row["nfe"]), "samples/s": f"{row['images_per_second']:,.0f}"}
