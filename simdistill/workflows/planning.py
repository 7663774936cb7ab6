"""The plan of a distillation: the memory and time that it would need, without starting it."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from simdistill.config.auto import CPU_SPEED
from simdistill.config.recipes import Recipe
from simdistill.config.settings import to_mapping
from simdistill.evaluation.sampling import batch_for
from simdistill.support.checks import require
from simdistill.teachers.loading import load_teacher
from simdistill.teachers.published import ARCHITECTURES
from simdistill.teachers.teacher import SMALL, Teacher
from simdistill.training.footprint import Footprint, footprints, forward
from simdistill.workflows.proxy import proxy_settings
from simdistill.workflows.ranges import kept_in_range, shares_outside


@dataclass(frozen=True)
class GPU:
    """Memory in 10⁹ bytes, and peak 10¹² operations per second in each arithmetic, without sparsity."""

    memory: float
    fp32: float
    tf32: float | None
    bf16: float | None
    fp16: float | None


# fmt: off
GPUS = {  #               GB    fp32   TF32   bf16   fp16
    "V100-32GB": GPU(     32,  15.7,  None,  None, 125.0),  # NVIDIA V100 datasheet (2020), SXM2
    "A100-40GB": GPU(     40,  19.5, 156.0, 312.0, 312.0),  # NVIDIA A100 datasheet (2021), SXM
    "A100-80GB": GPU(     80,  19.5, 156.0, 312.0, 312.0),  # the same
    "H100":      GPU(     80,  67.0, 494.5, 989.5, 989.5),  # NVIDIA H100 datasheet (2023), SXM; sparse figures halved
    "H200":      GPU(    141,  67.0, 494.5, 989.5, 989.5),  # NVIDIA H200 datasheet (2024), SXM; halved
    "L4":        GPU(     24,  30.3,  60.0, 121.0, 121.0),  # NVIDIA L4 datasheet (2023); halved
    "L40S":      GPU(     48,  91.6, 183.0, 362.0, 362.0),  # NVIDIA L40S datasheet (2023)
    "RTX-3090":  GPU(     24,  35.6,  35.6,  71.0,  71.0),  # NVIDIA GA102 whitepaper (2021), appendix A, fp32 sums
    "RTX-4090":  GPU(     24,  82.6,  82.6, 165.2, 165.2),  # NVIDIA Ada whitepaper (2022), appendix A, fp32 sums
}
# fmt: on
"""GPUs by name; None for an arithmetic that they do not support."""

CONVOLUTIONS_SHARE = {"fp32": 0.5, "tf32": 0.25, "bf16": 0.15, "fp16": 0.15}
PRODUCTS_SHARE = {"fp32": 0.5, "tf32": 0.25, "bf16": 0.40, "fp16": 0.40}
"""The assumed share of a GPU's peak for convolutions and for matrix products; docs/planning.md says why."""

RESERVED = 2 * 10**9
"""Bytes assumed for CUDA's context and the workspaces of cuDNN and NCCL; not measured."""

COUNTS = (1, 4, 8)
"""The default numbers of GPUs in a plan."""


@dataclass(frozen=True)
class Outlook:
    """The plan for a GPU model and a number of GPUs: does it fit into their memory, and how long does it take?"""

    gpu: str
    gpus: int
    bytes_per_gpu: int
    fits: bool
    seconds_per_iteration: float | None
    """None if the GPU does not support the recipe's precision."""
    hours: float | None
    gradient_accumulation: int | None
    """Micro-batches per batch with which it would fit; None if no number helps."""


@dataclass(frozen=True)
class Plan:
    """What a distillation would need; all sizes in bytes, all costs in floating-point operations."""

    out: str
    teacher: str
    recipe: dict[str, Any]
    parameters: int
    outside_range: dict[str, float]
    """The share of each noise distribution's levels outside the teacher's range, before it is truncated."""
    flops_per_forward_pass: int
    flops_per_iteration: float
    cpu_threads: int
    cpu_seconds: float
    """Seconds of training on this machine's CPU with so many threads, at `CPU_SPEED` each."""
    micro_batch: dict[int, int]
    memory: dict[int, dict[str, int]]
    outlook: list[Outlook]

    def as_mapping(self) -> dict[str, Any]:
        """JSON values."""
        return asdict(self)


