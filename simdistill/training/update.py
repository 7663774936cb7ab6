"""An optimizer step of one network: its loss over a batch in parts, in any precision, on any number of devices."""

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import get_total_norm

from simdistill.config.recipes import Recipe
from simdistill.training.adam import AdamWithoutMomentum
from simdistill.training.processes import Processes
from simdistill.training.sharding import whole

Returned = TypeVar("Returned")

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def _prepared(function: Callable[..., Returned], recipe: Recipe, device: torch.device) -> Callable[..., Returned]:
    """`function` in the recipe's precision, by autocast, and compiled if the recipe says so."""
    compiled = torch.compile(function) if recipe.compile else function
    if recipe.precision == "fp32":
        return compiled

    def in_precision(*arguments: Any) -> Returned:
        with torch.autocast(device.type, PRECISIONS[recipe.precision]):
            return compiled(*arguments)

    return in_precision


class Update:
    """Gradients of `loss` for `network`, averaged over the whole batch, and Adam's step along them.

    `loss(*part)` returns one number a sample, or a tuple of that and more. A batch comes in parts, whose gradients add
    up (so that a part's activations fit into memory), from every process, whose gradients are averaged. Networks
    compute in `recipe.precision` by autocast; parameters, gradients' sums and optimizer stay in float32.
    """

    def __init__(
        self,
        network: nn.Module,
        loss: Callable[..., Any],
        recipe: Recipe,
        processes: Processes,
        device: torch.device,
    ) -> None:
        self.network, self._processes = network, processes
        self.optimizer = _adam(network, recipe.betas)
        self._scaler = torch.amp.GradScaler(device.type, enabled=recipe.precision == "fp16")
        self._loss: Callable[..., Any] = _prepared(loss, recipe, device)

    def __call__(
        self, parts: Sequence[Sequence[Any]], batch: int, lr: float
    ) -> tuple[list[tuple[Tensor, ...]], Tensor]:
        """A step on `parts`, our share of `batch` samples in all; what the loss returned for each, and ‖gradient‖.

        The norm is that of the whole batch's gradient, for all processes alike.
        """
        replicated = self._processes.count > 1 and not isinstance(self.network, FSDPModule)
        if replicated and not isinstance(self._loss, DistributedDataParallel):
            self._loss = self._averaged(parts[0])
        returned: list[tuple[Tensor, ...]] = []
        for k, part in enumerate(parts):
            with self._averaging(k == len(parts) - 1):
                output = self._loss(*part)
                output = output if isinstance(output, tuple) else (output,)
                # processes are averaged, so that a sample counts count/batch in its own
                self._scaler.scale(output[0].sum() * (self._processes.count / batch)).backward()
            returned.append(tuple(o.detach() for o in output))
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self._scaler.unscale_(self.optimizer)
        norm = whole(get_total_norm([p.grad for p in self.network.parameters() if p.grad is not None]))
        self._scaler.step(self.optimizer)
        self._scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        if self._scaler.is_enabled():  # it leaves out a step whose gradient overflowed: no sign of divergence
            norm = torch.where(norm.isfinite(), norm, 0.0)
        return returned, norm

    @property
    def scale(self) -> tuple[float, float]:
        """The state of fp16's loss scaling: scale, and steps since it last grew."""
        state = self._scaler.state_dict() or {"scale": 1.0, "_growth_tracker": 0}
        return state["scale"], state["_growth_tracker"]

    @scale.setter
    def scale(self, state: tuple[float, float]) -> None:
        if self._scaler.is_enabled():
            fixed = self._scaler.state_dict()
            self._scaler.load_state_dict({**fixed, "scale": state[0], "_growth_tracker": int(state[1])})

    def _averaged(self, part: Sequence[Any]) -> DistributedDataParallel:
        """The loss with its gradients averaged over the processes; of parameters without a part in it none waits."""
        parameters = list(self.network.parameters())
        output = self._loss(*part)
        loss: Tensor = (output[0] if isinstance(output, tuple) else output).sum()
        gradients: Any = torch.autograd.grad(loss, parameters, allow_unused=True)
        trained = [p for p, gradient in zip(parameters, gradients, strict=True) if gradient is not None]
        return DistributedDataParallel(_Loss(trained, self._loss), gradient_as_bucket_view=True)

    @contextmanager
    def _averaging(self, last: bool) -> Generator[None]:
        """Average gradients over the processes after the `last` part only."""
        if isinstance(self.network, FSDPModule):
            self.network.set_requires_gradient_sync(last)
        ddp = self._loss if isinstance(self._loss, DistributedDataParallel) else None
        with nullcontext() if ddp is None or last else ddp.no_sync():
            yield


class _Loss(nn.Module):
    """A loss as a module with the parameters that it trains: what DistributedDataParallel takes.

    The network's buffers are left out: they never change, so that processes need not exchange them.
    """

    def __init__(self, trained: Sequence[nn.Parameter], loss: Callable[..., Any]) -> None:
        super().__init__()
        self.trained, self.loss = nn.ParameterList(trained), loss

    def forward(self, *part: Any) -> Any:
        return self.loss(*part)


def _adam(network: nn.Module, betas: tuple[float, float]) -> torch.optim.Optimizer:
    beta_1, beta_2 = betas
    if beta_1 == 0:
        return AdamWithoutMomentum(network.parameters(), lr=0.0, beta_2=beta_2)
    return torch.optim.Adam(network.parameters(), lr=0.0, betas=betas, fused=True)
