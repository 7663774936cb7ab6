"""The two losses of Algorithm 2 and the generator's objectives, on small networks. Closed forms: test_theorem.py."""

import copy
import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from docs.distillation import Distillation
from simdistill.method.algorithm import denoising_loss, frozen
from simdistill.method.denoisers import Preconditioned
from simdistill.method.distances import L1, Exponential, Huber, PoweredL2, PseudoHuber, SquaredL2
from simdistill.method.generator import Generator
from simdistill.method.objectives import DiffInstruct, ScoreIdentity, ScoreImplicitMatching
from simdistill.method.weightings import EDM, InverseError, Uniform

BATCH = DIM = 3  # equal on purpose: a loss that aligns [batch] with the last axis of the data must give itself away
PSEUDO_HUBER, UNIFORM = ScoreImplicitMatching(), Uniform()
OBJECTIVES = [ScoreImplicitMatching(d) for d in (SquaredL2(), PoweredL2(), Exponential(), L1(), Huber(), PseudoHuber())]
OBJECTIVES += [ScoreIdentity(1.0), ScoreIdentity(), DiffInstruct()]

each_objective = pytest.mark.parametrize("objective", OBJECTIVES, ids=str)
each_weighting = pytest.mark.parametrize("weighting", [UNIFORM, EDM(), InverseError()], ids=str)


class Network(nn.Module):
    """F(x, c_noise): two layers on samples of any shape, flattened, with weights of order one."""

    def __init__(self, seed, dim=DIM, width=32):
        super().__init__()
        rng = torch.Generator().manual_seed(seed)
        self.first = nn.Parameter(torch.randn(dim + 1, width, generator=rng) / math.sqrt(dim + 1))
        self.last = nn.Parameter(torch.randn(width, dim, generator=rng) / math.sqrt(width))

    def forward(self, x, c_noise, class_labels):
        inputs = torch.cat([x.flatten(1), c_noise[:, None]], 1)
        return (torch.tanh(inputs @ self.first) @ self.last).reshape(x.shape)


def denoiser(seed, shape=(DIM,), **settings):
    return Preconditioned(Network(seed, math.prod(shape)), shape, **settings)


def distillation(objective=PSEUDO_HUBER, weighting=UNIFORM, shape=(DIM,), dtype=torch.float64):
    return Distillation(
        teacher=denoiser(1, shape).to(dtype).requires_grad_(False),
        online=denoiser(2, shape).to(dtype),
        generator=Generator(denoiser(3, shape)).to(dtype),
        objective=objective,
        online_weighting=EDM(),
        generator_weighting=weighting,
    )


def draws(n=BATCH, shape=(DIM,), dtype=torch.float64):
    """z, sigma, eps."""
    rng = torch.Generator().manual_seed(4)
    z, eps = torch.randn(2, n, *shape, generator=rng, dtype=dtype)
    return z, torch.exp(torch.randn(n, generator=rng, dtype=dtype) - 0.5), eps


def gradients(loss, module):
    return torch.autograd.grad(loss.sum(), list(module.parameters()))


def by_hand(it, z, sigma, eps):
    """x_0, d_psi and d_q as the paper writes them, in a graph that ends in the generator's parameters only."""
    x_0 = it.generator(z)
    x_t = x_0 + sigma[:, None] * eps
    return x_0, copy.deepcopy(it.online).requires_grad_(False)(x_t, sigma), it.teacher(x_t, sigma)


