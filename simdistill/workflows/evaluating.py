"""A run's figures and pictures beside those of its teacher."""

import json
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from simdistill.evaluation.figures import described, in_short, total_samples
from simdistill.evaluation.partial import Partial
from simdistill.evaluation.quality import SAMPLES, SEEDS, evaluate, machine, reference_for
from simdistill.evaluation.reference import Reference
from simdistill.evaluation.sampling import Sampler, balanced_labels, draw, student_sampler, teacher_sampler
from simdistill.evaluation.table import METRICS, OF_FEW
from simdistill.method.generator import Generator
from simdistill.method.metrics import OwnMetric
from simdistill.method.shapes import Data
from simdistill.reports.pictures import Window, picture, side_by_side
from simdistill.reports.report import write_report
from simdistill.runs.fingerprint import other_teacher
from simdistill.runs.folder import RunFolder
from simdistill.runs.lock import in_use
from simdistill.support.bar import progress_bar
from simdistill.support.files import digest, file_name, write_atomically
from simdistill.support.stopping import Interrupted
from simdistill.teachers.loading import named_run
from simdistill.teachers.teacher import Teacher
from simdistill.training.processes import ALONE, Processes
from simdistill.workflows.budget import FULL, PICTURED, PICTURED_ALONE, Fineness
from simdistill.workflows.models import Device, load_generator, open_run, recipe_of, starting_network, teacher_of
from simdistill.workflows.reading import READING_SEED, kept


def evaluate_run(
    out: str | Path,
    teacher: Teacher | None = None,
    samples: int = SAMPLES,
    seeds: int = SEEDS,
    device: Device = "cpu",
    reference: str = "",
    features: str = "",
    batch: int | None = None,
    processes: Processes = ALONE,
    student_only: bool = False,
    prompts: str = "",
    metrics: Sequence[OwnMetric] = (),
    stop: Sequence[str] = (),
) -> dict[str, Any]:
    """Measure a run's teacher, student and undistilled generator side by side, and renew its pictures and report.

    They are left as they are if they rest on more samples than this evaluation, or if this teacher has other weights
    than the run's, of which a warning is printed. `reference`, `features` and `prompts`
    go before those of the run's recipe. `metrics` of your own are measured beside the table's; those that the recipe
    names are code, so that they have to be given again. Of several `processes` each draws its part of the samples, and
    all return the figures. With `student_only` neither teacher nor undistilled generator draw any, and nothing is
    written.

    Once a signal is in the list `stop`, `Interrupted` is raised; the same call then goes on where it was.

    Returns what it writes to `evaluation.json`: the figures that `simdistill.evaluation.quality.evaluate` describes,
    `reference` and `features`, what they were measured against and in, `real`, those of held-out real samples where
    there are any, `own_metrics`, what the metrics of your own are called, `speedup`, the student's samples per second
    over the teacher's if it drew, and `machine`, what they were measured on. Raises `ValueError` if there is no such
    run, or its reference cannot be had.
    """
    run = open_run(out)
    recipe = recipe_of(run)
    if prompts:
        recipe = replace(recipe, prompts=prompts, held_out_prompts="")
    teacher = (teacher or teacher_of(run)).prepared(recipe).held_out(recipe)
    other = other_teacher(run, teacher.name, teacher.unguided)
    if other and processes.is_main:
        print(f"warning: {other}; the figures are only printed", file=sys.stderr, flush=True)
    teacher.check(device)
    start = starting_network(run, teacher)
    emas = run.configuration().get("ema", [""])
    weights = digest(*(run.ema(k) for k in range(len(emas)) if run.ema(k).exists()))  # before a training replaces them
    students = [load_generator(out, Teacher(start, teacher.shape), k)[0].to(device) for k in range(len(emas))]
    start.to(device)
    samplers: dict[str, Sampler] = {
        "teacher": teacher_sampler(teacher),
        "student": student_sampler(students[0], teacher),
        "undistilled": student_sampler(Generator(start, students[0].levels), teacher),
    }
    others = {f"ema-{k}": str(one) for k, one in enumerate(emas) if k > 0}
    samplers |= {name: student_sampler(student, teacher) for name, student in zip(others, students[1:], strict=True)}
    if student_only:
        samplers = {name: sampler for name, sampler in samplers.items() if name not in ("teacher", "undistilled")}
    stored, features = reference or recipe.reference, features or recipe.features

    def between() -> None:
        if stop:
            repeat = f"simdistill evaluate {named_run(Path(out), recipe.teacher)}"
            raise Interrupted(f"stopped by {stop[0]} in the evaluation; what is measured is kept for {repeat}", stop[0])

    stored_here = None if prompts or other else run.reference
    against = reference_for(teacher, samples, device, stored, features, stored_here, processes, between)
    asked = samples, recipe.prompts, recipe.held_out_prompts, described(metrics), student_only
    partial = Partial(
        run.partial, repr((weights, teacher.name, other, against.extractor.name, against.name, stored, asked))
    )
    processes.on_main(partial.prepare)
    found = evaluate(
        samplers,
        teacher,
        against,
        samples,
        seeds,
        device=device,
        batch=batch,
        together=processes,
        own=metrics,
        partial=partial,
        between=between,
    )
    figures: dict[str, Any] = {
        **found,
        "ema": others,
        "reference": against.name,
        "features": against.extractor.name,
        "dimensions": len(against.statistics.moments.mean),
        "real": against.real(metrics),
        "own_metrics": described(metrics),
        "machine": machine(),
    }
    processes.on_main(partial.finish)
    if student_only:
        return figures
    ratio = found["student"]["images_per_second"] / found["teacher"]["images_per_second"]
    figures["speedup"] = round(ratio, 1)
    if not other:
        processes.on_main(lambda: _keep(run, figures, samplers, teacher, against, device))
    return figures


