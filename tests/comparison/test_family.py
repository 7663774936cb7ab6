"""The family in closed form, with Gaussian players: SiD with any alpha, f-distill, DMD."""

import math
from dataclasses import replace

import pytest
import torch
from players import (
    FACTOR_3D,
    GAUSSIAN,
    GAUSSIAN_3D,
    MEAN,
    MEAN_3D,
    MIXTURE,
    SCALE,
    TEACHER_COVARIANCE_3D,
    TEACHER_MEAN_3D,
    Affine,
    Gaussian,
    each_sigma,
    hermite,
    largest_relative_error,
    loss_gradient,
    marginal,
    noisy_std,
    players,
    tensor,
    turned,
)

from simdistill.method.denoisers import GaussianMixture
from simdistill.method.objectives import DiffInstruct, ScoreIdentity
from simdistill.method.weightings import InverseError, Uniform

ALPHAS = [0.0, 0.5, 1.0, 1.2, 2.0]
each_alpha = pytest.mark.parametrize("alpha", ALPHAS)


def expected_loss(distillation, sigma, nodes, weights):
    dim = nodes.shape[1] // 2
    level = torch.full((len(nodes),), sigma, dtype=torch.float64)
    with torch.no_grad():
        return (weights * distillation.generator_loss(nodes[:, :dim], level, nodes[:, dim:])[0]).sum()


def sid_by_hand(alpha, sigma, mean, scale, teacher_mean, teacher_variance):
    """E L and ∂E L/∂(mean, scale) of SiD for N(mean, scale²) and N(teacher_mean, teacher_variance), on paper.

    With V = scale² + sigma² and W = teacher_variance + sigma², y = a (x_t - mean) + b, a = sigma² (1/W - 1/V) and
    b = sigma² (mean - teacher_mean)/W, while d_psi - x_0 = sigma eps - sigma² (x_t - mean)/V is uncorrelated with x_t.
    Hence E L = (1 - alpha) E ‖y‖² = (1 - alpha) (a² V + b²). Moving mean and scale of the sampler alone,
        ∂/∂mean: b sigma² ((2 alpha - 1)/V + 2 (1 - alpha)/W),   ∂/∂scale: 2 scale a sigma² (alpha/V + (1 - alpha)/W).
    """
    v, w = scale**2 + sigma**2, teacher_variance + sigma**2
    a, b = sigma**2 * (1 / w - 1 / v), sigma**2 * (mean - teacher_mean) / w
    of_mean = b * sigma**2 * ((2 * alpha - 1) / v + 2 * (1 - alpha) / w)
    of_scale = 2 * scale * a * sigma**2 * (alpha / v + (1 - alpha) / w)
    return (1 - alpha) * (a**2 * v + b**2), tensor([of_mean, of_scale])


@each_sigma
@each_alpha
def test_sid_in_one_dimension_is_what_it_is_on_paper(alpha, sigma):
    value, gradient = sid_by_hand(alpha, sigma, 0.4, 0.8, -0.3, 1.69)
    distillation = players(MEAN, SCALE, GAUSSIAN, ScoreIdentity(alpha))
    rule = hermite(2, 2)
    assert expected_loss(distillation, sigma, *rule).item() == pytest.approx(value, rel=1e-10, abs=1e-14)
    assert largest_relative_error(loss_gradient(distillation, sigma, *rule), gradient) < 1e-10


@each_sigma
@each_alpha
def test_sid_in_three_dimensions_blends_two_gradients_of_the_squared_length(alpha, sigma):
    """½ ∂E ‖y‖² through y's own parameters, plus (1 - alpha) ∂E ‖y‖² through the law of x_t; at ½, half of the whole.

    E ‖y‖² in closed form, as above, with one copy of θ for each of the two.
    """
    law, sampler = Gaussian(MEAN_3D, FACTOR_3D), Gaussian(MEAN_3D, FACTOR_3D)
    p, x_t = (marginal(g.mean, g.factor @ g.factor.T, sigma) for g in (law, sampler))
    q = marginal(TEACHER_MEAN_3D, TEACHER_COVARIANCE_3D, sigma)
    slope = p.precision_matrix - q.precision_matrix
    at_mean = p.precision_matrix @ (x_t.mean - p.mean) - q.precision_matrix @ (x_t.mean - q.mean)
    square = sigma**4 * (at_mean @ at_mean + torch.trace(slope @ x_t.covariance_matrix @ slope))
    of_law, of_sampler = (
        torch.cat([g.flatten() for g in torch.autograd.grad(square, list(of.parameters()), retain_graph=True)])
        for of in (law, sampler)
    )
    distillation = players(MEAN_3D, FACTOR_3D, GAUSSIAN_3D, ScoreIdentity(alpha))
    gradient = loss_gradient(distillation, sigma, *hermite(2, 6))
    assert largest_relative_error(gradient, of_law / 2 + (1 - alpha) * of_sampler) < 1e-9
    value = expected_loss(distillation, sigma, *hermite(2, 6)).item()
    assert value == pytest.approx((1 - alpha) * square.item(), rel=1e-10, abs=1e-12)


