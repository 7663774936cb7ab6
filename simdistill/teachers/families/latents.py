"""How diffusers' autoencoders code pictures as latents."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor

from simdistill.method.shapes import Data, Pictures

Config: TypeAlias = Mapping[str, Any]
"""A network's or an autoencoder's configuration, as its config.json has it."""
Shape: TypeAlias = tuple[int, ...]
"""Of one sample, its channels first: `(channels, height, width)`, of a video `(channels, frames, height, width)`."""
Size: TypeAlias = tuple[int, ...]
"""Of one decoded sample, without its channels: a picture's height and width in pixels."""
Scaling: TypeAlias = tuple[float | Tensor, float | Tensor]
"""Scale and shift of latents: one number for all channels, or `[channels]`."""


def scaling_of(autoencoder: Any) -> Scaling:
    """By the autoencoder's configuration: `scaling_factor` over `latents_std`, and `latents_mean` or `shift_factor`.

    Some autoencoders have a mean and a standard deviation for each channel, as those of Wan and Qwen-Image, the others
    a number for all.
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
    """What the autoencoder's own `decode` returns first."""
    return autoencoder.decode(latents, return_dict=False)[0]


def doubled_by_blocks(config: Config, shape: Shape) -> Size:
    """Every side twice as long for each block of the autoencoder but one."""
    return tuple(side * 2 ** (len(config.get("block_out_channels", [0])) - 1) for side in shape[1:])


@dataclass(frozen=True)
class Latents:
    """How diffusers' class `autoencoder`, in the folder `part` of a pipeline's, codes pictures.

    latents = (encode(pictures) - shift) scale, and pictures = decode(latents / scale + shift).
    """

    autoencoder: str = "AutoencoderKL"
    part: str = "vae"
    scaling: Callable[[Any], Scaling] = scaling_of
    """Scale and shift, of the autoencoder."""
    encode: Callable[[Any, Pictures], Data] | None = mode
    """`encode(autoencoder, pictures)`; None for one whose codes are not what its pipelines draw."""
    decode: Callable[[Any, Data], Pictures] = decoded
    """`decode(autoencoder, latents)`, scaled back."""
    size: Callable[[Config, Shape], Size] = doubled_by_blocks
    """Of what latents of a shape are decoded to, by the autoencoder's configuration."""
