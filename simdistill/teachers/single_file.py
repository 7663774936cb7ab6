"""Stable Diffusion's checkpoints of one file, as ComfyUI and civitai have them, read by diffusers' own tables of names.

Such a .safetensors has the tensors of all parts under the original names, and no configuration. That of a diffusers
folder is used, without its weights.
"""

from pathlib import Path
from typing import Any

import torch
from torch import nn

from simdistill.support.checks import require
from simdistill.support.libraries import library, short
from simdistill.support.tensors import read_names, read_tensors

NETWORK, AUTOENCODER = "model.diffusion_model.", "first_stage_model."
"""The beginnings of the names of a part's tensors."""
TEXT_ENCODERS = ("cond_stage_model.", "conditioner.")
KINDS = {"StableDiffusionPipeline", "StableDiffusionXLPipeline"}
"""The pipelines whose files are read."""
_UNUSED = ("first_stage_model.loss.", "first_stage_model.model_ema.")


def configuration_of(path: Path) -> Path | None:
    """The diffusers folder that describes a checkpoint: of its name without the suffix, or in which it lies."""
    places = (path.with_suffix(""), path.parent)
    return next((place for place in places if (place / "model_index.json").is_file()), None)


def has_part(path: Path, *beginnings: str) -> bool:
    """Whether a checkpoint has tensors whose names begin so; `ValueError` if it is damaged."""
    return any(name.startswith(beginnings) for name in read_names(path))


def load_part(kind: str, path: Path, part: Path, beginning: str) -> nn.Module:
    """diffusers' class `kind`, configured as in the folder `part`, with its tensors in the checkpoint `path`.

    It is float32, in eval mode and frozen. Raises `ValueError` unless the checkpoint has exactly the tensors of that
    configuration.
    """
    state = {name: t for name, t in read_tensors(path, beginning)[0].items() if not name.startswith(_UNUSED)}
    there = sum(tensor.numel() for tensor in state.values())
    with library() as diffusers:
        model_class: Any = getattr(diffusers, kind)
        try:
            model = model_class.from_single_file(
                state, config=str(part), local_files_only=True, torch_dtype=torch.float32
            )
        except Exception as error:  # whatever diffusers raises
            what = f"cannot be read as the {kind} of {part / 'config.json'} ({short(error)})"
            raise ValueError(f"{path}: {what}; put its own configuration there") from error
    hollow = [name for name, parameter in model.named_parameters() if parameter.is_meta]
    own = sum(tensor.numel() for tensor in model.state_dict().values())
    what = f"{own:,}, as the {kind} of {part / 'config.json'} has: put its own configuration there"
    require(not hollow and there == own, f"{path}: numbers in its {beginning}*", f"{there:,}", what)
    return model.eval().requires_grad_(False)
