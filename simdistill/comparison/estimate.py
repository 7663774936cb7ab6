"""How long a comparison will take, estimated from a few iterations of each kind of cell."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import track

from simdistill.comparison.grid import varied
from simdistill.comparison.setting import Setting
from simdistill.config.recipes import Recipe
from simdistill.config.settings import to_mapping
from simdistill.evaluation.extractors import Extractor, load_extractor
from simdistill.evaluation.quality import evaluate
from simdistill.evaluation.reference import Reference, stored_reference
from simdistill.evaluation.sampling import student_sampler
from simdistill.evaluation.statistics import Statistics
from simdistill.teachers.teacher import Teacher
from simdistill.training.trainer import DistillationTrainer
from simdistill.workflows.evaluating import MILESTONE_SAMPLES
from simdistill.workflows.planning import starting_kind

TIMED_SECONDS = 2.0  # of training


def estimate(setting: Setting) -> dict[str, float]:
    """Estimated seconds per cell of each variant, training and evaluation, from a few iterations."""
    torch.set_num_threads(setting.processes[1])
    teacher = setting.teacher
    teacher.check(setting.processes[2][0])
    extractor = _extractor(setting)
    seconds: dict[Any, float] = {}
    found: dict[str, float] = {}
    variants = {cell.variant: cell.recipe for cell in setting.cells if cell.seed == setting.recipe.seed}
    for name, recipe in track(variants.items(), "timing", console=Console(stderr=True), transient=True):
        alike = (
            recipe.online_steps,
            recipe.share_samples,
            recipe.compile,
            recipe.precision,
            recipe.gradient_accumulation,
        )
        key = (*alike, recipe.gradient_checkpointing, type(recipe.objective), len(recipe.ema))
        if key not in seconds:
            seconds[key] = _timed(teacher, recipe, extractor, setting)
        found[name] = seconds[key]
    return found


def _extractor(setting: Setting) -> Extractor:
    """The extractor of the cells' feature space."""
    recipe, teacher, device = setting.recipe, setting.teacher, setting.processes[2][0]
    if recipe.reference:
        return stored_reference(
            Path(recipe.reference), recipe.features, teacher.shape, device, teacher.judged.decode
        ).extractor
    return load_extractor(recipe.features or teacher.judged.data or "pixels", device)


def _timed(teacher: Teacher, recipe: Recipe, extractor: Extractor, setting: Setting) -> float:
    trainer = DistillationTrainer(teacher, recipe, starting_kind(teacher), setting.processes[2][0])
    trainer.step()
    began, steps = time.perf_counter(), 0
    while steps < 3 or time.perf_counter() - began < TIMED_SECONDS:
        trainer.step()
        trainer.metrics()  # waits for a GPU
        steps += 1
    training = (time.perf_counter() - began) / steps * recipe.iterations
    noise = torch.randn(MILESTONE_SAMPLES, *teacher.shape, generator=torch.Generator().manual_seed(0))
    reference = Reference("noise", extractor, Statistics.of(extractor.features(noise)))
    began = time.perf_counter()
    student = {"student": student_sampler(trainer.snapshot(), teacher)}
    evaluate(student, teacher, reference, MILESTONE_SAMPLES, 1, full=False, device=trainer.device)
    once = (time.perf_counter() - began) / MILESTONE_SAMPLES
    drawn = (setting.milestones + 1) * MILESTONE_SAMPLES + setting.samples * setting.evaluation_seeds
    return training + once * drawn


def describe(setting: Setting, seconds: Mapping[str, float]) -> dict[str, Any]:
    """The plan of a comparison as JSON values: its cells, their settings and their estimated time."""
    count, threads, devices = setting.processes
    keys = varied(setting.grid)
    return {
        "cells": [
            {
                "variant": cell.variant,
                "training_seed": cell.seed,
                "settings": {key: to_mapping(cell.recipe)[key] for key in keys},
                "seconds": round(seconds[cell.variant], 1),
            }
            for cell in setting.cells
        ],
        "iterations": setting.recipe.iterations,
        "batch": setting.recipe.batch,
        "teacher": setting.recipe.teacher,
        "workers": count,
        "threads": threads,
        "devices": devices,
        "seconds": round(sum(seconds[cell.variant] for cell in setting.cells) / count, 1),
    }
