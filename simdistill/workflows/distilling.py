"""Distillation: from a teacher to a run's folder with generator, metrics, samples and report."""

import copy
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from simdistill.config.expressions import expression
from simdistill.config.recipes import Recipe
from simdistill.config.settings import to_mapping
from simdistill.evaluation.extractors import SHIPPED
from simdistill.evaluation.reference import check_reference
from simdistill.evaluation.table import check_metrics
from simdistill.method.generator import Generator
from simdistill.reports.report import write_report
from simdistill.runs.fingerprint import check_teacher
from simdistill.runs.folder import RunFolder, check_new_run
from simdistill.runs.logs import check_logs, open_logs
from simdistill.support.bar import progress_bar
from simdistill.support.checks import require
from simdistill.support.stopping import Interrupted, stop_requests
from simdistill.teachers.autoencoders import Autoencoder
from simdistill.teachers.teacher import Teacher
from simdistill.teachers.weights import read_into, write_network
from simdistill.training.checkpoints import check_resumable
from simdistill.training.loop import Diverged, Loop
from simdistill.training.milestones import Measurement
from simdistill.training.processes import Processes, joined
from simdistill.training.trainer import DistillationTrainer
from simdistill.workflows.evaluating import evaluate_run
from simdistill.workflows.lengthening import lengthened
from simdistill.workflows.measuring import WITHIN_BUDGET, Measurements, Measuring
from simdistill.workflows.models import Device, own_code_of, recipe_of, starting_network, teacher_of
from simdistill.workflows.proxy import fit_proxy
from simdistill.workflows.ranges import kept_in_range
from simdistill.workflows.reading import Drawn, check_as_sampler


def distill(
    teacher: Teacher,
    recipe: Recipe,
    out: str | Path,
    overwrite: bool = False,
    device: Device = "cpu",
    log: Sequence[str] = (),
    measured: Measurements = WITHIN_BUDGET,
    drawn: Drawn | None = None,
) -> Generator:
    """Distil `teacher` by Algorithm 2 into a one-step generator; everything is stored in the folder `out`.

    For a teacher without weights (an exact density, a function), a small proxy network is first fitted to its samples;
    generator and online network start from it. A module is moved to `device`, put in eval mode and frozen. In a script
    started by torchrun, the processes share the work, each on its own device, and all return the generator. `log` names
    services that also get the metrics: tensorboard, wandb, trackio. `measured` sets how often the run is measured.
    `drawn` are samples of the teacher, if there are some already: a handful are pictured and checked. Noise
    distributions are kept inside the teacher's range, unless the recipe allows more.

    Raises `ValueError` for invalid settings, a denoiser that returns another shape, or an existing folder;
    `Interrupted` after Ctrl-C, with everything saved; `OSError` for a full disk, with older checkpoints intact;
    `Diverged` if the training diverges repeatedly.
    """
    check_logs(log)
    check_metrics(recipe.metrics)
    check_new_run(Path(out), overwrite)
    teacher = teacher.prepared(recipe)
    teacher.held_out(recipe)  # raises errors in its prompts before anything is written
    with joined(device) as (processes, device), ExitStack() as held:
        with progress_bar("checking the teacher", shown=processes.is_main):
            teacher.check("cpu" if processes.shards(recipe.shard) else device)
        check_reference(recipe.reference, recipe.features, teacher.shape, teacher.judged.decode)
        named = ("prompts", "held_out_prompts", "reference", "features")
        files = {name: resolved(getattr(recipe, name)) for name in named}
        recipe = kept_in_range(replace(recipe, **files), teacher, processes.is_main)
        asked = {"verb": "distill", **to_mapping(replace(recipe, teacher=teacher.name))}
        run = processes.on_main(lambda: held.enter_context(RunFolder.begin(Path(out), asked, overwrite)))
        if processes.is_main and not processes.shards(recipe.shard):
            check_as_sampler(run, teacher, device, drawn)
        return _distill(run, teacher, recipe, device, processes, log, measured)


