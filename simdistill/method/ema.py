"""Exponential moving averages (EMA) of a network's weights: their decay, as a function of the images seen."""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol, runtime_checkable

import numpy as np

from simdistill.support.checks import require


@runtime_checkable
class Averaging(Protocol):
    """How an average of weights follows the trained network."""

    def decay(self, batch: int, images: int) -> float:
        """The decay (the weight of the old average) of a step on `batch` images, the last of `images` so far."""
        ...


@dataclass(frozen=True)
class EMA:
    """An EMA with a half-life of `half_life` images, shorter at the start; 0 means no EMA.

    After n images the half-life is min(half_life, ramp_up n), as in EDM (Karras et al. 2022), so that the start is
    forgotten soon; n includes the batch of the step, where EDM and SiD count the images before it: they ramp up one
    step later. Until it reaches `half_life`, this is a power-function EMA of exponent ln 2 / ramp_up - 1.
    """

    half_life: float = 500_000.0
    ramp_up: float = 0.05

    def __post_init__(self) -> None:
        require(0 <= self.half_life < math.inf, "half_life", self.half_life, "finite and at least 0 (0 for no EMA)")
        require(self.ramp_up > 0, "ramp_up", self.ramp_up, "positive")

    def decay(self, batch: int, images: int) -> float:
        """0.5^(batch / half-life), the weight of the old average."""
        half_life = min(self.half_life, self.ramp_up * images)
        return 0.5 ** (batch / half_life) if half_life > 0 else 0.0


@dataclass(frozen=True)
class PowerEMA:
    """A power-function EMA: weights ∝ n^exponent over the images n seen so far (Karras et al. 2024, EDM2).

    Its width grows with the training: `std` is its relative width, the standard deviation of the averaged times over
    the length of the training so far, std² = (exponent + 1) / ((exponent + 2)² (exponent + 3)). It needs no ramp-up.
    """

    std: float = 0.1

    def __post_init__(self) -> None:
        require(0 < self.std < 12**-0.5, "std", self.std, "above 0 and below 0.288, the std of equal weights")

    @cached_property
    def exponent(self) -> float:
        """The positive root of (e + 2)² (e + 3) = (e + 1) / std²."""
        k = self.std**-2
        return float(np.roots([1, 7, 16 - k, 12 - k]).real.max())

    def decay(self, batch: int, images: int) -> float:
        """(1 - batch/images)^(exponent + 1), the weight of the old average."""
        return (1 - batch / images) ** (self.exponent + 1)


AVERAGINGS = (EMA, PowerEMA)
"""EMAs that settings can name without their module."""
