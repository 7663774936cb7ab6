"""Sharding a module's blocks over processes (FSDP2), and activation checkpointing of its blocks."""

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.utils.checkpoint import checkpoint


def blocks(module: nn.Module) -> Iterator[nn.Module]:
    """The residual blocks of `module`: the entries with parameters in its outermost lists of layers."""
    for child in module.children():
        if isinstance(child, (nn.ModuleList, nn.ModuleDict, nn.Sequential)):
            yield from (block for block in child.children() if any(True for _ in block.parameters()))
        else:
            yield from blocks(child)


def recompute_blocks(module: nn.Module, again: bool = True) -> None:
    """Activation (gradient) checkpointing: blocks keep only their input and are recomputed in the backward pass.

    In place; `again=False` undoes it (Chen et al. 2016). Networks run in eval mode, so there is no dropout whose random
    state would have to be restored.
    """
    for block in blocks(module):
        patch = vars(block).get("forward")
        patched = isinstance(patch, partial) and patch.func is checkpoint
        if again and not patched:  # an attribute, not a wrapper, to keep the names in the state dict
            block.forward = partial(checkpoint, block.forward, use_reentrant=False, preserve_rng_state=False)
        elif patched and not again:
            del block.forward


def shard(module: nn.Module, count: int, device: torch.device) -> None:
    """Shard the parameters of `module`, block by block, over `count` processes, in place.

    A block's parameters are gathered on a device only while the block computes (FSDP2; Zhao et al. 2023). A module on
    the CPU is moved to `device` block by block, so that it never has to fit there as a whole.
    """
    mesh = init_device_mesh(device.type, (count,))
    for block in blocks(module):
        fully_shard(block, mesh=mesh)
    fully_shard(module, mesh=mesh)
    if hasattr(module, "residual"):
        register_fsdp_forward_method(module, "residual")


def own_part(tensor: Tensor) -> Tensor:
    """The local shard of `tensor`; all of it if it is not sharded."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def gathered(tensor: Tensor) -> Tensor:
    """The full tensor, which may be sharded; all processes must call this."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def shard_like(tensor: Tensor, other: Tensor) -> Tensor:
    """The full `tensor` (the same in every process), moved and sharded like `other`."""
    tensor = tensor.to(other.device)
    if not isinstance(other, DTensor):
        return tensor
    return distribute_tensor(tensor, other.device_mesh, other.placements, src_data_rank=None)
