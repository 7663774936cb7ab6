"""The memory (by component) and floating-point operations of an iteration, without computing it.

The trainer itself takes a step on tensors without data, so that the lifetimes of tensors are not described a second
time here. Workspaces inside an operation are not seen. The effect of several processes is added by formula.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor, nn

from simdistill.config.recipes import Recipe
from simdistill.method.noise import LogNormal
from simdistill.method.text import BlankPrompts
from simdistill.teachers.teacher import Teacher
from simdistill.training.memory_tracker import WORKING, MemoryTracker, hollow, without_data
from simdistill.training.sharding import blocks
from simdistill.training.trained import trained_parameters
from simdistill.training.trainer import DistillationTrainer
from simdistill.training.update import Step

EMAS, OPTIMIZERS, GRADIENTS = "EMA", "optimizers", "gradients"
PARTS = 2  # micro-batches to simulate: from the second on, all are alike


@dataclass(frozen=True)
class Footprint:
    """The peak memory of one process in an iteration, and the operations of all processes.

    `memory` is in bytes, by component: the networks (weights and buffers), EMA, optimizers, gradients, activations (and
    everything else that lives within an iteration) and, with sharding, the parameters that are gathered temporarily.
    """

    micro_batch: int  # samples
    memory: dict[str, int]
    flops: float
    convolving: float  # the part of convolutions

    @property
    def total(self) -> int:
        """Total bytes."""
        return sum(self.memory.values())


@dataclass(frozen=True)
class _Peak:
    """Bytes of a single process at its peak and at the peak of activations; operations per sample."""

    fullest: dict[str, float]
    busiest: dict[str, float]
    trained: float  # bytes of all trained parameters
    flops: float
    convolving: float


def footprints(
    teacher: Teacher,
    recipe: Recipe,
    start: nn.Module | None = None,
    processes: Sequence[int] = (1,),
    gpu: bool = True,
) -> dict[int, Footprint]:
    """The footprint of an iteration of `recipe` for each number of `processes`; computes nothing, reads no weights.

    Networks start from `start`, by default the teacher's own. `gpu` simulates autocast on CUDA, which keeps more in
    float32 than on the CPU. A compiled training is estimated as an eager one, which needs more, and fp16 as bf16. Only
    the largest and smallest micro-batches are simulated; between them, memory is at most the interpolated one.

    Raises `ValueError` as the trainer does: without weights to start from, or if there are fewer samples than processes
    and micro-batches.
    """
    module = start if start is not None else teacher.trainable
    if module is None:
        raise ValueError(f"teacher = {teacher.name!r}: has no weights to start from; give a network as `start`")
    fewest = max(processes) * recipe.gradient_accumulation
    if recipe.batch < fewest:
        raise ValueError(f"batch = {recipe.batch}: must be at least processes × gradient_accumulation = {fewest}")
    sizes = {n: -(-recipe.batch // (n * recipe.gradient_accumulation)) for n in processes}
    peaks = {size: _peak(teacher, recipe, module, size, gpu) for size in {min(sizes.values()), max(sizes.values())}}
    return {
        n: Footprint(
            size,
            _over_processes(_between(peaks, size), module, recipe, n),
            peaks[max(peaks)].flops * recipe.batch,
            peaks[max(peaks)].convolving * recipe.batch,
        )
        for n, size in sizes.items()
    }


def forward(teacher: Teacher, module: nn.Module, batch: int) -> tuple[int, int]:
    """Bytes of a forward pass of `module` on `batch` samples, without its weights; and its operations."""
    with without_data(gpu=True) as tracker:
        network = hollow(module)
        x, sigma = torch.zeros(batch, *teacher.shape), torch.ones(batch)
        condition = teacher.blank(batch)
        tracker.assign([*network.parameters(), *network.buffers()], "weights")
        tracker.restart()
        with torch.no_grad():
            network(x, sigma, condition)
        return tracker.peak[WORKING], tracker.flops


def _peak(teacher: Teacher, recipe: Recipe, module: nn.Module, micro_batch: int, gpu: bool) -> _Peak:
    """The peak of an iteration, from two micro-batches: further ones only add their random draws and samples."""
    parts = min(recipe.gradient_accumulation, PARTS)
    simulated = replace(
        recipe,
        batch=parts * micro_batch,
        gradient_accumulation=parts,
        precision="fp32" if recipe.precision == "fp32" else "bf16",
        compile=False,
    )
    with without_data(gpu) as tracker:
        trainer = _trainer(teacher, simulated, module, tracker)
        tracker.restart()
        trainer.step()
        moments, operations = (tracker.peak, tracker.busiest), (tracker.flops, tracker.convolving)
        owners = ("teacher", *trainer.networks, EMAS, OPTIMIZERS, GRADIENTS, WORKING)
        trained = float(sum(_bytes(trained_parameters(network)) for network in trainer.networks.values()))
    # z and eps of each update; x_0 in micro-batches and concatenated
    images = sum(2 * (update.times or 1) + 2 * update.reuses_samples for update in trainer.updates)
    sample = torch.Size(teacher.shape).numel() * torch.float32.itemsize
    more = {WORKING: (recipe.gradient_accumulation - parts) * micro_batch * images * sample}
    fullest, busiest = ({c: float(held[c] + more.get(c, 0)) for c in owners} for held in moments)
    return _Peak(fullest, busiest, trained, *(n / simulated.batch for n in operations))


def _trainer(teacher: Teacher, recipe: Recipe, module: nn.Module, tracker: MemoryTracker) -> DistillationTrainer:
    """The trainer as after a step, with its tensors assigned to the networks' names, EMA and optimizers."""
    own = teacher.trainable
    denoiser = hollow(own) if own is not None else teacher.denoiser
    if teacher.text is not None:
        teacher = teacher.with_prompts(BlankPrompts(teacher.text), teacher.text.blank(1))
    teacher = replace(teacher, denoiser=denoiser)
    start = None if module is own else hollow(module)
    trainer = DistillationTrainer(teacher, recipe, start, images=lambda _: _BlankImages(teacher.shape))
    # the levels make no difference, and not every distribution can be sampled without data
    trainer.updates = tuple(replace(update, noise=LogNormal(0.0, 1.0)) for update in trainer.updates)
    for name, network in {"teacher": denoiser, **trainer.networks}.items():
        if isinstance(network, nn.Module):
            tracker.assign([*network.parameters(), *network.buffers()], name)
    tracker.assign((tensor for ema in trainer.ema for tensor in ema.tensors.values()), EMAS)
    for step in trainer.steps.values():
        _make_state(step)
        tracker.assign((t for state in step.optimizer.state.values() for t in state.values()), OPTIMIZERS)
        for p in trained_parameters(step.network):
            p.register_post_accumulate_grad_hook(partial(_assign_gradient, tracker))
    return trainer


