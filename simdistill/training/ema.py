"""The average of what is trained of a network: the weights that are evaluated and kept."""

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
    """The `tensors` of a network as the average that `averaging` describes; buffers are copied as they are.

    They begin as copies of the network's own, sharded like these.
    """

    def __init__(self, network: nn.Module, averaging: Averaging) -> None:
        self.averaging = averaging
        self.tensors = {name: tensor.detach().clone() for name, tensor in trained_tensors(network).items()}
        parameters = parameter_names(network)
        self._averaged = [name for name in self.tensors if name in parameters]

    @torch.no_grad()
    def update(self, network: nn.Module, batch: int, images: int) -> None:
        """Move towards `network` after a step on `batch` images, the last of the run's first `images`."""
        move, current = get_ema_multi_avg_fn(self.averaging.decay(batch, images)), trained_tensors(network)
        averages, weights = ([own_part(t[name]) for name in self._averaged] for t in (self.tensors, current))
        move(averages, weights, 0)
        for name in self.tensors.keys() - self._averaged:
            self.tensors[name].copy_(current[name])


def averaged(network: Module, ema: AveragedWeights) -> Module:
    """A copy of `network`, which is not sharded, with its average, in eval mode and frozen."""
    copied = copy.deepcopy(network)
    put_into(trained_tensors(copied), ema.tensors, "the average")
    return copied.eval().requires_grad_(False)
