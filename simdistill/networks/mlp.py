"""A residual multi-layer perceptron for vectors and small images, with noise-level and class conditioning."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import silu

from simdistill.method.shapes import Data, Sigma
from simdistill.support.checks import require

_EMBEDDING = 64  # width of the embedding of noise level and label; a wider one takes parameters from the data


class MLP(nn.Module):
    """F(x, c_noise, class_labels) for samples of any `shape`, flattened: `depth` residual blocks of `width` features.

    A block is h + W silu(norm(h) (1 + scale) + shift), scale and shift linear in an embedding of the noise level
    (Fourier features, Tancik et al. 2020) and of the one-hot label. The output starts at zero, so that the
    preconditioned denoiser starts as the best linear one.

    With `octaves` the blocks also see cos(2^k π x_i) and sin(2^k π x_i), k = 0, …, octaves - 1, of every coordinate.
    Without them, a smooth network learns steep functions between narrow modes only slowly. For few coordinates.
    """

    def __init__(
        self, shape: Sequence[int], width: int = 256, depth: int = 3, label_dim: int = 0, octaves: int = 0
    ) -> None:
        super().__init__()
        require(width >= 1, "width", width, "at least 1")
        require(depth >= 1, "depth", depth, "at least 1")
        require(octaves >= 0, "octaves", octaves, "at least 0")
        self.arguments: dict[str, Any] = {
            "shape": list(shape),
            "width": width,
            "depth": depth,
            "label_dim": label_dim,
            "octaves": octaves,
        }
        features = int(torch.Size(shape).numel())
        self.frequencies: Tensor
        self.register_buffer("frequencies", torch.pi * 2.0 ** (torch.arange(8) - 2), persistent=False)
        self.octaves: Tensor
        self.register_buffer("octaves", torch.pi * 2.0 ** torch.arange(octaves), persistent=False)
        self.map_noise = nn.Linear(16, _EMBEDDING)
        self.map_label = nn.Linear(label_dim, _EMBEDDING, bias=False) if label_dim else None
        self.first = nn.Linear(features * (1 + 2 * octaves), width)
        self.blocks = nn.ModuleList(_Block(width) for _ in range(depth))
        self.last = nn.Linear(width, features)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def forward(
        self, x: Data, noise_labels: Sigma, class_labels: Float[Tensor, "batch label_dim"] | None = None
    ) -> Data:
        """The network's raw output, the shape of `x`; `noise_labels` is c_noise, `class_labels` one-hot or None."""
        phase = noise_labels[:, None] * self.frequencies
        embedding = self.map_noise(torch.cat([phase.cos(), phase.sin()], 1))
        if self.map_label is not None and class_labels is not None:
            embedding = embedding + self.map_label(class_labels)
        embedding, h = silu(embedding), self.first(self._features(x.flatten(1)))
        for block in self.blocks:
            h = block(h, embedding)
        return self.last(silu(h)).reshape(x.shape)

    def _features(self, x: Tensor) -> Tensor:
        """x with the Fourier features of its coordinates, if there are any."""
        if not len(self.octaves):
            return x
        phase = (x[:, :, None] * self.octaves).flatten(1)
        return torch.cat([x, phase.cos(), phase.sin()], 1)


class _Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.modulation = nn.Linear(_EMBEDDING, 2 * width)
        self.linear = nn.Linear(width, width)

    def forward(self, h: Tensor, embedding: Tensor) -> Tensor:
        scale, shift = self.modulation(embedding).chunk(2, dim=1)
        return h + self.linear(silu(self.norm(h) * (1 + scale) + shift))
