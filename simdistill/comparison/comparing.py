"""A comparison from its setting to tables and a page, cell by cell; if repeated, it runs only what is missing."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from simdistill.comparison.grid import Cell, varied
from simdistill.comparison.jobs import Job, Workers
from simdistill.comparison.page import Comparison, compare_page
from simdistill.comparison.results import Row, finals, milestones, summary, write_table
from simdistill.comparison.setting import Setting
from simdistill.config.settings import to_mapping
from simdistill.evaluation.quality import machine, reference_for
from simdistill.evaluation.reference import check_reference
from simdistill.evaluation.table import all_metrics, check_metrics
from simdistill.runs.folder import RunFolder, content_of
from simdistill.runs.lock import locked
from simdistill.support.files import check_output, write_atomically
from simdistill.workflows.distilling import resolved
from simdistill.workflows.proxy import fit_proxy

MARK = "comparison.json"  # makes a folder a comparison's

MEASURED = (
    "teacher",
    "teacher_levels",
    "teacher_range",
    "teacher_guidance",
    "guidance_interval",
    "prompts",
    "held_out_prompts",
    "reference",
    "features",
    "metrics",
)
"""The settings that the teacher's metrics depend on."""


def compare(setting: Setting, command: str) -> tuple[list[Row], list[Job]]:
    """Run the missing cells of the comparison and write its tables and its page, which shows the `command`.

    Returns the variants, best first, and the jobs. Raises `ValueError` for a folder with other content or in use by
    another process, or a teacher that cannot be loaded, and `Interrupted` after a signal, once tables and page of the
    finished cells are written.
    """
    check(setting)
    with locked(setting.out):
        write_atomically(setting.out / MARK, json.dumps({"command": command}).encode())
        jobs = prepare(setting)
        count, threads, devices = setting.processes
        missing = {job.run.path: job for job in jobs if job.missing(setting.samples, setting.evaluation_seeds)}
        measured = setting.samples, setting.evaluation_seeds, setting.milestones
        workers = Workers(setting.recipe.teacher, count, threads, devices, *measured)
        try:
            workers.run(list(missing.values()))  # variants may be the same recipe
        finally:
            rows = write_results(setting, jobs, command)
    return rows, jobs


def check(setting: Setting) -> None:
    """Check that teacher and reference can be loaded, and that the folder is empty or a comparison with the same ones.

    Nothing is written.
    """
    teacher, judged, out = setting.teacher, setting.judged, setting.out
    check_folder(out)
    teacher.check(setting.processes[2][0])
    check_metrics(setting.recipe.metrics)
    if setting.recipe.reference or judged.features:
        check_reference(resolved(setting.recipe.reference), judged.features, teacher.shape, teacher.judged.decode)
    if (out / "teacher").exists():
        _teacher_folder(setting)


def check_folder(out: Path) -> None:
    """Raise `ValueError` unless a comparison can be in the folder `out`: to be asked before its teacher is loaded."""
    check_output(out, folder=True)
    if out.exists() and content_of(out) and not (out / MARK).exists():
        raise ValueError(f"--out = {out}: has other content than a comparison; give another --out")


def prepare(setting: Setting) -> list[Job]:
    """Make a folder for each cell and for the teacher, and the files that they share; the teacher's job comes last."""
    teacher, judged, out = setting.teacher, setting.judged, setting.out
    device = setting.processes[2][0]
    measured = Job("teacher", "teacher", _teacher_folder(setting), 0)
    if judged.reference and not Path(judged.reference).exists():
        Console(stderr=True).print("drawing the teacher's samples, the reference of all cells")
        reference_for(teacher, device=device, features=judged.features, kept=Path(judged.reference))
    start = out / "start.safetensors"
    if teacher.trainable is None and not start.exists():
        fit_proxy(teacher, start, device)
    found = [_job(cell, out / "cells") for cell in setting.cells]
    for job in found:
        if start.exists() and not job.damage and not job.run.start.exists():
            shutil.copyfile(start, job.run.start)
    return [*found, measured]


def write_results(setting: Setting, jobs: Sequence[Job], command: str) -> list[Row]:
    """Write the tables and the page of the finished cells; returns the variants, best first."""
    students, samples, seeds = jobs[:-1], setting.samples, setting.evaluation_seeds
    table = finals(setting.cells, students, varied(setting.grid), samples, seeds)
    curves = milestones(setting.cells, students)
    rows = summary(table)
    write_table(table, setting.out / "cells")
    write_table(curves, setting.out / "milestones")
    first = {
        cell.variant: job for cell, job in zip(setting.cells, students, strict=True) if cell.seed == setting.recipe.seed
    }
    pictures = {"teacher": jobs[-1].run.picture("teacher")}
    pictures |= {row.variant: first[row.variant].run.picture("student") for row in rows}
    count, threads, _ = setting.processes
    page = Comparison(
        name=setting.out.resolve().name,
        command=command,
        machine=f"{machine().partition('; ')[0]}, {count} cells in parallel, {threads} thread"
        f"{'s' if threads > 1 else ''} each",
        budget=f"{setting.recipe.iterations:,} iterations of batch {setting.recipe.batch}",
        rows=rows,
        metrics=all_metrics(setting.recipe.metrics),
        milestones=curves,
        teacher=jobs[-1].figures(samples, seeds),
        pictures=pictures,
        failures={job.name: job.failure for job in jobs if job.failure},
        seeds=setting.training_seeds,
    )
    write_atomically(setting.out / "compare.html", compare_page(page).encode())
    return rows


def _job(cell: Cell, parent: Path) -> Job:
    """The cell's job in its folder, made if missing; a damaged folder does not stop the other cells."""
    path, damage = cell.folder(parent), None
    try:
        RunFolder.with_config(path, {"verb": "distill", **to_mapping(cell.recipe)})
    except ValueError as error:
        damage = str(error)
    return Job("student", f"{cell.variant}, seed {cell.seed}", RunFolder(path), cell.recipe.iterations, damage)


def _teacher_folder(setting: Setting) -> RunFolder:
    """The teacher's folder with what its metrics depend on: not the seeds or budgets of the students."""
    values = to_mapping(setting.judged)
    return RunFolder.with_config(setting.out / "teacher", {"verb": "distill", **{key: values[key] for key in MEASURED}})