# --- The objectives ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@each_weighting
def test_sid_at_alpha_one_is_half_of_sim_with_squared_l2(weighting, dtype):
    """To the last bit, as doubling is exact in binary floating point."""
    sid = distillation(ScoreIdentity(1.0), weighting, dtype=dtype)
    sim = replace(sid, objective=ScoreImplicitMatching(SquaredL2()))
    inputs = draws(16, dtype=dtype)
    (of_sid, y), (of_sim, same_y) = sid.generator_loss(*inputs), sim.generator_loss(*inputs)
    assert torch.equal(2 * of_sid, of_sim)
    assert torch.equal(y, same_y)
    for a, b in zip(gradients(of_sid, sid.generator), gradients(of_sim, sim.generator), strict=True):
        assert torch.equal(2 * a, b)
        assert b.abs().max() > 0


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0, 1.2, 2.0])
def test_sid_is_the_published_loss(alpha):
    """w δᵀ{(d_q - x_0) - alpha δ}, δ = d_q - d_psi, w = C / ‖x_0 - d_q‖₁ without gradient [B.11]."""
    it = distillation(ScoreIdentity(alpha), InverseError())
    inputs = draws(16)
    loss, _ = it.generator_loss(*inputs)
    x_0, d_psi, d_q = by_hand(it, *inputs)
    delta, weight = d_q - d_psi, DIM / (x_0 - d_q).detach().abs().sum(1)
    published = weight * (delta * ((d_q - x_0) - alpha * delta)).sum(1)
    torch.testing.assert_close(loss, published, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(
        gradients(loss, it.generator), gradients(published, it.generator), rtol=1e-10, atol=1e-12
    )


def test_pseudo_huber_loss_is_that_of_listing_1():
    """+ y'·(d_psi - x_0) / √(‖y'‖² + c²) with y' = d_q - d_psi: Algorithm 2's sign, with y = d_psi - d_q, ascends."""
    it = distillation()
    assert it.objective == ScoreImplicitMatching(PseudoHuber(c=0.03))
    inputs = draws(16)
    loss, length = it.generator_loss(*inputs)
    x_0, d_psi, d_q = by_hand(it, *inputs)
    y = d_q - d_psi
    listing = (y * (d_psi - x_0)).sum(1) / torch.sqrt(y.square().sum(1) + 0.03**2)
    torch.testing.assert_close(loss, listing, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(gradients(loss, it.generator), gradients(listing, it.generator), rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(length, y.norm(dim=1).detach(), rtol=1e-12, atol=0)
    assert not length.requires_grad


def test_diff_instruct_is_the_detached_difference_along_the_sample():
    it = distillation(DiffInstruct())
    inputs = draws(16)
    loss, _ = it.generator_loss(*inputs)
    x_0, d_psi, d_q = by_hand(it, *inputs)
    expected = torch.autograd.grad(x_0, list(it.generator.parameters()), grad_outputs=(d_psi - d_q).detach())
    torch.testing.assert_close(gradients(loss, it.generator), expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("process", ["EDM", "VP"])
def test_dmd_is_diff_instruct_with_the_inverse_error_as_weight(process):
    """DMD (Yin et al. 2024) by its equations 4, 5, 7 and 8 for x_t = alpha_t x + sigma_t eps, by way of scores.

    EDM's process has alpha_t = 1, and nothing is left to choose. For others the printed weight keeps one factor alpha_t
    that the paper's Algorithm 2 does not have (it says so): here it is divided out.
    """
    it = distillation(DiffInstruct(), InverseError())
    z, sigma, eps = draws(16)
    x = it.generator(z)
    alpha_t = torch.ones_like(sigma) if process == "EDM" else 1 / torch.sqrt(1 + sigma**2)
    alpha, sigma_t = alpha_t[:, None], (alpha_t * sigma)[:, None]
    with torch.no_grad():
        x_t = alpha * x + sigma_t * eps
        mu_real, mu_fake = it.teacher(x_t / alpha, sigma), it.online(x_t / alpha, sigma)
        s_real, s_fake = (-(x_t - alpha * mu) / sigma_t**2 for mu in (mu_real, mu_fake))
        w_t = sigma_t**2 / alpha * DIM / torch.linalg.vector_norm(mu_real - x, ord=1, dim=1, keepdim=True)
        direction = w_t * alpha * (s_fake - s_real) / alpha
    printed = torch.autograd.grad(x, list(it.generator.parameters()), grad_outputs=direction)
    loss, _ = it.generator_loss(z, sigma, eps)
    torch.testing.assert_close(gradients(loss, it.generator), printed, rtol=1e-9, atol=1e-12)


def test_dmds_squared_error_has_the_same_gradient_but_for_a_constant():
    """Its Algorithm 2 takes the mean of ½ (x - sg(x - g))² over samples and dimensions, g = (mu_fake - mu_real) / w."""
    it = distillation(DiffInstruct(), InverseError())
    inputs = draws(16)
    x, mu_fake, mu_real = by_hand(it, *inputs)
    g = (mu_fake - mu_real) / (x - mu_real).abs().mean(1, keepdim=True)
    squared_error = ((x - (x - g).detach()).square() / 2).mean()
    loss, _ = it.generator_loss(*inputs)
    torch.testing.assert_close(
        gradients(loss / (16 * DIM), it.generator), gradients(squared_error, it.generator), rtol=1e-9, atol=1e-12
    )


@pytest.mark.parametrize("alpha", [-0.1, 2.1, math.nan, math.inf, -math.inf])
def test_sid_refuses_alpha_outside_its_range(alpha):
    with pytest.raises(ValueError, match=rf"alpha = {alpha}: must be in 0 … 2; SiD uses 1.0 or 1.2"):
        ScoreIdentity(alpha)


# --- One number a sample ----------------------------------------------------------------------------------------------


@each_weighting
@each_objective
def test_losses_treat_samples_one_by_one(objective, weighting):
    it = distillation(objective, weighting)
    z, sigma, eps = draws()
    together = *it.generator_loss(z, sigma, eps), it.denoising_loss(z, sigma, eps)
    for i in range(BATCH):
        row = z[i : i + 1], sigma[i : i + 1], eps[i : i + 1]
        alone = *it.generator_loss(*row), it.denoising_loss(*row)
        for whole, part in zip(together, alone, strict=True):
            assert whole.shape == (BATCH,)
            torch.testing.assert_close(whole[i : i + 1], part, rtol=1e-12, atol=1e-12)


@each_objective
def test_losses_of_images_are_those_of_flattened_images(objective):
    flat, images = (distillation(objective, EDM(), shape) for shape in [(12,), (3, 2, 2)])
    z, sigma, eps = draws(5, (12,))
    as_images = z.reshape(5, 3, 2, 2), sigma, eps.reshape(5, 3, 2, 2)
    torch.testing.assert_close(flat.generator_loss(z, sigma, eps), images.generator_loss(*as_images))
    torch.testing.assert_close(flat.denoising_loss(z, sigma, eps), images.denoising_loss(*as_images))


@each_objective
def test_generator_weight_multiplies_the_objective(objective):
    z, sigma, eps = draws()
    (plain, _), (weighted, _) = (distillation(objective, w).generator_loss(z, sigma, eps) for w in (UNIFORM, EDM()))
    torch.testing.assert_close(weighted, plain * (sigma**2 + 0.25) / (0.5 * sigma) ** 2, rtol=1e-12, atol=1e-12)


def test_denoising_loss_is_the_weighted_squared_error():
    it = distillation()
    z, sigma, eps = draws()
    x_0 = it.generator(z).detach()
    error = it.online(x_0 + sigma[:, None] * eps, sigma) - x_0
    expected = (sigma**2 + 0.25) / (0.5 * sigma) ** 2 * error.square().sum(1)
    torch.testing.assert_close(it.denoising_loss(z, sigma, eps), expected, rtol=1e-10, atol=0)
    torch.testing.assert_close(denoising_loss(it.online, EDM(), x_0, sigma, eps), expected, rtol=1e-10, atol=0)


def test_every_player_is_given_the_condition():
    class Recording(Preconditioned):
        def residual(self, x_t, sigma, condition=None):
            seen.append((self.model, condition))
            return super().residual(x_t, sigma)

    seen = []
    teacher, online, student = (Recording(Network(seed), (DIM,)).double() for seed in (1, 2, 3))
    it = replace(distillation(), teacher=teacher, online=online, generator=Generator(student))
    labels = torch.tensor([2, 0, 1])
    it.generator_loss(*draws(), labels)
    assert [model for model, _ in seen] == [student.model, online.model, teacher.model]
    it.denoising_loss(*draws(), labels)
    assert [model for model, _ in seen[3:]] == [student.model, online.model]
    assert all(condition is labels for _, condition in seen)


# --- Which parameters learn -------------------------------------------------------------------------------------------


@each_objective
def test_generator_loss_moves_the_generator_alone(objective):
    it = distillation(objective)
    with frozen(it.online):
        loss, _ = it.generator_loss(*draws())
        loss.sum().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in it.generator.parameters())
    assert all(p.grad is None for p in [*it.online.parameters(), *it.teacher.parameters()])
    assert all(p.requires_grad for p in it.online.parameters())


def test_denoising_loss_moves_the_online_network_alone():
    it = distillation()
    it.denoising_loss(*draws()).sum().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in it.online.parameters())
    assert all(p.grad is None for p in [*it.generator.parameters(), *it.teacher.parameters()])


def test_frozen_gives_back_what_it_took():
    def fail_within(network):
        with frozen(network):
            assert not network.first.requires_grad
            raise RuntimeError("within")

    network = Network(0)
    network.last.requires_grad_(False)
    with pytest.raises(RuntimeError, match="within"):
        fail_within(network)
    assert network.first.requires_grad
    assert not network.last.requires_grad


# --- Small noise in float32 -------------------------------------------------------------------------------------------


def at_level(sigma, dtype):
    """256 draws of z, sigma, eps in float32, so that both precisions start from the same numbers."""
    z, _, eps = draws(256, dtype=torch.float32)
    return z.to(dtype), torch.full((256,), sigma, dtype=torch.float32).to(dtype), eps.to(dtype)


def differences(dtype, sigma):
    """y = d_psi - d_q and d_psi - x_0 as the objective gets them, and the same subtracted naively, in float64."""

    class Recording(ScoreImplicitMatching):
        def __call__(self, x_0, y, error):
            seen.extend([y, error])
            return super().__call__(x_0, y, error)

    seen = []
    it = distillation(Recording(), dtype=dtype)
    inputs = at_level(sigma, dtype)
    it.generator_loss(*inputs)
    x_0, d_psi, d_q = by_hand(it, *inputs)
    return tuple(tensor.detach().double() for tensor in (*seen, d_psi - d_q, d_psi - x_0))


def lost(found, exact):
    return ((found - exact).norm() / exact.norm()).item()


small_noise = pytest.mark.parametrize("sigma", [1e-4, 1e-5])


@small_noise
def test_differences_keep_their_digits_at_small_noise(sigma):
    y, error, naive_y, naive_error = differences(torch.float32, sigma)
    exact_y, exact_error, *_ = differences(torch.float64, sigma)
    assert lost(y, exact_y) < 1e-6
    assert lost(error, exact_error) < 1e-6
    assert lost(naive_y, exact_y) > 3e-9 / sigma  # each image is rounded at 6e-8 of its size, and y is sigma long
    assert lost(naive_error, exact_error) > 3e-9 / sigma


@small_noise
def test_losses_and_gradients_keep_their_digits_at_small_noise(sigma):
    def results(dtype):
        it = distillation(dtype=dtype)
        z, level, eps = at_level(sigma, dtype)
        (loss, length), online_loss = it.generator_loss(z, level, eps), it.denoising_loss(z, level, eps)
        moved = *gradients(loss, it.generator), *gradients(online_loss, it.online)
        return [tensor.detach().double() for tensor in (loss, length, online_loss, *moved)]

    for found, exact in zip(results(torch.float32), results(torch.float64), strict=True):
        assert lost(found, exact) < 1e-6
