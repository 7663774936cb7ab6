"""The state of a training as one flat mapping of names to tensors, stored in one checkpoint file."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from simdistill.files import write_atomically
from simdistill.teachers.weights import read_tensors


def write_checkpoint(path: Path, state: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    """Store `state` with `facts` (JSON values), atomically: after a crash the previous checkpoint is still there."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    write_atomically(path, save(tensors, {"simdistill": json.dumps(facts)}))


def read_checkpoint(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """What `write_checkpoint` stored; `ValueError` if the file is missing or damaged."""
    state, metadata = read_tensors(path)
    try:
        return state, dict(json.loads(metadata["simdistill"]))
    except (KeyError, ValueError) as error:
        raise ValueError(f"{path}: not a checkpoint of simdistill's") from error


def all_finite(state: Mapping[str, Tensor]) -> bool:
    """Whether no tensor of `state` holds an infinite number or NaN."""
    return all(bool(torch.isfinite(tensor).all()) for tensor in state.values())


def optimizer_state(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """An optimizer's tensors, named `{parameter index}.{what}`; its hyper-parameters belong to the recipe."""
    state: dict[int, dict[str, Tensor]] = optimizer.state_dict()["state"]
    return {f"{index}.{name}": tensor for index, kept in state.items() for name, tensor in kept.items()}


def restore_optimizer(optimizer: torch.optim.Optimizer, state: Mapping[str, Tensor]) -> None:
    """Put back what `optimizer_state` returned."""
    nested: dict[int, dict[str, Tensor]] = {}
    for key, tensor in state.items():
        index, _, name = key.partition(".")
        nested.setdefault(int(index), {})[name] = tensor
    optimizer.load_state_dict({"state": nested, "param_groups": optimizer.state_dict()["param_groups"]})


def with_prefix(prefix: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`state` with `prefix` before every name."""
    return {prefix + name: tensor for name, tensor in state.items()}


def without_prefix(prefix: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The part of `state` whose names begin with `prefix`, without it."""
    return {name[len(prefix) :]: tensor for name, tensor in state.items() if name.startswith(prefix)}
