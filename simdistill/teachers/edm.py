"""The published checkpoints of Karras et al. (2022, EDM): a denoiser from a `.pkl` file; nothing in it is executed.

Such a file has a network's source code, settings and attributes. The code is ignored: the network is built from the
settings with this package's classes, and loads the tensors by name.
"""

from pathlib import Path
from typing import Any

import torch
from torch import nn

from simdistill.method.denoisers import Preconditioned
from simdistill.method.preconditioning import IDDPMScaling, Scaling
from simdistill.support.checks import require
from simdistill.support.tensors import check_names, fill
from simdistill.teachers.edm_settings import NETWORKS, PRECONDITIONINGS, SCALARS, build, plain, plain_settings
from simdistill.teachers.foreign import OWN_NETWORK
from simdistill.teachers.pickled_tensors import TENSOR_NAMES, read_tensor
from simdistill.teachers.pickles import Call, read_pickle

MAX_BYTES = 4 * 2**30
"""Largest file that is read; EDM's largest has 1.2 GB."""
SAMPLED = (0.002, 80.0)
"""The range of noise levels of the published sampler, whatever the network was trained on."""

_OBJECT = "torch_utils.persistence._reconstruct_persistent_obj"
_MODULE_DICT = "torch.nn.modules.container.ModuleDict"
_ALLOWED = {
    *{_OBJECT, _MODULE_DICT, *SCALARS, *TENSOR_NAMES},
    *{"dnnlib.util.EasyDict", "collections.OrderedDict", "numpy.dtype"},
}
_REPEATED = {"img_resolution", "img_channels", "label_dim", "model_type"}  # they repeat the network's own settings
_IGNORED = {"use_fp16"}  # the run chooses the precision
_EDM2 = b"mp_silu"  # a function in the source code that EDM2's files carry


def read_edm(path: Path) -> Preconditioned:
    """The network under `ema` in an EDM checkpoint, as a denoiser in float32, in eval mode and frozen.

    Supported are the preconditionings EDM, VP, VE and iDDPM with SongUNet and DhariwalUNet. Raises `ValueError` if the
    file is missing, too large, damaged, does not fit, or asks for anything that such a checkpoint does not need.
    """
    if not path.is_file():
        raise ValueError(f"{path}: no such file")
    size = path.stat().st_size
    if size > MAX_BYTES:
        raise ValueError(f"{path}: has {size:,} bytes, an EDM checkpoint at most {MAX_BYTES:,}; name another file")
    data = path.read_bytes()
    try:
        return _denoiser(read_pickle(data, _ALLOWED))
    except ValueError as error:
        raise ValueError(f"{path}: {_other(data) or str(error)[:400]}") from error


def _other(data: bytes) -> str:
    """What a file is that is no checkpoint of EDM, if it is known."""
    if data.startswith(b"PK\x03\x04"):
        return f"is an archive of torch.save, not a checkpoint of EDM; {OWN_NETWORK}"
    if _EDM2 in data[: 2**20]:
        return (
            f"is a checkpoint of EDM2 (Karras et al. 2024), which is not supported; {OWN_NETWORK}; none of it was run"
        )
    return ""


def _denoiser(content: Any) -> Preconditioned:
    ema = content.get("ema") if isinstance(content, dict) else None
    if ema is None:
        raise ValueError("has no network under the key 'ema': not an EDM checkpoint; name one of EDM's .pkl files")
    kind, attributes = _module(ema)
    network_kind, network_attributes = _module(_part(attributes, "_modules").get("model"))
    require(kind in PRECONDITIONINGS, "preconditioning", kind, f"one of {', '.join(PRECONDITIONINGS)}")
    require(network_kind in NETWORKS, "network", network_kind, f"one of {', '.join(NETWORKS)}")

    tensors, settings = _tensors(attributes), _settings(network_attributes)
    with torch.device("meta"):  # names and shapes; the memory is the tensors' of the file
        network = build(network_kind, NETWORKS[network_kind], settings)
    elsewhere = _REPEATED | _IGNORED | settings.keys()
    own = {name: value for name, value in _settings(attributes).items() if name not in elsewhere}
    scaling, (low, high) = build(kind, PRECONDITIONINGS[kind], own)
    _fill(network, {name.removeprefix("model."): t for name, t in tensors.items() if name.startswith("model.")})
    _check_levels(scaling, {name: t for name, t in tensors.items() if not name.startswith("model.")})

    channels, resolution = network.arguments["in_channels"], network.arguments["img_resolution"]
    denoiser = Preconditioned(
        network,
        (channels, resolution, resolution),
        network.arguments["label_dim"],
        scaling,
        max(low, SAMPLED[0]),
        min(high, SAMPLED[1]),
    )
    return denoiser.eval().requires_grad_(False)


