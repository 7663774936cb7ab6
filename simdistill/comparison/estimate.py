"""How long a comparison will take, estimated from a few iterations of each kind of cell."""

import time
from collections.abc import Mapping
from typing import Any

import torch

from simdistill.comparison.grid import varied
from simdistill.comparison.setting import Setting
from simdistill.config.recipes import Recipe
from simdistill.config.settings import to_mapping
from simdistill.evaluation.extractors import Extractor
from simdistill.evaluation.quality import SAMPLES, evaluate, extractor_for
from simdistill.evaluation.reference import Reference
from simdistill.evaluation.sampling import student_sampler
from simdistill.evaluation.statistics import Statistics
from simdistill.support.bar import progress_bar
from simdistill.teachers.teacher import Teacher
from simdistill.training.trainer import DistillationTrainer
from simdistill.workflows.planning import starting_kind

TIMED_SECONDS = 2.0  # of training


def estimate(setting: Setting) -> dict[str, float]:
    """Estimated seconds per cell of each variant, training and evaluation, from a few iterations."""
    torch.set_num_threads(setting.processes[1])
    teacher = setting.teacher
    device, judged = setting.processes[2][0], setting.recipe
    teacher.check(device)
    extractor = extractor_for(teacher, device, judged.reference, judged.features)
    seconds: dict[Any, float] = {}
    found: dict[str, float] = {}
    variants = {cell.variant: cell.recipe for cell in setting.cells if cell.seed == setting.recipe.seed}
    with progress_bar("timing the variants", len(variants)) as bar:
        for name, recipe in variants.items():
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
            bar()
    return found


def _timed(teacher: Teacher, recipe: Recipe, extractor: Extractor, setting: Setting) -> float:
    trainer = DistillationTrainer(teacher, recipe, starting_kind(teacher), setting.processes[2][0])
    trainer.step()
    began, steps = time.perf_counter(), 0
    while steps < 3 or time.perf_counter() - began < TIMED_SECONDS:
        trainer.step()
        trainer.metrics()  # waits for a GPU
        steps += 1
    training = (time.perf_counter() - began) / steps * recipe.iterations
    noise = torch.randn(SAMPLES, *teacher.shape, generator=torch.Generator().manual_seed(0))
    reference = Reference("noise", extractor, Statistics.of(extractor.features(noise)))
    began = time.perf_counter()
    student = {"student": student_sampler(trainer.snapshot(), teacher)}
    evaluate(student, teacher, reference, SAMPLES, 1, full=False, device=trainer.device)
    once = (time.perf_counter() - began) / SAMPLES
    drawn = (setting.milestones + 1) * SAMPLES + setting.samples * setting.evaluation_seeds
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
