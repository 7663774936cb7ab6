"""From a published teacher's file to one of this package's, and from any set of images to EDM's zip."""

import dataclasses
import hashlib
from pathlib import Path
from typing import Any

from torch import nn

from simdistill.data.images import open_images
from simdistill.data.packing import write_zip
from simdistill.evaluation.bar import progress_bar
from simdistill.teachers.edm import read_edm
from simdistill.teachers.weights import read_network, write_network
from simdistill.validation import require


def convert_teacher(source: Path, out: Path, overwrite: bool = False, half: bool = False) -> dict[str, Any]:
    """Store the network of `source`, a .pkl of EDM's, as `out`, a .safetensors that `load_teacher` reads; its facts.

    The header describes network, arguments and preconditioning, and names the source with its SHA-256. With `half` the
    weights are stored in half precision, for which a .safetensors may be the source, too: they are float32 again once
    read, rounded to eleven bits.

    Raises `ValueError` if the source cannot be read, if `out` exists and is not to be overwritten, or if a weight is
    beyond half precision's 65,504.
    """
    known = source.suffix == ".pkl" or (half and source.suffix == ".safetensors")
    require(known, "source", str(source), "a .pkl of EDM's; a .safetensors needs no conversion but to --half precision")
    require(out.suffix == ".safetensors", "out", str(out), "a .safetensors file")
    _check_new(out, overwrite)
    denoiser, facts = (read_edm(source), {}) if source.suffix == ".pkl" else read_network(source)
    about = {"source": source.name, "sha256": _digest(source)}
    if half:
        _round_to_half(denoiser)
    write_network(out, denoiser, **facts | about)
    return {
        "out": str(out),
        "network": type(denoiser.model).__name__,
        "preconditioning": type(denoiser.scaling).__name__,
        **dataclasses.asdict(denoiser.scaling),
        "shape": list(denoiser.shape),
        "classes": denoiser.classes,
        "parameters": sum(p.numel() for p in denoiser.parameters()),
        **about,
    }


def _round_to_half(module: nn.Module) -> None:
    """Parameters as float16, in place; buffers, which are few, stay exact."""
    for name, p in module.named_parameters():
        p.data = p.data.half()
        finite = bool(p.data.isfinite().all())
        require(finite, f"largest weight of {name}", "beyond 65,504", "within half precision; leave --half out")


def convert_images(source: str, out: Path, overwrite: bool = False) -> dict[str, Any]:
    """Store the images that `source` names, without a held-out part, as `out`, a .zip in EDM's format; its facts.

    Raises `ValueError` if the images cannot be opened, or if `out` exists and is not to be overwritten.
    """
    require(out.suffix == ".zip", "out", str(out), "a .zip file")
    _check_new(out, overwrite)
    images = open_images(source)
    with progress_bar(f"writing {out.name}", len(images), shown=True) as advance:
        write_zip(out, images, advance)
    return {"out": str(out), "images": len(images), "shape": list(images.shape), "classes": images.classes}


def _check_new(out: Path, overwrite: bool) -> None:
    require(overwrite or not out.exists(), "out", str(out), "a new file; give another, or --overwrite it")


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()
