"""Two-dimensional densities with exact denoisers: teachers that need no training.

All are mixtures of isotropic Gaussians. Where the components approximate a continuous shape, their standard deviation
is half the distance between neighbours, so that the density ripples by 1.5 % along the shape.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from simdistill.method.denoisers import GaussianMixture


def gaussians_25() -> GaussianMixture:
    """25 equal Gaussians of standard deviation 0.05 on the grid {-2, …, 2}²; variance 2.0025 per coordinate."""
    axis = torch.arange(-2.0, 3.0)
    return _equal(torch.cartesian_prod(axis, axis), 0.05)


def gaussians_8() -> GaussianMixture:
    """8 equal Gaussians of standard deviation 0.05 on the circle of radius 2; variance 2.0025 per coordinate."""
    return _equal(_circle(2.0, 8), 0.05)


def rings() -> GaussianMixture:
    """Two rings of radius 1 and 2 and thickness 0.1, equally dense along their length: 32 and 64 components."""
    return _equal(torch.cat([_circle(1.0, 32), _circle(2.0, 64)]), 0.1)


def checkerboard() -> GaussianMixture:
    """The 8 dark squares of a 4×4 board on [-2, 2]², each of 4×4 components (128) of standard deviation 0.125."""
    axis = torch.arange(-2.0, 2.0, 0.25) + 0.125
    centres = torch.cartesian_prod(axis, axis)
    dark = centres.floor().sum(1) % 2 == 0
    return _equal(centres[dark], 0.125)


DENSITIES: dict[str, Callable[[], GaussianMixture]] = {
    "gaussians-25": gaussians_25,
    "gaussians-8": gaussians_8,
    "rings": rings,
    "checkerboard": checkerboard,
}
"""The densities by name; each name is also a teacher's."""


def _circle(radius: float, n: int) -> Tensor:
    """`n` equally spaced points on a circle around the origin, `[n, 2]`."""
    angle = torch.arange(n) * (2 * math.pi / n)
    return radius * torch.stack([angle.cos(), angle.sin()], 1)


def _equal(means: Tensor, std: float) -> GaussianMixture:
    """Equally probable isotropic Gaussians around `means`."""
    return GaussianMixture(means, std**2 * torch.eye(2)[None])
