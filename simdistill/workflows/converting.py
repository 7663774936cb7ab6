"""From published files to this package's: a teacher, a generator; and from any set of images to EDM's zip."""

import dataclasses
from pathlib import Path
from typing import Any

import torch
from torch import nn

from simdistill.data.images import open_images
from simdistill.data.packing import write_zip
from simdistill.runs.folder import RunFolder
from simdistill.support.bar import progress_bar
from simdistill.support.checks import require
from simdistill.support.files import digest
from simdistill.teachers.edm import read_edm
from simdistill.teachers.families.pixart_checkpoint import read_pixart
from simdistill.teachers.loading import load_teacher
from simdistill.teachers.prediction_types import EpsilonPrediction
from simdistill.teachers.weights import read_network, write_network

PUBLISHED_SIGMA = 2.5
"""The sigma_init of the generator that the paper's authors have published [B.14]."""


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
    about = {"source": source.name, "sha256": digest(source)}
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


def convert_generator(
    source: Path, out: Path, teacher: Path, overwrite: bool = False, half: bool = False
) -> dict[str, Any]:
    """Store the generator of `source`, a .pth such as the paper's authors publish, as a run's folder `out`; its facts.

    `teacher` is the diffusers folder of the PixArt-alpha that it was distilled from, whose kind of network, text
    encoder and autoencoder it shares. It is sampled, evaluated and exported as any run; only to be trained on there is
    nothing. Its noise levels are the paper's [B.13], whose betas the folder's scheduler must have.

    Raises `ValueError` if `teacher` is no such folder, if the source cannot be read or does not fit (see
    `read_pixart`), or if `out` exists and is not to be overwritten.
    """
    file_or_run = out.suffix not in (".safetensors", ".zip")
    require(file_or_run, "out", str(out), "a folder, which becomes a run's: for sample, evaluate and export")
    _check_new(out, overwrite)
    require(teacher.is_dir(), "teacher", str(teacher), "the diffusers folder of its teacher, PixArt-XL-2-512x512")
    known = load_teacher(str(teacher), "paper")
    denoiser: Any = known.denoiser
    model, name = denoiser.network.model, type(denoiser.network.model).__name__
    fits = isinstance(denoiser, EpsilonPrediction) and name == "PixArtTransformer2DModel"
    require(fits, f"teacher = '{teacher}': network", name, "PixArtTransformer2DModel, a predictor of noise")
    read_pixart(source, model)
    about = {"source": source.name, "sha256": digest(source)}
    if half:
        _round_to_half(denoiser)
    asked = {"verb": "convert", "teacher": known.name, "teacher_levels": "paper", "sigma_init": PUBLISHED_SIGMA}
    run = RunFolder.create(out, asked, overwrite)
    facts: dict[str, Any] = {"sigma_init": PUBLISHED_SIGMA, "shape": known.shape, "classes": 0, "text": True}
    write_network(run.network, denoiser, **facts | about)
    return {
        "out": str(out),
        "network": name,
        "teacher": known.name,
        "sigma_init": PUBLISHED_SIGMA,
        "time": int(denoiser.time(torch.tensor([PUBLISHED_SIGMA]))),
        "shape": list(known.shape),
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
