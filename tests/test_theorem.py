"""Theorem 3.1 in closed form: Gaussian players, whose denoisers are exact, so that no network has to be trusted.

The generator is g(z) = mean + factor z, of law p_θ = N(mean, factor factorᵀ), θ = (mean, factor); the online network
is the exact denoiser of that law with its own, frozen copy of θ. Then the gradient of `Distillation.generator_loss`,
itself and not a copy of it, must be that of E d(d_p(x_t) - d_q(x_t)) with the law of x_t cut off [3.1]. The same
players say what the methods of its family follow.
"""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from simdistill.denoisers import GaussianMixture, score
from simdistill.distances import L1, Exponential, Huber, PoweredL2, PseudoHuber, SquaredL2
from simdistill.distill import Distillation
from simdistill.generator import Generator
from simdistill.noise import LogNormal, sample
from simdistill.objectives import DiffInstruct, ScoreIdentity, ScoreImplicitMatching
from simdistill.shapes import dot
from simdistill.weightings import EDM, InverseError, Uniform

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
        generator=Generator(Affine(*copies), sigma_init=2.5),
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


# --- The two sides of the theorem in one dimension --------------------------------------------------------------------


def loss_gradient(distillation, sigma, nodes, weights):
    """∂/∂(mean, scale) of E generator_loss, by the rule over (z, eps)."""
    dim = nodes.shape[1] // 2
    level = torch.full((len(nodes),), sigma, dtype=torch.float64)
    loss, _ = distillation.generator_loss(nodes[:, :dim], level, nodes[:, dim:])
    parameters = list(distillation.generator.parameters())
    gradients = torch.autograd.grad((weights * loss).sum(), parameters)
    return torch.cat([g.flatten() for g in gradients])


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


def largest_relative_error(gradient, exact):
    return ((gradient - exact).abs() / exact.abs()).max().item()


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


def marginal(mean, covariance, sigma):
    """The law of x_t = x_0 + sigma eps."""
    noise = sigma**2 * torch.eye(len(mean), dtype=torch.float64)
    return torch.distributions.MultivariateNormal(mean, covariance + noise)


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


# --- The family: SiD with any alpha, f-distill, DMD -------------------------------------------------------------------

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


# --- The two identities behind the theorem, each on its own -----------------------------------------------------------

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
