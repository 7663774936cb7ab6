"""Networks as safetensors files: the weights, and in the header what is needed to build the network again.

Reading executes nothing: the header is JSON that names one of `NETWORKS` and its arguments.
"""

import dataclasses
import json
from pathlib import Path
from typing import Any, TypeVar, get_args

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from simdistill.method.denoisers import Preconditioned
from simdistill.method.preconditioning import EDMScaling, Scaling
from simdistill.networks.mlp import MLP
from simdistill.networks.patched import PatchedUNet
from simdistill.networks.pixart import PixArt
from simdistill.networks.unet import DhariwalUNet, SongUNet
from simdistill.support.files import write_atomically

Module = TypeVar("Module", bound=nn.Module)

NETWORKS = (MLP, SongUNet, DhariwalUNet, PatchedUNet, PixArt)
"""The networks that a header can describe; each records the arguments it was built with as `arguments`."""
SCALINGS: tuple[type, ...] = get_args(Scaling)
"""The preconditionings that a header can describe."""


def write_network(path: Path, denoiser: nn.Module, **facts: object) -> None:
    """Store a denoiser's weights and `facts` (JSON values) about them, atomically.

    A `Preconditioned` network of `NETWORKS` is described in the header and can be read back as it is; of any other
    module only the weights are stored, and reading needs a module to put them `into`.
    """
    header = {"format": 1, "denoiser": _describe(denoiser), "facts": facts}
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in denoiser.state_dict().items()}
    write_atomically(path, save(state, {"simdistill": json.dumps(header)}))


def read_network(path: Path) -> tuple[Preconditioned, dict[str, Any]]:
    """The denoiser stored in `path`, in eval mode and frozen, and the facts stored with it.

    Raises `ValueError` if the file is missing, damaged, not one of ours, or holds only the weights of another network.
    """
    state, header = _read(path)
    try:
        denoiser = _build(header["denoiser"])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: does not describe a network of this version ({_first_line(error)})") from error
    return _fill(denoiser, state, path), header["facts"]


def read_into(denoiser: Module, path: Path) -> tuple[Module, dict[str, Any]]:
    """`denoiser` with the weights stored in `path`, in eval mode and frozen, and the facts stored with them.

    Raises `ValueError` if the file is missing, damaged, not one of ours, or does not fit.
    """
    state, header = _read(path)
    return _fill(denoiser, state, path), header["facts"]


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """All tensors and the metadata of a safetensors file; `ValueError` if it is missing or damaged."""
    if not path.is_file():
        raise ValueError(f"{path}: no such file")
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise ValueError(
            f"{path}: not a sound safetensors file ({_first_line(error)}); delete it and resume or repeat the run"
        ) from error


def _describe(denoiser: nn.Module) -> dict[str, Any] | None:
    if not (isinstance(denoiser, Preconditioned) and isinstance(denoiser.model, NETWORKS)):
        return None
    return {
        "network": type(denoiser.model).__name__,
        "arguments": denoiser.model.arguments,
        "shape": list(denoiser.shape),
        "classes": denoiser.classes,
        "scaling": {"name": type(denoiser.scaling).__name__, **dataclasses.asdict(denoiser.scaling)},
        "sigma_min": denoiser.sigma_min,
        "sigma_max": denoiser.sigma_max,
        "mean": "picture" if isinstance(denoiser.mean, Tensor) else denoiser.mean,
    }


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    state, metadata = read_tensors(path)
    try:
        header = json.loads(metadata["simdistill"])
        return state, {"denoiser": header["denoiser"], "facts": dict(header["facts"])}
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: has no header of simdistill's ({_first_line(error)})") from error


def _build(about: dict[str, Any] | None) -> Preconditioned:
    if about is None:
        raise ValueError("only weights, of a network of your own: name its teacher again with --teacher")
    network = {c.__name__: c for c in NETWORKS}[about["network"]](**about["arguments"])
    values = {name: about[name] for name in ("classes", "sigma_min", "sigma_max")}
    mean = about.get("mean", 0.0)  # files of version 0.1.0 have none
    mean = torch.zeros(about["shape"]) if mean == "picture" else mean
    return Preconditioned(network, tuple(about["shape"]), scaling=_scaling(about), mean=mean, **values)


def _scaling(about: dict[str, Any]) -> Scaling:
    if "scaling" not in about:  # files of version 0.1.0: EDM's alone
        return EDMScaling(about["sigma_data"])
    arguments = dict(about["scaling"])
    return {c.__name__: c for c in SCALINGS}[arguments.pop("name")](**arguments)


def _fill(denoiser: Module, state: dict[str, Tensor], path: Path) -> Module:
    try:
        denoiser.load_state_dict(state)
    except RuntimeError as error:
        raise ValueError(f"{path}: the weights do not fit the network ({_first_line(error)})") from error
    return denoiser.eval().requires_grad_(False)


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0]
