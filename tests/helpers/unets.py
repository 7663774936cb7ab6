"""Small U-Nets of each family, with numbers and inputs in closed form."""

import math

import pytest
import torch
from torch.nn import functional

from simdistill.networks.unet import DhariwalUNet, SongUNet

TINY = {
    "img_resolution": 8,
    "in_channels": 1,
    "out_channels": 1,
    "label_dim": 10,
    "augment_dim": 9,
    "model_channels": 32,
    "channel_mult": [1, 2],
    "num_blocks": 1,
    "attn_resolutions": [4],
}
NCSNPP = {
    "embedding_type": "fourier",
    "encoder_type": "residual",
    "channel_mult_noise": 2,
    "resample_filter": [1, 3, 3, 1],
}
ADM = TINY | {"model_channels": 64}  # heads have 64 channels

networks = pytest.mark.parametrize("name", ["ddpmpp", "ncsnpp", "adm"])


def tiny(name, **changes):
    """A small network of the family."""
    if name == "adm":
        return DhariwalUNet(**ADM | changes)
    return SongUNet(**TINY | (NCSNPP if name == "ncsnpp" else {}) | changes)


def filled(net):
    """`net` in float64 with every parameter and frequency a closed-form number of order one: none is negligible."""
    with torch.no_grad():
        for k, (name, tensor) in enumerate(sorted(net.double().state_dict().items())):
            if name.endswith("resample_filter"):
                continue
            wave = torch.sin(math.sqrt(2) * torch.arange(tensor.numel(), dtype=torch.float64) ** 2 + k).reshape(
                tensor.shape
            )
            fan_in = tensor[0].numel()
            if tensor.ndim > 1:
                tensor.copy_(wave * math.sqrt((4 if "qkv" in name else 2) / fan_in))
            else:
                tensor.copy_(1 + 0.3 * wave if "norm" in name and name.endswith("weight") else 0.3 * wave)
    return net


def inputs(batch=3, size=8, channels=1):
    """Images, c_noise, one-hot classes and augmentation labels, in closed form."""
    x = torch.cos(math.sqrt(3) * torch.arange(batch * channels * size**2, dtype=torch.float64) ** 2)
    classes = functional.one_hot(torch.tensor([1, 7, 3])[:batch], 10).double()
    augment = torch.sin(torch.arange(batch * 9, dtype=torch.float64)).reshape(batch, 9)
    return (1.4 * x).reshape(batch, channels, size, size), torch.linspace(-1.2, 0.9, batch).double(), classes, augment
