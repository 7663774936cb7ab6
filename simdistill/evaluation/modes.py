"""How samples spread over the modes of a known mixture, which no distance between two sets measures."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from simdistill.evaluation.metrics import Features
from simdistill.method.denoisers import GaussianMixture
from simdistill.support.checks import require

REACH = 4.0
"""The radius of a mode in standard deviations: in two dimensions it holds all but 0.034 % of the mode's samples."""
FOUND = 0.1
"""The share of its weight that a mode needs to count as found."""
_BLOCK = 4096  # samples whose distances to all modes are in memory at a time


@dataclass(frozen=True)
class Modes:
    """How samples spread over the components of a mixture, its modes."""

    masses: Float[Tensor, " components"]
    """The share of the samples that belongs to each mode, float64; they sum to one."""
    weights: Float[Tensor, " components"]
    """The exact masses."""
    near: Float[Tensor, " components"]
    """The part of `masses` from samples within 4σ of a mode."""

    @property
    def within(self) -> float:
        """The share of the samples that are within 4σ of a mode."""
        return float(self.near.sum())

    @property
    def found(self) -> int:
        """Modes with at least a tenth of their weight in samples within 4σ."""
        return int((self.near >= FOUND * self.weights).sum())

    @property
    def deviation(self) -> float:
        """max_k |mass_k / weight_k - 1|, the largest relative deviation of a mode's mass.

        For n independent samples the sampling error of a mass is √(weight (1 - weight) / n): for a weight of 1/25,
        0.7 % of it from 500,000 samples and 11 % from 2,000.
        """
        return float((self.masses / self.weights - 1).abs().max())


def modes(samples: Features, mixture: GaussianMixture) -> Modes:
    """How the samples `[n, dim]` spread over the components of `mixture`.

    A sample belongs to mode k with the probability r_k(x) = w_k N(x; m_k, C_k) / Σ_j w_j N(x; m_j, C_j), whose mean
    over the mixture's own samples is w_k, even if the components overlap. It is within 4σ of mode k if
    (x - m_k)ᵀ C_k⁻¹ (x - m_k) <= 16.

    Raises `ValueError` for other dimensions, or a value that is not finite.
    """
    (dim,) = mixture.shape
    require(samples.shape[1:] == (dim,), "samples.shape", list(samples.shape), f"[n, {dim}], as the mixture's")
    require(bool(samples.isfinite().all()), "samples", "not finite", "finite: the generator diverged")
    whitening = torch.linalg.inv(torch.linalg.cholesky(mixture.covariances.double()))
    log_weights = mixture.weights.double().log() + whitening.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    masses, near = torch.zeros(2, len(mixture.means), dtype=torch.float64)
    for x in samples.double().split(_BLOCK):
        offset = x[:, None] - mixture.means.double()
        squares = (whitening * offset[..., None, :]).sum(-1).square().sum(-1)
        shares = (log_weights - squares / 2).softmax(1)
        masses += shares.sum(0)
        near += shares[squares.min(1).values <= REACH**2].sum(0)
    return Modes(masses / len(samples), mixture.weights.double(), near / len(samples))
