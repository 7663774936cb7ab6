"""The networks of published checkpoints: what is known of a teacher without its weights."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn

from simdistill.method.denoisers import Preconditioned
from simdistill.networks.unet import DhariwalUNet, SongUNet
from simdistill.support.libraries import library
from simdistill.teachers.diffusers_process import paper_levels
from simdistill.teachers.families import DiffusersNetwork, pixart
from simdistill.teachers.prediction_types import EpsilonPrediction, NearestTime
from simdistill.teachers.teacher import Teacher


def _edm(
    network: Callable[..., nn.Module], arguments: dict[str, Any], size: int, name: str, classes: int = 0
) -> Teacher:
    """EDM's (Karras et al. 2022): a U-Net for colour images of `size`×`size` pixels."""
    with torch.device("meta"):
        denoiser = Preconditioned(network(size, 3, 3, label_dim=classes, **arguments), (3, size, size), classes)
    return Teacher(denoiser, denoiser.shape, classes, denoiser.sigma_min, denoiser.sigma_max, name)


def _pixart(size: int, name: str) -> Teacher:
    """PixArt-α's XL/2 (Chen et al. 2023) for latents of `size`×`size`, with the paper's levels [B.13]."""
    with library() as diffusers, torch.device("meta"):
        model = diffusers.PixArtTransformer2DModel(sample_size=size, caption_channels=4096)  # the rest are its defaults
    levels, text = paper_levels(), pixart.FAMILY.condition(model.config).text
    denoiser = EpsilonPrediction(DiffusersNetwork(model, pixart.FAMILY), NearestTime(levels))
    return Teacher(denoiser, (4, size, size), 0, float(levels[0]), float(levels[-1]), name, text=text)


DDPMPP_32: dict[str, Any] = {"channel_mult": [2, 2, 2], "augment_dim": 9, "dropout": 0.13}
DDPMPP_64: dict[str, Any] = {"channel_mult": [1, 2, 2, 2], "augment_dim": 9}

# fmt: off
ARCHITECTURES: dict[str, Callable[[str], Teacher]] = {
    "cifar10-uncond":  partial(_edm, SongUNet, DDPMPP_32, 32),                            # uncond-vp
    "cifar10-cond":    partial(_edm, SongUNet, DDPMPP_32, 32, classes=10),                # cond-vp
    "ffhq64":          partial(_edm, SongUNet, DDPMPP_64 | {"dropout": 0.05}, 64),
    "afhqv2-64":       partial(_edm, SongUNet, DDPMPP_64 | {"dropout": 0.25}, 64),
    "imagenet64-cond": partial(_edm, DhariwalUNet, {}, 64, classes=1000),                 # ADM: the defaults
    "pixart-512":      partial(_pixart, 64),                                              # PixArt-XL-2-512x512
}
# fmt: on
"""By the recipe's name, a function of that name that returns its teacher on the meta device: shapes without weights."""
