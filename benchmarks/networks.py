"""The three denoisers of the benchmarks, with random weights and no layer initialised to zero."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from simdistill.method.denoisers import Preconditioned
from simdistill.method.preconditioning import EDMScaling
from simdistill.networks.mlp import MLP
from simdistill.networks.unet import SongUNet


@dataclass(frozen=True)
class Network:
    """A denoiser to be measured, with its batch size."""

    description: str
    make: Callable[[], Preconditioned]
    batch: int
    seconds: float  # per iteration, roughly: determines how many make a round
    threads: int  # the fastest number, of at most two


class PatchTransformer(nn.Module):
    """F(x, c_noise) from torch's own transformer layers on patches; the noise embedding is added to every token."""

    def __init__(self, size: int = 32, channels: int = 3, patch: int = 4, width: int = 192, depth: int = 4) -> None:
        super().__init__()
        self.patch, self.channels = patch, channels
        self.first = nn.Linear(channels * patch**2, width)
        self.positions = nn.Parameter(0.02 * torch.randn((size // patch) ** 2, width))
        self.frequencies: Tensor
        self.register_buffer("frequencies", torch.pi * 2.0 ** (torch.arange(8) - 2), persistent=False)
        self.map_noise = nn.Sequential(nn.Linear(16, width), nn.SiLU(), nn.Linear(width, width))
        self.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(width, 4, 4 * width, 0.0, "gelu", batch_first=True, norm_first=True)
            for _ in range(depth)
        )
        self.norm, self.last = nn.LayerNorm(width), nn.Linear(width, channels * patch**2)

    def forward(self, x: Tensor, noise_labels: Tensor, class_labels: None = None) -> Tensor:
        """The raw output, the shape of `x`; `noise_labels` is c_noise."""
        n, c, height, width = x.shape
        p = self.patch
        phase = noise_labels[:, None] * self.frequencies
        noise = self.map_noise(torch.cat([phase.cos(), phase.sin()], 1))
        patches = x.reshape(n, c, height // p, p, width // p, p).permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)
        h = self.first(patches) + self.positions + noise[:, None]
        for block in self.blocks:
            h = block(h)
        out = self.last(self.norm(h)).reshape(n, height // p, width // p, c, p, p)
        return out.permute(0, 3, 1, 4, 2, 5).reshape(x.shape)


def _mlp() -> Preconditioned:
    return Preconditioned(MLP((1, 8, 8)), (1, 8, 8), scaling=EDMScaling(0.75))


def _unet() -> Preconditioned:
    net = SongUNet(32, 3, 3, model_channels=32, channel_mult=(1, 2, 2), num_blocks=1, attn_resolutions=(8,), dropout=0)
    return Preconditioned(net, (3, 32, 32))


def _transformer() -> Preconditioned:
    return Preconditioned(PatchTransformer(), (3, 32, 32))


def _without_zeros(make: Callable[..., Preconditioned], **arguments: Any) -> Callable[[], Preconditioned]:
    """A fixed random network, with small random weights in layers that are initialised (almost) to zero."""

    def made() -> Preconditioned:
        torch.manual_seed(0)
        denoiser = make(**arguments)
        for p in denoiser.parameters():
            if p.ndim > 1 and p.std() < 1e-3:
                nn.init.normal_(p, std=0.3 / p[0].numel() ** 0.5)
        return denoiser

    return made


NETWORKS = {
    "mlp": Network("the digits' MLP, 1×8×8", _without_zeros(_mlp), 64, 0.012, 1),
    "unet": Network("a U-Net (DDPM++ of 32 channels), 3×32×32", _without_zeros(_unet), 32, 1.6, 2),
    "transformer": Network("a transformer (4 layers, 64 tokens), 3×32×32", _without_zeros(_transformer), 32, 0.5, 2),
}
"""The measured networks, by name."""
