"""The residual block of EDM's U-Nets (Karras et al. 2022, appendix F.2), in the styles `SONG` and `DHARIWAL`."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import silu

from simdistill.networks.layers import (
    Conv,
    Embedding,
    Image,
    Init,
    Number,
    Resample,
    Resampling,
    group_norm,
    kaiming,
    linear,
    xavier,
)
from simdistill.support.checks import require

Tokens: TypeAlias = Float[Tensor, "batch channels tokens"]


@dataclass(frozen=True)
class BlockStyle:
    """How the residual blocks of the two networks differ.

    `eps` is the epsilon of the normalisations. `adaptive` blocks scale and shift the output of norm1; others shift its
    input. `scale` multiplies the sum of a branch and its skip. Attention has heads of `head_channels`, or one head.
    With `mixing`, skips convolve whenever they resample; otherwise only if the number of channels changes. The initial
    weights of a branch's last layer are scaled by `last_gain`; those of queries, keys and values by `qkv_gain`.
    """

    eps: float
    adaptive: bool
    scale: float
    head_channels: int | None
    mixing: bool
    init: Init
    qkv_gain: float
    last_gain: float


# fmt: off
SONG     = BlockStyle(1e-6, adaptive=False, scale=math.sqrt(0.5), head_channels=None, mixing=True,
                      init=xavier,  qkv_gain=math.sqrt(0.2), last_gain=1e-5)
DHARIWAL = BlockStyle(1e-5, adaptive=True,  scale=1.0,            head_channels=64,   mixing=False,
                      init=kaiming, qkv_gain=1.0,            last_gain=0.0)
# fmt: on


class Block(nn.Module):
    """A residual block: two convolutions, modulated by the embedding, then optional self-attention.

    Song et al. (2021):         h = conv1(silu(norm1(conv0(silu(norm0(x))) + affine(emb)))),
    Dhariwal & Nichol (2021):   h = conv1(silu((1 + a) norm1(conv0(silu(norm0(x)))) + b)), [a, b] = affine(emb);
    both: x ← s (skip(x) + h), x ← s (x + attention(norm2(x))), with s the `style`'s scale.

    Raises `ValueError` for channels that do not divide into the heads.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        emb_channels: int,
        style: BlockStyle,
        dropout: Number,
        taps: Sequence[Number] = (1, 1),
        direction: Resampling = None,
        attention: bool = False,
    ) -> None:
        super().__init__()
        self.style, init = style, style.init
        self.norm0 = group_norm(in_channels, style.eps)
        self.conv0 = Conv(in_channels, out_channels, 3, direction=direction, taps=taps, init=init)
        self.affine = linear(emb_channels, out_channels * (2 if style.adaptive else 1), init)
        self.norm1 = group_norm(out_channels, style.eps)
        self.dropout = nn.Dropout(dropout)
        self.conv1 = Conv(out_channels, out_channels, 3, style.last_gain, init=init)
        if in_channels != out_channels or (direction is not None and style.mixing):
            self.skip = Conv(in_channels, out_channels, 1, direction=direction, taps=taps, init=init)
        else:
            self.skip = nn.Identity() if direction is None else Resample(direction, taps)
        heads = 1 if style.head_channels is None else out_channels // style.head_channels  # 0 in narrow blocks
        self.heads = heads if attention else 0
        if self.heads:
            require(out_channels % heads == 0, "channels", out_channels, f"a multiple of {heads}, its attention heads")
            self.norm2 = group_norm(out_channels, style.eps)
            self.qkv = Conv(out_channels, 3 * out_channels, 1, style.qkv_gain, init=init)
            self.proj = Conv(out_channels, out_channels, 1, style.last_gain, init=init)

    def forward(self, x: Image, emb: Embedding) -> Image:
        """Images `[batch, in_channels, H, W]` and their embedding to `[batch, out_channels, …]`."""
        h, modulation = self.conv0(silu(self.norm0(x))), self.affine(emb)[:, :, None, None]
        if self.style.adaptive:
            scale, shift = modulation.chunk(2, dim=1)
            h = self.norm1(h) * (1 + scale) + shift
        else:
            h = self.norm1(h + modulation)
        x = (self.skip(x) + self.conv1(self.dropout(silu(h)))) * self.style.scale
        if self.heads:  # q, k, v of a channel are adjacent; so are the channels of a head
            qkv = self.qkv(self.norm2(x)).unflatten(1, (self.heads, -1, 3)).flatten(4).flatten(0, 1)
            x = (x + self.proj(attend(*qkv.unbind(2)).reshape(x.shape))) * self.style.scale
        return x


def attend(q: Tokens, k: Tokens, v: Tokens) -> Tokens:
    """v softmax(qᵀk/√channels)ᵀ, one head of attention (Vaswani et al. 2017); the softmax in at least float32."""
    precision = torch.promote_types(q.dtype, torch.float32)
    logits = torch.einsum("bcq,bck->bqk", q.to(precision), k.to(precision) / math.sqrt(k.shape[1]))
    return torch.einsum("bqk,bck->bcq", logits.softmax(2).to(v.dtype), v)
