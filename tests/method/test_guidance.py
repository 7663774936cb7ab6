"""Classifier-free guidance: of exact denoisers, of a DiT against its pipeline, and in both updates of Algorithm 2."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from simdistill.cli import main
from simdistill.config.recipes import Recipe
from simdistill.evaluation.sampling import teacher_sampler
from simdistill.method.algorithm import Batch
from simdistill.method.denoisers import GaussianMixture, Preconditioned, score
from simdistill.method.guidance import Guided
from simdistill.networks.mlp import MLP
from simdistill.teachers.teacher import Asked, Teacher
from simdistill.training.footprint import footprints
from simdistill.training.trainer import DistillationTrainer

EYE = torch.eye(2, dtype=torch.float64)[None]
MEANS = torch.tensor([[1.0, 0.5], [-1.0, 0.25], [0.0, 0.0]], dtype=torch.float64)


class ThreeGaussians:
    """The exact denoiser of N(m_k, s² I) given label k: 0 and 1 are narrow, 2, the unconditional label, is wide."""

    spread = torch.tensor([0.3, 0.3, 1.1], dtype=torch.float64)

    def __call__(self, x_t, sigma, condition=None):
        share = self.spread[condition] ** 2 / (self.spread[condition] ** 2 + sigma**2)
        return MEANS[condition] + share[:, None] * (x_t - MEANS[condition])


UNCONDITIONAL = torch.tensor([2])


@given(scale=st.floats(0, 8), sigma=st.floats(0.01, 50), label=st.integers(0, 1))
def test_the_guided_score_is_that_of_the_tilted_density(scale, sigma, label):
    """p(x|c)^w p(x)^(1-w), whose log gradient is w s_c + (1 - w) s_∅ (Ho & Salimans 2022), by autograd."""
    x = torch.tensor([[0.7, -0.4], [3.0, 1.0]], dtype=torch.float64, requires_grad=True)
    level, labels = torch.full((2,), sigma, dtype=torch.float64), torch.full((2,), label)
    variance = ThreeGaussians.spread**2 + sigma**2
    log_density = -((x[:, None] - MEANS) ** 2).sum(-1) / (2 * variance)
    tilted = scale * log_density[:, label] + (1 - scale) * log_density[:, 2]
    (expected,) = torch.autograd.grad(tilted.sum(), x)
    ours = score(Guided(ThreeGaussians(), UNCONDITIONAL, scale), x.detach(), level, labels)
    torch.testing.assert_close(ours, expected, rtol=1e-9, atol=1e-9)


def test_only_levels_in_the_interval_are_guided():
    guided, plain = Guided(ThreeGaussians(), UNCONDITIONAL, 3.0, (0.2, 5.0)), ThreeGaussians()
    x, labels = torch.ones(4, 2, dtype=torch.float64), torch.tensor([0, 1, 0, 1])
    sigma = torch.tensor([0.1, 0.2, 5.0, 6.0], dtype=torch.float64)
    same = torch.isclose(guided(x, sigma, labels), plain(x, sigma, labels)).all(1)
    assert same.tolist() == [True, False, False, True]
    always = Guided(ThreeGaussians(), UNCONDITIONAL, 3.0)
    torch.testing.assert_close(guided(x, sigma, labels)[1:3], always(x, sigma, labels)[1:3])


def test_the_residual_keeps_its_digits():
    """In float32 at a level of 1e-5, where a difference of denoised images has none."""
    mixture = GaussianMixture(torch.zeros(1, 2), 0.5 * torch.eye(2)[None])
    exact = GaussianMixture(torch.zeros(1, 2, dtype=torch.float64), 0.5 * EYE)
    x, sigma = torch.tensor([[0.7, -0.4]]), torch.tensor([1e-5])
    ours = Guided(mixture, UNCONDITIONAL, 4.0).residual(x, sigma, UNCONDITIONAL)
    torch.testing.assert_close(ours.double(), exact.residual(x.double(), sigma.double()), rtol=1e-5, atol=0)


@pytest.mark.parametrize(
    ("scale", "interval", "message"),
    [
        (-1.0, (0.0, 1.0), "guidance = -1.0: must be at least 0"),
        (math.inf, (0.0, 1.0), "guidance = inf: must be at least 0"),
        (2.0, (1.0, 1.0), "guidance-interval = "),
        (2.0, (-1.0, 1.0), "guidance-interval = "),
    ],
)
def test_bad_guidance(scale, interval, message):
    with pytest.raises(ValueError, match=message):
        Guided(ThreeGaussians(), UNCONDITIONAL, scale, interval)


# ---- in Algorithm 2


def small(**facts):
    """Two classes, and a third label for none."""
    torch.manual_seed(0)
    network = Preconditioned(MLP((2,), 16, 1, label_dim=3), (2,), classes=3)
    for p in network.parameters():
        torch.nn.init.normal_(p, std=0.3)
    return Teacher(network, (2,), classes=2, asked=Asked(unconditional=UNCONDITIONAL), **facts)


RECIPE = Recipe(batch=64, iterations=4, teacher_guidance=3.0, online_guidance=2.0, guidance_interval=(0.1, 10.0))


def test_both_networks_are_guided_in_both_updates(rng):
    """At the start online network and teacher are alike, so that y = (w_q - w_psi) (d(∅) - d(c))."""
    teacher = small()
    trainer = DistillationTrainer(teacher, RECIPE)
    z, eps = torch.randn(2, 64, 2, generator=rng)
    sigma, labels = torch.logspace(-2, 2, 64), torch.arange(64) % 2
    algorithm, batch, d = trainer.method, Batch(z, sigma, eps, labels), teacher.denoiser
    x_0 = trainer.student(z, labels).detach()
    x_t = x_0 + sigma[:, None] * eps
    towards = d(x_t, sigma, labels) - d(x_t, sigma, torch.full((64,), 2))
    inside = ((sigma >= 0.1) & (sigma <= 10))[:, None]
    y_norm = algorithm.generator_loss(trainer.players, batch).metrics["y_norm"]
    torch.testing.assert_close(y_norm, (inside * towards).norm(dim=1), rtol=1e-4, atol=1e-5)
    guided = d(x_t, sigma, labels) + inside * towards  # w_psi - 1 = 1
    weight = (sigma**2 + 0.25) / (0.5 * sigma) ** 2
    loss = algorithm.online_loss(trainer.players, batch).value
    torch.testing.assert_close(loss, weight * ((guided - x_0) ** 2).sum(1), rtol=1e-3, atol=1e-4)


def test_only_the_networks_themselves_are_trained_and_kept():
    teacher = small()
    trainer = DistillationTrainer(teacher, RECIPE)
    assert sorted(trainer.state()) == sorted(DistillationTrainer(teacher, replace(RECIPE, teacher_guidance=1)).state())
    online, own = (list(network.parameters()) for network in (trainer.networks["online"], teacher.trainable))
    before, untouched = ([p.detach().clone() for p in parameters] for parameters in (online, own))
    for _ in range(2):
        trainer.step()
    assert any(not torch.equal(p, q) for p, q in zip(online, before, strict=True))
    assert teacher.trainable is teacher.prepared(RECIPE).trainable
    assert all(torch.equal(p, q) and p.grad is None for p, q in zip(own, untouched, strict=True))
    assert all(p.requires_grad for p in own)  # as it came


def test_guidance_costs_a_forward_pass_of_its_network_more():
    """F of the online's update and of the generator's, each guided: a forward pass, and two for each gradient."""
    at = {"teacher_guidance": 1.0, "online_guidance": 1.0}
    plain, teachers, both = (
        footprints(small(), replace(RECIPE, **at | more))[1].flops
        for more in ({}, {"teacher_guidance": 3.0}, {"teacher_guidance": 3.0, "online_guidance": 2.0})
    )
    f = plain / 11
    # the way back to a network's input leaves out what belongs to its noise level
    assert plain + 1.4 * f < teachers < plain + 2.01 * f
    assert plain + 5.5 * f < both < plain + 7.01 * f


def test_a_teacher_without_an_unconditional_embedding_is_refused(tmp_path, capsys):
    assert main(["distill", "digits", "--teacher-guidance", "2", "--out", str(tmp_path / "run")]) == 2
    assert "guidance = 2.0: must be 1: teacher 'digits' has no unconditional embedding" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_guidance_takes_twice_the_evaluations():
    assert (teacher_sampler(small()).nfe, teacher_sampler(small().prepared(RECIPE)).nfe) == (35, 70)
