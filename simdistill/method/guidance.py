"""Classifier-free guidance of a denoiser."""

import math
from typing import Any

from torch import Tensor, nn

from simdistill.method.denoisers import Denoiser, residual
from simdistill.method.shapes import Condition, Data, Sigma, like
from simdistill.method.text import Text
from simdistill.support.checks import require


class Guided(nn.Module):
    """d_w(x_t, sigma, c) = d(x_t, sigma, ∅) + w (d(x_t, sigma, c) - d(x_t, sigma, ∅)) (Ho & Salimans 2022).

    `null` is what stands for ∅, one row: the null label of a DiT, the encoded empty prompt of a text-to-image network.
    Only noise levels in `interval` are guided (Kynkäänniemi et al. 2024), others are as if w were 1. It takes two
    evaluations of `denoiser`, whatever the level. Raises `ValueError` for a scale or an interval that cannot be.
    """

    def __init__(
        self, denoiser: Denoiser, null: Tensor | Text, scale: float, interval: tuple[float, float] = (0.0, math.inf)
    ) -> None:
        super().__init__()
        require(0 <= scale < math.inf, "guidance", scale, "at least 0; 1 is none")
        require(0 <= interval[0] < interval[1], "guidance-interval", interval, "two noise levels, the smaller first")
        self.denoiser: Any = denoiser  # registered if it is a module
        self.null, self.scale, self.interval = null, scale, interval

    def forward(self, x_t: Data, sigma: Sigma, condition: Condition = None) -> Data:
        """The guided x_0."""
        return x_t + self.residual(x_t, sigma, condition)

    def residual(self, x_t: Data, sigma: Sigma, condition: Condition = None) -> Data:
        """d_w(x_t, sigma, c) - x_t, by the two residuals."""
        low, high = self.interval
        w_1 = (self.scale - 1) * ((low <= sigma) & (sigma <= high)).to(x_t)  # w - 1
        null = self.null.to(x_t.device)
        nothing = null.expand(len(x_t)) if isinstance(null, Text) else null.expand(len(x_t), *null.shape[1:])
        conditional = residual(self.denoiser, x_t, sigma, condition)
        return conditional + like(w_1, x_t) * (conditional - residual(self.denoiser, x_t, sigma, nothing))
