"""The layers of EDM's U-Nets: initialisation, convolutions that resample, embeddings of the noise level."""

import math
from collections.abc import Callable, Sequence
from typing import Literal, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import conv2d, conv_transpose2d

from simdistill.method.shapes import Sigma

Image: TypeAlias = Float[Tensor, "batch _ _ _"]
Embedding: TypeAlias = Float[Tensor, "batch _"]
Resampling: TypeAlias = Literal["up", "down"] | None
Number: TypeAlias = int | float
Init: TypeAlias = Callable[[Tensor, Tensor | None, float], None]
"""init(weight, bias, gain) fills a layer's parameters."""


def xavier(weight: Tensor, bias: Tensor | None, gain: float) -> None:
    """Weights uniform in ±gain √(6/(fan_in + fan_out)) (Glorot & Bengio 2010), biases zero."""
    nn.init.xavier_uniform_(weight, gain)
    if bias is not None:
        nn.init.zeros_(bias)


def kaiming(weight: Tensor, bias: Tensor | None, gain: float) -> None:
    """Weights and biases uniform in ±gain/√fan_in, torch's default initialisation (after He et al. 2015)."""
    bound = gain / math.sqrt(weight[0].numel())
    for parameter in (weight, bias) if bias is not None else (weight,):
        nn.init.uniform_(parameter, -bound, bound)


class Conv(nn.Module):
    """A convolution that keeps the resolution, after optionally doubling ("up") or halving ("down") it.

    Resampling filters every channel with `taps ⊗ taps`, normalised to sum to 1 over the pixels that it covers.
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
        init: Init = xavier,
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels, size, size))
        self.bias = nn.Parameter(torch.empty(out_channels))
        init(self.weight, self.bias, gain)
        self.direction: Resampling = direction
        self.margin = size // 2
        self.register_buffer("resample_filter", _filter(taps) if direction else None)

    def forward(self, x: Image) -> Image:
        """Resample, then convolve."""
        if self.direction is not None:
            x = _resample(x, self.resample_filter, self.direction)
        return conv2d(x, self.weight, self.bias, padding=self.margin)


class ConvThenHalve(Conv):
    """NCSN++'s residual input: convolves an image padded for the filter, then halves the resolution."""

    def forward(self, x: Image) -> Image:
        """Convolve, then resample."""
        margin = self.margin + _margin(self.resample_filter)
        return _halve(conv2d(x, self.weight, self.bias, padding=margin), self.resample_filter, margin=0)


class Resample(nn.Module):
    """`Conv` without the convolution: only doubles or halves the resolution."""

    resample_filter: Tensor

    def __init__(self, direction: Literal["up", "down"], taps: Sequence[Number]) -> None:
        super().__init__()
        self.direction: Literal["up", "down"] = direction
        self.register_buffer("resample_filter", _filter(taps))

    def forward(self, x: Image) -> Image:
        """Resample."""
        return _resample(x, self.resample_filter, self.direction)


class PositionalEmbedding(nn.Module):
    """[sin(ω_i c), cos(ω_i c)], ω_i = 10000^(-i/n), i < channels/2 (Ho et al. 2020).

    The divisor n is channels/2 - 1 with an `endpoint` at ω = 10000⁻¹ (DDPM++), and channels/2 without; ADM puts the
    cosines first.
    """

    def __init__(self, channels: int, endpoint: bool = True, sines_first: bool = True) -> None:
        super().__init__()
        self.count, self.divisor, self.sines_first = channels // 2, channels // 2 - endpoint, sines_first

    def forward(self, noise_labels: Sigma) -> Embedding:
        """Noise labels `[batch]` to `[batch, channels]`."""
        i = torch.arange(self.count, dtype=noise_labels.dtype, device=noise_labels.device)
        phases = noise_labels[:, None] * 1e-4 ** (i / self.divisor)
        sines, cosines = phases.sin(), phases.cos()
        return torch.cat([sines, cosines] if self.sines_first else [cosines, sines], dim=1)


class FourierEmbedding(nn.Module):
    """NCSN++: [sin(2π f_i c), cos(2π f_i c)], with fixed f_i ~ N(0, 16²), i < channels/2 (Tancik et al. 2020)."""

    freqs: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("freqs", torch.normal(0.0, 16.0, (channels // 2,)))

    def forward(self, noise_labels: Sigma) -> Embedding:
        """Noise labels `[batch]` to `[batch, channels]`."""
        phases = noise_labels[:, None] * (2 * math.pi * self.freqs)
        return torch.cat([phases.sin(), phases.cos()], dim=1)


def group_norm(channels: int, eps: float) -> nn.GroupNorm:
    """Group normalisation with at least four channels per group and at most 32 groups."""
    return nn.GroupNorm(max(1, min(32, channels // 4)), channels, eps=eps)


def linear(in_features: int, out_features: int, init: Init, bias: bool = True, gain: float = 1.0) -> nn.Linear:
    """A linear layer, initialised by `init`."""
    layer = nn.Linear(in_features, out_features, bias=bias)
    init(layer.weight, layer.bias if bias else None, gain)
    return layer


def _filter(taps: Sequence[Number]) -> Tensor:
    total = sum(taps) ** 2  # in Python: torch takes seconds to start on the meta device
    return torch.tensor([[[[a * b / total for b in taps] for a in taps]]], dtype=torch.float32)


def _margin(kernel: Tensor) -> int:
    return (kernel.shape[-1] - 1) // 2


def _resample(x: Tensor, kernel: Tensor, direction: Literal["up", "down"]) -> Tensor:
    if direction == "down":
        return _halve(x, kernel, _margin(kernel))
    kernels = 4 * kernel.expand(x.shape[1], -1, -1, -1)  # 4 since three of four input pixels are zeros
    return conv_transpose2d(x, kernels, stride=2, padding=_margin(kernel), groups=len(kernels))


def _halve(x: Tensor, kernel: Tensor, margin: int) -> Tensor:
    kernels = kernel.expand(x.shape[1], -1, -1, -1)
    return conv2d(x, kernels, stride=2, padding=margin, groups=len(kernels))
