"""Training a teacher by EDM's denoising loss (Karras et al. 2022): on images, or on samples of an exact teacher."""

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from simdistill.averages import HalfLife
from simdistill.data.images import ImageSet
from simdistill.denoisers import Preconditioned
from simdistill.distill import denoising_loss
from simdistill.networks.mlp import MLP
from simdistill.networks.patched import PatchedUNet
from simdistill.networks.unet import SongUNet
from simdistill.noise import Law, LogNormal, sample
from simdistill.scalings import EDMScaling
from simdistill.shapes import Condition, Data, Sigma
from simdistill.training import augmentation
from simdistill.training.ema import EMA
from simdistill.training.randomness import stream
from simdistill.training.state import Parts, restore, state_of
from simdistill.validation import require
from simdistill.weightings import EDM


@dataclass(frozen=True)
class Pretraining:
    """Every choice of a teacher's training. Raises `ValueError` for values that cannot be."""

    data: str = ""
    """Images to train on: digits, a .zip or folder of images, CIFAR-10's archive, a folder of IDX files."""
    conditional: bool = True
    """Condition on the class labels, where the images have them."""
    network: Literal["mlp", "unet"] = "mlp"
    """MLP for vectors and 8×8 images, or the EDM U-Net (DDPM++) for images."""
    width: int = 256
    """Features of the MLP, or channels of the U-Net at full resolution (32 serves 8×8 images)."""
    depth: int = 3
    """Residual blocks: of the MLP, or of the U-Net at each of its resolutions."""
    octaves: int = 0
    """Octaves of Fourier features of the data that the MLP also sees: 5 serve narrow modes in a few dimensions."""
    channel_mult: tuple[int, ...] = (1, 2)
    """The U-Net's channels as multiples of the width, for each resolution, from full down by halves."""
    attention: tuple[int, ...] = (4,)
    """Resolutions at which the U-Net attends, as 16 for 16×16; at its lowest it does so once in any case."""
    patch: int = 1
    """Side of the squares of pixels that the U-Net takes as the channels of one: 2 quarters its work."""
    dropout: float = 0.10
    """Of the U-Net's blocks."""
    augment: float = 0.0
    """Chance of each of EDM's augmentations, which the U-Net (without patches) is told of; 0 for none."""
    centre: bool = False
    """Take the mean of all the data's values off before the network; sigma_data is then the spread around it."""
    noise: Law = LogNormal(-1.2, 1.2)  # noqa: RUF009  (frozen)
    """Noise levels of the training [B.5]."""
    lr: float = 2e-3
    """Adam's rate, at its highest."""
    batch: int = 256
    """Images an iteration."""
    iterations: int = 10_000
    """Optimizer steps."""
    warmup: float = 0.02
    """Share of the iterations over which the rate rises."""
    decay: Literal["cosine", "none"] = "cosine"
    """The rate after its rise: a cosine fall to zero, or constant."""
    features: str = ""
    """What the teacher is judged in: digits or fashion-mnist (shipped), imagenet, or a classifier's .safetensors."""
    ema_half_life: float = 180_000
    """Images over which the memory of the averaged network halves."""
    seed: int = 0
    """Of all random numbers of the training."""

    def __post_init__(self) -> None:
        for name in ("width", "depth", "patch", "batch", "iterations"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "at least 1")
        plain = self.octaves == 0 or (self.octaves > 0 and self.network == "mlp")
        require(plain, "octaves", self.octaves, "at least 0, and 0 for the U-Net")
        grouped = self.network == "mlp" or self.width % (4 if self.width < 128 else 32) == 0
        require(grouped, "width", self.width, "a multiple of 4 for the U-Net, from 128 on of 32")
        require(self.lr > 0, "lr", self.lr, "positive")
        for name in ("lr", "ema_half_life"):
            require(math.isfinite(getattr(self, name)), name, getattr(self, name), "finite")
        require(self.ema_half_life >= 0, "ema_half_life", self.ema_half_life, "at least 0")
        for name in ("warmup", "dropout", "augment"):
            require(0 <= getattr(self, name) < 1, name, getattr(self, name), "in [0, 1)")
        told = self.augment == 0 or (self.network == "unet" and self.patch == 1)
        require(told, "augment", self.augment, "0 but for --network unet with --patch 1: no other can be told of it")

    def build(self, shape: tuple[int, ...], classes: int, sigma_data: float, mean: float = 0.0) -> Preconditioned:
        """A fresh denoiser for samples of `shape`, its weights a function of the seed."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            network = self._mlp(shape, classes) if self.network == "mlp" else self._unet(shape, classes)
        return Preconditioned(network, shape, classes, EDMScaling(sigma_data), mean=mean)

    def _mlp(self, shape: tuple[int, ...], classes: int) -> MLP:
        return MLP(shape, self.width, self.depth, classes, self.octaves)

    def _unet(self, shape: tuple[int, ...], classes: int) -> SongUNet | PatchedUNet:
        square = len(shape) == 3 and shape[1] == shape[2]
        require(square, "network", self.network, f"mlp for samples of shape {shape}; the U-Net takes square images")
        require(shape[1] % self.patch == 0, "patch", self.patch, f"a divisor of {shape[1]}")
        arguments: dict[str, Any] = {
            "img_resolution": shape[1] // self.patch,
            "in_channels": shape[0] * self.patch**2,
            "out_channels": shape[0] * self.patch**2,
            "label_dim": classes,
            "augment_dim": augmentation.LABELS if self.augment else 0,
            "model_channels": self.width,
            "channel_mult": self.channel_mult,
            "num_blocks": self.depth,
            "attn_resolutions": self.attention,
            "dropout": self.dropout,
        }
        return SongUNet(**arguments) if self.patch == 1 else PatchedUNet(self.patch, **arguments)


# fmt: off
PRETRAININGS: dict[str, Pretraining] = {
    "digits":         Pretraining(data="digits", features="digits"),
    # the folder of Debian's package dataset-fashion-mnist; docs/fashion-mnist.md
    "fashion-mnist":  Pretraining(data="/usr/share/datasets/fashion-mnist", features="fashion-mnist", network="unet",
                                  width=32, depth=1, patch=2, attention=(8,), dropout=0.0, centre=True,
                                  noise=LogNormal(-0.7, 1.4), batch=64, iterations=5000, ema_half_life=50_000),
    # EDM's (Karras et al. 2022, Table 7): 200 million images
    "cifar10-uncond": Pretraining(network="unet", conditional=False, width=128, depth=4, channel_mult=(2, 2, 2),
                                  attention=(16,), dropout=0.13, augment=0.12, lr=1e-3, batch=512, iterations=390_625,
                                  warmup=0.05, decay="none", ema_half_life=500_000),
    "cifar10-cond":   Pretraining(network="unet", width=128, depth=4, channel_mult=(2, 2, 2),
                                  attention=(16,), dropout=0.13, augment=0.12, lr=1e-3, batch=512, iterations=390_625,
                                  warmup=0.05, decay="none", ema_half_life=500_000),
}
# fmt: on


@dataclass(frozen=True)
class _Told:
    """A denoiser that is told how the images of the batch were moved."""

    denoiser: Preconditioned
    how: Tensor

    def __call__(self, x_t: Data, sigma: Sigma, condition: Condition = None) -> Data:
        return x_t + self.residual(x_t, sigma, condition)

    def residual(self, x_t: Data, sigma: Sigma, condition: Condition = None) -> Data:
        return self.denoiser.residual(x_t, sigma, condition, self.how)


class PretrainingTrainer:
    """Fits a denoiser to `data`, one `step` at a time; sigma_data is the data's own.

    `average` is the denoiser to keep. All random numbers are functions of (settings.seed, iteration).
    """

    def __init__(
        self,
        data: ImageSet,
        settings: Pretraining,
        device: torch.device | str = "cpu",
    ) -> None:
        self.settings, self.device, self.data = settings, torch.device(device), data
        mean, std = (round(value, 3) for value in data.moments())
        self.sigma_data, shift = std, mean if settings.centre else 0.0
        self.denoiser = settings.build(data.shape, data.classes, self.sigma_data, shift).to(device).train()
        self.optimizer = torch.optim.Adam(self.denoiser.parameters(), lr=settings.lr, fused=True)
        self.ema = EMA(copy.deepcopy(self.denoiser), HalfLife(settings.ema_half_life))
        self.iteration, self.setbacks = 0, 0
        self._losses = torch.zeros(2, device=device)

    def step(self) -> None:
        """One optimizer step on a random batch."""
        settings, rng = self.settings, stream(self.settings.seed, self.iteration)
        torch.manual_seed(torch.randint(2**62, (), generator=rng).item())  # for dropout
        k = torch.randint(len(self.data), (settings.batch,), generator=rng)
        sigma = sample(settings.noise, settings.batch, rng).to(self.device)
        eps = torch.randn(settings.batch, *self.data.shape, generator=rng).to(self.device)
        labels = self.data.labels
        condition = None if labels is None else labels[k].to(self.device)
        x_0, denoiser = self.data.batch(k.tolist()).to(self.device), self.denoiser
        if settings.augment:
            how = augmentation.draw(settings.batch, settings.augment, rng).to(self.device)
            x_0, denoiser = augmentation.moved(x_0, how), _Told(denoiser, augmentation.labels(how))
        loss = denoising_loss(denoiser, EDM(self.sigma_data), x_0, sigma, eps, condition)
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
        rise = min(1.0, (done + 1 / self.iterations) / self.settings.warmup) if self.settings.warmup else 1.0
        fall = 0.5 * (1 + float(torch.cos(torch.tensor(torch.pi * done)))) if self.settings.decay == "cosine" else 1.0
        return 0.5**self.setbacks * rise * fall
