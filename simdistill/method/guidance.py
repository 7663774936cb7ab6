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

    `unconditional` is the unconditional embedding ∅, one row: a DiT's null label, or the encoded empty prompt of a
    text-to-image network. Only noise levels in `interval` are guided (Kynkäänniemi et al. 2024); elsewhere w is 1. Each
    call takes two evaluations of `denoiser`, at every level. Raises `ValueError` for an invalid scale or interval.
    """

    nfe = 2

    def __init__(
        self,
        denoiser: Denoiser,
        unconditional: Tensor | Text,
        scale: float,
        interval: tuple[float, float] = (0.0, math.inf),
    ) -> None:
        super().__init__()
        require(0 <= scale < math.inf, "guidance", scale, "at least 0; 1 is none")
        require(0 <= interval[0] < interval[1], "guidance-interval", interval, "two noise levels, the smaller first")
        self.denoiser: Any = denoiser  # registered if it is a module
        self.unconditional, self.scale, self.interval = unconditional, scale, interval

    def forward(self, x_t: Data, sigma: Sigma, condition: Condition = None) -> Data:
        """The guided x_0."""
        return x_t + self.residual(x_t, sigma, condition)

    def residual(self, x_t: Data, sigma: Sigma, condition: Condition = None) -> Data:
        """d_w(x_t, sigma, c) - x_t, from the two residuals."""
        low, high = self.interval
        w_1 = (self.scale - 1) * ((low <= sigma) & (sigma <= high)).to(x_t)  # w - 1
        row = self.unconditional.to(x_t.device)
        nothing = row.expand(len(x_t)) if isinstance(row, Text) else row.expand(len(x_t), *row.shape[1:])
        conditional = residual(self.denoiser, x_t, sigma, condition)
        return conditional + like(w_1, x_t) * (conditional - residual(self.denoiser, x_t, sigma, nothing))
