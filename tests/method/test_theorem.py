"""Theorem 3.1 in closed form, with Gaussian players.

The gradient of `Distillation.generator_loss`, itself and not a copy of it, must be that of E d(d_p(x_t) - d_q(x_t))
with the law of x_t cut off [3.1].
"""

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
    Gaussian,
    each_sigma,
    hermite,
    kinks,
    largest_relative_error,
    loss_gradient,
    marginal,
    noisy_std,
    players,
    rotated,
    split_at,
    tensor,
)
from torch import nn

from simdistill.method.distances import L1, Exponential, Huber, PoweredL2, PseudoHuber, SquaredL2
from simdistill.method.noise import LogNormal, sample
from simdistill.method.objectives import DiffInstruct, ScoreImplicitMatching
from simdistill.method.shapes import dot

# d' is analytic: Gauss–Hermite quadrature converges geometrically.
ANALYTIC = [SquaredL2(), PoweredL2(2), PoweredL2(4), Exponential(0.3, 2), PseudoHuber(1.0)]
# d' has a kink, a root or (pseudo-Huber with small c) a bend at known values of y: quadrature must be split there.
PIECEWISE = [
    *ANALYTIC,
    PoweredL2(1.5),
    PoweredL2(2.5),
    Exponential(0.5, 1.5),
    Huber(0.1),
    Huber(0.005),
    PseudoHuber(),
    PseudoHuber(0.003),
]
# In one dimension d' jumps at y = 0 by twice its slope on the right.
JUMPING = [(L1(), 1.0), (PoweredL2(1), 1.0), (Exponential(0.7, 1), 0.7)]
# In three, y/‖y‖ has an integrable derivative, and only L1 jumps (on planes).
SMOOTH_IN_3D = [*PIECEWISE, PoweredL2(1), Exponential(0.5, 1)]


# --- The two sides of the theorem in one dimension --------------------------------------------------------------------


def exact_gradient(distance, teacher, sigma, u, weights):
    """∂/∂(mean, scale) of E d(d_pθ(x_t) - d_q(x_t)), x_t = mean + std u cut off from θ, by the rule over u."""
    theta = Gaussian(MEAN, SCALE)
    x_t = (MEAN + noisy_std(sigma) * u)[:, None]
    level = torch.full((len(u),), sigma, dtype=torch.float64)
    d = distance.value(theta(x_t, level) - teacher(x_t, level))
    return torch.cat([g.flatten() for g in torch.autograd.grad((weights * d).sum(), list(theta.parameters()))])


def both_gradients(distance, sigma, mutate=lambda distillation: distillation):
    """(gradient of the loss, exact gradient) with a Gaussian teacher, by quadrature split at the kinks of d'."""
    distillation = mutate(players(MEAN, SCALE, GAUSSIAN, ScoreImplicitMatching(distance)))
    exact = exact_gradient(distance, GAUSSIAN, sigma, *split_at(kinks(distance, sigma)))
    return loss_gradient(distillation, sigma, *rotated(distance, sigma)), exact


@each_sigma
@pytest.mark.parametrize("teacher", [GAUSSIAN, MIXTURE], ids=["gaussian", "mixture"])
@pytest.mark.parametrize("distance", ANALYTIC, ids=str)
def test_theorem_by_gauss_hermite_quadrature(distance, teacher, sigma):
    distillation = players(MEAN, SCALE, teacher, ScoreImplicitMatching(distance))
    nodes, weights = hermite(160, 1)
    exact = exact_gradient(distance, teacher, sigma, nodes[:, 0], weights)
    assert largest_relative_error(loss_gradient(distillation, sigma, *hermite(160, 2)), exact) < 1e-6


@each_sigma
@pytest.mark.parametrize("distance", PIECEWISE, ids=str)
def test_theorem_by_split_quadrature(distance, sigma):
    assert largest_relative_error(*both_gradients(distance, sigma)) < 1e-6


