"""The two identities behind the theorem, each on its own."""

import pytest
import torch
from players import (
    GAUSSIAN,
    MEAN,
    MIXTURE,
    SCALE,
    Affine,
    Gaussian,
    each_sigma,
    hermite,
)

from simdistill.method.denoisers import score
from simdistill.method.shapes import dot

TEST_FUNCTIONS = {
    "1": torch.ones_like,
    "x": lambda x: x,
    "x³ - 2x": lambda x: x**3 - 2 * x,
    "tanh x": torch.tanh,
    "sin(x/2)": lambda x: torch.sin(x / 2),
    "exp(-x²)": lambda x: torch.exp(-(x**2)),
}
each_u = pytest.mark.parametrize("u", TEST_FUNCTIONS.values(), ids=TEST_FUNCTIONS.keys())


@each_sigma
@each_u
def test_score_projection_identity(u, sigma):
    """[A.1]: E u(x_t) {s_p(x_t) - ∇log q(x_t | x_0)} = 0 for x_0 ~ p, here a mixture, and for no other law's score."""
    nodes, weights = hermite(120, 2)
    z, eps = nodes[:, :1], nodes[:, 1:]
    level = torch.full((len(nodes),), sigma, dtype=torch.float64)

    def projection(denoiser):
        total = 0
        for share, mean, covariance in zip(MIXTURE.weights, MIXTURE.means, MIXTURE.covariances, strict=True):
            x_0 = mean + covariance[0].sqrt() * z
            x_t = x_0 + sigma * eps
            total += share * (weights * dot(u(x_t), score(denoiser, x_t, level) - (x_0 - x_t) / sigma**2)).sum()
        return abs(total.item())

    assert projection(MIXTURE) < 1e-9
    assert projection(GAUSSIAN) > 1e-2


@each_sigma
@each_u
def test_score_gradient_identity(u, sigma):
    """[A.4]: E u(x_t) ∂s_pθ/∂θ (x_t) = -∂/∂θ E u(x_t) {s_p(x_t) - ∇log q(x_t | x_0)}, only on the right through x_t."""
    theta, frozen_law, generator = Gaussian(MEAN, SCALE), Gaussian(MEAN, SCALE), Affine(MEAN, SCALE)
    nodes, weights = hermite(120, 2)
    level = torch.full((len(nodes),), sigma, dtype=torch.float64)
    x_0 = generator(nodes[:, :1], torch.ones_like(level))
    x_t = x_0 + sigma * nodes[:, 1:]
    left = (weights * dot(u(x_t.detach()), score(theta, x_t.detach(), level))).sum()
    right = -(weights * dot(u(x_t), score(frozen_law, x_t, level) - (x_0 - x_t) / sigma**2)).sum()
    for a, b in zip(theta.parameters(), generator.parameters(), strict=True):
        (of_left,) = torch.autograd.grad(left, a, retain_graph=True)
        (of_right,) = torch.autograd.grad(right, b, retain_graph=True)
        torch.testing.assert_close(of_left, of_right, rtol=1e-6, atol=1e-9)
