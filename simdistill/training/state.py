"""The state of a training as one flat mapping of names to tensors, from and to its networks and optimizers."""

from collections.abc import Mapping, Sequence
from typing import TypeAlias

import torch
from torch import Tensor, nn

from simdistill.training.sharding import gathered, own_part, shard_like
from simdistill.training.trained import put_into, trained_tensors

Parts: TypeAlias = Mapping[str, nn.Module | torch.optim.Optimizer | Mapping[str, Tensor]]
"""Networks, of which what is trained is kept; optimizers; tensors by name."""


def state_of(parts: Parts, keep: bool = True) -> dict[str, Tensor]:
    """Every tensor of `parts`, named "part.name"; whole and on the CPU, a snapshot that later steps do not change.

    Where the training is sharded every process must ask, but only one need `keep` what it gets.
    """
    tensors = {f"{part}.{name}": t for part, thing in parts.items() for name, t in _tensors(thing).items()}
    state: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        everything = gathered(tensor.detach())  # one after the other: a device need not hold them all
        if keep:
            state[name] = everything.to("cpu", copy=True).contiguous()
    return state


@torch.no_grad()
def restore(parts: Parts, state: Mapping[str, Tensor]) -> None:
    """Put the tensors that `state_of` returned back into `parts`; `ValueError` if they are of other networks."""
    for part, thing in parts.items():
        known = [name for name in state if name.startswith(f"{part}.")]
        stored = {name[len(part) + 1 :]: state[name] for name in known}
        if isinstance(thing, torch.optim.Optimizer):
            _restore_optimizer(thing, stored)
        else:
            put_into(_tensors(thing), stored, part)


def _tensors(thing: nn.Module | torch.optim.Optimizer | Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    if isinstance(thing, nn.Module):
        return trained_tensors(thing)
    if not isinstance(thing, torch.optim.Optimizer):
        return thing
    # hyper-parameters belong to the recipe
    return {
        f"{index}.{name}": tensor
        for index, p in enumerate(_parameters(thing))
        for name, tensor in thing.state.get(p, {}).items()
    }


def _restore_optimizer(optimizer: torch.optim.Optimizer, stored: Mapping[str, Tensor]) -> None:
    optimizer.state.clear()
    parameters = _parameters(optimizer)
    for key, tensor in stored.items():
        index, _, name = key.partition(".")
        p = parameters[int(index)]
        if tensor.shape != p.shape or tensor.ndim == 0:
            optimizer.state[p][name] = tensor.to(p.device, copy=True)  # the number of steps
        else:
            kept = torch.zeros_like(p)  # in the layout of p, which the fused kernels take for granted
            own_part(kept).copy_(own_part(shard_like(tensor, p)))
            optimizer.state[p][name] = kept


def _parameters(optimizer: torch.optim.Optimizer) -> Sequence[nn.Parameter]:
    return [p for group in optimizer.param_groups for p in group["params"]]
