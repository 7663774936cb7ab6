"""How diffusers' autoencoders encode pictures as latents, and decode them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor

from simdistill.method.shapes import Data, Pictures

Config: TypeAlias = Mapping[str, Any]
"""A network's or an autoencoder's configuration, as its config.json has it."""
Shape: TypeAlias = tuple[int, ...]
"""The shape of a sample: `(channels, height, width)`, or for a video `(channels, frames, height, width)`."""
Size: TypeAlias = tuple[int, ...]
"""The size of one decoded sample, without channels: a picture's height and width in pixels."""
Scaling: TypeAlias = tuple[float | Tensor, float | Tensor]
"""Scale and shift of latents: one number for all channels, or `[channels]`."""


def scaling_of(autoencoder: Any) -> Scaling:
    """By the autoencoder's configuration: `scaling_factor` / `latents_std`, and `latents_mean` or `shift_factor`.

    Some autoencoders, such as those of Wan and Qwen-Image, have a mean and a standard deviation per channel; the others
    have one number for all.
    """
    config: Config = autoencoder.config
    scale, mean, std = config.get("scaling_factor", 1.0), config.get("latents_mean"), config.get("latents_std")
    if mean is None or std is None:
        return scale, config.get("shift_factor") or 0.0
    return scale / torch.tensor(std), torch.tensor(mean)


def mode(autoencoder: Any, pictures: Pictures) -> Data:
    """The most likely code, which is its mean."""
    return autoencoder.encode(pictures).latent_dist.mode()


def decoded(autoencoder: Any, latents: Data) -> Pictures:
    """The pictures that the autoencoder's own `decode` returns."""
    return autoencoder.decode(latents, return_dict=False)[0]


def doubled_by_blocks(config: Config, shape: Shape) -> Size:
    """Each side doubled for every block of the autoencoder except one."""
    return tuple(side * 2 ** (len(config.get("block_out_channels", [0])) - 1) for side in shape[1:])


@dataclass(frozen=True)
class Latents:
    """How diffusers' class `autoencoder`, in the folder `part` of a pipeline, encodes and decodes pictures.

    latents = (encode(pictures) - shift) scale, and pictures = decode(latents / scale + shift).
    """

    autoencoder: str = "AutoencoderKL"
    part: str = "vae"
    scaling: Callable[[Any], Scaling] = scaling_of
    """The autoencoder's scale and shift."""
    encode: Callable[[Any, Pictures], Data] | None = mode
    """`encode(autoencoder, pictures)`; None if its pipelines use other latents."""
    decode: Callable[[Any, Data], Pictures] = decoded
    """`decode(autoencoder, latents)`, scaled back."""
    size: Callable[[Config, Shape], Size] = doubled_by_blocks
    """The size of the pictures for latents of a shape, by the autoencoder's configuration."""
