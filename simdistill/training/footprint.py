"""What an iteration needs: bytes by what they are for, and floating-point operations, without doing it.

The trainer takes its own step, on tensors that have shapes, types and lifetimes but no data (torch's FakeTensorMode):
what is alive together, in which order, is not told a second time here. A ledger follows every storage from the operation
that makes it to the moment when nobody holds it any more. Workspaces inside of an operation are not seen.
"""

import copy
import gc
import weakref
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeCopyMode, FakeTensorMode
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

from simdistill.noise import LogNormal
from simdistill.recipes import Recipe
from simdistill.teachers.teacher import Teacher
from simdistill.training.sharding import blocks
from simdistill.training.trainer import DistillationTrainer
from simdistill.training.update import Update

NETWORKS = ("teacher", "online", "generator", "averages")
WORKING = "activations"  # graphs, draws, gradients of activations: all that lives within an iteration
PARTS = 3  # from the third part of a batch on, each adds the same


@dataclass(frozen=True)
class Footprint:
    """The need of one of several processes, at the fullest moment of an iteration, and of an iteration of all.

    `memory` is in bytes, by component: the networks (weights and buffers), gradients, optimizers, activations (with all
    else that lives within an iteration) and, where networks are sharded, the blocks gathered for the moment.
    """

    parameters: int  # of a network
    micro_batch: int  # samples that a process computes at a time
    memory: dict[str, int]
    flops: float
    forward_flops: float  # of a network's forward pass on one sample

    @property
    def total(self) -> int:
        """Bytes of all components together."""
        return sum(self.memory.values())


class Ledger(TorchDispatchMode):
    """Bytes held by owner, at this moment and at the fullest one since `restart`."""

    def __init__(self) -> None:
        super().__init__()
        self.held, self.peak = Counter[str](), Counter[str]()
        self._owners: dict[int, str] = {}

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Do the operation, and take down what it has made."""
        made = func(*args, **(kwargs or {}))
        for one in made if isinstance(made, (tuple, list)) else (made,):
            if isinstance(one, Tensor):
                self._take_down(one.untyped_storage())
        if self.held.total() > self.peak.total():
            self.peak = self.held.copy()
        return made

    def restart(self) -> None:
        """Forget the peak so far."""
        gc.collect()
        self.peak = self.held.copy()

    def give(self, tensors: Iterable[Tensor], owner: str) -> None:
        """Book the storages of `tensors` to `owner`."""
        for tensor in tensors:
            storage = tensor.untyped_storage()
            self._take_down(storage)
            self.held[self._owners[id(storage)]] -= storage.nbytes()
            self.held[owner] += storage.nbytes()
            self._owners[id(storage)] = owner

    def _take_down(self, storage: torch.UntypedStorage) -> None:
        if id(storage) in self._owners:
            return
        self._owners[id(storage)] = WORKING
        self.held[WORKING] += storage.nbytes()
        weakref.finalize(storage, self._strike_out, id(storage), storage.nbytes())

    def _strike_out(self, key: int, size: int) -> None:
        self.held[self._owners.pop(key)] -= size


def footprint(
    teacher: Teacher, recipe: Recipe, start: nn.Module | None = None, processes: int = 1, as_on_gpu: bool = True
) -> Footprint:
    """What one of `processes` needs for an iteration of `recipe`; nothing is computed, and no weights are read.

    Networks start from `start`, by default the teacher's own. `as_on_gpu` follows CUDA's autocast, which keeps norms
    and softmax in float32, and not the CPU's. A compiled training is taken for an eager one, which needs more.

    Raises `ValueError` as the trainer does: nothing to start from, or fewer samples than processes and parts.
    """
    fewest = processes * recipe.accumulation
    if recipe.batch < fewest:
        raise ValueError(f"batch = {recipe.batch}: must be at least processes × accumulation = {fewest}")
    micro_batch = -(-recipe.batch // fewest)
    module = start if start is not None else teacher.trainable
    if module is None:
        raise ValueError(f"teacher = {teacher.name!r}: has no weights to start from; give a network as `start`")

    def in_parts(count: int) -> tuple[Counter[str], float]:
        part = replace(
            recipe,
            batch=count * micro_batch,
            accumulation=count,
            precision="fp32" if recipe.precision == "fp32" else "bf16",
            generator_noise=LogNormal(0.0, 1.0),  # the levels change nothing
            online_noise=LogNormal(0.0, 1.0),
            compile=False,
        )
        return _step(teacher, part, module, as_on_gpu)

    peak, flops = in_parts(min(recipe.accumulation, PARTS))
    if recipe.accumulation > PARTS:
        fewer = in_parts(PARTS - 1)
        more = recipe.accumulation - PARTS
        peak[WORKING] += more * (peak.total() - fewer[0].total())
        flops += more * (flops - fewer[1])
    return Footprint(
        parameters=sum(p.numel() for p in module.parameters()),
        micro_batch=micro_batch,
        memory=_over_processes(peak, module, recipe, processes),
        flops=flops * recipe.batch / (micro_batch * recipe.accumulation),
        forward_flops=forward(teacher, module, 1)[1],
    )


def forward(teacher: Teacher, module: nn.Module, batch: int) -> tuple[int, float]:
    """Bytes that a forward pass of `module` on `batch` samples needs beside its weights, and its operations."""
    with _without_data(as_on_gpu=False) as (ledger, counter):
        network = _hollow(module)
        x, sigma = torch.zeros(batch, *teacher.shape), torch.ones(batch)
        labels = torch.zeros(batch, dtype=torch.int64) if teacher.classes else None
        before = ledger.held.total()
        ledger.restart()
        with torch.no_grad():
            network(x, sigma, labels)
        return ledger.peak.total() - before, float(counter.get_total_flops())


def _step(teacher: Teacher, recipe: Recipe, module: nn.Module, as_on_gpu: bool) -> tuple[Counter[str], float]:
    """The fullest moment of an iteration of a process alone, and its operations."""
    with _without_data(as_on_gpu) as (ledger, counter):
        trained = teacher.trainable is not None
        denoiser = _hollow(teacher.trainable) if trained else teacher.denoiser
        start = None if module is teacher.trainable else _hollow(module)
        trainer = DistillationTrainer(replace(teacher, denoiser=denoiser), recipe, start)
        players = zip(
            NETWORKS,
            ([denoiser] if trained else [], [trainer.online], [trainer.generator], [e.module for e in trainer.averages]),
            strict=True,
        )
        for name, modules in players:
            for one in modules:
                ledger.give([*one.parameters(), *one.buffers()], name)
        for update in (trainer.update_online, trainer.update_generator):
            _fill(update)
            ledger.give(_tensors(update.optimizer), "optimizers")
            for p in update.network.parameters():
                p.register_post_accumulate_grad_hook(partial(_book_gradient, ledger))
        ledger.restart()
        before = counter.get_total_flops()
        trainer.step()
        return ledger.peak, float(counter.get_total_flops() - before)


@contextmanager
def _without_data(as_on_gpu: bool) -> Iterator[tuple[Ledger, FlopCounterMode]]:
    """Within the block tensors have no data, and what they would take is on the ledger, what they cost in the counter."""
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # a kernel that the counter does not know
    try:
        with ExitStack() as modes:
            modes.enter_context(FakeTensorMode(allow_non_fake_inputs=True))
            modes.enter_context(_CopiesWithoutData())
            counter = modes.enter_context(FlopCounterMode(display=False, custom_mapping=_CPU_ATTENTION))
            ledger = modes.enter_context(Ledger())
            if as_on_gpu:
                modes.enter_context(_AutocastAsOnGPU())
            yield ledger, counter
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)


_CPU_ATTENTION = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: lambda q, k, v, *_, **__: sdpa_flop_count(q, k, v),
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: (
        lambda gradient, q, k, v, *_, **__: sdpa_backward_flop_count(gradient, q, k, v)
    ),
}


class _AutocastAsOnGPU(TorchFunctionMode):
    """CUDA's autocast computes norms and softmax in float32, the CPU's, which is used here, in what they are given."""

    IN_FLOAT32 = (
        functional.group_norm,
        functional.layer_norm,
        functional.softmax,
        torch.softmax,
        Tensor.softmax,
    )

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func in self.IN_FLOAT32 and torch.is_autocast_enabled("cpu"):
            args = tuple(one.float() if isinstance(one, Tensor) else one for one in args)
        return func(*args, **(kwargs or {}))


class _CopiesWithoutData(TorchFunctionMode):
    """Tensors without data can be copied deeply, as the trainer copies networks."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is not Tensor.__deepcopy__:
            return func(*args, **(kwargs or {}))
        tensor, memo = args
        return memo.setdefault(id(tensor), _blank(tensor))


