"""The state of a training as a flat mapping of names to tensors, from and to its networks and optimizers."""

from collections.abc import Mapping, Sequence
from typing import TypeAlias

import torch
from torch import Tensor, nn

from simdistill.training.sharding import gathered, own_part, shard_like
from simdistill.training.trained import put_into, trained_tensors

Parts: TypeAlias = Mapping[str, nn.Module | torch.optim.Optimizer | Mapping[str, Tensor]]
"""Networks (only trained tensors are kept), optimizers, and tensors by name."""


def state_of(parts: Parts, keep: bool = True) -> dict[str, Tensor]:
    """A snapshot of every tensor of `parts`, named "part.name", full (not sharded) and on the CPU.

    If the training is sharded, all processes must call this, but only one needs to `keep` the result.
    """
    tensors = {f"{part}.{name}": t for part, thing in parts.items() for name, t in _tensors(thing).items()}
    state: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        everything = gathered(tensor.detach())  # one at a time: a device may not have room for all
        if keep:
            state[name] = everything.to("cpu", copy=True).contiguous()
    return state


@torch.no_grad()
def restore(parts: Parts, state: Mapping[str, Tensor]) -> None:
    """Restore the tensors from `state_of` into `parts`; `ValueError` if they are of other networks or optimizers."""
    for part, thing in parts.items():
        known = [name for name in state if name.startswith(f"{part}.")]
        stored = {name[len(part) + 1 :]: state[name] for name in known}
        if isinstance(thing, torch.optim.Optimizer):
            _restore_optimizer(thing, stored, part)
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


def _restore_optimizer(optimizer: torch.optim.Optimizer, stored: Mapping[str, Tensor], part: str) -> None:
    optimizer.state.clear()
    parameters = _parameters(optimizer)
    for key, tensor in stored.items():
        index, _, name = key.partition(".")
        known = index.isdecimal() and int(index) < len(parameters)
        if not known or list(tensor.shape) != ([] if name == "step" else list(parameters[int(index)].shape)):
            raise ValueError(f"{part}.{key} of shape {list(tensor.shape)} belongs to none of its parameters")
        p = parameters[int(index)]
        if name == "step":
            optimizer.state[p][name] = tensor.to(p.device, copy=True)
        else:
            kept = torch.zeros_like(p)  # in the memory layout of p, which the fused kernels assume
            own_part(kept).copy_(own_part(shard_like(tensor, p)))
            optimizer.state[p][name] = kept


def _parameters(optimizer: torch.optim.Optimizer) -> Sequence[nn.Parameter]:
    return [p for group in optimizer.param_groups for p in group["params"]]
