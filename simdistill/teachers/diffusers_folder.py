"""Teachers in diffusers' folders, as `save_pretrained` writes them: conditioned on class labels, text, or nothing."""

from pathlib import Path
from typing import Any

from torch import nn

from simdistill.config.recipes import Levels
from simdistill.support.json_text import read_json
from simdistill.support.libraries import short
from simdistill.teachers.autoencoders import autoencoder_in
from simdistill.teachers.diffusers_files import class_of, load_model
from simdistill.teachers.diffusers_settings import check_settings
from simdistill.teachers.families import FAMILIES, DiffusersNetwork, Family
from simdistill.teachers.families.latents import Config
from simdistill.teachers.single_file import NETWORK, load_part


def read_folder(
    folder: Path, levels: Levels = "scheduler", checkpoint: Path | None = None
) -> tuple[nn.Module, dict[str, Any]]:
    """The denoiser in a diffusers folder, frozen, and the other arguments of its `Teacher`.

    With a `checkpoint` of one file, the folder is its configuration: network and, if it has one, autoencoder are there.

    The folder is a pipeline's (with unet/ or transformer/, scheduler/ and perhaps vae/), or that of the network itself
    with the scheduler's configuration in it or beside it. `levels` are its scheduler's or the paper's [B.13].

    Raises `ValueError` with the remedy if something is missing, damaged, or of no known family, and if diffusers is
    not installed.
    """
    network = _network(folder)
    path, config = network / "config.json", read_json(network / "config.json")
    family = _family(config, network)
    check_settings(config, family.network, path)
    try:
        shape, given = family.shape(config), family.condition(config)
    except Exception as error:  # also of a family outside of the package
        what = str(error) if isinstance(error, ValueError) else f"cannot be read ({short(error)})"
        raise ValueError(f"{path}: {what}") from error
    root, scheduler = _scheduler(folder)
    adapter, sigma_min, sigma_max = family.process(scheduler, levels)
    decode = autoencoder_in(root, family, checkpoint)
    if decode:
        decode.check(shape)
    size = decode.size(shape) if decode else shape[1:]
    facts = {"shape": shape, "decode": decode, "sigma_min": sigma_min, "sigma_max": sigma_max}
    facts |= {"text": given.text, "classes": given.classes, "unconditional": given.unconditional}
    if checkpoint is None:
        model = load_model(family.network, network, family.unused)
    else:
        model = load_part(family.network, checkpoint, network, NETWORK)
    return adapter(DiffusersNetwork(model, family, size, given.classes)), facts


def _network(folder: Path) -> Path:
    """The network's folder: a part of the pipeline's, or `folder` itself."""
    parts = dict.fromkeys(family.part for family in FAMILIES.values())
    for place in (*(folder / part for part in parts), folder):
        if (place / "config.json").is_file():
            return place
    looked_for = ", ".join(f"{part}/config.json" for part in parts)
    raise ValueError(
        f"teacher = '{folder}': no {looked_for} or config.json in it: must be a folder written by "
        "diffusers' save_pretrained"
    )


def _scheduler(folder: Path) -> tuple[Path, Path]:
    """The pipeline's folder, `folder` or its parent, and the scheduler's configuration there."""
    for root in (folder, folder.resolve().parent):
        for path in (root / "scheduler" / "scheduler_config.json", root / "scheduler_config.json"):
            if path.is_file():
                return root, path
    raise ValueError(f"teacher = '{folder}': no scheduler/scheduler_config.json in it or beside it: copy it there")


def _family(config: Config, folder: Path) -> Family:
    """The family of a network's configuration, also under its class's former name."""
    if config.get("_class_name") == "Transformer2DModel":
        for family in FAMILIES.values():
            if family.formerly and family.formerly == config.get("norm_type"):
                return family
    return FAMILIES[class_of(config, folder, tuple(FAMILIES))]
