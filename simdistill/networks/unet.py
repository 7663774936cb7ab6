"""The U-Nets of Karras et al. (2022, EDM): that of Song et al. (2021) in two configurations, and ADM.

State-dict names and constructor arguments are those of EDM's published checkpoints, whose weights load unchanged. The
networks are raw: the preconditioning around them, c_skip x + c_out F(c_in x, c_noise), is in `denoisers`.
`Network(**net.arguments)` builds the same network again.
"""

import math
from collections.abc import Sequence
from functools import partial
from typing import Any, TypeAlias

import torch
from jaxtyping import Shaped
from torch import Tensor, nn
from torch.nn.functional import silu

from simdistill.method.shapes import Sigma
from simdistill.networks.block import DHARIWAL, SONG, Block
from simdistill.networks.layers import (
    Conv,
    ConvThenHalve,
    Embedding,
    FourierEmbedding,
    Image,
    Number,
    PositionalEmbedding,
    group_norm,
    kaiming,
    linear,
    xavier,
)
from simdistill.support.checks import require

Labels: TypeAlias = Shaped[Tensor, "batch _"] | None


class SongUNet(nn.Module):
    """The U-Net F(c_in x, c_noise) of Song et al. (2021) as configured by Karras et al. (2022, appendix F.2).

    The defaults are DDPM++; NCSN++ is `embedding_type="fourier", encoder_type="residual", channel_mult_noise=2,
    resample_filter=[1, 3, 3, 1]`. `channel_mult` has a factor for each resolution, from `img_resolution` down by
    halves. Blocks at the resolutions `attn_resolutions` have self-attention; one block at the lowest always has.
    `label_dropout` is the probability of training a sample without its label.

    Raises `ValueError` for an unknown type, a resolution that cannot be halved often enough, or a filter of odd length.
    """

    def __init__(
        self,
        img_resolution: int,
        in_channels: int,
        out_channels: int,
        label_dim: int = 0,
        augment_dim: int = 0,
        model_channels: int = 128,
        channel_mult: Sequence[int] = (1, 2, 2, 2),
        channel_mult_emb: int = 4,
        num_blocks: int = 4,
        attn_resolutions: Sequence[int] = (16,),
        dropout: Number = 0.10,
        label_dropout: Number = 0,
        embedding_type: str = "positional",
        channel_mult_noise: int = 1,
        encoder_type: str = "standard",
        decoder_type: str = "standard",
        resample_filter: Sequence[Number] = (1, 1),
    ) -> None:
        arguments = dict(locals())
        super().__init__()
        self.arguments = _plain(arguments)
        require(embedding_type in ("positional", "fourier"), "embedding_type", embedding_type, "positional or fourier")
        require(encoder_type in ("standard", "residual"), "encoder_type", encoder_type, "standard or residual")
        require(decoder_type == "standard", "decoder_type", decoder_type, "standard, as in every EDM checkpoint")
        levels = _levels(img_resolution, model_channels, channel_mult)
        require(len(resample_filter) % 2 == 0, "resample_filter", resample_filter, "of even length")

        self.label_dim, self.augment_dim, self.label_dropout = label_dim, augment_dim, label_dropout
        self.num_blocks = num_blocks
        noise_channels, emb_channels = model_channels * channel_mult_noise, model_channels * channel_mult_emb
        embedding = PositionalEmbedding if embedding_type == "positional" else FourierEmbedding
        self.map_noise = embedding(noise_channels)
        self.map_label = linear(label_dim, noise_channels, xavier) if label_dim else None
        self.map_augment = linear(augment_dim, noise_channels, xavier, bias=False) if augment_dim else None
        self.map_layer0 = linear(noise_channels, emb_channels, xavier)
        self.map_layer1 = linear(emb_channels, emb_channels, xavier)

        block = partial(Block, emb_channels=emb_channels, style=SONG, dropout=dropout, taps=resample_filter)
        plan = [(f"{r}x{r}", width, r in attn_resolutions) for r, width in levels]
        self.levels = [at for at, _, _ in plan]  # "32x32", "16x16", …: prefixes of the layers' names
        top, bottom = self.levels[0], self.levels[-1]

        channels, aux, skips = model_channels, in_channels, list[int]()
        self.enc = nn.ModuleDict()
        for at, width, attention in plan:
            if at == top:
                self.enc[f"{at}_conv"] = Conv(in_channels, channels, 3)
            else:
                self.enc[f"{at}_down"] = block(channels, channels, direction="down")
                if encoder_type == "residual":
                    self.enc[f"{at}_aux_residual"] = ConvThenHalve(aux, channels, 3, 1.0, "down", resample_filter)
                    aux = channels
            skips.append(channels)
            for i in range(num_blocks):
                self.enc[f"{at}_block{i}"] = block(channels, width, attention=attention)
                channels = width
                skips.append(channels)

        self.dec = nn.ModuleDict()
        for at, width, attention in reversed(plan):
            if at == bottom:
                self.dec[f"{at}_in0"] = block(channels, channels, attention=True)
                self.dec[f"{at}_in1"] = block(channels, channels)
            else:
                self.dec[f"{at}_up"] = block(channels, channels, direction="up")
            for i in range(num_blocks + 1):
                self.dec[f"{at}_block{i}"] = block(
                    channels + skips.pop(), width, attention=attention and i == num_blocks
                )
                channels = width
        self.dec[f"{top}_aux_norm"] = group_norm(channels, SONG.eps)
        self.dec[f"{top}_aux_conv"] = Conv(channels, out_channels, 3, gain=SONG.last_gain)

    def forward(
        self, x: Image, noise_labels: Sigma, class_labels: Labels = None, augment_labels: Labels = None
    ) -> Image:
        """F, `[batch, out_channels, R, R]`, for images `[batch, in_channels, R, R]` and c_noise `[batch]`.

        `class_labels` are one-hot, `[batch, label_dim]`, and `augment_labels` `[batch, augment_dim]`; None means zeros
        (in EDM: unconditional). Raises `ValueError` for labels of another shape.
        """
        emb = self._embed(noise_labels, class_labels, augment_labels, x.dtype)
        top, bottom = self.levels[0], self.levels[-1]
        aux, skips = x, list[Tensor]()
        for at in self.levels:
            x = self.enc[f"{at}_conv"](x) if at == top else self.enc[f"{at}_down"](x, emb)
            if f"{at}_aux_residual" in self.enc:
                aux = x = (x + self.enc[f"{at}_aux_residual"](aux)) * math.sqrt(0.5)
            skips.append(x)
            for i in range(self.num_blocks):
                x = self.enc[f"{at}_block{i}"](x, emb)
                skips.append(x)
        for at in reversed(self.levels):
            for entry in ("in0", "in1") if at == bottom else ("up",):
                x = self.dec[f"{at}_{entry}"](x, emb)
            for i in range(self.num_blocks + 1):
                x = self.dec[f"{at}_block{i}"](torch.cat([x, skips.pop()], dim=1), emb)
        return self.dec[f"{top}_aux_conv"](silu(self.dec[f"{top}_aux_norm"](x)))

    def _embed(self, noise: Sigma, classes: Labels, augment: Labels, dtype: torch.dtype) -> Embedding:
        emb = self.map_noise(noise).to(dtype)
        one_hot = _rows("class_labels", classes, self.label_dim, emb, self.label_dropout if self.training else 0)
        augmented = _rows("augment_labels", augment, self.augment_dim, emb)
        if self.map_label is not None:
            emb = emb + self.map_label(one_hot * math.sqrt(self.label_dim))  # so that inputs have unit mean square
        if self.map_augment is not None:
            emb = emb + self.map_augment(augmented)
        return silu(self.map_layer1(silu(self.map_layer0(emb))))


