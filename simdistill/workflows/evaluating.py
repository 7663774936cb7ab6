"""A run's figures and pictures beside those of its teacher."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from simdistill.evaluation.figures import described, in_short, total_samples
from simdistill.evaluation.quality import evaluate, machine, reference_for
from simdistill.evaluation.reference import Reference
from simdistill.evaluation.sampling import Sampler, balanced_labels, draw, student_sampler, teacher_sampler
from simdistill.evaluation.table import quick_metrics
from simdistill.method.generator import Generator
from simdistill.method.metrics import OwnMetric
from simdistill.method.shapes import Data
from simdistill.reports.pictures import picture, side_by_side
from simdistill.reports.report import write_report
from simdistill.runs.folder import RunFolder
from simdistill.support.files import write_atomically
from simdistill.teachers.teacher import Teacher
from simdistill.training.processes import ALONE, Processes
from simdistill.workflows.models import Device, load_generator, open_run, recipe_of, starting_network, teacher_of

MILESTONE_SAMPLES = 2000
MILESTONE_SEEDS = 3
PICTURE_SEEDS = range(80)  # of the pictures over time and of the report


def evaluate_run(
    out: str | Path,
    teacher: Teacher | None = None,
    samples: int = 2000,
    seeds: int = 5,
    device: Device = "cpu",
    reference: str = "",
    features: str = "",
    batch: int | None = None,
    processes: Processes = ALONE,
    student_only: bool = False,
    prompts: str = "",
    metrics: Sequence[OwnMetric] = (),
) -> dict[str, Any]:
    """Measure a run's teacher, student and undistilled generator side by side, and renew its pictures and report.

    They are left as they are if they rest on more samples than this evaluation. `reference`, `features` and `prompts`
    go before those of the run's recipe. `metrics` of your own are measured beside the table's; those that the recipe
    names are code, so that they have to be given again. Of several `processes` each draws its part of the samples, and
    all return the figures. With `student_only` neither teacher nor undistilled generator draw any, and nothing is
    written.

    Returns what it writes to `evaluation.json`: the figures that `simdistill.evaluation.quality.evaluate` describes,
    `reference` and `features`, what they were measured against and in, `real`, those of held-out real samples where
    there are any, `own_metrics`, what the metrics of your own are called, `speedup`, the student's images per second
    over the teacher's if it drew, and `machine`, what they were measured on. Raises `ValueError` if there is no such
    run, or its reference cannot be had.
    """
    run = open_run(out)
    recipe = recipe_of(run)
    if prompts:
        recipe = replace(recipe, prompts=prompts, held_out_prompts="")
    teacher = (teacher or teacher_of(run)).prepared(recipe).held_out(recipe)
    teacher.check(device)
    start = starting_network(run, teacher)
    emas = run.configuration().get("ema", [""])
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
    against = reference_for(teacher, device=device, stored=stored, features=features)
    found = evaluate(
        samplers, teacher, against, samples, seeds, device=device, batch=batch, together=processes, own=metrics
    )
    figures: dict[str, Any] = {
        **found,
        "ema": others,
        "reference": against.name,
        "features": against.extractor.name,
        "real": against.real(metrics),
        "own_metrics": described(metrics),
        "machine": machine(),
    }
    if student_only:
        return figures
    ratio = found["student"]["images_per_second"] / found["teacher"]["images_per_second"]
    figures["speedup"] = round(ratio, 1)
    processes.on_main(lambda: _keep(run, figures, samplers, teacher, device))
    return figures


def _keep(
    run: RunFolder, figures: dict[str, Any], samplers: Mapping[str, Sampler], teacher: Teacher, device: Device
) -> None:
    """Write figures, pictures and report of an evaluation, unless those there rest on more samples."""
    if _samples(run) > total_samples(figures["student"]):
        return
    for name, sampler in samplers.items():
        show(run, name, sampler, teacher, device)
    both = side_by_side(run.picture("teacher").read_bytes(), run.picture("student").read_bytes())
    write_atomically(run.picture("side-by-side"), both)
    write_atomically(run.evaluation, json.dumps(figures, indent=2).encode())
    write_report(run)


def milestone(
    run: RunFolder,
    iteration: int,
    sampler: Sampler,
    teacher: Teacher,
    reference: Reference,
    device: Device,
    seeds: int = MILESTONE_SEEDS,
) -> tuple[dict[str, Any], str]:
    """Measure and picture a sampler in the middle of a training: values for the metrics, and text for the progress."""
    drawn = _first_samples(sampler, teacher, device)
    if not bool(drawn.isfinite().all()):
        return {}, "samples are not finite"  # the training will see for itself that it has diverged
    write_atomically(run.picture(f"{iteration:08d}"), picture(teacher.decoded(drawn, device)))
    figures = evaluate({"it": sampler}, teacher, reference, MILESTONE_SAMPLES, seeds, full=False, device=device)
    quality = {metric.name: figures["it"][metric.name] for metric in quick_metrics() if metric.name in figures["it"]}
    said = in_short(quality, reference.extractor.name)
    return {"quality": quality | {"features": reference.extractor.name, "reference": reference.name}}, said


def show(run: RunFolder, name: str, sampler: Sampler, teacher: Teacher, device: Device) -> None:
    """Store a picture of the sampler's first samples; of vectors, of more of them."""
    drawn = _first_samples(sampler, teacher, device)
    write_atomically(run.picture(name), picture(teacher.decoded(drawn, device)))


def _first_samples(sampler: Sampler, teacher: Teacher, device: Device) -> Data:
    seeds = PICTURE_SEEDS if len(teacher.shape) == 3 else range(2000)
    return draw(sampler, seeds, teacher.shape, balanced_labels(len(seeds), teacher.conditions), device)


def _samples(run: RunFolder) -> int:
    """How many samples the run's stored figures rest on; 0 if there are none."""
    try:
        return total_samples(run.read_evaluation()["student"])
    except (ValueError, KeyError, TypeError):  # none there, or damaged: to be written anew
        return 0