def _keep(
    run: RunFolder,
    figures: dict[str, Any],
    samplers: Mapping[str, Sampler],
    teacher: Teacher,
    reference: Reference,
    device: Device,
) -> None:
    """Write figures, pictures and report of an evaluation, unless those there rest on more samples.

    Nor while another process trains the run: they would be of weights that it replaces.
    """
    trains = in_use(run.path)
    if trains:
        print(f"not written into {run.path}: {trains} trains it; evaluate it again afterwards", file=sys.stderr)
        return
    if _samples(run) > total_samples(figures["student"]):
        print(f"{run.evaluation} and the report rest on more samples, and stay as they are", file=sys.stderr)
        return
    _keep_beside(run, figures["features"])
    with progress_bar("drawing the pictures", len(samplers)) as bar:
        for name, sampler in samplers.items():
            show(run, name, sampler, teacher, reference, device, figures["student"]["samples"])
            bar()
    both = side_by_side(run.picture("teacher").read_bytes(), run.picture("student").read_bytes())
    write_atomically(run.picture("side-by-side"), both)
    write_atomically(run.evaluation, json.dumps(figures, indent=2).encode())
    write_report(run)


def _keep_beside(run: RunFolder, features: str) -> None:
    """Keep the figures of another feature space than `features` in a file of their own, and say so."""
    try:
        other = run.read_evaluation().get("features")
    except ValueError:  # damaged
        return
    if other is None or other == features:
        return
    beside = run.path / f"evaluation-{file_name(other)}.json"
    write_atomically(beside, run.evaluation.read_bytes())
    print(f"the report now has the figures in the features {features}; those in {other}: {beside}", file=sys.stderr)