class DhariwalUNet(nn.Module):
    """ADM, the U-Net F(c_in x, c_noise) of Dhariwal & Nichol (2021) as in Karras et al. (2022, appendix F.2).

    The defaults are those of ImageNet at 64×64. `channel_mult` has a factor for each resolution, from `img_resolution`
    down by halves. Blocks at the resolutions `attn_resolutions` have self-attention, with one head per 64 channels; one
    block at the lowest always has. `label_dropout` is the probability of training a sample without its label.

    Raises `ValueError` for a resolution that cannot be halved often enough, or a width that does not divide into heads.
    """

    def __init__(
        self,
        img_resolution: int,
        in_channels: int,
        out_channels: int,
        label_dim: int = 0,
        augment_dim: int = 0,
        model_channels: int = 192,
        channel_mult: Sequence[int] = (1, 2, 3, 4),
        channel_mult_emb: int = 4,
        num_blocks: int = 3,
        attn_resolutions: Sequence[int] = (32, 16, 8),
        dropout: Number = 0.10,
        label_dropout: Number = 0,
    ) -> None:
        arguments = dict(locals())
        super().__init__()
        self.arguments = _plain(arguments)
        levels = _levels(img_resolution, model_channels, channel_mult)
        self.label_dim, self.augment_dim, self.label_dropout = label_dim, augment_dim, label_dropout
        emb_channels = model_channels * channel_mult_emb
        self.map_noise = PositionalEmbedding(model_channels, endpoint=False, sines_first=False)
        self.map_augment = linear(augment_dim, model_channels, kaiming, bias=False, gain=0) if augment_dim else None
        self.map_layer0 = linear(model_channels, emb_channels, kaiming)
        self.map_layer1 = linear(emb_channels, emb_channels, kaiming)
        self.map_label = linear(label_dim, emb_channels, _normal, bias=False) if label_dim else None

        block = partial(Block, emb_channels=emb_channels, style=DHARIWAL, dropout=dropout)
        plan = [(f"{r}x{r}", width, r in attn_resolutions) for r, width in levels]
        top, bottom = plan[0][0], plan[-1][0]
        channels, skips = plan[0][1], list[int]()
        self.enc = nn.ModuleDict()
        for at, width, attention in plan:
            if at == top:
                self.enc[f"{at}_conv"] = Conv(in_channels, channels, 3, init=kaiming)
            else:
                self.enc[f"{at}_down"] = block(channels, channels, direction="down")
            skips.append(channels)
            for i in range(num_blocks):
                self.enc[f"{at}_block{i}"] = block(channels, width, attention=attention)
                channels = width
                skips.append(channels)

        self.dec = nn.ModuleDict()
        for at, width, attention in reversed(plan):
            if at == bottom:
                self.dec[f"{at}_in0"] = block(channels, channels, attention=True)
                self.dec[f"{at}_in1"] = block(channels, channels)
            else:
                self.dec[f"{at}_up"] = block(channels, channels, direction="up")
            for i in range(num_blocks + 1):
                self.dec[f"{at}_block{i}"] = block(channels + skips.pop(), width, attention=attention)
                channels = width
        self.out_norm = group_norm(channels, DHARIWAL.eps)
        self.out_conv = Conv(channels, out_channels, 3, gain=DHARIWAL.last_gain, init=kaiming)

    def forward(
        self, x: Image, noise_labels: Sigma, class_labels: Labels = None, augment_labels: Labels = None
    ) -> Image:
        """F, `[batch, out_channels, R, R]`, for images `[batch, in_channels, R, R]` and c_noise `[batch]`.

        `class_labels` are one-hot, `[batch, label_dim]`, and `augment_labels` `[batch, augment_dim]`; None means zeros
        (in EDM: unconditional). Raises `ValueError` for labels of another shape.
        """
        emb = self._embed(noise_labels, class_labels, augment_labels, x.dtype)
        skips = list[Tensor]()
        for name, layer in self.enc.items():
            x = layer(x) if name.endswith("_conv") else layer(x, emb)
            skips.append(x)
        for name, block in self.dec.items():
            x = block(torch.cat([x, skips.pop()], dim=1) if "_block" in name else x, emb)
        return self.out_conv(silu(self.out_norm(x)))

    def _embed(self, noise: Sigma, classes: Labels, augment: Labels, dtype: torch.dtype) -> Embedding:
        emb = self.map_noise(noise).to(dtype)
        one_hot = _rows("class_labels", classes, self.label_dim, emb, self.label_dropout if self.training else 0)
        augmented = _rows("augment_labels", augment, self.augment_dim, emb)
        if self.map_augment is not None:
            emb = emb + self.map_augment(augmented)
        emb = self.map_layer1(silu(self.map_layer0(emb)))
        if self.map_label is not None:
            emb = emb + self.map_label(one_hot)
        return silu(emb)