@each_sigma
@pytest.mark.parametrize(("distance", "slope"), JUMPING, ids=str)
def test_autograd_misses_the_jump_of_l1(distance, slope, sigma):
    """The known bias, in closed form: half of the scale's gradient with L1, nothing of the mean's.

    d'(y) = ±slope + o(1) at y = 0±, so ∂d'(y)/∂θ holds 2 slope δ(y) ∂y/∂θ, which autograd takes as 0. At the root x* of
    y, δ(y) ∂y/∂θ = sign(y'(x*)) δ(x_t - x*) ∂x_0/∂θ, and the loss -d'(y) (d_p(x_t) - x_0) lacks
        -2 slope sign(y') p_t(x*) E[∂x_0/∂θ (d_p(x*) - x_0) | x_t = x*].
    ∂x_0/∂mean = 1 leaves E[d_p - x_0 | x*] = 0; ∂x_0/∂scale = (x_0 - mean)/scale leaves the posterior variance,
    -scale sigma²/std² with std² = scale² + sigma².
    """
    gradient, exact = both_gradients(distance, sigma)
    (root,), std = kinks(distance, sigma), noisy_std(sigma)
    density = math.exp(-(root**2) / 2) / math.sqrt(2 * math.pi) / std
    rises = 1 if GAUSSIAN.covariances.item() < SCALE.item() ** 2 else -1  # y' = sigma² (1/(var_q + sigma²) - 1/std²)
    missing = tensor([0, 2 * slope * rises * density * SCALE.item() * sigma**2 / std**2])
    assert largest_relative_error(gradient + missing, exact) < 1e-6
    assert abs(gradient[1] / exact[1] - 1) > 0.1


# --- Mutations: each is a mistake that trains without an error message ------------------------------------------------


class WrongSign(ScoreImplicitMatching):
    """As Algorithm 2 is printed."""

    def __call__(self, x_0, y, error):
        return dot(self.distance.gradient(y), error)


class WrongFactor(ScoreImplicitMatching):
    """As d' of the pseudo-Huber distance is printed in Table 4."""

    def __call__(self, x_0, y, error):
        return 2 * super().__call__(x_0, y, error)


class DistanceDetached(ScoreImplicitMatching):
    def __call__(self, x_0, y, error):
        return -dot(self.distance.gradient(y).detach(), error)


class SampleDetached(ScoreImplicitMatching):
    """x_0 detached where d_psi(x_t) - x_0 subtracts it."""

    def __call__(self, x_0, y, error):
        return super().__call__(x_0, y, error + (x_0 - x_0.detach()))


class NoisySampleDetached(ScoreImplicitMatching):
    """x_t detached: of the loss only the subtracted x_0 depends on the generator."""

    def __call__(self, x_0, y, error):
        return super().__call__(x_0, y.detach(), error.detach() - (x_0 - x_0.detach()))


class WithoutGradient(nn.Module):
    """A denoiser called under no_grad."""

    def __init__(self, denoiser):
        super().__init__()
        self.denoiser = denoiser

    def forward(self, x_t, sigma, condition=None):
        with torch.no_grad():
            return self.denoiser(x_t, sigma)


class WithoutResidualGradient(WithoutGradient):
    def residual(self, x_t, sigma, condition=None):
        with torch.no_grad():
            return self.denoiser.residual(x_t, sigma)


MUTATIONS = {
    "wrong sign": lambda it: replace(it, objective=WrongSign(it.objective.distance)),
    "wrong factor": lambda it: replace(it, objective=WrongFactor(it.objective.distance)),
    "d' detached": lambda it: replace(it, objective=DistanceDetached(it.objective.distance)),
    "x_0 detached": lambda it: replace(it, objective=SampleDetached(it.objective.distance)),
    "x_t detached": lambda it: replace(it, objective=NoisySampleDetached(it.objective.distance)),
    "teacher under no_grad": lambda it: replace(it, teacher=WithoutGradient(it.teacher)),
    "teacher's residual under no_grad": lambda it: replace(it, teacher=WithoutResidualGradient(it.teacher)),
    "online under no_grad": lambda it: replace(it, online=WithoutGradient(it.online)),
    "online's residual under no_grad": lambda it: replace(it, online=WithoutResidualGradient(it.online)),
}
each_mutation = pytest.mark.parametrize("mutation", MUTATIONS)


