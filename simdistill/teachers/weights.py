"""Networks as safetensors files: the weights, and a header with what is needed to rebuild the network.

Reading executes nothing: the header is JSON with one of `NETWORKS` and its arguments.
"""

import dataclasses
import json
from collections.abc import Collection
from pathlib import Path
from typing import Any, TypeVar, get_args

import torch
from safetensors.torch import save
from torch import Tensor, nn

from simdistill.method.denoisers import Preconditioned
from simdistill.method.preconditioning import EDMScaling, Scaling
from simdistill.networks.mlp import MLP
from simdistill.networks.patched import PatchedUNet
from simdistill.networks.pixart import PixArt
from simdistill.networks.unet import DhariwalUNet, SongUNet
from simdistill.support.checks import require
from simdistill.support.files import write_atomically
from simdistill.support.json_text import json_object
from simdistill.support.libraries import MissingLibrary
from simdistill.support.tensors import check_tensors, fill, read_metadata, read_tensors

Module = TypeVar("Module", bound=nn.Module)

NETWORKS = (MLP, SongUNet, DhariwalUNet, PatchedUNet, PixArt)
"""The networks that a header can describe; each records the arguments it was built with as `arguments`."""
SCALINGS: tuple[type, ...] = get_args(Scaling)
"""The preconditionings that a header can describe."""


MOST_BLOCKS, WIDEST, MOST_ENTRIES = 1000, 2**17, 100
"""Bounds of a header's network: blocks at a resolution, any other number, entries of a list."""


@dataclasses.dataclass(frozen=True)
class _Header:
    """A file's header; `left_out` are the tensors of its network that it does not have."""

    denoiser: dict[str, Any] | None
    facts: dict[str, Any]
    left_out: frozenset[str]


def write_network(path: Path, denoiser: nn.Module, left_out: Collection[str] = (), **facts: object) -> None:
    """Store a denoiser's weights and `facts` (JSON values) about them, atomically.

    A `Preconditioned` network of `NETWORKS` is described in the header and can be read back by itself. Of any other
    module only the weights are stored, and reading needs a module to load them `into`. So does a partial file, without
    the tensors `left_out`, which the header names. Raises `ValueError` for names that the module does not have.
    """
    state = denoiser.state_dict()
    unknown = sorted({*left_out} - state.keys())
    require(not unknown, "left_out", unknown[:3], "names of the network's own tensors")
    header: dict[str, Any] = {"format": 1, "denoiser": _describe(denoiser), "facts": facts}
    if left_out:
        header |= {"partial": True, "left_out": sorted(left_out)}
    stored = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items() if name not in left_out}
    write_atomically(path, save(stored, {"simdistill": json.dumps(header)}))


def has_header(path: Path) -> bool:
    """Whether the file was written by this package; `ValueError` if it is missing or damaged."""
    return "simdistill" in read_metadata(path)


def is_partial(path: Path) -> bool:
    """Whether the file has only a part of its network; `ValueError` if it is missing, damaged or not ours."""
    return bool(_header(read_metadata(path), path).left_out)


def read_network(path: Path) -> tuple[Preconditioned, dict[str, Any]]:
    """The denoiser stored in `path`, in eval mode and frozen, and the facts stored with it.

    Raises `ValueError` if the file is missing, damaged, partial, not of this package, or has only another network's
    weights.
    """
    state, metadata = read_tensors(path)
    header = _header(metadata, path)
    if header.left_out:
        remedy = "give the teacher that it was distilled from (--teacher)"
        raise ValueError(f"{path}: has only the trained part of its network: {remedy}")
    whose = "the network that its header describes"
    try:
        _check_size(header.denoiser)
        with torch.device("meta"):
            laid_out = _build(header.denoiser).state_dict()
    except MissingLibrary:
        raise
    except Exception as error:  # whatever a stranger's arguments lead to: KeyError, IndexError, ZeroDivisionError, …
        raise ValueError(f"{path}: does not describe a network of this version ({_first_line(error)})") from error
    check_tensors(state, {name: tensor.shape for name, tensor in laid_out.items()}, path, whose)
    return fill(_build(header.denoiser), state, path, whose), header.facts


def read_into(denoiser: Module, path: Path) -> tuple[Module, dict[str, Any]]:
    """`denoiser` with the weights stored in `path`, in eval mode and frozen, and the facts stored with them.

    Tensors that a partial file leaves out stay as they are. Raises `ValueError` if the file is missing, damaged, not of
    this package, or does not fit.
    """
    state, metadata = read_tensors(path)
    header = _header(metadata, path)
    return fill(denoiser, state, path, f"the {type(denoiser).__name__} given", header.left_out), header.facts


def _header(metadata: dict[str, str], path: Path) -> _Header:
    try:
        header = json_object(str(path), metadata["simdistill"])
        left_out = frozenset(str(name) for name in (header["left_out"] if header.get("partial") else ()))
        return _Header(header["denoiser"], dict(header["facts"]), left_out)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: has no header of simdistill ({_first_line(error)})") from error


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


def _build(about: dict[str, Any] | None) -> Preconditioned:
    if about is None:
        raise ValueError("only weights of your own network: name its teacher again with --teacher")
    network = {c.__name__: c for c in NETWORKS}[about["network"]](**about["arguments"])
    values = {name: about[name] for name in ("classes", "sigma_min", "sigma_max")}
    mean = about.get("mean", 0.0)  # files of version 0.1.0 have none
    mean = torch.zeros(about["shape"]) if mean == "picture" else mean
    return Preconditioned(network, tuple(about["shape"]), scaling=_scaling(about), mean=mean, **values)


def _check_size(value: Any, name: str = "denoiser") -> None:
    """Raise `ValueError` for a described network whose building alone would take long: its tensors come later."""
    if isinstance(value, dict):
        for key, one in value.items():
            _check_size(one, str(key))
    elif isinstance(value, list):
        require(len(value) <= MOST_ENTRIES, f"entries of {name}", len(value), f"at most {MOST_ENTRIES}")
        for one in value:
            _check_size(one, name)
    elif isinstance(value, int):
        most = MOST_BLOCKS if name in ("depth", "num_blocks") else WIDEST
        require(abs(value) <= most, name, value, f"at most {most:,}")


def _scaling(about: dict[str, Any]) -> Scaling:
    if "scaling" not in about:  # files of version 0.1.0: EDM's alone
        return EDMScaling(about["sigma_data"])
    arguments = dict(about["scaling"])
    return {c.__name__: c for c in SCALINGS}[arguments.pop("name")](**arguments)


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0]
