"""The Inception-v3 of the FID, from weights that the user has: TorchScript, or a PyTorch state dict.

Both are translations of TensorFlow's graph `inception-2015-12-05`, with which the FID was defined (Heusel et al. 2017).
They resize images to 299×299 pixels differently, so their FIDs differ a little: use one for reference and samples.
"""

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn.functional import interpolate

from simdistill.evaluation.metrics import Features
from simdistill.method.shapes import Data
from simdistill.networks.inception import CLASSES, EDGE, FEATURES, InceptionV3
from simdistill.support.checks import require
from simdistill.support.torch_files import load_torch

Probabilities: TypeAlias = Float[Tensor, "batch classes"]
Inception: TypeAlias = tuple[Callable[[Data], Features], Callable[[Features], Probabilities] | None]
"""Images in [-1, 1] to features; features to class probabilities, if available."""

BATCH = 64  # images at a time on a GPU: each fills 30 MB at its widest
CPU_BATCH = 4  # more do not fit into a CPU's cache, and take twice as long per image


def read_inception(path: Path, device: torch.device | str = "cpu") -> Inception:
    """The Inception-v3 in a file of either format, detected by its content, on `device`.

    **TorchScript is a program**: reading and calling such a file runs its author's code. From a state dict only tensors
    are read. Raises `ValueError` if the file is missing, damaged, or something else.
    """
    if not path.is_file():
        raise ValueError(f"{path}: no such file; --inception takes your own file of Inception-v3 weights")
    with path.open("rb") as file:
        head = file.read(512)
    if head.lstrip()[:1] == b"<":
        raise ValueError(f"{path}: is a page of text, not weights: probably a server's answer; download the file again")
    if head.startswith(b"PK") and not zipfile.is_zipfile(path):
        raise ValueError(f"{path}: is truncated: its archive has no end; download the file again")
    return _from_torchscript(path, device) if _is_torchscript(path) else _from_state_dict(path, device)


def as_bytes(images: Data) -> UInt8[Tensor, "batch 3 height width"]:
    """Images `[batch, 1 or 3, height, width]` in [-1, 1] as the literature compares them: 8 bits, three channels.

    Rounded half up and clipped, as EDM writes its samples. Raises `ValueError` for other shapes.
    """
    grey_or_colour = images.ndim == 4 and images.shape[1] in (1, 3)
    require(grey_or_colour, "samples of shape", list(images.shape[1:]), "images of 1 or 3 channels for this extractor")
    return (images * 127.5 + 128).clamp(0, 255).byte().expand(-1, 3, -1, -1)


def in_parts(function: Callable[[Tensor], Tensor], images: Tensor, device: torch.device | str) -> Tensor:
    """The function applied to a few images at a time, on `device`, without gradients."""
    size = CPU_BATCH if torch.device(device).type == "cpu" else BATCH
    with torch.no_grad():
        return torch.cat([function(part.to(device)) for part in images.split(size)])


def _is_torchscript(path: Path) -> bool:
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any("/code/" in name or name.endswith("/constants.pkl") for name in archive.namelist())


def _from_torchscript(path: Path, device: torch.device | str) -> Inception:
    """NVIDIA's `inception-2015-12-05.pt`: it takes 8-bit images of any size, and resizes them as TensorFlow 1 did."""
    try:
        network: Any = torch.jit.load(path, map_location=device).eval()
        probe = torch.arange(2 * 3 * 32 * 32, device=device).reshape(2, 3, 32, 32).byte()
        with torch.no_grad():
            found = network(probe, return_features=True)
            probabilities = network(probe, no_output_bias=True)
        weight = network.state_dict()["output.weight"].float()
    except Exception as error:  # whatever someone else's program raises
        reason = " ".join(str(error).split())[:200]
        what = "a TorchScript program, but not Inception-v3 as NVIDIA publishes it"
        raise ValueError(f"{path}: is {what} (inception-2015-12-05.pt): {type(error).__name__}: {reason}") from error
    require(found.shape == (2, FEATURES), f"{path}: features of 2 images", list(found.shape), f"[2, {FEATURES}]")

    def classify(features: Tensor) -> Tensor:
        return (features @ weight.T).softmax(1)

    def features_of(part: Tensor) -> Tensor:
        return network(as_bytes(part), return_features=True)

    # its own probabilities would cost a second call
    same = torch.allclose(classify(found), probabilities, rtol=1e-2, atol=1e-5)
    return lambda images: in_parts(features_of, images, device), classify if same else None


def _from_state_dict(path: Path, device: torch.device | str) -> Inception:
    """The state dict `pt_inception-2015-12-05-6726825d.pth`: images are resized by PyTorch, to values in [-1, 1]."""
    try:
        state: Any = load_torch(path)
    except Exception as error:  # whatever damaged bytes lead to
        what = f"is neither TorchScript nor a state dict of tensors alone, or it is truncated ({type(error).__name__})"
        raise ValueError(f"{path}: {what}; docs/metrics.md lists the files that work") from error
    network = InceptionV3()
    _check(state, network, path)
    network.load_state_dict(state)
    network = network.eval().requires_grad_(False).to(device)

    def features(part: Tensor) -> Tensor:
        resized = interpolate(as_bytes(part) / 255, (EDGE, EDGE), mode="bilinear", align_corners=False)
        return network(2 * resized - 1)

    return lambda images: in_parts(features, images, device), lambda found: (found @ network.fc.weight.T).softmax(1)


def _check(state: Any, network: InceptionV3, path: Path) -> None:
    """Raise `ValueError` unless the state dict has all tensors of the network, in their shapes, and no others."""
    expected = {k: v for k, v in network.state_dict().items() if not k.endswith("num_batches_tracked")}
    named = isinstance(state, dict) and all(isinstance(value, Tensor) for value in state.values())
    require(named, f"{path}: content", type(state).__name__, "a state dict: tensors by name")
    found = {name for name in state if not name.endswith("num_batches_tracked")}
    missing, others = sorted(expected.keys() - found), sorted(found - expected.keys())
    if missing or others:
        lists = (("missing", missing), ("unknown", others))
        wrong = "; ".join(f"{len(names)} {what}, such as {names[0]}" for what, names in lists if names)
        raise ValueError(f"{path}: tensors do not match the FID's Inception-v3: {wrong}")
    for name, tensor in expected.items():
        same = state[name].shape == tensor.shape
        remedy = f"{list(tensor.shape)}; the FID's network has {CLASSES} classes, that of image classifiers 1,000"
        require(same, f"{path}: shape of {name}", list(state[name].shape), remedy)
