"""The trained parameters of a network: those that require gradients.

Used by optimizer, EMA, checkpoints and files. Parameters that the user froze keep the teacher's values.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from simdistill.training.sharding import own_part, shard_like


def open_for_training(network: nn.Module) -> nn.Module:
    """`network`; if all its parameters are frozen, as a teacher's usually are, all are made trainable."""
    if not any(p.requires_grad for p in network.parameters()):
        network.requires_grad_(True)
    return network


def trained_parameters(network: nn.Module) -> list[nn.Parameter]:
    """The trained parameters, in the network's order."""
    return [p for p in network.parameters() if p.requires_grad]


def parameter_names(network: nn.Module, trained: bool = True) -> set[str]:
    """The names of the trained parameters, or of the frozen ones; all names of shared parameters."""
    named = network.named_parameters(remove_duplicate=False)
    return {name for name, p in named if p.requires_grad == trained}


def trained_tensors(network: nn.Module) -> dict[str, Tensor]:
    """The trained parameters and the persistent buffers, by their names in the state dict."""
    frozen = parameter_names(network, trained=False)
    return {name: tensor for name, tensor in network.state_dict().items() if name not in frozen}


@torch.no_grad()
def put_into(targets: Mapping[str, Tensor], stored: Mapping[str, Tensor], whose: str) -> None:
    """Copy the full tensors `stored` into `targets`, sharded or not; `ValueError` if they are of another network."""
    if targets.keys() != stored.keys():
        odd = sorted(targets.keys() ^ stored.keys())
        raise ValueError(f"{whose} has other tensors: {', '.join(odd[:3])}{' …' if odd[3:] else ''}")
    for name, target in targets.items():
        if target.shape != stored[name].shape:
            raise ValueError(f"{whose}.{name} has shape {list(stored[name].shape)}, not {list(target.shape)}")
        own_part(target).copy_(own_part(shard_like(stored[name], target)))
