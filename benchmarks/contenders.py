"""The contenders: the reference, and simdistill with options that a user can set."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeAlias

from benchmarks.networks import Network
from benchmarks.reference import ReferenceLoop
from simdistill.config.recipes import Recipe
from simdistill.teachers.teacher import Teacher
from simdistill.training.trainer import DistillationTrainer

Step: TypeAlias = Callable[[], Any]

SETTINGS: dict[str, dict[str, Any]] = {
    "eager": {},
    "eager, shared samples": {"share_samples": True},
    "compiled, shared samples": {"compile": True, "share_samples": True},
    "gradient checkpointing": {"gradient_checkpointing": True},
    "bf16": {"precision": "bf16"},
}
"""simdistill's contenders and their recipe's settings. The reference computes what `eager` does, 11 forward passes."""

REFERENCE = "reference"


def step_of(name: str, network: Network) -> Step:
    """One iteration of the contender `name` on `network`, ready to be called again and again."""
    denoiser, recipe = network.make(), Recipe(batch=network.batch)
    if name == REFERENCE:
        return ReferenceLoop(denoiser, recipe, denoiser.shape).step
    return DistillationTrainer(Teacher(denoiser, denoiser.shape), replace(recipe, **SETTINGS[name])).step
