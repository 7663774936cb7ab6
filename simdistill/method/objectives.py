"""The generator's objectives: one number per sample, from x_0 and the differences y = d_psi - d_q and d_psi - x_0.

Gradients flow through x_0 and, by way of x_t, through both differences; only the parameters of d_psi and d_q are
frozen. The arguments are the differences rather than d_psi and d_q, because subtracting two denoised images loses
float32's precision at small noise (see `denoisers`). To add your own, write such a dataclass anywhere:
docs/extending.md.
"""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from simdistill.method.distances import Distance, PseudoHuber
from simdistill.method.shapes import Data, PerSample, dot
from simdistill.support.checks import require


@runtime_checkable
class Objective(Protocol):
    """The function that the generator minimises."""

    def __call__(self, x_0: Data, y: Data, error: Data) -> PerSample:
        """The loss per sample, `[batch]`; `y` = d_psi - d_q and `error` = d_psi - x_0, in the shape of `x_0`."""
        ...


@dataclass(frozen=True)
class ScoreImplicitMatching:
    """L = -d'(y)·(d_psi - x_0), whose gradient is that of E d(y) with the sampling distribution detached [3.1].

    Algorithm 2 prints it without the minus; only this sign, which is Listing 1's, descends. The value of the loss
    does not show convergence: monitor ‖y‖.
    """

    distance: Distance = PseudoHuber()  # noqa: RUF009  (frozen)

    def __call__(self, x_0: Data, y: Data, error: Data) -> PerSample:
        """The loss per sample, `[batch]`; `y` = d_psi - d_q and `error` = d_psi - x_0, in the shape of `x_0`."""
        return -dot(self.distance.gradient(y), error)


@dataclass(frozen=True)
class ScoreIdentity:
    """L = -y·(d_psi - x_0) + (1 - alpha) ‖y‖², SiD (Zhou et al. 2024); at alpha = 1 half of SIM with squared L2.

    With an exact online network, the first term gives half the gradient of E ‖y‖² with the sampling distribution
    detached, and the second adds 1 - alpha times its gradient through the sampling distribution alone: alpha = 1/2 is
    half of E ‖y‖² itself. The authors use alpha = 1 and 1.2. Above 1 the estimate subtracts more than the bias of an
    online network that lags behind the generator; with an exact one it can move the generator away from the teacher.
    """

    alpha: float = 1.2

    def __post_init__(self) -> None:
        require(0 <= self.alpha <= 2, "alpha", self.alpha, "in 0 … 2; SiD uses 1.0 or 1.2")

    def __call__(self, x_0: Data, y: Data, error: Data) -> PerSample:
        """The loss per sample, `[batch]`; arguments as in `ScoreImplicitMatching`."""
        return -dot(y, error) + (1 - self.alpha) * dot(y, y)


@dataclass(frozen=True)
class DiffInstruct:
    """L = sg(y)·x_0, whose gradient is E w (d_psi - d_q) ∂x_t/∂θ (Luo et al. 2023): the integral KL divergence.

    With y = sigma² (s_psi - s_q), the weight w = 1 here is sigma² on the KL divergence at level sigma. With the
    weighting `InverseError` it is DMD's distribution matching (Yin et al. 2024). It is also f-distill's reverse KL (Xu
    et al. 2025), the one f-divergence that needs no density ratio and hence no discriminator.
    """

    def __call__(self, x_0: Data, y: Data, error: Data) -> PerSample:
        """The loss per sample, `[batch]`; arguments as in `ScoreImplicitMatching`."""
        return dot(y.detach(), x_0)


OBJECTIVES = (ScoreImplicitMatching, ScoreIdentity, DiffInstruct)
"""Objectives that settings can name without their module."""
