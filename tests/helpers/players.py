"""Gaussian players, whose denoisers are exact, so that no network has to be trusted, and quadrature over their noise.

The generator is g(z) = mean + factor z, of law p_θ = N(mean, factor factorᵀ), θ = (mean, factor); the online network
is the exact denoiser of that law with its own, frozen copy of θ.
"""

import itertools
import math

import numpy as np
import pytest
import torch
from torch import nn

from docs.distillation import Distillation
from simdistill.method.denoisers import GaussianMixture
from simdistill.method.distances import Huber
from simdistill.method.generator import Generator
from simdistill.method.weightings import EDM, Uniform

each_sigma = pytest.mark.parametrize("sigma", [0.1, 0.7, 3.0])


def tensor(values):
    return torch.tensor(values, dtype=torch.float64)


# --- The players ------------------------------------------------------------------------------------------------------


class Affine(nn.Module):
    """mean + factor z, as the denoiser that a `Generator` asks once; with a leading batch axis, one θ a sample."""

    def __init__(self, mean, factor):
        super().__init__()
        self.mean, self.factor = nn.Parameter(mean.clone()), nn.Parameter(factor.clone())

    def forward(self, x_t, sigma, condition=None):
        z = x_t / sigma[:, None]
        return self.mean + (self.factor @ z[..., None])[..., 0]


class Gaussian(Affine):
    """The exact denoiser of N(mean, C), C = factor factorᵀ: d(x, sigma) = x - sigma² (C + sigma² I)⁻¹ (x - mean)."""

    def forward(self, x_t, sigma, condition=None):
        return x_t + self.residual(x_t, sigma)

    def residual(self, x_t, sigma, condition=None):
        square = sigma[:, None, None] ** 2
        covariance = self.factor @ self.factor.mT + square * torch.eye(x_t.shape[1], dtype=x_t.dtype)
        return -(square * torch.linalg.solve(covariance, (x_t - self.mean)[..., None]))[..., 0]


def players(mean, factor, teacher, objective, per_sample=0):
    """A `Distillation` at θ = (mean, factor); with `per_sample` = n the generator has one copy of θ for each of n."""
    copies = (mean, factor) if per_sample == 0 else (mean.repeat(per_sample, 1), factor.repeat(per_sample, 1, 1))
    return Distillation(
        teacher=teacher,
        online=Gaussian(mean, factor),
        generator=Generator(Affine(*copies), levels=(2.5,)),
        objective=objective,
        online_weighting=EDM(),
        generator_weighting=Uniform(),
    )


MEAN, SCALE = tensor([0.4]), tensor([[0.8]])
GAUSSIAN = GaussianMixture(means=tensor([[-0.3]]), covariances=tensor([[[1.69]]]))
MIXTURE = GaussianMixture(tensor([[-1.0], [1.5]]), tensor([[[1.2]], [[0.9]]]), weights=tensor([1.0, 2.0]))

MEAN_3D = tensor([0.4, -0.2, 0.3])
FACTOR_3D = tensor([[0.9, 0.2, -0.1], [-0.3, 0.7, 0.2], [0.1, -0.4, 1.1]])
TEACHER_MEAN_3D = tensor([-0.2, 0.5, 0.1])
TEACHER_COVARIANCE_3D = tensor([[1.5, 0.4, -0.3], [0.4, 0.8, 0.1], [-0.3, 0.1, 1.1]])
GAUSSIAN_3D = GaussianMixture(TEACHER_MEAN_3D[None], TEACHER_COVARIANCE_3D[None])


def marginal(mean, covariance, sigma):
    """The law of x_t = x_0 + sigma eps."""
    noise = sigma**2 * torch.eye(len(mean), dtype=torch.float64)
    return torch.distributions.MultivariateNormal(mean, covariance + noise)


# --- Quadrature under the standard normal law: nodes [n, dim] and weights [n] that sum to 1 ---------------------------


def hermite(count, dim):
    """The tensor product of Gauss–Hermite rules: exact for polynomials of degree 2 count - 1 in each coordinate."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(count)
    grid = torch.cartesian_prod(*[tensor(nodes)] * dim).reshape(-1, dim)
    product = torch.cartesian_prod(*[tensor(weights) / math.sqrt(2 * math.pi)] * dim).reshape(-1, dim).prod(1)
    return grid, product


def split_at(breaks):
    """A rule for integrands that are analytic between `breaks` only: tanh-sinh (Takahasi & Mori 1974) on each piece.

    Its nodes crowd double exponentially at both ends, so that roots and inverse roots there cost no accuracy.
    """
    t = torch.arange(-100, 101, dtype=torch.float64) / 32
    argument = math.pi / 2 * t.sinh()
    nodes, weights = argument.tanh(), math.pi / 64 * t.cosh() / argument.cosh() ** 2
    pieces = list(itertools.pairwise([-10.0, *sorted(b for b in breaks if -10 < b < 10), 10.0]))
    u = torch.cat([(a + b) / 2 + (b - a) / 2 * nodes for a, b in pieces])
    density = torch.exp(-(u**2) / 2) / math.sqrt(2 * math.pi)
    return u, density * torch.cat([(b - a) / 2 * weights for a, b in pieces])


def noisy_std(sigma):
    return math.hypot(SCALE.item(), sigma)


def kinks(distance, sigma):
    """Where y passes a kink of `distance`, as u = (x_t - mean) / std(x_t); with a Gaussian teacher y is linear in u."""
    x_t = (MEAN + noisy_std(sigma) * tensor([0.0, 1.0]))[:, None]
    at = torch.full((2,), sigma, dtype=torch.float64)
    y = (Gaussian(MEAN, SCALE).residual(x_t, at) - GAUSSIAN.residual(x_t, at))[:, 0]
    values = tensor([-distance.delta, 0, distance.delta] if isinstance(distance, Huber) else [0])
    return ((values - y[0]) / (y[1] - y[0])).tolist()


def rotated(distance, sigma):
    """A rule over (z, eps) for distances with kinks in y.

    y depends on x_t alone, that is on u = (scale z + sigma eps) / std(x_t); along the orthogonal direction v the loss
    and its gradient are quadratic polynomials, for which three Gauss–Hermite nodes are exact.
    """
    return turned(*split_at(kinks(distance, sigma)), sigma)


def turned(u, weight_u, sigma):
    """The rule over (z, eps) that a rule over u and three Gauss–Hermite nodes in v make."""
    v, weight_v = hermite(3, 1)
    u, v = u[:, None], v[:, 0]
    scale, std = SCALE.item(), noisy_std(sigma)
    nodes = torch.stack([(scale * u - sigma * v) / std, (sigma * u + scale * v) / std], -1)
    return nodes.reshape(-1, 2), (weight_u[:, None] * weight_v).flatten()


def loss_gradient(distillation, sigma, nodes, weights):
    """∂/∂(mean, scale) of E generator_loss, by the rule over (z, eps)."""
    dim = nodes.shape[1] // 2
    level = torch.full((len(nodes),), sigma, dtype=torch.float64)
    loss, _ = distillation.generator_loss(nodes[:, :dim], level, nodes[:, dim:])
    parameters = list(distillation.generator.parameters())
    gradients = torch.autograd.grad((weights * loss).sum(), parameters)
    return torch.cat([g.flatten() for g in gradients])


def largest_relative_error(gradient, exact):
    return ((gradient - exact).abs() / exact.abs()).max().item()