def plan(name: str, recipe: Recipe, out: Path, gpus: Sequence[str] = (), counts: Sequence[int] = ()) -> Plan:
    """The plan of the recipe called `name` with the settings `recipe`; the training itself is not computed.

    For the GPU models `gpus` (default: all of `GPUS`) and the numbers of GPUs `counts` (default: those of `COUNTS`
    among which the batch can be divided). Raises `ValueError` for an unknown GPU, a batch that is too small, or a
    recipe without a teacher whose architecture is not known either.
    """
    for gpu in gpus:
        require(gpu in GPUS, "--gpu", gpu, f"one of {', '.join(GPUS)}")
    for count in counts:
        require(count >= 1, "--gpus", count, "at least 1")
    teacher = teacher_of_plan(name, recipe)
    outside, recipe = shares_outside(recipe, teacher), kept_in_range(recipe, teacher, shown=False)
    start = starting_kind(teacher)
    counts = list(counts) or [n for n in COUNTS if n * recipe.gradient_accumulation <= recipe.batch] or [1]
    needs = footprints(teacher, recipe, start, counts)
    weights = sum(t.numel() * t.element_size() for t in (*start.parameters(), *start.buffers()))
    beside = {"measuring": weights + forward(teacher, start, batch_for(teacher.shape))[0], "reserved": RESERVED}
    memory = {n: need.memory | beside for n, need in needs.items()}
    parameters = sum(p.numel() for p in teacher.trainable.parameters()) if teacher.trainable else 0
    threads, flops = 1 if parameters < SMALL else torch.get_num_threads(), needs[counts[0]].flops
    return Plan(
        out=str(out),
        teacher=recipe.teacher or f"{name}'s published architecture",
        recipe=to_mapping(recipe),
        parameters=parameters,
        outside_range=outside,
        flops_per_forward_pass=forward(teacher, start, 1)[1],
        flops_per_iteration=flops,
        cpu_threads=threads,
        cpu_seconds=recipe.iterations * flops / (threads * CPU_SPEED),
        micro_batch={n: need.micro_batch for n, need in needs.items()},
        memory=memory,
        outlook=[_outlook(gpu, n, need, memory[n], recipe) for gpu in gpus or GPUS for n, need in needs.items()],
    )


def teacher_of_plan(name: str, recipe: Recipe) -> Teacher:
    """The recipe's teacher, or its published architecture without weights if it names none."""
    if recipe.teacher:
        return load_teacher(recipe.teacher, recipe.teacher_levels).within(*recipe.teacher_range)
    known = name in ARCHITECTURES
    require(known, "--teacher", "", f"given for {name}, whose network is not known: FILE.safetensors, …")
    return ARCHITECTURES[name](name)


def starting_kind(teacher: Teacher) -> nn.Module:
    """The network from which generator and online network start: the teacher, or a proxy network."""
    return teacher.trainable or proxy_settings(teacher.shape).build(teacher.shape, teacher.classes, sigma_data=0.5)


def _outlook(gpu: str, count: int, need: Footprint, memory: dict[str, int], recipe: Recipe) -> Outlook:
    total, capacity = sum(memory.values()), round(GPUS[gpu].memory * 1e9)
    alone = _seconds(GPUS[gpu], recipe.precision, need)
    seconds = None if alone is None else alone / count
    return Outlook(
        gpu,
        count,
        total,
        total <= capacity,
        seconds,
        None if seconds is None else seconds * recipe.iterations / 3600,
        _accumulation(capacity - total + need.memory["activations"], need, recipe, count),
    )


def _seconds(gpu: GPU, precision: str, need: Footprint) -> float | None:
    """Seconds per iteration on one GPU; fp32 networks may use TF32. None if the GPU does not support the precision."""
    usable = ("fp32", "tf32") if precision == "fp32" else (precision,)
    peaks: dict[str, float | None] = {arithmetic: getattr(gpu, arithmetic) for arithmetic in usable}
    times = (
        (need.convolving / CONVOLUTIONS_SHARE[name] + (need.flops - need.convolving) / PRODUCTS_SHARE[name])
        / (1e12 * peak)
        for name, peak in peaks.items()
        if peak is not None
    )
    return min(times, default=None)


def _accumulation(room: int, need: Footprint, recipe: Recipe, count: int) -> int | None:
    """The fewest micro-batches, a divisor of the batch, whose activations (proportional to their size) fit into `room`.

    A single process then also holds the gradients of earlier micro-batches; several processes hold them in any case.
    """
    for parts in (n for n in range(recipe.gradient_accumulation, recipe.batch // count + 1) if recipe.batch % n == 0):
        share = -(-recipe.batch // (count * parts)) / need.micro_batch
        gradients = need.memory["generator"] if count == 1 and parts > recipe.gradient_accumulation == 1 else 0
        if gradients + share * need.memory["activations"] <= room:
            return parts
    return None
