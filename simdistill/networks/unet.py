"""The U-Net of Song et al. (2021) in the two configurations of Karras et al. (2022, EDM): DDPM++ and NCSN++.

State-dict names and constructor arguments are those of EDM's published checkpoints, whose weights load as they are. The
network is raw: the preconditioning around it, c_skip x + c_out F(c_in x, c_noise), lives in `denoisers`.
"""

import math
from collections.abc import Sequence
from functools import partial
from typing import Any, Literal, TypeAlias

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn
from torch.nn.functional import conv2d, conv_transpose2d, silu

from simdistill.shapes import Sigma
from simdistill.validation import require

Image: TypeAlias = Float[Tensor, "batch _ _ _"]
Embedding: TypeAlias = Float[Tensor, "batch _"]
Tokens: TypeAlias = Float[Tensor, "batch channels tokens"]
Resampling: TypeAlias = Literal["up", "down"] | None
Number: TypeAlias = int | float
Labels: TypeAlias = Shaped[Tensor, "batch _"] | None


class Conv(nn.Module):
    """A convolution that keeps the resolution, after doubling ("up") or halving ("down") it where `direction` says so.

    Resampling filters every channel with `taps ⊗ taps`, scaled to sum to 1 over the pixels it meets. The weights are
    Xavier-uniform times `gain`, the biases zero.
    """

    resample_filter: Tensor

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        size: int,
        gain: float = 1.0,
        direction: Resampling = None,
        taps: Sequence[Number] = (1, 1),
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(nn.init.xavier_uniform_(torch.empty(out_channels, in_channels, size, size), gain))
        self.bias = nn.Parameter(torch.zeros(out_channels))
        self.direction, self.margin, self.filter_margin = direction, size // 2, (len(taps) - 1) // 2
        f = torch.tensor(taps, dtype=torch.float32)
        self.register_buffer("resample_filter", torch.outer(f, f)[None, None] / f.sum() ** 2 if direction else None)

    def forward(self, x: Image) -> Image:
        """Resample, then convolve."""
        if self.direction == "up":  # the filter meets zeros at three of four pixels, hence 4
            kernel = 4 * self.resample_filter.expand(x.shape[1], -1, -1, -1)
            x = conv_transpose2d(x, kernel, stride=2, padding=self.filter_margin, groups=len(kernel))
        elif self.direction == "down":
            x = self._halve(x, self.filter_margin)
        return conv2d(x, self.weight, self.bias, padding=self.margin)

    def _halve(self, x: Tensor, margin: int) -> Tensor:
        kernel = self.resample_filter.expand(x.shape[1], -1, -1, -1)
        return conv2d(x, kernel, stride=2, padding=margin, groups=len(kernel))


class ConvThenHalve(Conv):
    """NCSN++'s residual input: convolves first, on an image widened by what the filter needs, and halves after that."""

    def forward(self, x: Image) -> Image:
        """Convolve, then resample."""
        return self._halve(conv2d(x, self.weight, self.bias, padding=self.margin + self.filter_margin), margin=0)


