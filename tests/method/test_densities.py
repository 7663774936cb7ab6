"""The densities in two dimensions, as mixtures: their weights, moments, and denoisers."""

import math

import numpy as np
import pytest
import torch

from simdistill.data.densities import DENSITIES
from simdistill.method.denoisers import denoised_from_score
from simdistill.teachers.loading import load_teacher

NAMES = list(DENSITIES)
F64 = torch.float64


@pytest.mark.parametrize("name", NAMES)
def test_every_density_is_a_teacher_by_its_name(name):
    teacher = load_teacher(name)
    teacher.check()
    assert (teacher.name, teacher.shape, teacher.classes, teacher.trainable) == (name, (2,), 0, None)


@pytest.mark.parametrize(("name", "components"), [*zip(NAMES, [25, 8, 96, 128], strict=True)])
def test_the_components_are_as_many_as_documented_and_equally_probable(name, components):
    weights = DENSITIES[name]().weights
    assert len(weights) == components
    torch.testing.assert_close(weights, torch.full((components,), 1 / components))
    assert float(weights.sum()) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_samples_have_the_moments_of_the_mixture(name, rng):
    mixture, n = DENSITIES[name](), 100_000
    x_0 = mixture.sample(n, rng).double().numpy()
    means = mixture.means.double().numpy()
    covariance = np.cov(means.T, bias=True) + mixture.covariances[0].numpy()
    np.testing.assert_allclose(x_0.mean(0), means.mean(0), atol=4 * math.sqrt(covariance.max() / n))
    np.testing.assert_allclose(np.cov(x_0.T), covariance, atol=0.02)


@pytest.mark.parametrize("sigma", [0.01, 0.3, 3.0])
@pytest.mark.parametrize("name", NAMES)
def test_the_denoiser_is_the_gradient_of_the_log_density(name, sigma, rng):
    """d = x_t + sigma² ∇ ln p(x_t), Tweedie's formula, by autograd of the density written out."""
    mixture, level = DENSITIES[name](), torch.full((50,), sigma, dtype=F64)
    x_t = mixture.sample(50, rng).double() + sigma * torch.randn(50, 2, generator=rng, dtype=F64)
    x_t.requires_grad_()
    variance = float(mixture.covariances[0, 0, 0]) + sigma**2
    squares = (x_t[:, None] - mixture.means.double()).square().sum(-1)
    log_density = (-squares / (2 * variance)).logsumexp(1) - math.log(2 * math.pi * variance * len(mixture.means))
    torch.testing.assert_close(mixture.log_density(x_t, level), log_density, rtol=1e-6, atol=1e-6)
    (gradient,) = torch.autograd.grad(log_density.sum(), x_t)
    torch.testing.assert_close(mixture(x_t, level), denoised_from_score(gradient, x_t, level), rtol=1e-6, atol=1e-6)


def test_rings_and_squares_are_where_they_should_be(rng):
    radius = DENSITIES["rings"]().sample(20_000, rng).norm(dim=1)
    outer = radius > 1.5
    assert float(outer.float().mean()) == pytest.approx(2 / 3, abs=0.015)  # as dense along both
    for ring, r in ((radius[~outer], 1.0), (radius[outer], 2.0)):
        assert float(ring.mean()) == pytest.approx(r, abs=0.01)  # a little more, by the curvature
        assert float(ring.std()) == pytest.approx(0.1, abs=0.005)
    x_0 = DENSITIES["checkerboard"]().sample(20_000, rng)
    square = x_0.floor()
    inside = (square.sum(1) % 2 == 0) & (square >= -2).all(1) & (square < 2).all(1)
    # a coordinate strays over one of its square's two edges with probability Σ 2/4 Φ(-(1/8 + k/4)/(1/8))
    strays = sum(0.5 * (1 - math.erf((1 + 2 * k) / math.sqrt(2))) / 2 for k in range(4))
    assert float(inside.float().mean()) == pytest.approx((1 - strays) ** 2, abs=0.02)


@pytest.mark.parametrize("name", ["rings", "checkerboard"])
def test_a_shape_of_components_is_smooth_along_itself(name):
    mixture = DENSITIES[name]()
    if name == "rings":
        angle = torch.linspace(0, 2 * math.pi, 1000)
        along = 2.0 * torch.stack([angle.cos(), angle.sin()], 1)
    else:
        along = torch.stack([torch.linspace(0.375, 0.625, 1000), torch.full((1000,), 0.5)], 1)
    density = mixture.log_density(along, torch.full((1000,), 1e-4)).exp()
    assert float(density.max() / density.min()) < 1.04
