"""An optimizer step of one network: its loss over micro-batches, in any precision, on any number of devices."""

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import get_total_norm

from simdistill.config.recipes import Recipe
from simdistill.method.algorithm import Batch, Loss
from simdistill.training.adam import AdamWithoutMomentum
from simdistill.training.processes import Processes
from simdistill.training.sharding import gathered
from simdistill.training.trained import trained_parameters

Returned = TypeVar("Returned")

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def _prepared(function: Callable[..., Returned], recipe: Recipe, device: torch.device) -> Callable[..., Returned]:
    """`function` with autocast to the recipe's precision, and compiled if the recipe says so."""
    compiled = torch.compile(function) if recipe.compile else function
    if recipe.precision == "fp32":
        return compiled

    def in_precision(*arguments: Any) -> Returned:
        with torch.autocast(device.type, PRECISIONS[recipe.precision]):
            return compiled(*arguments)

    return in_precision


class Step:
    """An Adam step of the trained parameters of `network` on the gradient of `loss`, averaged over the whole batch.

    Gradients are accumulated over micro-batches (so that the activations of one fit into memory) and averaged over
    processes. Networks compute in `recipe.precision` by autocast; parameters, accumulated gradients and optimizer
    states stay in float32.
    """

    def __init__(
        self,
        network: nn.Module,
        loss: Callable[[Batch], Loss],
        recipe: Recipe,
        processes: Processes,
        device: torch.device,
    ) -> None:
        self.network, self._processes = network, processes
        self.optimizer = _adam(trained_parameters(network), recipe.betas)
        self._scaler = torch.amp.GradScaler(device.type, enabled=recipe.precision == "fp16")
        self._loss: Callable[[Batch], Loss] = _prepared(loss, recipe, device)

    def __call__(self, parts: Sequence[Batch], batch: int, lr: float) -> tuple[Loss, Tensor]:
        """A step on this process's micro-batches `parts` of `batch` samples in total; returns the loss and ‖gradient‖.

        The loss is detached; the norm is that of the whole batch's gradient, the same in all processes.
        """
        replicated = self._processes.world_size > 1 and not isinstance(self.network, FSDPModule)
        if replicated and not isinstance(self._loss, DistributedDataParallel):
            self._loss = self._averaged(parts[0])
        returned: list[Loss] = []
        for k, part in enumerate(parts):
            with self._averaging(k == len(parts) - 1):
                loss = self._loss(part)
                # processes are averaged, so that a sample counts world_size/batch in its own
                self._scaler.scale(loss.value.sum() * (self._processes.world_size / batch)).backward()
            returned.append(_detached(loss))
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self._scaler.unscale_(self.optimizer)
        norm = gathered(get_total_norm([p.grad for p in self.network.parameters() if p.grad is not None]))
        self._scaler.step(self.optimizer)
        self._scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        if self._scaler.is_enabled():  # it skips steps whose gradient overflowed, which is not divergence
            norm = torch.where(norm.isfinite(), norm, 0.0)
        return _joined(returned), norm

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

    def _averaged(self, part: Batch) -> DistributedDataParallel:
        """The loss with gradients averaged over the processes; parameters that it does not use are left out."""
        parameters = trained_parameters(self.network)
        gradients: Any = torch.autograd.grad(self._loss(part).value.sum(), parameters, allow_unused=True)
        trained = [p for p, gradient in zip(parameters, gradients, strict=True) if gradient is not None]
        return DistributedDataParallel(_LossModule(trained, self._loss), gradient_as_bucket_view=True)

    @contextmanager
    def _averaging(self, last: bool) -> Generator[None]:
        """Average gradients over the processes after the `last` part only."""
        if isinstance(self.network, FSDPModule):
            self.network.set_requires_gradient_sync(last)
        ddp = self._loss if isinstance(self._loss, DistributedDataParallel) else None
        with nullcontext() if ddp is None or last else ddp.no_sync():
            yield


class _LossModule(nn.Module):
    """A loss as a module with the parameters that it trains, for DistributedDataParallel.

    The network's buffers are left out: they never change, so processes need not exchange them.
    """

    def __init__(self, trained: Sequence[nn.Parameter], loss: Callable[[Batch], Loss]) -> None:
        super().__init__()
        self.trained, self.loss = nn.ParameterList(trained), loss

    def forward(self, part: Batch) -> Loss:
        return self.loss(part)


def _detached(loss: Loss) -> Loss:
    metrics = {name: value.detach() for name, value in loss.metrics.items()}
    return Loss(loss.value.detach(), metrics, None if loss.x_0 is None else loss.x_0.detach())


def _joined(parts: Sequence[Loss]) -> Loss:
    metrics = {name: torch.cat([part.metrics[name] for part in parts]) for name in parts[0].metrics}
    samples = [part.x_0 for part in parts if part.x_0 is not None]
    return Loss(torch.cat([part.value for part in parts]), metrics, torch.cat(samples) if samples else None)


def _adam(parameters: Sequence[nn.Parameter], betas: tuple[float, float]) -> torch.optim.Optimizer:
    beta_1, beta_2 = betas
    if beta_1 == 0:
        return AdamWithoutMomentum(parameters, lr=0.0, beta_2=beta_2)
    return torch.optim.Adam(parameters, lr=0.0, betas=betas, fused=True)
