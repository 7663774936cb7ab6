"""Training a teacher by EDM's denoising loss (Karras et al. 2022): on images, or on samples of an exact teacher."""

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Int
from torch import Tensor

from simdistill.averages import HalfLife
from simdistill.denoisers import Preconditioned
from simdistill.distill import denoising_loss
from simdistill.networks.mlp import MLP
from simdistill.networks.unet import SongUNet
from simdistill.noise import Law, LogNormal, sample
from simdistill.scalings import EDMScaling
from simdistill.shapes import Data
from simdistill.training.ema import EMA
from simdistill.training.randomness import stream
from simdistill.training.state import Parts, restore, state_of
from simdistill.validation import require
from simdistill.weightings import EDM


@dataclass(frozen=True)
class Pretraining:
    """Every choice of a teacher's training. Raises `ValueError` for values that cannot be."""

    network: Literal["mlp", "unet"] = "mlp"
    """MLP for vectors and 8×8 images, or the EDM U-Net (DDPM++) for images."""
    width: int = 256
    """Features of the MLP, or channels of the U-Net at full resolution (32 serves 8×8 images)."""
    depth: int = 3
    """Residual blocks: of the MLP, or of the U-Net at each of its two resolutions."""
    noise: Law = LogNormal(-1.2, 1.2)  # noqa: RUF009  (frozen)
    """Noise levels of the training [B.5]."""
    lr: float = 2e-3
    """Adam's rate, after a rise over the first 2 % of the iterations and before a cosine fall to zero."""
    batch: int = 256
    """Images an iteration."""
    iterations: int = 10_000
    """Optimizer steps."""
    ema_half_life: float = 180_000
    """Images over which the memory of the averaged network halves."""
    seed: int = 0
    """Of all random numbers of the training."""

    def __post_init__(self) -> None:
        for name in ("width", "depth", "batch", "iterations"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "at least 1")
        grouped = self.network == "mlp" or self.width % (4 if self.width < 128 else 32) == 0
        require(grouped, "width", self.width, "a multiple of 4 for the U-Net, from 128 on of 32")
        require(self.lr > 0, "lr", self.lr, "positive")
        for name in ("lr", "ema_half_life"):
            require(math.isfinite(getattr(self, name)), name, getattr(self, name), "finite")
        require(self.ema_half_life >= 0, "ema_half_life", self.ema_half_life, "at least 0")

    def build(self, shape: tuple[int, ...], classes: int, sigma_data: float) -> Preconditioned:
        """A fresh denoiser for samples of `shape`, its weights a function of the seed."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            network = self._mlp(shape, classes) if self.network == "mlp" else self._unet(shape, classes)
        return Preconditioned(network, shape, classes, EDMScaling(sigma_data))

    def _mlp(self, shape: tuple[int, ...], classes: int) -> MLP:
        return MLP(shape, self.width, self.depth, classes)

    def _unet(self, shape: tuple[int, ...], classes: int) -> SongUNet:
        square = len(shape) == 3 and shape[1] == shape[2]
        require(square, "network", self.network, f"mlp for samples of shape {shape}; the U-Net takes square images")
        return SongUNet(
            img_resolution=shape[1],
            in_channels=shape[0],
            out_channels=shape[0],
            label_dim=classes,
            model_channels=self.width,
            channel_mult=[1, 2],
            num_blocks=self.depth,
            attn_resolutions=[shape[1] // 2],
        )


class PretrainingTrainer:
    """Fits a denoiser to `images` (and their `labels`, or None), one `step` at a time; sigma_data is the data's own.

    `average` is the denoiser to keep. All random numbers are functions of (settings.seed, iteration).
    """

    def __init__(
        self,
        images: Data,
        labels: Int[Tensor, " batch"] | None,
        settings: Pretraining,
        device: torch.device | str = "cpu",
    ) -> None:
        self.settings, self.device = settings, torch.device(device)
        self.data, self.labels = images.to(device), None if labels is None else labels.to(device)
        classes = 0 if labels is None else int(labels.max()) + 1
        self.sigma_data = round(float(images.std()), 3)
        self.denoiser = settings.build(tuple(images.shape[1:]), classes, self.sigma_data).to(device).train()
        self.optimizer = torch.optim.Adam(self.denoiser.parameters(), lr=settings.lr, fused=True)
        self.ema = EMA(copy.deepcopy(self.denoiser), HalfLife(settings.ema_half_life))
        self.iteration, self.setbacks = 0, 0
        self._losses = torch.zeros(2, device=device)

    def step(self) -> None:
        """One optimizer step on a random batch."""
        settings, rng = self.settings, stream(self.settings.seed, self.iteration)
        torch.manual_seed(torch.randint(2**62, (), generator=rng).item())  # for dropout
        k = torch.randint(len(self.data), (settings.batch,), generator=rng).to(self.device)
        sigma = sample(settings.noise, settings.batch, rng).to(self.device)
        eps = torch.randn(settings.batch, *self.data.shape[1:], generator=rng).to(self.device)
        condition = None if self.labels is None else self.labels[k]
        loss = denoising_loss(self.denoiser, EDM(self.sigma_data), self.data[k], sigma, eps, condition)
        loss.mean().backward()
        for group in self.optimizer.param_groups:
            group["lr"] = settings.lr * self._rate()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.iteration += 1
        self.ema.update(self.denoiser, settings.batch, self.images)
        self._losses += torch.stack([loss.detach().sum(), loss.new_tensor(len(loss))])

    @property
    def average(self) -> Preconditioned:
        """The averaged denoiser, in eval mode."""
        return self.ema.module

    @property
    def iterations(self) -> int:
        """Where the settings end."""
        return self.settings.iterations

    @property
    def images(self) -> int:
        """Images seen so far."""
        return self.iteration * self.settings.batch

    def readings(self) -> dict[str, Any]:
        """The mean loss since the last reading."""
        mean = float(self._losses[0] / self._losses[1])
        self._losses.zero_()
        return {"loss": mean}

    def state(self) -> dict[str, Tensor]:
        """Everything that later iterations depend on, as named tensors."""
        return {**state_of(self._parts()), "position": torch.tensor([self.iteration, self.setbacks])}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go on from what `state` returned; `ValueError` if it is of another network."""
        restore(self._parts(), state)
        self.iteration, self.setbacks = state["position"].tolist()

    def _parts(self) -> Parts:
        return {"denoiser": self.denoiser, "average": self.ema.module, "optimizer": self.optimizer}

    def _rate(self) -> float:
        done = self.iteration / self.iterations
        rise = min(1.0, (done + 1 / self.iterations) / 0.02)
        return 0.5**self.setbacks * rise * 0.5 * (1 + float(torch.cos(torch.tensor(torch.pi * done))))
