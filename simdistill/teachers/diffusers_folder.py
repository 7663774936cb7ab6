"""Teachers in diffusers' folders, as `save_pretrained` writes them: conditioned on class labels, text, or nothing."""

from pathlib import Path
from typing import Any

import torch
from torch import nn

from simdistill.config.recipes import Levels
from simdistill.support.checks import require
from simdistill.teachers.autoencoders import autoencoder_in
from simdistill.teachers.diffusers_files import class_of, load_model, read_json
from simdistill.teachers.diffusers_networks import KINDS, Config, DiffusersNetwork, Kind, Size
from simdistill.teachers.diffusers_process import read_process

FORMERLY = {"ada_norm_zero": "DiTTransformer2DModel", "ada_norm_single": "PixArtTransformer2DModel"}
"""What diffusers before 0.29 called Transformer2DModel, as PixArt's published folders still do, by its kind of norm."""


def read_folder(folder: Path, levels: Levels = "scheduler") -> tuple[nn.Module, dict[str, Any]]:
    """The denoiser in a diffusers folder, frozen, and what else a `Teacher` of it is told.

    The folder is a pipeline's (with unet/ or transformer/, scheduler/ and perhaps vae/), or that of the network itself
    with the scheduler's configuration in it or beside it. `levels` are its scheduler's or the paper's [B.13].

    Raises `ValueError` with the remedy if something is missing, damaged, or not of a known kind, and if diffusers is
    not installed.
    """
    inside = [folder / part for part in ("unet", "transformer") if (folder / part / "config.json").is_file()]
    network = inside[0] if inside else folder
    if not (network / "config.json").is_file():
        raise ValueError(
            f"teacher = '{folder}': no unet/config.json, transformer/config.json or config.json in it: "
            "must be a folder that diffusers' save_pretrained wrote"
        )
    config = read_json(network / "config.json")
    name = _class(config, network)
    kind = KINDS[name]
    shape = _shape(config, kind, network)
    root, scheduler = _scheduler(folder)
    adapter, sigma_min, sigma_max = read_process(scheduler, kind.flows, levels)
    decode = autoencoder_in(root)
    size: Size = (shape[1] * decode.enlarges, shape[2] * decode.enlarges) if decode else (shape[1], shape[2])
    facts = {"shape": shape, "decode": decode, "sigma_min": sigma_min, "sigma_max": sigma_max}
    facts |= _condition(config, name, network)
    return adapter(DiffusersNetwork(load_model(name, network), kind, size)), facts


def _scheduler(folder: Path) -> tuple[Path, Path]:
    """The pipeline's folder, `folder` or the one around it, and the scheduler's configuration there."""
    for root in (folder, folder.resolve().parent):
        for path in (root / "scheduler" / "scheduler_config.json", root / "scheduler_config.json"):
            if path.is_file():
                return root, path
    raise ValueError(f"teacher = '{folder}': no scheduler/scheduler_config.json in it or beside it: copy it there")


def _class(config: Config, folder: Path) -> str:
    """The class of a network's configuration, by its present name."""
    if config.get("_class_name") == "Transformer2DModel" and config.get("norm_type") in FORMERLY:
        return FORMERLY[config["norm_type"]]
    return class_of(config, folder, tuple(KINDS))


def _shape(config: Config, kind: Kind, folder: Path) -> tuple[int, int, int]:
    """`(channels, height, width)` of one sample."""
    path, size, channels = folder / "config.json", config.get("sample_size", kind.side), config.get("in_channels")
    returned = config.get("out_channels")
    sides: Any = [size, size] if isinstance(size, int) else size
    sound = isinstance(sides, list) and len(sides) == 2 and all(isinstance(side, int) for side in sides)
    require(sound, f"{path}: sample_size", size, "the height and width of the samples, as 32 or [32, 32]")
    require(isinstance(channels, int), f"{path}: in_channels", channels, "the channels of the samples")
    fits = returned in (None, channels, 2 * int(channels or 0))
    require(
        fits, f"{path}: out_channels", returned, f"{channels} as in_channels, or twice that with a learned variance"
    )
    return (int(channels or 0) // kind.packed, int(sides[0]), int(sides[1]))


def _condition(config: Config, name: str, folder: Path) -> dict[str, Any]:
    """The text that the network takes, or the number of its class labels.

    A DiT also has a null label, the last of its embeddings, which stands for no condition.
    """
    text = KINDS[name].text(config)
    if text is not None:
        return {"text": text}
    if name == "DiTTransformer2DModel":
        classes = int(config.get("num_embeds_ada_norm") or 0)
        return {"classes": classes, "null": torch.tensor([classes])}
    embedded = config.get("class_embed_type")
    require(embedded is None, f"{folder / 'config.json'}: class_embed_type", embedded, "null: labels are integers")
    return {"classes": int(config.get("num_class_embeds") or 0)}
