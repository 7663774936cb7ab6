"""Distillation from a teacher to a run's folder with generator, metrics, pictures and report."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import track

from simdistill.configuration import to_mapping
from simdistill.evaluation.quality import balanced_labels, draw, reference_for, teacher_sampler
from simdistill.evaluation.report import write_report
from simdistill.generator import Generator
from simdistill.recipes import Recipe
from simdistill.runs import RunFolder
from simdistill.teachers.teacher import Teacher
from simdistill.teachers.weights import write_network
from simdistill.training.loop import Diverged, Interrupted, train
from simdistill.training.pretrain import Pretraining, PretrainingTrainer
from simdistill.training.trainer import DistillationTrainer
from simdistill.workflows.measuring import Device, evaluate_run, milestone, recipe_of, starting_network, teacher_of

IMITATION = Pretraining(width=128, iterations=3000, ema_half_life=50_000)
IMITATION_SAMPLES = 20_000
IMITATION_SEED = 3 * 2**30  # far from the seeds that are evaluated, and from the reference's


def distill(
    teacher: Teacher, recipe: Recipe, out: str | Path, overwrite: bool = False, device: Device = "cpu"
) -> Generator:
    """Distil `teacher` by Algorithm 2 into a one-step generator, with everything about it in the folder `out`.

    A teacher without weights of its own (an exact density, a function) is first imitated by a small network that is
    fitted to its samples, from which generator and online network start. A module is moved to `device`, put in eval
    mode and frozen. Raises `ValueError` for bad settings, a
    denoiser that returns another shape, or an existing folder; `Interrupted` after Ctrl-C with everything saved;
    `Diverged` where a number is not finite.
    """
    teacher.check(device)
    asked = {"verb": "distill", **to_mapping(replace(recipe, teacher=teacher.name))}
    return _distill(RunFolder.create(Path(out), asked, overwrite), teacher, recipe, device)


def resume(out: str | Path, teacher: Teacher | None = None, device: Device = "cpu") -> Generator:
    """Go on with an interrupted distillation; give the `teacher` if it is one of your own.

    On a CPU, with as many threads as before, the weights end bit-identical to those of a run left alone; on a GPU as
    nearly as its kernels repeat themselves.

    Raises as `distill` does, and `ValueError` if there is no such run.
    """
    run = RunFolder.open(Path(out))
    recipe, teacher = recipe_of(run), teacher or teacher_of(run)
    teacher.check(device)
    return _distill(run, teacher, recipe, device)


def _distill(run: RunFolder, teacher: Teacher, recipe: Recipe, device: Device) -> Generator:
    if teacher.trainable is None and not run.start.exists():
        _imitate(teacher, run.start, device)
    trainer = DistillationTrainer(teacher, recipe, starting_network(run, teacher), device)
    reference = reference_for(teacher, device=device)

    def keep() -> None:
        facts = {"sigma_init": recipe.sigma_init, "shape": teacher.shape, "classes": teacher.classes}
        write_network(run.network, trainer.average.denoiser, **facts)

    def at_milestone() -> tuple[dict[str, Any], str]:
        student = torch.no_grad()(trainer.average)
        return milestone(run, trainer.iteration, student, teacher, reference, device)

    try:
        train(trainer, run, at_milestone, keep)
    except (Interrupted, Diverged):
        write_report(run)
        raise
    run.evaluation.unlink(missing_ok=True)  # it may stem from before an interruption
    evaluate_run(run.path, teacher, device=device)
    return trainer.average


def _imitate(teacher: Teacher, path: Path, device: Device) -> None:
    """Fit a small network to samples of `teacher`, from its denoiser alone, and store it in `path`."""
    seeds = range(IMITATION_SEED, IMITATION_SEED + IMITATION_SAMPLES)
    labels = balanced_labels(len(seeds), teacher.classes)
    samples = draw(teacher_sampler(teacher), seeds, teacher.shape, labels, device)
    trainer = PretrainingTrainer(samples, labels, IMITATION, device)
    what = "fitting a network to the teacher"
    for _ in track(range(trainer.iterations), what, console=Console(stderr=True), transient=True):
        trainer.step()
    write_network(path, trainer.average)
