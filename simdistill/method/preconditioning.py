"""The four preconditionings of Karras et al. (2022, Table 1), which turn a raw network F into a denoiser.

d(x, sigma) = c_skip x + c_out F(c_in x, c_noise). Each is called with noise levels and returns the four coefficients,
with 1 - c_skip in place of c_skip: at small sigma, float32 would lose the difference.
"""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor

from simdistill.method.shapes import PerSample, Sigma
from simdistill.support.checks import require


class Coefficients(NamedTuple):
    """1 - c_skip, c_out, c_in and c_noise, each `[batch]`."""

    one_minus_c_skip: PerSample
    c_out: PerSample
    c_in: PerSample
    c_noise: PerSample


@dataclass(frozen=True)
class EDMScaling:
    """Input and target of unit variance at every level, for data of standard deviation sigma_data.

    c_skip = sigma_data² / (sigma² + sigma_data²), c_out = sigma sigma_data / √(sigma² + sigma_data²),
    c_in = 1 / √(sigma² + sigma_data²), c_noise = ln(sigma) / 4 (Karras et al. 2022).
    """

    sigma_data: float = 0.5

    def __post_init__(self) -> None:
        require(self.sigma_data > 0, "sigma_data", self.sigma_data, "positive")

    def __call__(self, sigma: Sigma) -> Coefficients:
        """The coefficients at `sigma`."""
        variance = sigma**2 + self.sigma_data**2
        deviation = variance.sqrt()
        return Coefficients(sigma**2 / variance, sigma * self.sigma_data / deviation, 1 / deviation, sigma.log() / 4)


@dataclass(frozen=True)
class VPScaling:
    """F predicts the noise at the time t of a continuous variance-preserving process (Song et al. 2021).

    c_skip = 1, c_out = -sigma, c_in = 1/√(sigma² + 1), c_noise = (steps - 1) t, where
    ln(1 + sigma²) = beta_d t²/2 + beta_min t.
    """

    beta_d: float = 19.9
    beta_min: float = 0.1
    steps: int = 1000

    def __post_init__(self) -> None:
        require(self.beta_d > 0, "beta_d", self.beta_d, "positive")
        require(self.beta_min > 0, "beta_min", self.beta_min, "positive")
        require(self.steps >= 2, "steps", self.steps, "at least 2")

    def sigma(self, t: float) -> float:
        """The noise level at time t, 0 < t <= 1."""
        return math.sqrt(math.expm1(self.beta_d * t**2 / 2 + self.beta_min * t))

    def __call__(self, sigma: Sigma) -> Coefficients:
        """The coefficients at `sigma`."""
        variance = torch.log1p(sigma**2)  # t solves a quadratic equation, here without cancellation
        t = 2 * variance / (torch.sqrt(self.beta_min**2 + 2 * self.beta_d * variance) + self.beta_min)
        return _noise_predicted(sigma, (self.steps - 1) * t)


@dataclass(frozen=True)
class VEScaling:
    """F predicts the negative noise of a variance-exploding process (Song et al. 2021).

    c_skip = 1, c_out = sigma, c_in = 1, c_noise = ln(sigma / 2).
    """

    def __call__(self, sigma: Sigma) -> Coefficients:
        """The coefficients at `sigma`."""
        return Coefficients(torch.zeros_like(sigma), sigma, torch.ones_like(sigma), (sigma / 2).log())


@dataclass(frozen=True)
class IDDPMScaling:
    """F predicts the noise at the nearest timestep, 0 … steps - 1, of the cosine schedule (Nichol & Dhariwal 2021).

    c_skip = 1, c_out = -sigma, c_in = 1/√(sigma² + 1), c_noise = steps - 1 - argmin_j |u_j - sigma|, where
    u_steps = 0, u_{j-1}² + 1 = (u_j² + 1) / max(a_{j-1}/a_j, c_1), a_j = sin²(π/2 j / (steps (c_2 + 1))). Only the
    levels of the training, u_0 … u_{steps-1}, are candidates: below the last, the network gets timestep 0.
    """

    c_1: float = 0.001
    c_2: float = 0.008
    steps: int = 1000

    def __post_init__(self) -> None:
        require(0 < self.c_1 < 1, "c_1", self.c_1, "in (0, 1)")
        require(self.c_2 > 0, "c_2", self.c_2, "positive")
        require(2 <= self.steps <= 100_000, "steps", self.steps, "in 2 … 100000")

    @cached_property
    def levels(self) -> Tensor:
        """u_0 > … > u_{steps-1}, float64 `[steps]`."""
        j = torch.arange(self.steps + 1, dtype=torch.float64)
        a = torch.sin(math.pi / 2 * j / (self.steps * (self.c_2 + 1))) ** 2
        decay = -(a[:-1] / a[1:]).clamp(min=self.c_1).log()
        return torch.sqrt(torch.expm1(decay.flip(0).cumsum(0).flip(0)))

    def __call__(self, sigma: Sigma) -> Coefficients:
        """The coefficients at `sigma`."""
        nearest = (self.levels.to(sigma.device) - sigma.double()[:, None]).abs().argmin(1)
        return _noise_predicted(sigma, (self.steps - 1 - nearest).to(sigma.dtype))


def _noise_predicted(sigma: Sigma, time: PerSample) -> Coefficients:
    """The coefficients of a network that takes x/√(1 + sigma²) and predicts the noise in it."""
    return Coefficients(torch.zeros_like(sigma), -sigma, 1 / torch.sqrt(sigma**2 + 1), time)


Scaling: TypeAlias = EDMScaling | VPScaling | VEScaling | IDDPMScaling
"""The scalings that `denoisers.Preconditioned` takes and that a file's header can name."""