def _module(found: Any) -> tuple[str, dict[str, Any]]:
    """The class name and the attributes of a module."""
    if isinstance(found, Call) and found.function == _MODULE_DICT and isinstance(found.state, dict):
        return "ModuleDict", found.state
    meta = found.arguments[0] if isinstance(found, Call) and found.function == _OBJECT and found.arguments else None
    if not isinstance(meta, dict):
        raise ValueError(  # noqa: TRY004  (the file is wrong)
            "has something else where a network module is expected; name a checkpoint of EDM"
        )
    for name, expected in {"version": 6, "type": "class"}.items():
        value = plain(meta.get(name))
        require(value == expected, f"{name} of its modules", value, f"{expected!r}; save it again with EDM's own code")
    return str(plain(meta.get("class_name"))), _part(meta, "state")


def _settings(attributes: dict[str, Any]) -> dict[str, Any]:
    """The settings that a module was built with."""
    if attributes.get("_init_args"):
        raise ValueError("has a module built with positional arguments; save it again with keyword arguments")
    return plain_settings(_part(attributes, "_init_kwargs"))


def _part(attributes: dict[str, Any], name: str) -> dict[str, Any]:
    part = attributes.get(name)
    if not (isinstance(part, dict) and all(isinstance(key, str) for key in part)):
        raise ValueError(f"has a module without {name}; name a checkpoint of EDM")
    return part


def _tensors(attributes: dict[str, Any]) -> dict[str, Any]:
    """The parameters and persistent buffers of a module and of those in it, by name."""
    found: dict[str, Any] = {}
    waiting, seen = [("", attributes)], set[int]()
    while waiting:
        prefix, module = waiting.pop()
        if id(module) in seen or len(prefix) > 200:
            raise ValueError("has endlessly nested modules; do not trust it")
        seen.add(id(module))
        transient = module.get("_non_persistent_buffers_set")
        named = _part(module, "_parameters") | _part(module, "_buffers")
        for name, tensor in named.items():
            if tensor is not None and not (isinstance(transient, set) and name in transient):
                found[prefix + name] = tensor
        children = _part(module, "_modules").items()
        waiting += [(f"{prefix}{name}.", _module(child)[1]) for name, child in children if child is not None]
    return found


def _fill(network: nn.Module, tensors: dict[str, Any]) -> None:
    """Load the tensors into a network on the meta device."""
    expected, whose = network.state_dict(), "the network of its settings"
    check_names(tensors.keys(), expected.keys(), "ema", whose)
    fill(network, {name: read_tensor(name, tensors[name], [*t.shape]) for name, t in expected.items()}, "ema", whose)


def _check_levels(scaling: Scaling, tensors: dict[str, Any]) -> None:
    """Check the table of noise levels in iDDPM's files: it must be ours, up to the rounding of its recursion."""
    for name, found in tensors.items():
        if name != "u" or not isinstance(scaling, IDDPMScaling):
            raise ValueError(f"has the tensor {name!r} besides its network; download it again")
        u = read_tensor(name, found, [scaling.steps + 1])[:-1].double()
        same = torch.allclose(u, scaling.levels, rtol=0.01)
        require(same, "u", f"{u[0]:.4g} … {u[-1]:.4g}", "the noise levels of its settings; name another file")