def _plain(arguments: dict[str, Any]) -> dict[str, Any]:
    """A constructor's arguments as JSON values."""
    named = {name: value for name, value in arguments.items() if name not in ("self", "__class__")}
    return {name: [*value] if isinstance(value, tuple | list) else value for name, value in named.items()}


def _levels(img_resolution: int, model_channels: int, channel_mult: Sequence[int]) -> list[tuple[int, int]]:
    """The resolutions from the top down, each with its width."""
    unit = 2 ** (len(channel_mult) - 1)
    remedy = f"a positive multiple of {unit}, since it is halved for each further entry of channel_mult"
    require(img_resolution > 0 and img_resolution % unit == 0, "img_resolution", img_resolution, remedy)
    return [(img_resolution >> i, model_channels * mult) for i, mult in enumerate(channel_mult)]


def _rows(name: str, labels: Labels, width: int, emb: Embedding, dropout: Number = 0) -> Tensor:
    """`labels` `[batch, width]` in the dtype of `emb`, with rows zeroed at rate `dropout`; zeros for None."""
    if labels is None:
        return emb.new_zeros(emb.shape[0], width)
    shape, expected = [*labels.shape], [emb.shape[0], width]
    require(shape == expected, f"{name}.shape", shape, f"{expected}, one row per sample")
    rows = labels.to(emb.dtype)
    return rows * (torch.rand_like(rows[:, :1]) >= dropout) if dropout else rows


def _normal(weight: Tensor, bias: Tensor | None, gain: float) -> None:
    weight.data.copy_(torch.normal(0.0, gain, weight.shape))  # not normal_, which takes seconds on the meta device