def _hollow(module: nn.Module) -> nn.Module:
    """A copy of `module` without its data. It stays where it is: torch cannot move modules of such tensors."""
    copied = copy.deepcopy(module, {id(t): _blank(t) for t in (*module.parameters(), *module.buffers())})
    copied.__class__ = type(type(module).__name__, (type(module),), {"_apply": lambda self, *_, **__: self})
    return copied


def _blank(tensor: Tensor) -> Tensor:
    blank = torch.empty(tensor.shape, dtype=tensor.dtype)
    return nn.Parameter(blank, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else blank


def _fill(update: Update) -> None:
    """Let the optimizer make its state, as the first step does."""
    for p in update.network.parameters():
        p.grad = torch.empty_like(p)
    update.optimizer.step()
    update.optimizer.zero_grad(set_to_none=True)


def _tensors(optimizer: torch.optim.Optimizer) -> Iterator[Tensor]:
    return (t for state in optimizer.state.values() for t in state.values() if isinstance(t, Tensor))


def _book_gradient(ledger: Ledger, p: Tensor) -> None:
    if p.grad is not None:
        ledger.give([p.grad], "gradients")


def _over_processes(peak: Counter[str], module: nn.Module, recipe: Recipe, processes: int) -> dict[str, int]:
    """The peak of a process alone as that of one among several: replicated, or sharded block by block."""
    memory = {name: peak[name] for name in (*NETWORKS, "gradients", "optimizers", WORKING)}
    whole, one_of_them = _bytes(module.parameters()), sum(_shard(p, processes) for p in module.parameters())
    if processes == 1:
        return memory
    if not recipe.shard:  # DistributedDataParallel keeps the gradients of either network from step to step
        return memory | {"gradients": 2 * whole}
    for name in (*NETWORKS, "gradients", "optimizers"):
        memory[name] = round(memory[name] * one_of_them / whole)
    return memory | {"gathered": _gathered(module)}


def _gathered(module: nn.Module) -> int:
    """Weights that are whole for the moment: of two blocks, a gradient of one and its copy to be scattered; the rest."""
    sizes = sorted((_bytes(block.parameters()) for block in blocks(module)), reverse=True)
    rest = _bytes(module.parameters()) - sum(sizes)
    return 4 * max(sizes, default=0) + 3 * rest


def _shard(p: Tensor, processes: int) -> int:
    """Bytes of a process's part of `p`: of rows along the first axis, as many as the largest part has (FSDP2)."""
    rows = p.shape[0] if p.ndim else 1
    return -(-rows // processes) * (p.numel() // max(rows, 1)) * p.element_size()


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(t.numel() * t.element_size() for t in tensors)
