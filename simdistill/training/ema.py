"""The average of a network's weights, the network that is evaluated and kept."""

from typing import Generic, TypeVar

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from simdistill.method.ema import Average
from simdistill.training.sharding import local

Module = TypeVar("Module", bound=nn.Module)


class EMA(Generic[Module]):
    """`module` as the average of another's weights that `average` describes; buffers are copied as they are.

    Takes a copy of the network as it starts, which it puts in eval mode and freezes, sharded like the other if that is.
    """

    def __init__(self, module: Module, average: Average) -> None:
        self.module, self.average = module.eval().requires_grad_(False), average

    @torch.no_grad()
    def update(self, module: nn.Module, batch: int, images: int) -> None:
        """Move towards `module` after a step on `batch` images, the last of the run's first `images`."""
        keep = self.average.keep(batch, images)
        move = get_ema_multi_avg_fn(keep)
        move(_locals(self.module), _locals(module), 0)
        for average, current in zip(self.module.buffers(), module.buffers(), strict=True):
            average.copy_(current)


def _locals(module: nn.Module) -> list[Tensor]:
    return [local(p) for p in module.parameters()]
