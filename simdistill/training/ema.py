"""EMA of a network's trained weights: the weights that are evaluated and kept."""

import copy
from typing import TypeVar

import torch
from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from simdistill.method.ema import Averaging
from simdistill.training.sharding import own_part
from simdistill.training.trained import parameter_names, put_into, trained_tensors

Module = TypeVar("Module", bound=nn.Module)


class AveragedWeights:
    """The EMA of a network's tensors, as `averaging` describes it; buffers are copied.

    `tensors` start as copies of the network's, sharded like them.
    """

    def __init__(self, network: nn.Module, averaging: Averaging) -> None:
        self.averaging = averaging
        self.tensors = {name: tensor.detach().clone() for name, tensor in trained_tensors(network).items()}
        parameters = parameter_names(network)
        self._averaged = [name for name in self.tensors if name in parameters]

    @torch.no_grad()
    def update(self, network: nn.Module, batch: int, images: int) -> None:
        """Update towards `network` after a step on `batch` images, the last of `images` so far."""
        move, current = get_ema_multi_avg_fn(self.averaging.decay(batch, images)), trained_tensors(network)
        averages, weights = ([own_part(t[name]) for name in self._averaged] for t in (self.tensors, current))
        move(averages, weights, 0)
        for name in self.tensors.keys() - self._averaged:
            self.tensors[name].copy_(current[name])


def averaged(network: Module, ema: AveragedWeights) -> Module:
    """A copy of `network` (not sharded) with its EMA, in eval mode and frozen."""
    copied = copy.deepcopy(network)
    put_into(trained_tensors(copied), ema.tensors, "the average")
    return copied.eval().requires_grad_(False)
