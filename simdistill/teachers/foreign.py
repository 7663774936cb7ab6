"""Weights of other programs, given as a teacher's file: what they are, and how to use them."""

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from simdistill.support.tensors import read_content, read_names
from simdistill.teachers.single_file import KINDS, NETWORK

SUFFIXES = (".pt", ".pth", ".ckpt", ".bin", ".tar")
"""Files of torch.save."""
OWN_NETWORK = (
    "write a function that builds the network, loads its state dict and returns a Teacher, and name it with "
    "--teacher module:function (docs/teachers.md, Your own network)"
)
PIPELINES = {
    "joint_blocks.0.": "StableDiffusion3Pipeline",
    "double_blocks.0.": "FluxPipeline",
    "label_emb.0.0.weight": "StableDiffusionXLPipeline",
    "input_blocks.0.0.weight": "StableDiffusionPipeline",
}
"""diffusers' pipelines by the beginning of a tensor's name in their checkpoints of one file; the first there counts."""


def pipeline_of(names: list[str]) -> str | None:
    """The pipeline whose parts a checkpoint of one file has, by the names of its tensors.

    None if it is no such checkpoint, "" if its pipeline is not known.
    """
    if not any(name.startswith((NETWORK, "double_blocks.0.", "joint_blocks.0.")) for name in names):
        return None
    bare = [name.removeprefix(NETWORK) for name in names]
    known = (kind for start, kind in PIPELINES.items() if any(name.startswith(start) for name in bare))
    return next(known, "")


def refusal(path: Path) -> str:
    """One line on why the tensors in `path`, not a file of this package, are no teacher, with the remedy.

    Raises `ValueError` if the file is missing or damaged.
    """
    names = _names(path)
    pipeline = pipeline_of(names)
    if pipeline is not None:
        return f"is a single-file checkpoint of several parts; {_conversion(path, pipeline)}"
    if any("lora_" in name for name in names):
        return "is a LoRA, a change of a network: fuse it into its pipeline, and name the folder of save_pretrained"
    if path.name.startswith("diffusion_pytorch_model"):
        beside = (path.parent / "config.json").is_file()
        folder = shlex.quote(str(path.parent))
        return f"is the weights of a diffusers folder: name the folder, --teacher {folder}" + (
            "" if beside else ", with its config.json and scheduler_config.json"
        )
    wrapped = "module." if names and all(name.startswith("module.") for name in names) else ""
    first = ", ".join(sorted(names)[:2]) or "nothing"
    without = f" without the prefix {wrapped!r} of DistributedDataParallel" if wrapped else ""
    return f"is a state dict ({first} …) without its network: wrap your state dict{without}: {OWN_NETWORK}"


def _names(path: Path) -> list[str]:
    """The names of the tensors in a file, without reading them if possible."""
    if path.suffix == ".safetensors":
        return read_names(path)
    try:
        return _tensors(read_content(path, "meta"))
    except ValueError as error:
        raise ValueError(f"{error}; if it is a network of your own, {OWN_NETWORK}") from error


def _tensors(content: Any) -> list[str]:
    """The names in the largest state dict of a file's content, which may have several beside other values."""
    if not isinstance(content, Mapping):
        return []
    own = [str(name) for name, value in content.items() if isinstance(value, Tensor)]
    return max([own, *(_tensors(value) for value in content.values())], key=len)


def _conversion(path: Path, pipeline: str) -> str:
    """The command that converts a single-file checkpoint by diffusers, as the pipeline whose tensors it has."""
    out, given = path.with_suffix(""), ""
    quoted = shlex.quote(str(out))
    if (path.parent / "model_index.json").is_file():  # where its configuration is on disk
        given = f", config={str(path.parent)!r}, local_files_only=True"
    call = f".from_single_file({str(path)!r}{given}).save_pretrained({str(out)!r})"
    if not pipeline:
        return f"convert it once with diffusers, by the class of its pipeline: PIPELINE{call}, then --teacher {quoted}"
    code = f"from diffusers import {pipeline} as P; P{call}"
    direct = ""
    if pipeline in KINDS and path.suffix == ".safetensors":
        direct = (
            f"put the configuration of its diffusers folder (model_index.json, and that of each part) into {out}, or "
        )
    return f"{direct}convert it once with diffusers: python -c {shlex.quote(code)}, then --teacher {quoted}"
