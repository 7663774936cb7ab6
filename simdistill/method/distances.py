"""Table 4: the distances d(y) of the score difference that Score Implicit Matching can minimise.

Each row is a frozen dataclass with `value(y)`, the number d(y) per sample, and `gradient(y)`, the vector d'(y) that
enters the loss -d'(y)·(d_psi - x_0). All take `y = d_psi - d_q` of shape `[batch, …]`, flattened per sample, and
satisfy d(y) >= 0, d(0) = 0 and d'(0) = 0. To add your own, write such a dataclass anywhere: docs/extending.md.
"""

import math
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from simdistill.method.shapes import Data, PerSample, dot, like
from simdistill.support.checks import require


@runtime_checkable
class Distance(Protocol):
    """A distance d(y) of the score difference, and its gradient d'(y)."""

    def value(self, y: Data) -> PerSample:
        """d(y), shape `[batch]`."""
        ...

    def gradient(self, y: Data) -> Data:
        """d'(y), the shape of `y`."""
        ...


@dataclass(frozen=True)
class SquaredL2:
    """d(y) = ‖y‖₂², d'(y) = 2y: SIM is then twice SiD at alpha = 1 [Table 4, row 1]."""

    def value(self, y: Data) -> PerSample:
        """d(y), shape `[batch]`."""
        return dot(y, y)

    def gradient(self, y: Data) -> Data:
        """d'(y), the shape of `y`."""
        return 2 * y


@dataclass(frozen=True)
class PoweredL2:
    """d(y) = ‖y‖₂^alpha, d'(y) = alpha ‖y‖₂^(alpha-2) y, and 0 at y = 0 [Table 4, row 2].

    At alpha = 1 the gradient has length one at every noise level: the limit c → 0 of the pseudo-Huber distance. In one
    dimension that is L1, with its jump at 0.
    """

    alpha: float = 1.0

    def __post_init__(self) -> None:
        require(self.alpha >= 1, "alpha", self.alpha, "at least 1, for a bounded slope at y = 0")

    def value(self, y: Data) -> PerSample:
        """d(y), shape `[batch]`."""
        return _power(_norm(y), self.alpha)

    def gradient(self, y: Data) -> Data:
        """d'(y), the shape of `y`."""
        return self.alpha * like(_power(_norm(y), self.alpha - 2), y) * y


@dataclass(frozen=True)
class Exponential:
    """d(y) = exp(beta ‖y‖₂^alpha) - 1, d'(y) = alpha beta exp(beta ‖y‖₂^alpha) ‖y‖₂^(alpha-2) y [Table 4, row 3].

    The printed table omits the factor beta. Beyond an exponent of 30 the exponential continues as its tangent, so that
    neither d nor d' overflows in float32 and d' stays the derivative of d. At alpha = 1, in one dimension, it has the
    jump of L1.
    """

    beta: float = 1.0
    alpha: float = 1.0

    def __post_init__(self) -> None:
        require(self.beta > 0, "beta", self.beta, "positive")
        require(self.alpha >= 1, "alpha", self.alpha, "at least 1, for a bounded slope at y = 0")

    def value(self, y: Data) -> PerSample:
        """d(y), shape `[batch]`."""
        exponent = self.beta * _power(_norm(y), self.alpha)
        beyond = (exponent - _LARGEST_EXPONENT).clamp(min=0)
        return torch.expm1(exponent.clamp(max=_LARGEST_EXPONENT)) + math.exp(_LARGEST_EXPONENT) * beyond

    def gradient(self, y: Data) -> Data:
        """d'(y), the shape of `y`."""
        norm = _norm(y)
        slope = torch.exp((self.beta * _power(norm, self.alpha)).clamp(max=_LARGEST_EXPONENT))
        return self.alpha * self.beta * like(slope * _power(norm, self.alpha - 2), y) * y


@dataclass(frozen=True)
class L1:
    """d(y) = ‖y‖₁, d'(y) = sign(y) [Table 4, row 4].

    d' jumps at 0, so autograd of the SIM loss misses the term that the jump contributes through y(θ): Theorem 3.1
    holds only if no coordinate of y changes sign within the noise. If this matters, use `Huber` with a small delta.
    """

    def value(self, y: Data) -> PerSample:
        """d(y), shape `[batch]`."""
        return y.abs().flatten(1).sum(1)

    def gradient(self, y: Data) -> Data:
        """d'(y), the shape of `y`."""
        return y.sign()


@dataclass(frozen=True)
class Huber:
    """d(y) = Σ_i L_delta(y_i), d'(y) = clip(y, -delta, delta) [Table 4, row 5].

    L_delta(v) = v²/2 if |v| <= delta, else delta (|v| - delta/2) (Huber 1964).
    """

    delta: float = 0.1

    def __post_init__(self) -> None:
        require(self.delta > 0, "delta", self.delta, "positive")

    def value(self, y: Data) -> PerSample:
        """d(y), shape `[batch]`."""
        clipped = y.clamp(-self.delta, self.delta)
        return (clipped * (y - clipped / 2)).flatten(1).sum(1)

    def gradient(self, y: Data) -> Data:
        """d'(y), the shape of `y`."""
        return y.clamp(-self.delta, self.delta)


@dataclass(frozen=True)
class PseudoHuber:
    """d(y) = √(‖y‖₂² + c²) - c, d'(y) = y / √(‖y‖₂² + c²) [Table 4, row 6]: the paper's choice.

    The printed table has a factor 2 that the derivative does not have. The appendix does not give c: the length of y
    (in units of the data) beyond which samples are normalised rather than weighted by their error.
    """

    c: float = 0.03

    def __post_init__(self) -> None:
        require(self.c > 0, "c", self.c, "positive; for the limit c = 0 use PoweredL2(alpha=1)")

    def value(self, y: Data) -> PerSample:
        """d(y), shape `[batch]`; as ‖y‖²/(√(‖y‖² + c²) + c), which avoids cancellation for ‖y‖ far below c."""
        square = dot(y, y)
        return square / (torch.sqrt(square + self.c**2) + self.c)

    def gradient(self, y: Data) -> Data:
        """d'(y), the shape of `y`."""
        return y / like(torch.sqrt(dot(y, y) + self.c**2), y)


DISTANCES = (SquaredL2, PoweredL2, Exponential, L1, Huber, PseudoHuber)
"""Distances that settings can name without their module."""

_LARGEST_EXPONENT = 30.0


def _norm(y: Data) -> PerSample:
    """‖y‖₂ per sample, with gradient 0 (not NaN) at y = 0."""
    return torch.linalg.vector_norm(y.flatten(1), dim=1)


def _power(norm: Tensor, exponent: float) -> Tensor:
    """norm^exponent; 0 with gradient 0 at norm = 0, where a negative power would be infinite."""
    positive = norm > 0
    return torch.where(positive, torch.where(positive, norm, 1.0) ** exponent, 0.0)
