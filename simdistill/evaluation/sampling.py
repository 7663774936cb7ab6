"""Samplers, which draw a sample for each row of noise and know their NFE."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from simdistill.method.denoisers import calls
from simdistill.method.generator import Generator
from simdistill.method.samplers import heun, noise_from_seeds
from simdistill.method.shapes import Data, Rows
from simdistill.teachers.teacher import Teacher

TEACHER_STEPS = 18  # of Heun's sampler: NFE 35, EDM's setting for small images
BATCH = 500  # samples per network call, at most …
VALUES = 500 * 32 * 32  # … and at most this many values, so that an evaluation fits beside a training


@dataclass(frozen=True)
class Sampler:
    """sampler(z, rows): one sample per row of standard normal z, with `nfe` network evaluations each."""

    draw: Callable[[Data, Rows], Data]
    nfe: int

    @torch.no_grad()
    def __call__(self, z: Data, rows: Rows) -> Data:
        """The samples, of the shape of z; `rows` are their labels, or the rows of the prompts."""
        return self.draw(z, rows)


def teacher_sampler(teacher: Teacher, steps: int = TEACHER_STEPS) -> Sampler:
    """Heun's reference sampler over the teacher's own range of noise levels."""
    levels = steps, teacher.sigma_min, teacher.sigma_max
    nfe = (2 * steps - 1) * calls(teacher.denoiser)
    return Sampler(lambda z, rows: heun(teacher.denoiser, z, teacher.condition(rows, z.device), *levels), nfe)


def student_sampler(generator: Generator, teacher: Teacher) -> Sampler:
    """The generator, for the conditions of its teacher."""
    return Sampler(lambda z, rows: generator(z, teacher.condition(rows, z.device)), generator.nfe)


def balanced_labels(n: int, conditions: int) -> Rows:
    """0, 1, …, conditions - 1, 0, 1, … `[n]`; labels, or rows of prompts; None without conditions."""
    return torch.arange(n) % conditions if conditions else None


def batch_for(shape: Sequence[int]) -> int:
    """How many samples of that shape go into a network call: 500 of 32×32 grey pixels, 41 of 64×64 colour ones."""
    return max(1, min(BATCH, VALUES // math.prod(shape)))


def draw(
    sampler: Callable[[Data, Rows], Data],
    seeds: Sequence[int],
    shape: Sequence[int],
    condition: Rows = None,
    device: torch.device | str = "cpu",
    advance: Callable[[int], None] = lambda _: None,
) -> Data:
    """`[len(seeds), *shape]` on the CPU: one sample per seed, with the rows of `condition` if given.

    `advance` is called after each batch with its size.
    """
    drawn: list[Data] = []
    for z, c in in_batches(noise_from_seeds(seeds, shape), condition, batch_for(shape)):
        drawn.append(sampler(z.to(device), None if c is None else c.to(device)).cpu())
        advance(len(z))
    return torch.cat(drawn)


def in_batches(z: Tensor, condition: Tensor | None, batch: int) -> list[tuple[Tensor, Tensor | None]]:
    """Noise and conditions, `batch` rows at a time."""
    conditions = [None] * len(z.split(batch)) if condition is None else condition.split(batch)
    return list(zip(z.split(batch), conditions, strict=True))