class Block(nn.Module):
    """A residual block of Song et al. (2021): two convolutions, shifted by the embedding, then self-attention.

    h = conv1(silu(norm1(conv0(silu(norm0(x))) + affine(emb)))); x ← (skip(x) + h)/√2; x ← (x + attention(x))/√2.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        emb_channels: int,
        dropout: Number,
        taps: Sequence[Number],
        direction: Resampling = None,
        attention: bool = False,
    ) -> None:
        super().__init__()
        self.norm0 = _group_norm(in_channels)
        self.conv0 = Conv(in_channels, out_channels, 3, direction=direction, taps=taps)
        self.affine = _linear(emb_channels, out_channels)
        self.norm1 = _group_norm(out_channels)
        self.dropout = nn.Dropout(dropout)
        self.conv1 = Conv(out_channels, out_channels, 3, gain=1e-5)
        same = in_channels == out_channels and direction is None
        self.skip = nn.Identity() if same else Conv(in_channels, out_channels, 1, direction=direction, taps=taps)
        self.attention = attention
        if attention:
            self.norm2 = _group_norm(out_channels)
            self.qkv = Conv(out_channels, 3 * out_channels, 1, gain=math.sqrt(0.2))
            self.proj = Conv(out_channels, out_channels, 1, gain=1e-5)

    def forward(self, x: Image, emb: Embedding) -> Image:
        """Images `[batch, in_channels, H, W]` and their embedding to `[batch, out_channels, …]`."""
        h = self.conv0(silu(self.norm0(x))) + self.affine(emb)[:, :, None, None]
        h = self.conv1(self.dropout(silu(self.norm1(h))))
        x = (self.skip(x) + h) * math.sqrt(0.5)
        if self.attention:
            q, k, v = self.qkv(self.norm2(x)).unflatten(1, (-1, 3)).flatten(3).unbind(2)  # a channel's q, k, v adjoin
            x = (x + self.proj(attend(q, k, v).reshape(x.shape))) * math.sqrt(0.5)
        return x


def attend(q: Tokens, k: Tokens, v: Tokens) -> Tokens:
    """v softmax(qᵀk/√channels)ᵀ, one head of attention (Vaswani et al. 2017); its weights in float32 or better."""
    precision = torch.promote_types(q.dtype, torch.float32)
    logits = torch.einsum("bcq,bck->bqk", q.to(precision), k.to(precision) / math.sqrt(k.shape[1]))
    return torch.einsum("bqk,bck->bcq", logits.softmax(2).to(v.dtype), v)


class PositionalEmbedding(nn.Module):
    """DDPM++: [sin(ω_i c), cos(ω_i c)], ω_i = 10000^(-i/(n-1)), i < n = channels/2; sines first (Ho et al. 2020)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.n = channels // 2

    def forward(self, noise_labels: Sigma) -> Embedding:
        """Noise labels `[batch]` to `[batch, channels]`."""
        i = torch.arange(self.n, dtype=noise_labels.dtype, device=noise_labels.device)
        phases = noise_labels[:, None] * 1e-4 ** (i / (self.n - 1))
        return torch.cat([phases.sin(), phases.cos()], dim=1)