@dataclass(frozen=True)
class _BlankImages:
    """Stands for real images, since only shapes matter."""

    shape: tuple[int, ...]

    def __len__(self) -> int:
        return 1

    @property
    def labels(self) -> Tensor:
        return torch.zeros(1, dtype=torch.int64)

    def at(self, rows: Tensor) -> Tensor:
        return torch.zeros(len(rows), *self.shape)


def _make_state(step: Step) -> None:
    """Let the optimizer create its state, as at the first step."""
    for p in trained_parameters(step.network):
        p.grad = torch.empty_like(p)
    step.optimizer.step()
    step.optimizer.zero_grad(set_to_none=True)


def _assign_gradient(tracker: MemoryTracker, p: Tensor) -> None:
    if p.grad is not None:
        tracker.assign([p.grad], GRADIENTS)


def _between(peaks: dict[int, _Peak], size: int) -> _Peak:
    """The peak at a micro-batch size, interpolated: a maximum of lines is convex and lies below its chords."""
    low, high = min(peaks), max(peaks)
    share = (size - low) / (high - low) if high > low else 0.0

    def mixed(a: dict[str, float], b: dict[str, float]) -> dict[str, float]:
        return {name: (1 - share) * a[name] + share * b[name] for name in a}

    a, b = peaks[low], peaks[high]
    return replace(b, fullest=mixed(a.fullest, b.fullest), busiest=mixed(a.busiest, b.busiest))


def _over_processes(peak: _Peak, module: nn.Module, recipe: Recipe, processes: int) -> dict[str, int]:
    """From the memory of a single process, that of one of several: replicated, or sharded by blocks."""
    if processes == 1:
        memory = peak.fullest
    elif not recipe.shard:  # DistributedDataParallel keeps the gradients of all networks permanently
        memory = peak.busiest | {GRADIENTS: peak.trained}
    else:
        share = sum(_shard(p, processes) for p in module.parameters()) / _bytes(module.parameters())
        split = (
            {c: size if c == WORKING else share * size for c, size in m.items()} for m in (peak.fullest, peak.busiest)
        )
        memory = max(split, key=lambda m: sum(m.values())) | {"gathered": _gathered(module)}
    return {name: round(size) for name, size in memory.items()}


def _gathered(module: nn.Module) -> int:
    """Unsharded weights of two blocks, the gradient of one and its copy in transit; and parameters outside blocks."""
    sizes = [_bytes(block.parameters()) for block in blocks(module)]
    return 4 * max(sizes, default=0) + 3 * (_bytes(module.parameters()) - sum(sizes))


def _shard(p: Tensor, processes: int) -> int:
    """Bytes of a process's shard of `p`, with as many rows of the first axis as the largest shard (FSDP2)."""
    rows = p.shape[0] if p.ndim else 1
    return -(-rows // processes) * (p.numel() // max(rows, 1)) * p.element_size()


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(t.numel() * t.element_size() for t in tensors)
