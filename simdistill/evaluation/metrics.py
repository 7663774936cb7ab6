"""How far generated samples are from a reference set: distances between two sets of features, all in float64.

A feature is a row of a `[samples, dimensions]` tensor: an Inception activation, or the sample itself where it is a
short vector. With Inception features `frechet_distance` is the FID and `kernel_distance` the KID. Both sets must come
from the same feature extractor; their sizes may differ. Pairs are computed in blocks, so 50 000 x 50 000 of them fit.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from simdistill.support.checks import require

Features: TypeAlias = Float[Tensor, "samples dimensions"]
# Anonymous axes: for unequal dimensions, a user's mistake, the ValueError below is clearer than a shape checker.
Reference: TypeAlias = Float[Tensor, "_ _"]

_BLOCK = 2**22
"""Pairs in memory at a time: 32 MiB in float64."""
_ONE_EXTRACTOR = "use the same feature extractor for both sets"


@dataclass(frozen=True)
class Moments:
    """Mean and covariance of a set, all that `frechet_distance` needs; computed only once for a reference."""

    mean: Float[Tensor, " dimensions"]
    covariance: Float[Tensor, "dimensions dimensions"]

    @cached_property
    def factor(self) -> Float[Tensor, "dimensions rank"]:
        """F with F Fᵀ the covariance, float64; eigenvalues that are 0 up to rounding are dropped."""
        values, vectors = torch.linalg.eigh(self.covariance.double())
        significant = values > len(values) * torch.finfo(values.dtype).eps * values[-1]
        return vectors[:, significant] * values[significant].sqrt()

    @classmethod
    def of(cls, features: Features) -> "Moments":
        """The sample mean and the unbiased covariance (divided by samples - 1), float64.

        Raises `ValueError` for fewer than 2 samples or a value that is not finite.
        """
        x = _float64("features", features)
        centred = x - x.mean(0)
        return cls(x.mean(0), centred.T @ centred / (len(x) - 1))


def frechet_distance(moments: Moments, reference: Moments) -> float:
    """‖μ₁ - μ₂‖² + tr(Σ₁ + Σ₂ - 2 (Σ₁Σ₂)^½), the FID (Heusel et al. 2017), in squared units of the features.

    With factors Σ = F Fᵀ the last trace is the nuclear norm ‖F₁ᵀF₂‖_*, which is stable for singular covariances (fewer
    samples than dimensions), where the matrix root of Σ₁Σ₂ is not. The estimate from samples is biased upwards
    by a term of order 1/samples: only compare values of equal sample sizes.

    Raises `ValueError` for different dimensions.
    """
    d = len(reference.mean)
    require(len(moments.mean) == d, "len(moments.mean)", len(moments.mean), f"{d}, as in reference: {_ONE_EXTRACTOR}")
    shift = (moments.mean.double() - reference.mean.double()).square().sum()
    spread = moments.factor.square().sum() + reference.factor.square().sum()
    overlap = torch.linalg.svdvals(moments.factor.T @ reference.factor).sum()
    return max(0.0, float(shift + spread - 2 * overlap))


def kernel_distance(features: Features, reference: Reference) -> float:
    """Unbiased squared MMD with the kernel k(x, y) = (x·y / dimensions + 1)³, the KID (Bińkowski et al. 2018).

    mean_{i≠j} k(x_i, x_j) + mean_{i≠j} k(y_i, y_j) - 2 mean_{i,j} k(x_i, y_j), over the full sets: the customary mean
    over random subsets has the same expectation, but a larger variance and a seed. Being unbiased, it may be negative,
    and is for two copies of one set. Tables often show it times 1000.

    Raises `ValueError` for different dimensions, fewer than 2 samples, or a value that is not finite.
    """
    x, y = _pair("features", features, reference)
    between = _kernel_sum(x, y) / (len(x) * len(y))
    return _kernel_mean_of_distinct(x) + _kernel_mean_of_distinct(y) - 2 * between


@dataclass(frozen=True)
class PrecisionRecall:
    """Shares in [0, 1], except `density`, which exceeds 1 if samples concentrate where the reference is dense."""

    precision: float
    """Samples inside the ball of some reference (Kynkäänniemi et al. 2019)."""
    recall: float
    """References inside the ball of some sample (Kynkäänniemi et al. 2019)."""
    density: float
    """The mean number of reference balls around a sample, divided by k (Naeem et al. 2020)."""
    coverage: float
    """References whose ball contains some sample (Naeem et al. 2020)."""


def precision_recall(
    features: Features, reference: Reference, k: int = 3, radii: Float[Tensor, " _"] | None = None
) -> PrecisionRecall:
    """Fidelity (precision, density) and diversity (recall, coverage) by k-nearest-neighbour balls.

    The ball of a point is closed; its radius is the distance to the k-th nearest other point of its own set.
    k = 3 is Kynkäänniemi's choice; Naeem et al. take 5. The `radii` of the reference's balls can be passed if they are
    known from `ball_radii`.

    Raises `ValueError` for different dimensions, k < 1, at most k or fewer than 2 samples, or a value not finite.
    """
    x, y = _pair("features", features, reference)
    most = min(len(x), len(y)) - 1
    require(1 <= k <= most, "k", k, f"from 1 to {most}, below the size of either set: lower it or draw more samples")
    reference_radii, radii = ball_radii(y, k) if radii is None else radii, ball_radii(x, k)
    balls, reference_balls = _balls_around(y, x, radii), _balls_around(x, y, reference_radii)
    covered = _nearest(y, x, 1) <= reference_radii
    return PrecisionRecall(
        precision=float((reference_balls > 0).double().mean()),
        recall=float((balls > 0).double().mean()),
        density=float(reference_balls.mean() / k),
        coverage=float(covered.double().mean()),
    )


def ball_radii(features: Features, k: int = 3) -> Float[Tensor, " samples"]:
    """The distance of each point to its k-th nearest neighbour in its own set, float64."""
    x = features.double()
    return _nearest(x, x, k + 1)  # the nearest of all is the point itself


def energy_distance(samples: Features, reference: Reference, within: float | None = None) -> float:
    """2 E‖X - Y‖ - E‖X - X'‖ - E‖Y - Y'‖ (Székely & Rizzo 2013), in the unit of the samples; no root is taken.

    The means run over all pairs, i = j included (the V-statistic, as in the paper): the distance of the two empirical
    distributions, which is never negative and 0 for equal sets. For two sets of n samples of one distribution
    it is 2 E‖X - X'‖ / n in expectation, not 0: only compare values of equal sample sizes. `within` is the last mean,
    if it is known from `mean_distance`.

    Raises `ValueError` for different dimensions, fewer than 2 samples, or a value that is not finite.
    """
    x, y = _pair("samples", samples, reference)
    within = mean_distance(y) if within is None else within
    return max(0.0, 2 * _mean_distance(x, y) - _mean_distance(x, x) - within)


def mean_distance(features: Features) -> float:
    """The mean distance of all pairs within a set, i = j included."""
    x = features.double()
    return _mean_distance(x, x)


def sliced_wasserstein(samples: Features, reference: Reference, projections: int = 512, seed: int = 0) -> float:
    """√(mean over directions θ of W₂²(θ·X, θ·Y)) (Bonneel et al. 2015), in the unit of the samples.

    W₂² on the line is ∫₀¹ (Q_X(u) - Q_Y(u))² du, exact for the two empirical quantile functions whatever the sizes.
    The `projections` directions are uniform on the sphere: normalised Gaussians of `seed`, the same on any device.

    Raises `ValueError` for different dimensions, fewer than 2 samples, projections < 1, or a value that is not finite.
    """
    require(projections >= 1, "projections", projections, "at least 1")
    x, y = _pair("samples", samples, reference)
    n, m = len(x), len(y)
    # Q_X jumps at multiples of 1/n and Q_Y at those of 1/m: counted in units of 1/(n m), where they are exact
    jumps = torch.cat([m * torch.arange(1, n + 1), n * torch.arange(1, m + 1)]).unique().to(x.device)
    widths = jumps.diff(prepend=jumps.new_zeros(1)).double() / (n * m)
    rng = torch.Generator().manual_seed(seed)
    directions = torch.randn(projections, x.shape[1], generator=rng, dtype=torch.float64).to(x.device)
    directions = directions / directions.norm(dim=1, keepdim=True)
    squares = torch.zeros((), dtype=torch.float64, device=x.device)
    for theta in directions.split(max(1, _BLOCK // (n + m))):
        x_quantiles = (x @ theta.T).sort(0).values[(jumps - 1) // m]
        y_quantiles = (y @ theta.T).sort(0).values[(jumps - 1) // n]
        squares += (widths @ (x_quantiles - y_quantiles).square()).sum()
    return float(squares / projections) ** 0.5


def _pair(name: str, features: Tensor, reference: Tensor) -> tuple[Tensor, Tensor]:
    d = reference.shape[1]
    require(features.shape[1] == d, f"{name}.shape[1]", features.shape[1], f"{d}, as in reference: {_ONE_EXTRACTOR}")
    return _float64(name, features), _float64("reference", reference)


def _float64(name: str, features: Tensor) -> Tensor:
    require(len(features) >= 2, f"len({name})", len(features), "at least 2: draw more samples")
    bad = int((~features.isfinite()).sum())
    require(bad == 0, f"non-finite values in {name}", bad, "0: the generator or the feature extractor diverged")
    return features.double()


def _blocks(x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
    """The rows of x in blocks that form at most `_BLOCK` pairs with all of y."""
    return x.split(max(1, _BLOCK // len(y)))


def _kernel_sum(x: Tensor, y: Tensor) -> float:
    return sum(float((rows @ y.T / x.shape[1] + 1).pow(3).sum()) for rows in _blocks(x, y))


def _kernel_mean_of_distinct(x: Tensor) -> float:
    diagonal = (x.square().mean(1) + 1).pow(3).sum()
    return (_kernel_sum(x, x) - float(diagonal)) / (len(x) * (len(x) - 1))


def _distances(x: Tensor, y: Tensor) -> Iterator[Tensor]:
    """‖x_i - y_j‖ for some rows x_i at a time and every y_j."""
    x, y = x - y[0], y - y[0]  # an origin among the data: cdist takes ‖x‖² + ‖y‖² - 2 x·y, which cancels far from it
    return (torch.cdist(rows, y) for rows in _blocks(x, y))


def _mean_distance(x: Tensor, y: Tensor) -> float:
    return sum(float(block.sum()) for block in _distances(x, y)) / (len(x) * len(y))


def _each(x: Tensor, y: Tensor, summary: Callable[[Tensor], Tensor]) -> Tensor:
    """For every x_i a summary of its distances to all of y, `[len(x)]`."""
    result = x.new_empty(len(x))  # filled in place: small tensors kept between the large ones would fragment the heap
    for part, block in zip(_blocks(result, y), _distances(x, y), strict=True):
        part.copy_(summary(block))
    return result


def _nearest(x: Tensor, y: Tensor, k: int) -> Tensor:
    """The distance from every x_i to its k-th nearest y_j, `[len(x)]`."""
    return _each(x, y, lambda block: block.topk(k, largest=False).values[:, -1])


def _balls_around(x: Tensor, centres: Tensor, radii: Tensor) -> Tensor:
    """The number of balls that contain x_i, `[len(x)]`."""
    return _each(x, centres, lambda block: (block <= radii).sum(1))