def milestone(
    run: RunFolder,
    iteration: int,
    sampler: Sampler,
    teacher: Teacher,
    reference: Reference,
    device: Device,
    fineness: Fineness = FULL,
    batch: int | None = None,
    between: Callable[[], None] = lambda: None,
) -> tuple[dict[str, Any], str]:
    """Measure and picture a sampler in the middle of a training: values for the metrics, and text for the progress."""
    samples, seeds = fineness.milestone_samples, fineness.milestone_seeds
    drawn = _first_samples(sampler, teacher, device, samples)
    if not bool(drawn.isfinite().all()):
        return {}, "samples are not finite"  # the training will see for itself that it has diverged
    write_atomically(run.picture(f"{iteration:08d}"), _drawn(drawn, teacher, reference, device))
    figures = evaluate(
        {"it": sampler}, teacher, reference, samples, seeds, full=False, device=device, batch=batch, between=between
    )
    quality = {metric.name: figures["it"][metric.name] for metric in METRICS if metric.name in figures["it"]}
    said = in_short(quality, reference.extractor.name, few=OF_FEW in quality)
    about = {"features": reference.extractor.name, "reference": reference.name, "samples": samples}
    return {"quality": quality | about}, said


def picture_alone(run: RunFolder, iteration: int, sampler: Sampler, teacher: Teacher, device: Device) -> None:
    """Picture a few samples in the middle of a training whose teacher takes too long for it to be measured."""
    drawn = _first_samples(sampler, teacher, device, PICTURED_ALONE)
    if bool(drawn.isfinite().all()):
        beside = kept(run)
        window = None if beside is None else Window.around(beside.samples)
        write_atomically(run.picture(f"{iteration:08d}"), picture(teacher.decoded(drawn, device), window=window))


def picture_beside(run: RunFolder, samplers: Mapping[str, Sampler], teacher: Teacher, device: Device) -> None:
    """Picture each sampler beside the samples of the teacher that the run was checked by, from the same noise.

    For a run that is not measured: the teacher draws none. Does nothing if they were not kept.
    """
    beside = kept(run)
    if beside is None:
        return
    count = min(PICTURED, len(beside.samples)) if len(teacher.shape) == 3 else len(beside.samples)
    rows, seeds = None if beside.rows is None else beside.rows[:count], range(READING_SEED, READING_SEED + count)
    sets = {"teacher": beside.samples[:count]}
    sets |= {name: draw(sampler, seeds, teacher.shape, rows, device) for name, sampler in samplers.items()}
    window = Window.around(sets["teacher"])
    for name, samples in sets.items():
        write_atomically(run.picture(name), picture(teacher.decoded(samples, device), window=window))
    both = side_by_side(run.picture("teacher").read_bytes(), run.picture("student").read_bytes())
    write_atomically(run.picture("side-by-side"), both)


def show(
    run: RunFolder,
    name: str,
    sampler: Sampler,
    teacher: Teacher,
    reference: Reference,
    device: Device,
    samples: int = SAMPLES,
) -> None:
    """Store a picture of the first of the sampler's `samples`: of 80, or of vectors, of up to 2000."""
    drawn = _first_samples(sampler, teacher, device, samples)
    write_atomically(run.picture(name), _drawn(drawn, teacher, reference, device))


def _drawn(samples: Data, teacher: Teacher, reference: Reference, device: Device) -> bytes:
    """The picture of samples; all scatter plots of a run, and of runs with the same reference, have its axes."""
    points = reference.statistics.features
    mean = reference.statistics.moments.mean
    if len(teacher.shape) == 3 or len(mean) != math.prod(teacher.shape):  # images, or features of their own
        return picture(teacher.decoded(samples, device))
    if points is None:  # moments alone: 3 standard deviations each way
        deviation = 3 * reference.statistics.moments.covariance.diagonal().sqrt()
        points = torch.stack([mean - deviation, mean + deviation])
    return picture(teacher.decoded(samples, device), window=Window.around(points))


def _first_samples(sampler: Sampler, teacher: Teacher, device: Device, samples: int) -> Data:
    seeds = range(min(samples, PICTURED if len(teacher.shape) == 3 else SAMPLES))
    return draw(sampler, seeds, teacher.shape, balanced_labels(len(seeds), teacher.conditions), device)


def _samples(run: RunFolder) -> int:
    """How many samples the run's stored figures rest on; 0 if there are none."""
    try:
        return total_samples(run.read_evaluation()["student"])
    except (ValueError, KeyError, TypeError):  # none there, or damaged: to be written anew
        return 0
