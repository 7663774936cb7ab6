"""What a comparison is asked to do."""

import os
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import torch

from simdistill.comparison.grid import Cell, Grid, cells
from simdistill.config.recipes import Recipe
from simdistill.method.denoisers import GaussianMixture
from simdistill.support.checks import require
from simdistill.teachers.loading import load_teacher
from simdistill.teachers.teacher import SMALL, Teacher
from simdistill.training.loop import MILESTONES
from simdistill.workflows.distilling import resolved


@dataclass(frozen=True)
class Setting:
    """A comparison without its results. Raises `ValueError` for what cannot be compared."""

    recipe: Recipe
    grid: Grid
    out: Path
    training_seeds: int = 3
    samples: int = 2000
    evaluation_seeds: int = 3
    milestones: int = MILESTONES
    workers: int | None = None
    device: str = "cpu"

    def __post_init__(self) -> None:
        for name in ("training_seeds", "evaluation_seeds"):
            require(getattr(self, name) >= 1, name.replace("training_", ""), getattr(self, name), "at least 1")
        require(self.samples >= 10, "samples", self.samples, "at least 10")
        require(self.workers is None or self.workers >= 1, "workers", self.workers, "at least 1")
        require(self.milestones >= 1, "milestones", self.milestones, "at least 1")
        fewest = f"at least milestones = {self.milestones}, the points of a learning curve"
        require(self.recipe.iterations >= self.milestones, "iterations", self.recipe.iterations, fewest)
        require(self.recipe.teacher != "", "teacher", "", "given: digits, FILE.safetensors, … or module:function")
        _ = self.cells

    @cached_property
    def teacher(self) -> Teacher:
        """The teacher, with the guidance and the prompts of the evaluation."""
        return load_teacher(self.recipe.teacher, self.recipe.teacher_levels).prepared(self.recipe).held_out(self.recipe)

    @cached_property
    def judged(self) -> Recipe:
        """The recipe with absolute paths of its reference; if it has none, that of the teacher's stored samples."""
        stored, features = resolved(self.recipe.reference), resolved(self.recipe.features)
        exact = self.teacher.judged.data is not None or isinstance(self.teacher.denoiser, GaussianMixture)
        if not stored and not exact:  # samples of the teacher, drawn once instead of by every cell
            stored = str((self.out / "reference.npz").resolve())
        prompts = {name: resolved(getattr(self.recipe, name)) for name in ("prompts", "held_out_prompts")}
        return replace(self.recipe, reference=stored, features=features, **prompts)

    @cached_property
    def cells(self) -> list[Cell]:
        """The cells, in the order in which they are run."""
        return cells(self.judged, self.grid, range(self.recipe.seed, self.recipe.seed + self.training_seeds))

    @property
    def processes(self) -> tuple[int, int, list[str]]:
        """How many cells run in parallel, with how many threads each, on which devices."""
        if self.device == "cuda":
            devices = [f"cuda:{k}" for k in range(torch.cuda.device_count())]
            return self.workers or len(devices), 1, devices
        module, cores = self.teacher.trainable, os.cpu_count() or 1
        count = self.workers or min(cores, len(self.cells))
        small = module is None or sum(p.numel() for p in module.parameters()) < SMALL  # None: a small proxy network
        return count, 1 if small else max(1, cores // count), [self.device]