@each_sigma
@each_mutation
@pytest.mark.parametrize("distance", PIECEWISE, ids=str)
def test_theorem_rejects_mutations(distance, mutation, sigma):
    assert largest_relative_error(*both_gradients(distance, sigma, MUTATIONS[mutation])) > 1e-2


@each_sigma
@pytest.mark.parametrize("distance", PIECEWISE, ids=str)
def test_detached_distance_halves_the_gradient_of_the_scale(distance, sigma):
    """What a test of the mean alone would miss: E[d'' y' ∂x_t/∂mean (d_p - x_0)] = 0, as E[d_p - x_0 | x_t] = 0.

    For the scale, -E d' ∂(d_p - x_0)/∂scale = (sigma/std)² E d' z = scale sigma²/std⁴ E d' (x_t - mean), while
    ∂d_p/∂scale at fixed x_t is twice that: (x_t - mean) ∂(scale²/std²)/∂scale = 2 scale sigma²/std⁴ (x_t - mean).
    """
    gradient, exact = both_gradients(distance, sigma, MUTATIONS["d' detached"])
    assert largest_relative_error(gradient, exact * tensor([1, 0.5])) < 1e-6


# --- Three dimensions, full covariances, random noise levels ----------------------------------------------------------


def deviations(distance, mutate=lambda distillation: distillation, n=100_000):
    """Gradient of the loss minus exact gradient over `n` draws: mean and standard error, for each of the 12 parameters.

    One copy of θ for each sample makes the gradient of a sum the gradients a sample. Both sides see the same x_t, so
    that only their difference fluctuates; also returned is the largest absolute value of the exact gradient.
    """
    rng = torch.Generator().manual_seed(0)
    z, eps = torch.randn(2, n, 3, generator=rng, dtype=torch.float64)
    sigma = sample(LogNormal(-0.5, 0.8), n, rng).double()
    distillation = mutate(players(MEAN_3D, FACTOR_3D, GAUSSIAN_3D, ScoreImplicitMatching(distance), per_sample=n))

    copies = list(distillation.generator.parameters())
    loss, _ = distillation.generator_loss(z, sigma, eps)
    of_loss = torch.autograd.grad(loss.sum(), copies)

    theta = Gaussian(*(copy.detach() for copy in copies))
    x_t = distillation.generator(z).detach() + sigma[:, None] * eps
    d = distance.value(theta.residual(x_t, sigma) - GAUSSIAN_3D.residual(x_t, sigma))
    of_divergence = torch.autograd.grad(d.sum(), list(theta.parameters()))

    exact = torch.cat([g.flatten(1) for g in of_divergence], 1)
    difference = torch.cat([g.flatten(1) for g in of_loss], 1) - exact
    return difference.mean(0), difference.std(0) / math.sqrt(n), exact.mean(0).abs().max()


@pytest.mark.parametrize("distance", SMOOTH_IN_3D, ids=str)
def test_theorem_in_three_dimensions_by_monte_carlo(distance):
    mean, standard_error, size = deviations(distance)
    assert (mean.abs() <= 4 * standard_error).all()
    assert (standard_error < 0.02 * size).all()


@each_mutation
@pytest.mark.parametrize("distance", [PseudoHuber(), PoweredL2(1), SquaredL2()], ids=str)
def test_monte_carlo_rejects_mutations(distance, mutation):
    mean, standard_error, size = deviations(distance, MUTATIONS[mutation])
    assert (mean.abs() > 50 * standard_error).any()
    assert mean.abs().max() > 0.2 * size


def test_monte_carlo_sees_the_jump_of_l1():
    mean, standard_error, _ = deviations(L1())
    assert (mean[:3].abs() <= 4 * standard_error[:3]).all()  # nothing is missing from the mean's gradient …
    assert (mean[3:].abs() > 20 * standard_error[3:]).any()  # … much from the factor's


# --- Quadratic losses, for which two Gauss–Hermite nodes in each coordinate are exact ---------------------------------

PAIRS = {1: (MEAN, SCALE, GAUSSIAN), 3: (MEAN_3D, FACTOR_3D, GAUSSIAN_3D)}
each_dimension = pytest.mark.parametrize("dim", PAIRS)


