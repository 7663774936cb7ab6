"""The networks of EDM's published checkpoints (Karras et al. 2022): what is known of a teacher that is not at hand."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from simdistill.denoisers import Preconditioned
from simdistill.networks.unet import DhariwalUNet, SongUNet


@dataclass(frozen=True)
class Architecture:
    """A denoiser of square colour images: the network, its arguments, resolution and number of classes."""

    network: Callable[..., nn.Module]
    arguments: dict[str, Any]
    resolution: int
    classes: int = 0

    def build(self) -> Preconditioned:
        """The denoiser on the meta device: shapes without weights."""
        with torch.device("meta"):
            network = self.network(self.resolution, 3, 3, label_dim=self.classes, **self.arguments)
        return Preconditioned(network, (3, self.resolution, self.resolution), self.classes)


DDPMPP_32: dict[str, Any] = {"channel_mult": [2, 2, 2], "augment_dim": 9, "dropout": 0.13}
DDPMPP_64: dict[str, Any] = {"channel_mult": [1, 2, 2, 2], "augment_dim": 9}

# fmt: off
ARCHITECTURES: dict[str, Architecture] = {
    "cifar10-uncond":  Architecture(SongUNet, DDPMPP_32,                      32),                  # uncond-vp
    "cifar10-cond":    Architecture(SongUNet, DDPMPP_32,                      32, classes=10),      # cond-vp
    "ffhq64":          Architecture(SongUNet, DDPMPP_64 | {"dropout": 0.05},  64),
    "afhqv2-64":       Architecture(SongUNet, DDPMPP_64 | {"dropout": 0.25},  64),
    "imagenet64-cond": Architecture(DhariwalUNet, {},                          64, classes=1000),    # ADM: the defaults
}
# fmt: on
"""The architecture of each recipe's teacher, by the recipe's name."""
