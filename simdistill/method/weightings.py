"""Weightings w(sigma) of the two losses, both in denoiser space, by the noise level and a detached error."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch

from simdistill.method.noise import DiscreteVP
from simdistill.method.shapes import Data, PerSample, Sigma
from simdistill.support.checks import require


@runtime_checkable
class Weighting(Protocol):
    """A loss weight, by noise level and error."""

    def __call__(self, sigma: Sigma, error: Data) -> PerSample:
        """w(sigma), shape `[batch]`; no gradient flows through `error`, a denoiser's output minus x_0."""
        ...


@dataclass(frozen=True)
class Uniform:
    """w = 1: SIM's choice for the generator [Table 5], and both weights of B.3."""

    def __call__(self, sigma: Sigma, error: Data) -> PerSample:
        """w(sigma), shape `[batch]`; `error` is not used."""
        return torch.ones_like(sigma)


@dataclass(frozen=True)
class EDM:
    """w = (sigma² + sigma_data²) / (sigma sigma_data)² [B.7]: the initial loss is of order one at every level."""

    sigma_data: float = 0.5

    def __post_init__(self) -> None:
        require(self.sigma_data > 0, "sigma_data", self.sigma_data, "positive")

    def __call__(self, sigma: Sigma, error: Data) -> PerSample:
        """w(sigma), shape `[batch]`; `error` is not used."""
        return 1 / sigma**2 + 1 / self.sigma_data**2


@dataclass(frozen=True)
class InverseError:
    """w = C / ‖error‖₁, C the number of dimensions, error = d_q(x_t) - x_0: SiD's weight [B.11].

    In score space it has a factor sigma⁴, which cancels here. The mean error is clamped to at least 1e-5, as in SiD.
    It is also DMD's (Yin et al. 2024, Algorithm 2): sigma² C / ‖error‖₁ on s_psi - s_q. Because it depends on x_0, not
    only on sigma, the gradient is no longer that of a sum of divergences over levels; y = 0 still solves it.
    """

    def __call__(self, sigma: Sigma, error: Data) -> PerSample:
        """1 / mean|error| per sample, shape `[batch]`; no gradient flows through it."""
        return 1 / error.detach().abs().flatten(1).mean(1).clamp(min=1e-5)


@dataclass(frozen=True)
class VPScore:
    """w = T g(t)² ‖s + eps/sigma_t‖² written for a denoiser's squared error: the online weight of Listing 1.

    With g(t)² = beta_t, 1/a_t = 1 + sigma² and s + eps/sigma_t = (d - x_0) / (√a_t sigma²) this is
    w = T beta_t (1 + sigma²) / sigma⁴. A level between two of `times` takes the beta of the upper one.
    """

    times: DiscreteVP = DiscreteVP()  # noqa: RUF009  (frozen)

    def __call__(self, sigma: Sigma, error: Data) -> PerSample:
        """w(sigma), shape `[batch]`; `error` is not used."""
        table = self.times.table().to(sigma.device, sigma.dtype)
        upper = torch.searchsorted(table, sigma * (1 - 1e-6)).clamp(max=len(table) - 1)
        beta = self.times.betas().to(sigma.device, sigma.dtype)[upper]
        return self.times.steps * beta * (1 + sigma**2) / sigma**4


WEIGHTINGS = (Uniform, EDM, InverseError, VPScore)
"""Weightings that settings can name without their module."""
