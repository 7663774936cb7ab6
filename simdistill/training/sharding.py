"""Modules whose blocks are sharded over processes (FSDP2), or computed again in the backward pass."""

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.utils.checkpoint import checkpoint


def blocks(module: nn.Module) -> Iterator[nn.Module]:
    """The entries of the outermost lists of layers in `module` that have parameters: its residual blocks."""
    for child in module.children():
        if isinstance(child, (nn.ModuleList, nn.ModuleDict, nn.Sequential)):
            yield from (block for block in child.children() if any(True for _ in block.parameters()))
        else:
            yield from blocks(child)


def recompute_blocks(module: nn.Module, again: bool = True) -> None:
    """Let every block keep its input only, and compute the rest once more in the backward pass (Chen et al. 2016).

    In place; `again=False` undoes it. Networks run in eval mode here: no dropout needs its random state repeated.
    """
    for block in blocks(module):
        patch = vars(block).get("forward")
        patched = isinstance(patch, partial) and patch.func is checkpoint
        if again and not patched:  # an attribute, not a wrapper: the names in the state dict stay
            block.forward = partial(checkpoint, block.forward, use_reentrant=False, preserve_rng_state=False)
        elif patched and not again:
            del block.forward


def shard(module: nn.Module, count: int, device: torch.device) -> None:
    """Spread the parameters of every block of `module`, and what is left of it, over `count` processes, in place.

    A block's parameters are together on one device only while the block computes (FSDP2; Zhao et al. 2023). A module on
    the CPU is moved to `device` block by block, so that it never has to fit there as a whole.
    """
    mesh = init_device_mesh(device.type, (count,))
    for block in blocks(module):
        fully_shard(block, mesh=mesh)
    fully_shard(module, mesh=mesh)
    if hasattr(module, "residual"):
        register_fsdp_forward_method(module, "residual")


def own_part(tensor: Tensor) -> Tensor:
    """The part of `tensor` that this process holds: all of it, unless it is sharded."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def gathered(tensor: Tensor) -> Tensor:
    """All of a tensor that may be sharded; every process must ask."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def shard_like(tensor: Tensor, other: Tensor) -> Tensor:
    """The whole `tensor`, the same in every process, on the device of `other` and sharded as it is."""
    tensor = tensor.to(other.device)
    if not isinstance(other, DTensor):
        return tensor
    return distribute_tensor(tensor, other.device_mesh, other.placements, src_data_rank=None)
