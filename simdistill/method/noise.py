"""Noise distributions p(sigma) of the two updates, and the forward process x_t = x_0 + sigma eps [B.1].

A distribution is given by its quantile function and its cumulative distribution function (CDF), so that uniform numbers
are drawn (or stratified) in one place, `sample`, and any distribution can be truncated to a teacher's range.
"""

import math
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from simdistill.method.shapes import Data, PerSample, Sigma, like
from simdistill.support.checks import require

ROUNDING = 1e-3  # relative: ends of ranges that differ by less are the same


def diffuse(x_0: Data, sigma: Sigma, eps: Data) -> Data:
    """x_t = x_0 + sigma eps, the variance-exploding forward process [B.1]; `eps` is standard normal, like `x_0`."""
    return x_0 + like(sigma, eps) * eps


@runtime_checkable
class NoiseDistribution(Protocol):
    """A distribution of noise levels sigma > 0."""

    def quantile(self, u: PerSample) -> Sigma:
        """The smallest level with P(sigma <= level) >= u, for u in (0, 1)."""
        ...

    def cdf(self, sigma: Sigma) -> PerSample:
        """P(level <= sigma)."""
        ...


def sample(distribution: NoiseDistribution, n: int, rng: torch.Generator) -> Sigma:
    """`n` independent noise levels from `distribution`, float32 `[n]`, on the CPU: the same for all devices."""
    return distribution.quantile(_uniform(n, rng)).to(torch.float32)


def stratified(distribution: NoiseDistribution, n: int, rng: torch.Generator) -> Sigma:
    """`n` stratified noise levels from `distribution`, ascending: u_i = (i + U_i)/n, U_i ~ Unif(0, 1).

    A random row follows `distribution`, so a batch's mean keeps its expectation. Its variance loses the part between
    the strata, and never grows (Cochran 1977, stratified sampling).
    """
    u = (torch.arange(n, dtype=torch.float64) + _uniform(n, rng)) / n
    return distribution.quantile(u).to(torch.float32)


@dataclass(frozen=True)
class LogNormal:
    """ln sigma ~ N(mean, std²): EDM's times at (-1.2, 1.2) [B.5], SIM's at (-3.5, 2.5) [B.9], PixArt's at (-2, 2)."""

    mean: float
    std: float

    def __post_init__(self) -> None:
        require(self.std > 0, "std", self.std, "positive")

    def quantile(self, u: PerSample) -> Sigma:
        """exp(mean + std Φ⁻¹(u))."""
        return torch.exp(self.mean + self.std * torch.special.ndtri(u))

    def cdf(self, sigma: Sigma) -> PerSample:
        """Φ((ln sigma - mean) / std)."""
        return torch.special.ndtr((torch.log(sigma) - self.mean) / self.std)


@dataclass(frozen=True)
class Karras:
    """The discrete levels of Karras et al. (2022), drawn uniformly from the `highest` + 1 smallest ones [B.8].

    sigma_k = (sigma_min^(1/rho) + k/(levels-1) (sigma_max^(1/rho) - sigma_min^(1/rho)))^rho,
    k ~ Unif{0, …, highest}. The defaults are the paper's: levels 801 to 999 are never drawn, so that the largest is
    24.54. SiD (Zhou et al. 2024) draws the same schedule continuously, up to 24.41. The paper's scan hides which end
    k = 0 is; it is sigma_min, as in SiD.
    """

    sigma_min: float = 0.002
    sigma_max: float = 80.0
    rho: float = 7.0
    levels: int = 1000
    highest: int = 800

    def __post_init__(self) -> None:
        require(self.sigma_max > 0, "sigma_max", self.sigma_max, "positive")
        below = f"above 0 and below sigma_max = {self.sigma_max}"
        require(0 < self.sigma_min < self.sigma_max, "sigma_min", self.sigma_min, below)
        require(self.rho > 0, "rho", self.rho, "positive")
        largest = max(abs(math.log(self.sigma_min)), abs(math.log(self.sigma_max))) / self.rho
        require(largest < 700, "rho", self.rho, "larger: sigma^(1/rho) overflows")
        require(self.levels >= 2, "levels", self.levels, "at least 2")
        require(0 <= self.highest < self.levels, "highest", self.highest, f"in 0 … levels - 1 = {self.levels - 1}")

    def table(self) -> Tensor:
        """sigma_0 < … < sigma_highest, float64."""
        low, high = self.sigma_min ** (1 / self.rho), self.sigma_max ** (1 / self.rho)
        k = torch.arange(self.highest + 1, dtype=torch.float64)
        return (low + k / (self.levels - 1) * (high - low)) ** self.rho

    def quantile(self, u: PerSample) -> Sigma:
        """The level k = ⌈u (highest + 1)⌉ - 1."""
        return _quantile_of(self.table(), u)

    def cdf(self, sigma: Sigma) -> PerSample:
        """The share of the levels that are at most sigma."""
        return _cdf_of(self.table(), sigma)