@each_sigma
def test_theorem_for_squared_l2_in_three_dimensions(sigma):
    """E ‖y‖² in closed form: y = sigma² (C_q⁻¹ (x_t - mean_q) - C_p⁻¹ (x_t - mean_p)) is affine in the normal x_t."""
    law, cut_off = Gaussian(MEAN_3D, FACTOR_3D), marginal(MEAN_3D, FACTOR_3D @ FACTOR_3D.T, sigma)
    p = marginal(law.mean, law.factor @ law.factor.T, sigma)
    q = marginal(TEACHER_MEAN_3D, TEACHER_COVARIANCE_3D, sigma)
    slope = p.precision_matrix - q.precision_matrix
    at_mean = p.precision_matrix @ (cut_off.mean - p.mean) - q.precision_matrix @ (cut_off.mean - q.mean)
    square = at_mean @ at_mean + torch.trace(slope @ cut_off.covariance_matrix @ slope)
    exact = torch.cat([g.flatten() for g in torch.autograd.grad(sigma**4 * square, list(law.parameters()))])
    distillation = players(MEAN_3D, FACTOR_3D, GAUSSIAN_3D, ScoreImplicitMatching(SquaredL2()))
    assert largest_relative_error(loss_gradient(distillation, sigma, *hermite(2, 6)), exact) < 1e-10


@each_dimension
@each_sigma
def test_diff_instruct_follows_the_kl_divergence(dim, sigma):
    """∂ KL(p_t ‖ q_t)/∂θ = E (s_p - s_q) ∂x_t/∂θ; weight 1 on y = sigma² (s_p - s_q) is sigma² on the divergence."""
    mean, factor, teacher = PAIRS[dim]
    law = Gaussian(mean, factor)
    p = marginal(law.mean, law.factor @ law.factor.T, sigma)
    q = marginal(teacher.means[0], teacher.covariances[0], sigma)
    divergence = torch.distributions.kl_divergence(p, q)
    exact = torch.cat([g.flatten() for g in torch.autograd.grad(sigma**2 * divergence, list(law.parameters()))])
    gradient = loss_gradient(players(mean, factor, teacher, DiffInstruct()), sigma, *hermite(2, 2 * dim))
    assert largest_relative_error(gradient, exact) < 1e-10


# --- The online network is fitted by the denoising loss ---------------------------------------------------------------


def expected_denoising_loss(distillation, sigma, dim):
    nodes, weights = hermite(2, 2 * dim)
    level = torch.full((len(nodes),), sigma, dtype=torch.float64)
    return (weights * distillation.denoising_loss(nodes[:, :dim], level, nodes[:, dim:])).sum()


@each_dimension
@each_sigma
def test_denoising_loss_is_least_at_the_exact_denoiser(dim, sigma):
    """Its minimum is w times the posterior variance, the trace of C - C (C + sigma² I)⁻¹ C = sigma² C (C + sigma² I)⁻¹.

    Any other denoiser d adds w E‖d - d_p‖², here that of the teacher's law.
    """
    mean, factor, teacher = PAIRS[dim]
    distillation = players(mean, factor, teacher, DiffInstruct())
    weight = (sigma**2 + 0.5**2) / (sigma * 0.5) ** 2  # [B.7]
    covariance = factor @ factor.T
    p = marginal(mean, covariance, sigma)
    posterior = sigma**2 * torch.trace(covariance @ p.precision_matrix)
    least = expected_denoising_loss(distillation, sigma, dim)
    torch.testing.assert_close(least, weight * posterior, rtol=1e-10, atol=0)

    slopes = torch.autograd.grad(least, list(distillation.online.parameters()))
    assert all((slope.abs() < 1e-12 * weight).all() for slope in slopes)

    other = Gaussian(teacher.means[0], torch.linalg.cholesky(teacher.covariances[0]))
    x_t, weights = hermite(2, dim)
    x_t = p.mean + x_t @ torch.linalg.cholesky(p.covariance_matrix).T
    level = torch.full((len(x_t),), sigma, dtype=torch.float64)
    excess = weights @ (other(x_t, level) - distillation.online(x_t, level)).square().sum(1)
    worse = expected_denoising_loss(replace(distillation, online=other), sigma, dim)
    torch.testing.assert_close(worse - least, weight * excess, rtol=1e-8, atol=0)
