"""How teachers are trained: every choice as one value, and the choices of our own and EDM's as values of it."""

import math
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from simdistill.method.denoisers import Preconditioned
from simdistill.method.noise import LogNormal, NoiseDistribution
from simdistill.method.preconditioning import EDMScaling
from simdistill.method.text import TextInput
from simdistill.networks.mlp import MLP
from simdistill.networks.patched import PatchedUNet
from simdistill.networks.pixart import PixArt
from simdistill.networks.unet import SongUNet
from simdistill.support.checks import check_count, check_seed, require
from simdistill.training import augmentation


@dataclass(frozen=True)
class Pretraining:
    """Every setting of a teacher's training. Raises `ValueError` for values that cannot be."""

    data: str = ""
    """Images to train on: digits, a .zip or folder of images, CIFAR-10's archive, a folder of IDX files."""
    pad: int = 0
    """Add black margins to the images, up to this many pixels a side: 32 for MNIST's 28×28; 0 adds none."""
    prompts: str = ""
    """Folder of the images' captions that `simdistill encode` made, for a text-to-image teacher."""
    caption_dropout: float = 0.10
    """Probability of dropping a caption, so that the teacher can be guided (Ho & Salimans 2022)."""
    autoencoder: str = ""
    """Folder of a diffusers AutoencoderKL, to train the teacher on its latents instead of pixels."""
    conditional: bool = True
    """Condition on the class labels, where the images have them."""
    network: Literal["mlp", "unet", "pixart"] = "mlp"
    """MLP for vectors and 8×8 images, the EDM U-Net (DDPM++) for images, or PixArt's transformer for images of text."""
    width: int = 256
    """Features of the MLP and the transformer, or channels of the U-Net at full resolution (32 serves 8×8 images)."""
    depth: int = 3
    """Residual blocks: of the MLP, the transformer, or of the U-Net at each of its resolutions."""
    octaves: int = 0
    """Octaves of Fourier features of the data that the MLP also sees: 5 serve narrow modes in a few dimensions."""
    channel_mult: tuple[int, ...] = (1, 2)
    """The U-Net's channels as multiples of the width, for each resolution, from full down by halves."""
    attention: tuple[int, ...] = (4,)
    """Resolutions at which the U-Net attends, as 16 for 16×16; at its lowest it does so once in any case."""
    patch: int = 1
    """Patch size of the U-Net or the transformer: 2 quarters the work."""
    dropout: float = 0.10
    """Of the U-Net's blocks."""
    augment: float = 0.0
    """Probability of each of EDM's augmentations, for the U-Net without patches; 0 for none."""
    start: str = ""
    """A teacher's .safetensors of the same network, to start from its weights; everything else starts anew."""
    centre: Literal["none", "mean", "picture"] = "none"
    """What is subtracted from the data: nothing, the mean of all values, or the mean picture, which pays off for
    pictures that are much alike; sigma_data is the spread around it."""
    noise: NoiseDistribution = LogNormal(-1.2, 1.2)  # noqa: RUF009  (frozen)
    """Noise distribution of the training [B.5]."""
    lr: float = 2e-3
    """Peak learning rate (Adam)."""
    batch: int = 256
    """Batch size."""
    iterations: int = 10_000
    """Training iterations."""
    warmup: float = 0.02
    """Share of the iterations for learning-rate warm-up."""
    decay: Literal["cosine", "none"] = "cosine"
    """Learning-rate schedule after warm-up: cosine decay to zero, or constant."""
    features: str = ""
    """Feature space of the metrics: pixels, digits, fashion-mnist, faces, imagenet, a classifier's .safetensors (of
    `simdistill features`), or a file of Inception-v3."""
    ema_half_life: float = 180_000
    """Half-life of the EMA of the weights, in images."""
    seed: int = 0
    """Random seed."""

    def __post_init__(self) -> None:
        for name in ("width", "depth", "patch", "batch", "iterations"):
            check_count(getattr(self, name), name)
        check_seed(self.seed)
        plain = self.octaves == 0 or (self.octaves > 0 and self.network == "mlp")
        require(plain, "octaves", self.octaves, "at least 0, and 0 but for the MLP")
        grouped = self.network != "unet" or self.width % (4 if self.width < 128 else 32) == 0
        require(grouped, "width", self.width, "a multiple of 4 for the U-Net, from 128 on of 32")
        require(self.lr > 0, "lr", self.lr, "positive")
        for name in ("lr", "ema_half_life"):
            require(math.isfinite(getattr(self, name)), name, getattr(self, name), "finite")
        require(self.ema_half_life >= 0, "ema_half_life", self.ema_half_life, "at least 0")
        for name in ("warmup", "dropout", "augment", "caption_dropout"):
            require(0 <= getattr(self, name) < 1, name, getattr(self, name), "in [0, 1)")
        told = self.augment == 0 or (self.network == "unet" and self.patch == 1)
        require(told, "augment", self.augment, "0 but for --network unet with --patch 1: no other can be told of it")

    def build(
        self,
        shape: tuple[int, ...],
        classes: int,
        sigma_data: float,
        mean: Tensor | float = 0.0,
        text: TextInput | None = None,
    ) -> Preconditioned:
        """A fresh denoiser for samples of `shape` with classes or `text`, its weights a function of the seed.

        Raises `ValueError` for samples or conditions that the network does not take.
        """
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            network = self._network(shape, classes, text)
        return Preconditioned(network, shape, classes, EDMScaling(sigma_data), mean=mean)

    def _network(self, shape: tuple[int, ...], classes: int, text: TextInput | None) -> nn.Module:
        if text is None:
            what = "given for --network pixart: the folder of captions that `simdistill encode` made"
            require(self.network != "pixart", "prompts", self.prompts, what)
        else:
            require(self.network == "pixart", "network", self.network, "pixart for a teacher with --prompts")
            require(text.pooled == 0, "prompts", f"with {text.pooled} pooled numbers", "encoded by a language model")
            return PixArt(shape, self.patch, self.width, self.depth, text.tokens, text.width)
        return self._mlp(shape, classes) if self.network == "mlp" else self._unet(shape, classes)

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
    "fashion-mnist":  Pretraining(data="/usr/share/datasets/fashion-mnist", pad=32, features="fashion-mnist",
                                  network="unet", width=32, depth=1, patch=2, attention=(8,), dropout=0.0,
                                  centre="mean", noise=LogNormal(-0.7, 1.4), batch=64, iterations=5000,
                                  ema_half_life=50_000),
    # the faces of `python -m examples.faces make`, with --prompts
    "faces":          Pretraining(features="faces", network="pixart", width=128, depth=6, patch=4, centre="picture",
                                  noise=LogNormal(-0.2, 1.3), lr=1.8e-3, batch=64, iterations=8000,
                                  ema_half_life=50_000),
    # EDM's (Karras et al. 2022, Table 7): 200 million images
    "cifar10-uncond": Pretraining(network="unet", conditional=False, width=128, depth=4, channel_mult=(2, 2, 2),
                                  attention=(16,), dropout=0.13, augment=0.12, lr=1e-3, batch=512, iterations=390_625,
                                  warmup=0.05, decay="none", ema_half_life=500_000),
    "cifar10-cond":   Pretraining(network="unet", width=128, depth=4, channel_mult=(2, 2, 2),
                                  attention=(16,), dropout=0.13, augment=0.12, lr=1e-3, batch=512, iterations=390_625,
                                  warmup=0.05, decay="none", ema_half_life=500_000),
}
# fmt: on