@dataclass(frozen=True)
class DiscreteVP:
    """The discrete variance-preserving timesteps of Listing 1, t ~ Unif{1, …, steps - 1}, as noise levels.

    With linear betas (Ho et al. 2020) and a_t = Π_{s<=t} (1 - beta_s), x_t/√a_t = x_0 + sigma_t eps,
    sigma_t = √((1 - a_t)/a_t). The listing does not give steps or betas; these are the usual ones.
    """

    steps: int = 1000
    beta_start: float = 1e-4
    beta_end: float = 0.02

    def __post_init__(self) -> None:
        require(self.steps >= 3, "steps", self.steps, "at least 3")
        require(0 < self.beta_start < self.beta_end < 1, "beta_start", self.beta_start, "above 0, below beta_end < 1")

    def betas(self) -> Tensor:
        """beta_1, …, beta_{steps-1}, float64: the levels that the listing draws (t = 0 is left out)."""
        return torch.linspace(self.beta_start, self.beta_end, self.steps, dtype=torch.float64)[1:]

    def table(self) -> Tensor:
        """sigma_1 < … < sigma_{steps-1}, float64."""
        log_a = math.log1p(-self.beta_start) + torch.log1p(-self.betas()).cumsum(0)
        return torch.sqrt(torch.expm1(-log_a))

    def quantile(self, u: PerSample) -> Sigma:
        """sigma_t for t = ⌈u (steps - 1)⌉."""
        return _quantile_of(self.table(), u)

    def cdf(self, sigma: Sigma) -> PerSample:
        """The share of the levels that are at most sigma."""
        return _cdf_of(self.table(), sigma)


@dataclass(frozen=True)
class Clamped:
    """`distribution` with levels clamped to [low, high], as in B.3: the ends get the probability of the tails."""

    distribution: NoiseDistribution
    low: float
    high: float

    def __post_init__(self) -> None:
        require(0 < self.low < self.high, "low", self.low, "above 0 and below high")

    def quantile(self, u: PerSample) -> Sigma:
        """The quantile of `distribution`, clamped."""
        return self.distribution.quantile(u).clamp(self.low, self.high)

    def cdf(self, sigma: Sigma) -> PerSample:
        """0 below `low`, the CDF of `distribution` in between, 1 from `high` on."""
        inside = torch.where(sigma < self.low, 0.0, self.distribution.cdf(sigma))
        return torch.where(sigma >= self.high, 1.0, inside)


@dataclass(frozen=True)
class Truncated:
    """`distribution` conditioned on a level in (low, high], to stay within a teacher's range.

    The paper does not mention the tails of [B.9], of which 13.9 % lie below EDM's smallest level 0.002.
    """

    distribution: NoiseDistribution
    low: float
    high: float

    def __post_init__(self) -> None:
        require(0 < self.low < self.high, "low", self.low, "above 0 and below high")
        below, upto = self._ends()
        require(upto > below, "high", self.high, f"such that {self.distribution} has levels in ({self.low}, high]")

    def quantile(self, u: PerSample) -> Sigma:
        """Q(F(low) + u (F(high) - F(low))), with the quantile function Q and the CDF F of `distribution`."""
        below, upto = self._ends()
        return self.distribution.quantile(below + u * (upto - below)).clamp(self.low, self.high)

    def cdf(self, sigma: Sigma) -> PerSample:
        """(F(sigma) - F(low)) / (F(high) - F(low)), within [0, 1]."""
        below, upto = self._ends()
        return ((self.distribution.cdf(sigma) - below) / (upto - below)).clamp(0, 1)

    def _ends(self) -> tuple[float, float]:
        below, upto = self.distribution.cdf(torch.tensor([self.low, self.high], dtype=torch.float64)).tolist()
        return below, upto


def share_outside(distribution: NoiseDistribution, low: float, high: float) -> float:
    """P(level < low or level > high), where a relative difference of `ROUNDING` from an end is none."""
    ends = torch.tensor([low * (1 - ROUNDING), high * (1 + ROUNDING)], dtype=torch.float64)
    below, upto = distribution.cdf(ends).tolist()
    return min(1.0, max(0.0, below + 1 - upto))


def kept_inside(distribution: NoiseDistribution, low: float, high: float) -> Truncated:
    """`distribution` conditioned on a level in (low, high]; a truncation is narrowed, not truncated again.

    Raises `ValueError` if it has no level there.
    """
    if isinstance(distribution, Truncated):
        inner, low, high = distribution.distribution, max(low, distribution.low), min(high, distribution.high)
        require(low < high, "noise distribution", distribution, f"one with levels up to {high:g}")
        return Truncated(inner, low, high)
    return Truncated(distribution, low, high)


DISTRIBUTIONS = (LogNormal, Karras, DiscreteVP, Clamped, Truncated)
"""Noise distributions that settings can name without their module."""


def _uniform(n: int, rng: torch.Generator) -> PerSample:
    """Uniform numbers in (0, 1): torch's may be 0, whose quantile need not be a noise level."""
    return torch.rand(n, generator=rng, dtype=torch.float64).clamp(min=2**-54)


def _quantile_of(table: Tensor, u: PerSample) -> Sigma:
    n = len(table)
    k = torch.ceil(u.double() * n - 1e-9).long().clamp(1, n)  # 1e-9: (k/n) n must not round above k
    return table.to(u)[k - 1]


def _cdf_of(table: Tensor, sigma: Sigma) -> PerSample:
    at_most = torch.searchsorted(table.to(sigma), sigma, right=True)
    return at_most.to(sigma.dtype) / len(table)
