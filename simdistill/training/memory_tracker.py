"""Tensors without data, and a tracker of the memory and operations that they would need.

Under torch's FakeTensorMode, tensors have shapes, types and lifetimes; operations do everything but the arithmetic. The
tracker follows every storage from the operation that creates it until it is freed.
"""

import copy
import gc
import weakref
from collections import Counter
from collections.abc import Callable, Generator, Iterable
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry, sdpa_backward_flop_count, sdpa_flop_count

WORKING = "activations"  # graphs, random draws, gradients of activations: everything without another owner


def _attention(q: Tensor, k: Tensor, v: Tensor, *_: Any, **__: Any) -> int:
    return sdpa_flop_count(q.shape, k.shape, v.shape)


def _attention_backward(gradient: Tensor, q: Tensor, k: Tensor, v: Tensor, *_: Any, **__: Any) -> int:
    return sdpa_backward_flop_count(gradient.shape, q.shape, k.shape, v.shape)


FORMULAS: dict[Any, Callable[..., int]] = {
    **flop_registry,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
}
"""Floating-point operations of kernels that multiply matrices: torch's formulas, and those of its CPU attention."""
CONVOLUTIONS = {kernel for kernel in FORMULAS if "convolution" in str(kernel)}
"""The convolutions among them, which reach a smaller share of a GPU's peak."""


class MemoryTracker(TorchDispatchMode):
    """Bytes `held` by owner: now, at the `peak` since `restart`, and when the activations peaked (`busiest`).

    Also counts floating-point operations since `restart`, and those of convolutions among them, by the formulas of
    torch's FlopCounterMode (which itself would keep tensors alive that activation checkpointing frees).
    """

    def __init__(self) -> None:
        super().__init__()
        self.held, self.peak, self.busiest = Counter[str](), Counter[str](), Counter[str]()
        self.flops, self.convolving = 0, 0
        self._owners: dict[int, str] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Do the operation, and record its results and cost."""
        made = func(*args, **(kwargs or {}))
        for one in made if isinstance(made, (tuple, list)) else (made,):
            if isinstance(one, Tensor):
                self._note(one.untyped_storage())
        if func.overloadpacket in FORMULAS:
            flops = FORMULAS[func.overloadpacket](*args, **(kwargs or {}), out_val=made)
            self.flops += flops
            self.convolving += flops if func.overloadpacket in CONVOLUTIONS else 0
        if self.held.total() > self.peak.total():
            self.peak = self.held.copy()
        if self.held[WORKING] > self.busiest[WORKING]:
            self.busiest = self.held.copy()
        return made

    def restart(self) -> None:
        """Reset the peaks and the counts of operations."""
        gc.collect()
        self.peak, self.busiest = self.held.copy(), self.held.copy()
        self.flops, self.convolving = 0, 0

    def assign(self, tensors: Iterable[Tensor], owner: str) -> None:
        """Assign the storages of `tensors` to `owner`."""
        for storage in (tensor.untyped_storage() for tensor in tensors):
            self._note(storage)
            self.held[self._owners[id(storage)]] -= storage.nbytes()
            self.held[owner] += storage.nbytes()
            self._owners[id(storage)] = owner

    def _note(self, storage: torch.UntypedStorage) -> None:
        if id(storage) in self._owners:
            return
        self._owners[id(storage)] = WORKING
        self.held[WORKING] += storage.nbytes()
        weakref.finalize(storage, self._forget, id(storage), storage.nbytes())

    def _forget(self, key: int, size: int) -> None:
        self.held[self._owners.pop(key)] -= size


@contextmanager
def without_data(gpu: bool) -> Generator[MemoryTracker]:
    """Within the block, tensors have no data, and are tracked; `gpu` simulates autocast on CUDA."""
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # a kernel without a formula
    try:
        with ExitStack() as modes:
            modes.enter_context(FakeTensorMode(allow_non_fake_inputs=True))
            modes.enter_context(_Copying())
            modes.enter_context(patch.object(nn.Module, "_apply", _stay))  # torch cannot move modules of fake tensors
            tracker = modes.enter_context(MemoryTracker())
            if gpu:
                modes.enter_context(_autocast_of_cuda())
            yield tracker
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)


def hollow(module: nn.Module) -> nn.Module:
    """A copy of `module` without data, on the CPU."""
    return copy.deepcopy(module, {id(t): _blank(t) for t in (*module.parameters(), *module.buffers())})


def _stay(module: nn.Module, *_: Any, **__: Any) -> nn.Module:
    return module


class _Copying(TorchFunctionMode):
    """Allows deep copies of tensors without data, since the trainer copies networks."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is not Tensor.__deepcopy__:
            return func(*args, **(kwargs or {}))
        tensor, memo = args
        return memo.setdefault(id(tensor), _blank(tensor))


@contextmanager
def _autocast_of_cuda() -> Generator[None]:
    """Compute norms and softmax in float32, as CUDA's autocast does and the CPU's does not.

    By patching: a torch-function mode would be inactive in the backward pass, where checkpointed blocks are recomputed.
    """
    places = [(functional, "group_norm"), (functional, "layer_norm"), (functional, "softmax")]
    with ExitStack() as patches:
        for place, name in (*places, (torch, "softmax"), (Tensor, "softmax")):
            patches.enter_context(patch.object(place, name, _in_float32(getattr(place, name))))
        yield


def _in_float32(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def computed(*args: Any, **kwargs: Any) -> Tensor:
        if torch.is_autocast_enabled("cpu"):
            args = tuple(one.float() if isinstance(one, Tensor) else one for one in args)
        return function(*args, **kwargs)

    return computed


def _blank(tensor: Tensor) -> Tensor:
    blank = torch.empty(tensor.shape, dtype=tensor.dtype)
    return nn.Parameter(blank, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else blank
