"""A small autoencoder of faces, diffusers' own class: pictures of 16×16 pixels as latents of 8×8."""

from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import track
from torch import nn

from examples.faces.judge import faces
from examples.faces.rendering import EDGE
from simdistill.support.checks import require
from simdistill.support.libraries import library
from simdistill.teachers.autoencoders import Autoencoder

WIDTHS = (32, 64)  # at 16×16 and at 8×8
LATENTS = 4
BATCH, LEARNING_RATE = 64, 2e-3
KL = 1e-6  # weight of the divergence from N(0, I), as in Rombach et al. 2022: a weak regularisation
SOME = 1000  # faces for the latents' standard deviation


def train(data: Path, out: Path, iterations: int, seed: int) -> None:
    """Fit an autoencoder to `data`/train.zip with the L1 loss, and save it to the folder `out` in diffusers' format.

    Its scaling factor gives the latents standard deviation 1. Raises `ValueError` if there are no faces, or `out` is
    not empty.
    """
    require(not out.exists() or not any(out.iterdir()), "out", str(out), "a new or an empty folder")
    pictures, _ = faces(data / "train.zip")
    torch.manual_seed(seed)
    with library() as diffusers:
        net: Any = diffusers.AutoencoderKL(
            down_block_types=["DownEncoderBlock2D"] * len(WIDTHS),
            up_block_types=["UpDecoderBlock2D"] * len(WIDTHS),
            block_out_channels=WIDTHS,
            latent_channels=LATENTS,
            norm_num_groups=8,
            sample_size=EDGE,
            layers_per_block=1,
            mid_block_add_attention=False,
        )
    optimizer = torch.optim.Adam(net.parameters(), lr=LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, iterations)
    for _ in track(range(iterations), "training the autoencoder", console=Console(stderr=True), transient=True):
        x = pictures[torch.randint(len(pictures), (BATCH,))]
        posterior = net.encode(x).latent_dist
        restored = net.decode(posterior.sample()).sample
        loss = nn.functional.l1_loss(restored, x) + KL * posterior.kl().mean() / x[0].numel()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    with torch.no_grad():
        spread = float(net.eval().encode(pictures[:SOME]).latent_dist.mode().std())
    net.register_to_config(scaling_factor=round(1 / spread, 3))
    net.save_pretrained(out)


def restoring_error(folder: Path, data: Path) -> float:
    """The root mean square error of reconstructed held-out faces, from `data`/held-out.zip, in [-1, 1]."""
    autoencoder = Autoencoder(folder)
    pictures, _ = faces(data / "held-out.zip")
    return float((autoencoder(autoencoder.latents(pictures)) - pictures).square().mean().sqrt())
