"""Files of weights that somebody else published: read as tensors, and put into networks whole or not at all."""

import hashlib
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from simdistill.support.checks import require

Network = TypeVar("Network", bound=nn.Module)


def read_content(path: Path) -> Any:
    """What a .safetensors or a file of `torch.save` holds, in which there is nothing but tensors and plain values.

    Nothing is executed: torch's restricted unpickler refuses everything else. Raises `ValueError` if the file is
    missing, damaged, or asks for more.
    """
    if not path.is_file():
        raise ValueError(f"{path}: no such file")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load promises no kinds, and advises to run what is in the file
        asked = re.search(r"GLOBAL ([\w.]+)", str(error))
        what = f"is damaged, or holds no tensors ({type(error).__name__}); download it again"
        if asked:
            what = f"asks for {asked[1]!r}, which weights do not need: do not trust it; nothing of it was run"
        raise ValueError(f"{path}: {what}") from error


def read_state(path: Path) -> dict[str, Tensor]:
    """The tensors by name in such a file, also under "state_dict"; `ValueError` if it holds anything else."""
    content = read_content(path)
    state = content.get("state_dict", content) if isinstance(content, dict) else content
    named = isinstance(state, dict) and all(isinstance(value, Tensor) for value in state.values())
    require(named, f"{path}: content", type(state).__name__, "a state dict: tensors by name")
    return state


def fill(network: Network, state: Mapping[str, Tensor], path: Path, whose: str) -> Network:
    """`network` with exactly the tensors of `state`, read from `path`, in eval mode and frozen.

    Raises `ValueError` unless they are those of the network, which is `whose`, in name and shape.
    """
    expected = network.state_dict()
    for what, names in (("missing", expected.keys() - state), ("unknown", state.keys() - expected)):
        if names:
            raise ValueError(f"{path}: {len(names)} tensors are {what}, as {min(names)}: must be those of {whose}")
    for name, tensor in expected.items():
        found, wanted = list(state[name].shape), list(tensor.shape)
        require(found == wanted, f"{path}: shape of {name}", found, f"{wanted}, as {whose} has it")
    network.load_state_dict(state)
    return network.eval().requires_grad_(False)


def fingerprint(paths: Iterable[Path]) -> str:
    """The first eight hexadecimal digits of the files' SHA-256, as PyTorch puts them into the names of its files."""
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            while block := file.read(2**20):
                digest.update(block)
    return digest.hexdigest()[:8]
