"""Converting published teachers and generators to this package's files, and images to EDM's zip."""

import dataclasses
from pathlib import Path
from typing import Any

import torch
from torch import nn

from simdistill.data.framing import Framing
from simdistill.data.images import Unlike, convert_command, open_images
from simdistill.data.packing import write_zip
from simdistill.runs.folder import RunFolder, check_new_run
from simdistill.support.bar import progress_bar
from simdistill.support.checks import require
from simdistill.support.files import digest
from simdistill.teachers.edm import read_edm
from simdistill.teachers.families.pixart_checkpoint import read_pixart
from simdistill.teachers.loading import load_teacher
from simdistill.teachers.prediction_types import EpsilonPrediction
from simdistill.teachers.weights import read_network, write_network

PUBLISHED_SIGMA = 2.5
"""The sigma_init of the generator published by the paper's authors [B.14]."""


def convert_teacher(source: Path, out: Path, overwrite: bool = False, half: bool = False) -> dict[str, Any]:
    """Convert EDM's .pkl `source` to `out`, a .safetensors that `load_teacher` reads; returns its facts.

    The header describes the network, its arguments and the preconditioning, and names the source with its SHA-256. With
    `half`, which also takes a .safetensors, weights are stored in half precision; they are read as float32, rounded to
    eleven bits.

    Raises `ValueError` if the source cannot be read, if `out` exists and `overwrite` is not set, or if a weight exceeds
    half precision's 65,504.
    """
    known = source.suffix == ".pkl" or (half and source.suffix == ".safetensors")
    require(known, "source", str(source), "EDM's .pkl; a .safetensors only needs conversion to --half precision")
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
    """Convert `source`, a .pth as published by the paper's authors, to a run's folder `out`; returns its facts.

    `teacher` is the diffusers folder of the PixArt-alpha that it was distilled from, with the same network
    architecture, text encoder and autoencoder. The run can be sampled, evaluated and exported like any other, but not
    trained further. Its noise levels are the paper's [B.13], whose betas the folder's scheduler must have.

    Raises `ValueError` if `teacher` is not such a folder, if the source cannot be read or does not fit (see
    `read_pixart`), or if `out` exists and `overwrite` is not set.
    """
    file_or_run = out.suffix not in (".safetensors", ".zip")
    require(file_or_run, "out", str(out), "a folder: it becomes a run, for sample, evaluate and export")
    check_new_run(out, overwrite)
    require(teacher.is_dir(), "teacher", str(teacher), "the diffusers folder of its teacher, PixArt-XL-2-512x512")
    known = load_teacher(str(teacher), "paper")
    denoiser: Any = known.denoiser
    model, name = denoiser.network.model, type(denoiser.network.model).__name__
    fits = isinstance(denoiser, EpsilonPrediction) and name == "PixArtTransformer2DModel"
    require(fits, f"teacher = '{teacher}': network", name, "PixArtTransformer2DModel with epsilon prediction")
    read_pixart(source, model)
    about = {"source": source.name, "sha256": digest(source)}
    if half:
        _round_to_half(denoiser)
    asked = {"verb": "convert", "teacher": known.name, "teacher_levels": "paper", "sigma_init": PUBLISHED_SIGMA}
    run = RunFolder.create(out, asked, overwrite)
    facts: dict[str, Any] = {"levels": [PUBLISHED_SIGMA], "shape": known.shape, "classes": 0, "text": True}
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
    """Convert parameters to float16, in place; buffers, which are few, stay exact."""
    for name, p in module.named_parameters():
        p.data = p.data.half()
        finite = bool(p.data.isfinite().all())
        require(finite, f"largest weight of {name}", "above 65,504", "within half precision; leave out --half")


def convert_images(
    source: str,
    out: Path,
    overwrite: bool = False,
    framing: Framing | None = None,
    background: str = "white",
    pad: int = 0,
) -> dict[str, Any]:
    """Convert the images `source`, without a held-out part, to `out`, a .zip in EDM's format; returns its facts.

    `framing` makes images of all sizes alike; `pad` adds black margins up to that edge; `background` is the colour
    under transparent pixels. "notes" among the facts count what was converted, passed over or left out.

    Raises `ValueError` if the images cannot be opened, or if `out` exists and `overwrite` is not set.
    """
    require(out.suffix == ".zip", "out", str(out), "a .zip file")
    _check_new(out, overwrite)
    try:
        images = open_images(source, framing, background).padded(pad)
        if images.held_out is not None:
            images.notes.count("images of the held-out part left out", len(images.held_out))
        with progress_bar(f"writing {out.name}", len(images), shown=True) as advance:
            write_zip(out, images, advance)
    except Unlike as error:  # with all that was asked for
        more = [*(["--pad", str(pad)] if pad else []), *(["--overwrite"] if overwrite else [])]
        command = convert_command(source, str(out), error.framing, background, *more)
        raise ValueError(f"{error.what}; `{command}` makes them alike") from error
    images.notes.tell(images.name)
    return {
        "out": str(out),
        "images": len(images),
        "shape": list(images.shape),
        "classes": images.classes,
        "captions": sum(map(bool, images.captions or ())),
        "notes": images.notes.counts(),
    }


def _check_new(out: Path, overwrite: bool) -> None:
    require(overwrite or not out.exists(), "out", str(out), "a new file; give another, or --overwrite it")