def resume(
    out: str | Path,
    teacher: Teacher | None = None,
    device: Device = "cpu",
    log: Sequence[str] = (),
    measured: Measurements = WITHIN_BUDGET,
    trusted: bool = False,
    iterations: int | None = None,
) -> Generator:
    """Resume an interrupted distillation, on any number of processes; give the `teacher` if it is your own code.

    Other code that the run's configuration names, such as a method, is imported only if `trusted`. With `iterations`,
    their total number, a finished run is trained for longer (see `lengthened`).

    On a CPU, with the same numbers of threads and processes as before, the weights end bit-identical to those of an
    uninterrupted run; otherwise they differ by rounding.

    Raises as `distill` does, and `ValueError` if there is no such run, if its checkpoints are gone, if another process
    works in its folder, or if its teacher was another one.
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
    with joined(device) as (processes, device), ExitStack() as held:
        processes.on_main(lambda: held.enter_context(run.locked()))
        processes.on_main(lambda: check_resumable(run.checkpoints, run.iteration))
        if iterations is not None:
            recipe = processes.on_main(partial(lengthened, run, recipe, iterations))
        with progress_bar("checking the teacher", shown=processes.is_main):
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
    processes.on_main(lambda: check_teacher(run, teacher.name, teacher.unguided))
    with stop_requests() as stop:
        if teacher.trainable is None:
            processes.on_main(lambda: None if run.start.exists() else fit_proxy(teacher, run.start, device, stop))
        _allow_tensor_cores()
        start = starting_network(run, teacher)
        with progress_bar("preparing the networks", shown=processes.is_main):
            trainer = DistillationTrainer(teacher, recipe, start, device, processes)
        logs = open_logs(log, run) if processes.is_main else []
        measuring = Measuring(run, teacher.held_out(recipe), recipe, start, device, measured, logs)
        if processes.is_main and processes.shards(recipe.shard) and measured.seeds != 0:
            measuring.before_sharding(processes.world_size)
        facts: dict[str, Any] = {"levels": trainer.student.levels, "shape": teacher.shape, "classes": teacher.classes}
        facts |= {"text": True, "encoder": teacher.asked.encoder} if teacher.text is not None else {}
        decode = teacher.judged.decode
        facts |= {"autoencoder": str(decode.folder)} if isinstance(decode, Autoencoder) else {}
        left_out = {name.removeprefix("denoiser.") for name in trainer.frozen_names}
        facts |= {"left_out": left_out} if left_out else {}

        def keep() -> None:
            if processes.is_main:
                run.evaluation.unlink(missing_ok=True)  # it is of the weights that are replaced now
            for k, averaging in enumerate(recipe.ema):
                denoiser, ema = trainer.snapshot(k).denoiser, expression(averaging)
                processes.on_main(partial(write_network, run.ema(k), denoiser, **facts, ema=ema))

        def at_milestone() -> Measurement:
            if measured.observe is not None:
                measured.observe(trainer)
            return of(trainer.snapshot(), trainer.iteration)

        def of(student: Generator, iteration: int) -> Measurement:
            store = partial(write_network, denoiser=student.denoiser, **facts)
            return Measurement(partial(measuring.milestone, student, iteration), store)

        def stored(iteration: int, path: Path) -> Measurement:
            denoiser = read_into(copy.deepcopy(start), path)[0].to(device)
            return of(Generator(denoiser, trainer.student.levels), iteration)

        loop = Loop(
            trainer,
            run,
            at_milestone,
            keep,
            processes,
            recipe.checkpoint_minutes,
            measured.grid,
            logs,
            stored,
            patient=measured.milestones is not None,
        )
        try:
            loop.train()
        except (Interrupted, Diverged):
            if processes.is_main:
                write_report(run)
            raise
        finally:
            for service in logs:
                service.close()
        student = trainer.snapshot(for_all=True)
        if processes.is_main:
            fineness = measuring.budget.fineness(lambda: loop.seconds)
            if fineness.samples:
                evaluate_run(
                    run.path,
                    teacher,
                    fineness.samples,
                    fineness.seeds,
                    device,
                    batch=measuring.budget.batch,
                    metrics=recipe.metrics,
                    stop=stop,
                )
            else:
                if measured.samples is None:
                    measuring.pictures(student, teacher)
                write_report(run)
        return student


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
