"""Two-dimensional densities with exact denoisers: teachers that need no training."""

import torch

from simdistill.denoisers import GaussianMixture


def gaussians_25() -> GaussianMixture:
    """25 equal Gaussians of standard deviation 0.05 on the grid {-2, …, 2}²; variance 2.0025 a coordinate."""
    axis = torch.arange(-2.0, 3.0)
    means = torch.cartesian_prod(axis, axis)
    return GaussianMixture(means, (0.05**2 * torch.eye(2)).expand(25, 2, 2))
