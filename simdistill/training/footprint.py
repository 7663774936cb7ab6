"""What an iteration needs: bytes by what they are for, and floating-point operations, without doing it.

The trainer takes its own step on tensors without data, so that what is alive together, and when, is not told a second
time here. Workspaces inside of an operation are not seen. What several processes change is added by formula.
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
PARTS = 2  # from the second part of a batch on, all are alike


@dataclass(frozen=True)
class Footprint:
    """What one of several processes holds at the fullest moment of an iteration, and what an iteration of all costs.

    `memory` is in bytes: of the networks (weights and buffers), the optimizers, the gradients, the activations (and all
    else that lives within an iteration) and, where networks are sharded, of what is gathered for the moment.
    """

    micro_batch: int  # samples that a process computes at a time
    memory: dict[str, int]
    flops: float
    convolving: float  # those of convolutions among them

    @property
    def total(self) -> int:
        """Bytes of all components together."""
        return sum(self.memory.values())


@dataclass(frozen=True)
class _Peak:
    """Bytes of a process alone at its fullest moment and at that of most activations, and the operations a sample."""

    fullest: dict[str, float]
    busiest: dict[str, float]
    trained: float  # bytes of all parameters that are trained
    flops: float
    convolving: float


def footprints(
    teacher: Teacher,
    recipe: Recipe,
    start: nn.Module | None = None,
    processes: Sequence[int] = (1,),
    gpu: bool = True,
) -> dict[int, Footprint]:
    """What an iteration of `recipe` needs, for each number of `processes`; nothing is computed, no weight is read.

    Networks start from `start`, by default the teacher's own. `gpu` follows autocast on CUDA, which keeps more in
    float32 than the CPU's. A compiled training is taken for an eager one, which needs more, and fp16 for bf16. Only the
    largest and the smallest parts of a batch are simulated; in between memory is at most the interpolated one.

    Raises `ValueError` as the trainer does: nothing to start from, or fewer samples than processes and parts.
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
    """Bytes that a forward pass of `module` on `batch` samples takes beside its weights, and its operations."""
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
    """Of an iteration in parts of `micro_batch`: of two, to which the others add their draws and samples."""
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
    # z and eps of each update; x_0, in parts and whole
    images = sum(2 * (update.times or 1) + 2 * update.reuses_samples for update in trainer.updates)
    sample = torch.Size(teacher.shape).numel() * torch.float32.itemsize
    more = {WORKING: (recipe.gradient_accumulation - parts) * micro_batch * images * sample}
    fullest, busiest = ({c: float(held[c] + more.get(c, 0)) for c in owners} for held in moments)
    return _Peak(fullest, busiest, trained, *(n / simulated.batch for n in operations))


def _trainer(teacher: Teacher, recipe: Recipe, module: nn.Module, tracker: MemoryTracker) -> DistillationTrainer:
    """The trainer as it is after a step, with what it holds assigned to the networks' names, EMA and optimizers."""
    own = teacher.trainable
    denoiser = hollow(own) if own is not None else teacher.denoiser
    if teacher.text is not None:
        teacher = teacher.with_prompts(BlankPrompts(teacher.text), teacher.text.blank(1))
    teacher = replace(teacher, denoiser=denoiser)
    start = None if module is own else hollow(module)
    trainer = DistillationTrainer(teacher, recipe, start, images=lambda _: _BlankImages(teacher.shape))
    # which levels makes no difference, and not every distribution can be drawn from without data
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
    """Real images, as long as only shapes matter."""

    shape: tuple[int, ...]

    def __len__(self) -> int:
        return 1

    @property
    def labels(self) -> Tensor:
        return torch.zeros(1, dtype=torch.int64)

    def at(self, rows: Tensor) -> Tensor:
        return torch.zeros(len(rows), *self.shape)


def _make_state(step: Step) -> None:
    """Let the optimizer make its state, as the first step does."""
    for p in trained_parameters(step.network):
        p.grad = torch.empty_like(p)
    step.optimizer.step()
    step.optimizer.zero_grad(set_to_none=True)


def _assign_gradient(tracker: MemoryTracker, p: Tensor) -> None:
    if p.grad is not None:
        tracker.assign([p.grad], GRADIENTS)


def _between(peaks: dict[int, _Peak], size: int) -> _Peak:
    """At a part's size, from the smallest and the largest: a maximum of lines lies below its chords."""
    low, high = min(peaks), max(peaks)
    share = (size - low) / (high - low) if high > low else 0.0

    def mixed(a: dict[str, float], b: dict[str, float]) -> dict[str, float]:
        return {name: (1 - share) * a[name] + share * b[name] for name in a}

    a, b = peaks[low], peaks[high]
    return replace(b, fullest=mixed(a.fullest, b.fullest), busiest=mixed(a.busiest, b.busiest))


def _over_processes(peak: _Peak, module: nn.Module, recipe: Recipe, processes: int) -> dict[str, int]:
    """The memory of a process alone as that of one among several: replicated, or sharded block by block."""
    if processes == 1:
        memory = peak.fullest
    elif not recipe.shard:  # DistributedDataParallel keeps the gradients of all networks for good
        memory = peak.busiest | {GRADIENTS: peak.trained}
    else:
        share = sum(_shard(p, processes) for p in module.parameters()) / _bytes(module.parameters())
        split = (
            {c: size if c == WORKING else share * size for c, size in m.items()} for m in (peak.fullest, peak.busiest)
        )
        memory = max(split, key=lambda m: sum(m.values())) | {"gathered": _gathered(module)}
    return {name: round(size) for name, size in memory.items()}


def _gathered(module: nn.Module) -> int:
    """Whole weights of two blocks, the whole gradient of one and its copy on the way; and what is in no block."""
    sizes = [_bytes(block.parameters()) for block in blocks(module)]
    return 4 * max(sizes, default=0) + 3 * (_bytes(module.parameters()) - sum(sizes))


def _shard(p: Tensor, processes: int) -> int:
    """Bytes of a process's part of `p`: so many rows of its first axis as the largest part has (FSDP2)."""
    rows = p.shape[0] if p.ndim else 1
    return -(-rows // processes) * (p.numel() // max(rows, 1)) * p.element_size()


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(t.numel() * t.element_size() for t in tensors)
