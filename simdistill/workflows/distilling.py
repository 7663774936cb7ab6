"""Distillation: from a teacher to a run's folder with generator, metrics, samples and report."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import track

from simdistill.config.expressions import expression
from simdistill.config.recipes import Recipe
from simdistill.config.settings import to_mapping
from simdistill.data.images import array_set
from simdistill.evaluation.extractors import SHIPPED
from simdistill.evaluation.quality import FEWEST_SAMPLES, reference_for
from simdistill.evaluation.reference import Reference, check_reference
from simdistill.evaluation.sampling import balanced_labels, draw, student_sampler, teacher_sampler
from simdistill.evaluation.table import check_metrics
from simdistill.method.generator import Generator
from simdistill.reports.report import write_report
from simdistill.runs.folder import RunFolder
from simdistill.runs.logs import check_logs, open_logs
from simdistill.support.checks import require
from simdistill.teachers.autoencoders import Autoencoder
from simdistill.teachers.teacher import Teacher
from simdistill.teachers.weights import write_network
from simdistill.training.loop import MILESTONES, Diverged, Interrupted, Loop, Measuring
from simdistill.training.pretrainer import PretrainingTrainer
from simdistill.training.pretraining import Pretraining
from simdistill.training.processes import Processes, joined
from simdistill.training.trainer import DistillationTrainer
from simdistill.workflows.evaluating import MILESTONE_SEEDS, evaluate_run, milestone
from simdistill.workflows.models import Device, own_code_of, recipe_of, starting_network, teacher_of

PROXY = Pretraining(width=128, iterations=3000, ema_half_life=50_000)
PROXY_OCTAVES = 5  # of Fourier features, for samples of at most …
FEW = 4  # … this many coordinates: with more, the features would outnumber the data (docs/gallery.md)
PROXY_SAMPLES = 20_000
PROXY_SEED = 3 * 2**30  # far from the seeds of the evaluation and of the reference


@dataclass(frozen=True)
class Measurements:
    """How often, and with how many samples, a run is measured; the training does not depend on it."""

    milestones: int = MILESTONES
    """Milestones of the training, besides its start."""
    seeds: int = MILESTONE_SEEDS
    """Evaluation seeds per milestone; 0 measures and draws nothing there."""
    samples: int = 2000
    """Samples of student, teacher and start per evaluation seed at the end; 0 leaves it to `simdistill evaluate`."""
    observe: Callable[[DistillationTrainer], None] | None = None
    """Called with the trainer at each milestone, before the next step."""

    def __post_init__(self) -> None:
        allowed = self.samples == 0 or self.samples >= FEWEST_SAMPLES
        require(allowed, "evaluation_samples", self.samples, f"at least {FEWEST_SAMPLES}, or 0 for no evaluation")


def distill(
    teacher: Teacher,
    recipe: Recipe,
    out: str | Path,
    overwrite: bool = False,
    device: Device = "cpu",
    log: Sequence[str] = (),
    measured: Measurements = Measurements(),
) -> Generator:
    """Distil `teacher` by Algorithm 2 into a one-step generator; everything is stored in the folder `out`.

    For a teacher without weights (an exact density, a function), a small proxy network is first fitted to its samples;
    generator and online network start from it. A module is moved to `device`, put in eval mode and frozen. In a script
    started by torchrun, the processes share the work, each on its own device, and all return the generator. `log` names
    services that also get the metrics: tensorboard, wandb, trackio. `measured` sets how often the run is measured.

    Raises `ValueError` for invalid settings, a denoiser that returns another shape, or an existing folder;
    `Interrupted` after Ctrl-C, with everything saved; `OSError` for a full disk, with older checkpoints intact;
    `Diverged` if the training diverges repeatedly.
    """
    check_logs(log)
    check_metrics(recipe.metrics)
    teacher = teacher.prepared(recipe)
    teacher.held_out(recipe)  # raises errors in its prompts before anything is written
    with joined(device) as (processes, device):
        teacher.check("cpu" if processes.shards(recipe.shard) else device)
        check_reference(recipe.reference, recipe.features, teacher.shape, teacher.judged.decode)
        named = ("prompts", "held_out_prompts", "reference", "features")
        files = {name: resolved(getattr(recipe, name)) for name in named}
        recipe = replace(recipe, **files)
        asked = {"verb": "distill", **to_mapping(replace(recipe, teacher=teacher.name))}
        run = processes.on_main(lambda: RunFolder.create(Path(out), asked, overwrite))
        return _distill(run, teacher, recipe, device, processes, log, measured)


def resume(
    out: str | Path,
    teacher: Teacher | None = None,
    device: Device = "cpu",
    log: Sequence[str] = (),
    measured: Measurements = Measurements(),
    trusted: bool = False,
) -> Generator:
    """Resume an interrupted distillation, on any number of processes; give the `teacher` if it is your own code.

    Other code that the run's configuration names, such as a method, is imported only if `trusted`.

    On a CPU, with the same numbers of threads and processes as before, the weights end bit-identical to those of an
    uninterrupted run; otherwise they differ by rounding.

    Raises as `distill` does, and `ValueError` if there is no such run.
    """
    check_logs(log)
    run = RunFolder.open(Path(out))
    imported = run.configuration().get("verb") == "convert"
    require(not imported, "--resume", str(out), "a run that was trained here; this one was converted")
    own = {} if trusted else own_code_of(run)
    named = ", ".join(f"{name} = {value}" for name, value in own.items())
    require(not own, f"{out}: names code to import, {named}: --trust-code", False, "given if you trust it")
    recipe = recipe_of(run, trusted=True)
    teacher = (teacher or teacher_of(run)).prepared(recipe)
    with joined(device) as (processes, device):
        teacher.check("cpu" if processes.shards(recipe.shard) else device)
        return _distill(run, teacher, recipe, device, processes, log, measured)


def _distill(
    run: RunFolder,
    teacher: Teacher,
    recipe: Recipe,
    device: torch.device,
    processes: Processes,
    log: Sequence[str],
    measured: Measurements,
) -> Generator:
    if teacher.trainable is None:
        processes.on_main(lambda: None if run.start.exists() else fit_proxy(teacher, run.start, device))
    _allow_tensor_cores()
    trainer = DistillationTrainer(teacher, recipe, starting_network(run, teacher), device, processes)
    judged = teacher.held_out(recipe)
    reference = _reference(judged, recipe, device) if processes.is_main and measured.seeds else None
    logs = open_logs(log, run) if processes.is_main else []

    def keep() -> None:
        if processes.is_main:
            run.evaluation.unlink(missing_ok=True)  # it is of the weights that are replaced now
        facts = {"levels": trainer.student.levels, "shape": teacher.shape, "classes": teacher.classes}
        facts |= {"text": True, "encoder": teacher.asked.encoder} if teacher.text is not None else {}
        decode = teacher.judged.decode
        facts |= {"autoencoder": str(decode.folder)} if isinstance(decode, Autoencoder) else {}
        left_out = {name.removeprefix("denoiser.") for name in trainer.frozen_names}
        for k, averaging in enumerate(recipe.ema):
            denoiser = trainer.snapshot(k).denoiser
            facts["ema"] = expression(averaging)
            processes.on_main(
                partial(write_network, run.ema(k), denoiser, **({"left_out": left_out} if left_out else {}), **facts)
            )

    def at_milestone() -> Measuring:
        student, iteration = trainer.snapshot(), trainer.iteration
        if measured.observe is not None:
            measured.observe(trainer)

        def measuring() -> tuple[dict[str, Any], str]:
            if not measured.seeds:
                return {}, ""
            assert reference is not None  # only the main process measures
            sampler = student_sampler(student, judged)
            found = milestone(run, iteration, sampler, judged, reference, device, measured.seeds)
            for service in logs:
                if run.picture(f"{iteration:08d}").exists():
                    service.picture("student", iteration, run.picture(f"{iteration:08d}"))
            return found

        return measuring

    try:
        minutes, milestones = recipe.checkpoint_minutes, measured.milestones
        Loop(trainer, run, at_milestone, keep, processes, minutes, milestones, logs).train()
    except (Interrupted, Diverged):
        if processes.is_main:
            write_report(run)
        raise
    finally:
        for service in logs:
            service.close()
    student = trainer.snapshot(for_all=True)
    if processes.is_main:
        if measured.samples:
            evaluate_run(run.path, teacher, measured.samples, device=device, metrics=recipe.metrics)
        else:
            write_report(run)
    return student


def _reference(teacher: Teacher, recipe: Recipe, device: torch.device) -> Reference:
    """The reference of the metrics; a teacher that is on the CPU, to be sharded, is moved to the device and back."""
    module = teacher.trainable
    waiting = module is not None and next(module.parameters()).device.type != device.type
    if module is not None and waiting:
        module.to(device)
    reference = reference_for(teacher, device=device, stored=recipe.reference, features=recipe.features)
    if module is not None and waiting:
        module.to("cpu")
    return reference


def resolved(name: str) -> str:
    """The absolute path of an existing file or folder, so that the run resumes anywhere; other names unchanged."""
    return str(Path(name).resolve()) if name and Path(name).exists() and name not in SHIPPED else name


def _allow_tensor_cores() -> None:
    """Let GPUs use TF32 for float32 matrices (which keeps ten bits of each factor), and benchmark convolutions.

    Changes nothing on a CPU.
    """
    if torch.cuda.is_available():
        torch.set_float32_matmul_precision("high")
        torch.backends.cudnn.allow_tf32 = True
        torch.backends.cudnn.benchmark = True


def proxy_settings(shape: tuple[int, ...]) -> Pretraining:
    """How the proxy network for a teacher of samples of this `shape` is built and fitted."""
    return replace(PROXY, octaves=PROXY_OCTAVES) if math.prod(shape) <= FEW else PROXY


def fit_proxy(teacher: Teacher, path: Path, device: Device) -> None:
    """Fit a proxy network to samples of `teacher`, drawn with its denoiser, and store it in `path`."""
    seeds = range(PROXY_SEED, PROXY_SEED + PROXY_SAMPLES)
    labels = balanced_labels(len(seeds), teacher.conditions)
    samples = draw(teacher_sampler(teacher), seeds, teacher.shape, labels, device)
    settings = proxy_settings(teacher.shape)
    trainer = PretrainingTrainer(array_set("the teacher's samples", samples, labels), settings, device)
    what = "fitting a proxy network to the teacher"
    for _ in track(range(trainer.iterations), what, console=Console(stderr=True), transient=True):
        trainer.step()
    write_network(path, trainer.average)