@pytest.mark.parametrize(("alpha", "limit"), [(1.2, 3.5), (1.5, 2.0), (2.0, 1.5)])
def test_sid_above_one_moves_a_wide_students_mean_away_from_the_teacher(alpha, limit):
    """By the formula on paper, if V/W > (2 alpha - 1)/(2 alpha - 2); at alpha = 1 it never does."""
    sigma, w = 0.7, 1.3
    for ratio, approaches in [(0.98 * limit, True), (1.02 * limit, False)]:
        scale = tensor([[math.sqrt(ratio * w - sigma**2)]])
        teacher = GaussianMixture(tensor([[-0.3]]), tensor([[[w - sigma**2]]]))
        for objective, expected in [(ScoreIdentity(alpha), approaches), (ScoreIdentity(1.0), True)]:
            gradient = loss_gradient(players(MEAN, scale, teacher, objective), sigma, *hermite(2, 2))
            assert (gradient[0] > 0) == expected  # the student's mean, 0.4, is to fall to -0.3


# f(r), r = q/p with the teacher's q, and h(r) = r² f''(r), the weight of s_p - s_q (Xu et al. 2025, Table 1).
F_DIVERGENCES = {
    "reverse KL": (lambda r: -r.log(), torch.ones_like),
    "softened reverse KL": (lambda r: (r + 1) * torch.log(0.5 + 0.5 / r), lambda r: 1 / (r + 1)),
    "Jensen-Shannon": (lambda r: r * r.log() - (r + 1) * torch.log((r + 1) / 2), lambda r: r / (r + 1)),
    "squared Hellinger": (lambda r: 1 - r.sqrt(), lambda r: r.sqrt() / 4),
    "forward KL": (lambda r: r * r.log(), lambda r: r),
    "Jeffreys": (lambda r: (r - 1) * r.log(), lambda r: r + 1),
}


@pytest.mark.parametrize(("f", "h"), F_DIVERGENCES.values(), ids=F_DIVERGENCES.keys())
def test_f_distills_weight_is_the_second_derivative(f, h):
    r = torch.logspace(-3, 3, 25, dtype=torch.float64).requires_grad_()
    (first,) = torch.autograd.grad(f(r).sum(), r, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), r)
    torch.testing.assert_close(r.detach() ** 2 * second, h(r.detach()), rtol=1e-6, atol=0)
    assert abs(f(tensor([1.0])).item()) < 1e-15


@each_sigma
@pytest.mark.parametrize("teacher", [GAUSSIAN, MIXTURE], ids=["gaussian", "mixture"])
@pytest.mark.parametrize("name", F_DIVERGENCES)
def test_of_f_distills_gradients_only_reverse_kls_is_diff_instructs(name, teacher, sigma):
    """∂/∂θ ∫ p f(q/p) dx = E h(q/p) (s_p - s_q) ∂x_t/∂θ (Xu et al. 2025): h must be known, and only 1 always is.

    The left side on a grid of x, by autograd of the density p; the right from `DiffInstruct`, whose loss is linear in
    the sample at given x_t. Both densities are exact here, which no student's is.
    """
    f, h = F_DIVERGENCES[name]
    std, u = noisy_std(sigma), torch.linspace(-20, 20, 4001, dtype=torch.float64)
    x_t = (MEAN + std * u)[:, None]
    at = torch.full((len(u),), sigma, dtype=torch.float64)
    law = Affine(MEAN, SCALE)
    log_p = torch.distributions.Normal(law.mean, torch.sqrt(law.factor[0] ** 2 + sigma**2)).log_prob(x_t)[:, 0]
    log_ratio = teacher.log_density(x_t, at) - log_p
    divergence = (log_p.exp() * f(log_ratio.exp())).sum() * 0.01 * std
    exact = torch.cat([g.flatten() for g in torch.autograd.grad(sigma**2 * divergence, list(law.parameters()))])

    density = torch.exp(-(u**2) / 2) / math.sqrt(2 * math.pi) * 0.01
    distillation = players(MEAN, SCALE, teacher, DiffInstruct())
    weighted = density * h(log_ratio.exp()).detach()
    assert largest_relative_error(loss_gradient(distillation, sigma, *turned(u, weighted, sigma)), exact) < 1e-6
    unweighted = loss_gradient(distillation, sigma, *turned(u, density, sigma))
    if name == "reverse KL":
        assert largest_relative_error(unweighted, exact) < 1e-6
    else:  # not even a multiple of it
        (a, b), (c, d) = exact / exact.norm(), unweighted / unweighted.norm()
        assert abs(a * d - b * c) > 5e-3


@pytest.mark.parametrize("objective", [DiffInstruct(), ScoreIdentity(1.0)], ids=["DMD", "SiD"])
def test_a_weight_that_looks_at_the_sample_turns_the_exact_gradient(objective):
    """Of KL(p_t ‖ q_t) and of ½ E ‖y‖², at one level: with 1/mean|d_q - x_0| the expectation is no multiple of it."""
    n, sigma = 100_000, 0.7
    rng = torch.Generator().manual_seed(0)
    z, eps = torch.randn(2, n, 3, generator=rng, dtype=torch.float64)
    level = torch.full((n,), sigma, dtype=torch.float64)
    exact = loss_gradient(players(MEAN_3D, FACTOR_3D, GAUSSIAN_3D, objective), sigma, *hermite(2, 6))

    def largest_turn(weighting):
        """The part of the mean gradient that is orthogonal to the exact one, in standard errors."""
        it = replace(players(MEAN_3D, FACTOR_3D, GAUSSIAN_3D, objective, per_sample=n), generator_weighting=weighting)
        of_each = torch.autograd.grad(it.generator_loss(z, level, eps)[0].sum(), list(it.generator.parameters()))
        each = torch.cat([g.flatten(1) for g in of_each], 1)
        across = each - (each @ exact / (exact @ exact))[:, None] * exact
        return (across.mean(0).abs() / (across.std(0) / math.sqrt(n))).max()

    assert largest_turn(Uniform()) < 4
    assert largest_turn(InverseError()) > 10