class FourierEmbedding(nn.Module):
    """NCSN++: [sin(2π f_i c), cos(2π f_i c)], with fixed f_i ~ N(0, 16²), i < channels/2 (Tancik et al. 2020)."""

    freqs: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("freqs", 16 * torch.randn(channels // 2))

    def forward(self, noise_labels: Sigma) -> Embedding:
        """Noise labels `[batch]` to `[batch, channels]`."""
        phases = noise_labels[:, None] * (2 * math.pi * self.freqs)
        return torch.cat([phases.sin(), phases.cos()], dim=1)


class SongUNet(nn.Module):
    """The U-Net F(c_in x, c_noise) of Song et al. (2021) as configured by Karras et al. (2022, appendix F.2).

    The defaults are DDPM++; NCSN++ is `embedding_type="fourier", encoder_type="residual", channel_mult_noise=2,
    resample_filter=[1, 3, 3, 1]`. There is a width in `channel_mult` for each resolution, from `img_resolution` down by
    halves; the blocks attend where `attn_resolutions` says so, and once at the lowest in any case. `label_dropout` is
    the chance that a sample is trained without its label. `SongUNet(**net.arguments)` builds the same network again.

    Raises `ValueError` for an unknown type, a resolution that cannot be halved often enough and a filter of odd length.
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
        arguments = {name: value for name, value in locals().items() if name not in ("self", "__class__")}
        super().__init__()
        self.arguments: dict[str, Any] = {  # plain values, to be written as JSON
            name: [*value] if isinstance(value, tuple | list) else value for name, value in arguments.items()
        }
        require(embedding_type in ("positional", "fourier"), "embedding_type", embedding_type, "positional or fourier")
        require(encoder_type in ("standard", "residual"), "encoder_type", encoder_type, "standard or residual")
        require(decoder_type == "standard", "decoder_type", decoder_type, "standard, as in every EDM checkpoint")
        unit = 2 ** (len(channel_mult) - 1)
        remedy = f"a positive multiple of {unit}, to be halved for every further width in channel_mult"
        require(img_resolution > 0 and img_resolution % unit == 0, "img_resolution", img_resolution, remedy)
        require(len(resample_filter) % 2 == 0, "resample_filter", resample_filter, "of even length")

        self.label_dim, self.augment_dim, self.label_dropout = label_dim, augment_dim, label_dropout
        self.num_blocks = num_blocks
        noise_channels, emb_channels = model_channels * channel_mult_noise, model_channels * channel_mult_emb
        embedding = PositionalEmbedding if embedding_type == "positional" else FourierEmbedding
        self.map_noise = embedding(noise_channels)
        self.map_label = _linear(label_dim, noise_channels) if label_dim else None
        self.map_augment = _linear(augment_dim, noise_channels, bias=False) if augment_dim else None
        self.map_layer0 = _linear(noise_channels, emb_channels)
        self.map_layer1 = _linear(emb_channels, emb_channels)

        block = partial(Block, emb_channels=emb_channels, dropout=dropout, taps=resample_filter)
        levels = [(img_resolution >> i, model_channels * mult) for i, mult in enumerate(channel_mult)]
        plan = [(f"{r}x{r}", width, r in attn_resolutions) for r, width in levels]
        self.levels = [at for at, _, _ in plan]  # "32x32", "16x16", …: how the layers of a resolution are called
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
        self.dec[f"{top}_aux_norm"] = _group_norm(channels)
        self.dec[f"{top}_aux_conv"] = Conv(channels, out_channels, 3, gain=1e-5)

    def forward(
        self, x: Image, noise_labels: Sigma, class_labels: Labels = None, augment_labels: Labels = None
    ) -> Image:
        """F, `[batch, out_channels, R, R]`, for images `[batch, in_channels, R, R]` and c_noise `[batch]`.

        `class_labels` are one-hot, `[batch, label_dim]`, and `augment_labels` `[batch, augment_dim]`; None means zeros,
        EDM's way to ask for any class. Raises `ValueError` for labels of another shape.
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

    def _embed(self, noise: Tensor, classes: Tensor | None, augment: Tensor | None, dtype: torch.dtype) -> Tensor:
        widths = {"class_labels": (classes, self.label_dim), "augment_labels": (augment, self.augment_dim)}
        for name, (labels, width) in widths.items():
            if labels is not None:
                shape, expected = [*labels.shape], [noise.shape[0], width]
                require(shape == expected, f"{name}.shape", shape, f"{expected}: one row a sample")
        emb = self.map_noise(noise).to(dtype)
        if self.map_label is not None:
            one_hot = emb.new_zeros(emb.shape[0], self.label_dim) if classes is None else classes.to(dtype)
            if self.training and self.label_dropout:
                one_hot = one_hot * (torch.rand_like(one_hot[:, :1]) >= self.label_dropout)
            emb = emb + self.map_label(one_hot * math.sqrt(self.label_dim))  # a random class then has unit mean square
        if self.map_augment is not None and augment is not None:
            emb = emb + self.map_augment(augment.to(dtype))
        return silu(self.map_layer1(silu(self.map_layer0(emb))))


def _group_norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(max(1, min(32, channels // 4)), channels, eps=1e-6)


def _linear(in_features: int, out_features: int, bias: bool = True) -> nn.Linear:
    layer = nn.Linear(in_features, out_features, bias=bias)
    nn.init.xavier_uniform_(layer.weight)
    if bias:
        nn.init.zeros_(layer.bias)
    return layer
