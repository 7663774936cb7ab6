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
from simdistill.training.memory_tracker import WORKING, Ledger, hollow, without_data
from simdistill.training.sharding import blocks
from simdistill.training.trainer import DistillationTrainer
from simdistill.training.update import Update

NETWORKS = ("teacher", "online", "generator", "averages")
STAYING = (*NETWORKS, "optimizers")
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
    fewest = max(processes) * recipe.accumulation
    if recipe.batch < fewest:
        raise ValueError(f"batch = {recipe.batch}: must be at least processes × accumulation = {fewest}")
    sizes = {n: -(-recipe.batch // (n * recipe.accumulation)) for n in processes}
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
    with without_data(gpu=True) as ledger:
        network = hollow(module)
        x, sigma = torch.zeros(batch, *teacher.shape), torch.ones(batch)
        condition = teacher.blank(batch)
        ledger.book([*network.parameters(), *network.buffers()], "weights")
        ledger.restart()
        with torch.no_grad():
            network(x, sigma, condition)
        return ledger.peak[WORKING], ledger.flops


def _peak(teacher: Teacher, recipe: Recipe, module: nn.Module, micro_batch: int, gpu: bool) -> _Peak:
    """Of an iteration in parts of `micro_batch`: of two, to which the others add their draws and samples."""
    parts = min(recipe.accumulation, PARTS)
    simulated = replace(
        recipe,
        batch=parts * micro_batch,
        accumulation=parts,
        generator_noise=LogNormal(0.0, 1.0),  # which levels makes no difference
        online_noise=LogNormal(0.0, 1.0),
        precision="fp32" if recipe.precision == "fp32" else "bf16",
        compile=False,
    )
    with without_data(gpu) as ledger:
        trainer = _trainer(teacher, simulated, module, ledger)
        ledger.restart()
        trainer.step()
        moments, operations = (ledger.peak, ledger.busiest), (ledger.flops, ledger.convolving)
    images = (
        2 * (1 + recipe.online_steps) + 2 * recipe.share_samples
    )  # z and eps of each update; x_0, in parts and whole
    sample = torch.Size(teacher.shape).numel() * torch.float32.itemsize
    more = {WORKING: (recipe.accumulation - parts) * micro_batch * images * sample}
    fullest, busiest = (
        {c: float(held[c] + more.get(c, 0)) for c in (*STAYING, "gradients", WORKING)} for held in moments
    )
    return _Peak(fullest, busiest, *(n / simulated.batch for n in operations))


def _trainer(teacher: Teacher, recipe: Recipe, module: nn.Module, ledger: Ledger) -> DistillationTrainer:
    """The trainer as it is after a step, with what it holds on the ledger."""
    own = teacher.trainable
    denoiser = hollow(own) if own is not None else teacher.denoiser
    if teacher.text is not None:
        teacher = replace(teacher, prompts=BlankPrompts(teacher.text), null=teacher.text.blank(1))
    teacher = replace(teacher, denoiser=denoiser)
    trainer = DistillationTrainer(teacher, recipe, None if module is own else hollow(module))
    averages = [ema.module for ema in trainer.averages]
    for name, held in zip(NETWORKS, ([denoiser], [trainer.online], [trainer.generator], averages), strict=True):
        for network in (one for one in held if isinstance(one, nn.Module)):
            ledger.book([*network.parameters(), *network.buffers()], name)
    for update in (trainer.update_online, trainer.update_generator):
        _make_state(update)
        ledger.book((t for state in update.optimizer.state.values() for t in state.values()), "optimizers")
        for p in update.network.parameters():
            p.register_post_accumulate_grad_hook(partial(_book_gradient, ledger))
    return trainer


def _make_state(update: Update) -> None:
    """Let the optimizer make its state, as the first step does."""
    for p in update.network.parameters():
        p.grad = torch.empty_like(p)
    update.optimizer.step()
    update.optimizer.zero_grad(set_to_none=True)


def _book_gradient(ledger: Ledger, p: Tensor) -> None:
    if p.grad is not None:
        ledger.book([p.grad], "gradients")


def _between(peaks: dict[int, _Peak], size: int) -> _Peak:
    """At a part's size, from the smallest and the largest: a maximum of lines lies below its chords."""
    low, high = min(peaks), max(peaks)
    share = (size - low) / (high - low) if high > low else 0.0

    def mixed(a: dict[str, float], b: dict[str, float]) -> dict[str, float]:
        return {name: (1 - share) * a[name] + share * b[name] for name in a}

    a, b = peaks[low], peaks[high]
    return _Peak(mixed(a.fullest, b.fullest), mixed(a.busiest, b.busiest), b.flops, b.convolving)


def _over_processes(peak: _Peak, module: nn.Module, recipe: Recipe, processes: int) -> dict[str, int]:
    """The memory of a process alone as that of one among several: replicated, or sharded block by block."""
    whole = _bytes(module.parameters())
    if processes == 1:
        memory = peak.fullest
    elif not recipe.shard:  # DistributedDataParallel keeps the gradients of both networks for good
        memory = peak.busiest | {"gradients": 2 * whole}
    else:
        share = sum(_shard(p, processes) for p in module.parameters()) / whole
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
