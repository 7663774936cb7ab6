"""How diffusers' autoencoders encode pictures as latents, and decode them."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor

from simdistill.method.shapes import Data, Pictures
from simdistill.support.checks import require

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


def check_scaling(config: Config, channels: int | None) -> None:
    """Raise `ValueError` unless what `scaling_of` reads are numbers, those per channel as many as `channels`."""
    for name in ("scaling_factor", "shift_factor"):
        value = config.get(name)
        sound = value is None or _is_number(value, zero=name == "shift_factor")
        require(sound, name, value, "a number, not 0: that of the published autoencoder")
    for name in ("latents_mean", "latents_std"):
        values: Any = config.get(name)
        listed = values is None or isinstance(values, list)
        sound = listed and all(_is_number(value, zero=name == "latents_mean") for value in values or ())
        fits = values is None or channels is None or (sound and len(values) == channels)
        what = "a list of numbers" if channels is None else f"{channels} numbers, one for each channel of the latents"
        require(sound and fits, name, values, what)


def latent_channels(config: Config) -> int | None:
    """The channels of latents, by the autoencoder's configuration; None if it does not say."""
    found = config.get("latent_channels", config.get("z_dim"))
    return found if isinstance(found, int) else None


def _is_number(value: object, zero: bool) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value) and (zero or value != 0)


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
    channels: Callable[[Config], int | None] = latent_channels
    """The channels of the latents by the autoencoder's configuration; None if unknown, or a pipeline packs them."""
    size: Callable[[Config, Shape], Size] = doubled_by_blocks
    """The size of the pictures for latents of a shape, by the autoencoder's configuration."""
