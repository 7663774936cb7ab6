"""The experiments of docs/theory.md, in one dimension, where every denoiser and every gradient is known exactly.

The generator is g(z) = mean + scale z, of law N(mean, scale²); the teacher is the exact denoiser of N(-0.3, 1.3²); the
online network is the exact denoiser of the generator's law, with a frozen copy of its parameters. What is measured is
the package's own `Distillation.generator_loss`.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from docs.distillation import Distillation
from simdistill.method.denoisers import Denoiser, GaussianMixture, residual
from simdistill.method.distances import Distance, PseudoHuber
from simdistill.method.generator import Generator
from simdistill.method.noise import LogNormal, sample
from simdistill.method.objectives import ScoreImplicitMatching
from simdistill.method.shapes import Condition, Data, PerSample, Sigma, dot
from simdistill.method.weightings import Uniform

START, TARGET = (0.4, 0.8), (-0.3, 1.3)
"""Mean and scale: of the generator, and of the teacher's law."""
TIMES = LogNormal(-1.2, 1.2)
"""Noise levels [B.5]."""


class Affine(nn.Module):
    """mean + scale z, as the denoiser that a `Generator` asks once; parameters `[1, 1]`, or `[n, 1]`, one a sample."""

    def __init__(self, mean: Tensor, scale: Tensor) -> None:
        super().__init__()
        self.mean, self.scale = nn.Parameter(mean.clone()), nn.Parameter(scale.clone())

    def forward(self, x_t: Data, sigma: Sigma, condition: Condition = None) -> Data:
        """`x_t` is sigma z."""
        return self.mean + self.scale * x_t / sigma[:, None]


class Gaussian(Affine):
    """The exact denoiser of N(mean, scale²), the law of `Affine`."""

    def forward(self, x_t: Data, sigma: Sigma, condition: Condition = None) -> Data:
        """d(x_t, sigma)."""
        return x_t + self.residual(x_t, sigma)

    def residual(self, x_t: Data, sigma: Sigma, condition: Condition = None) -> Data:
        """d(x_t, sigma) - x_t."""
        return GaussianMixture(self.mean, self.scale[:, :, None] ** 2).residual(x_t, sigma)


TEACHER = GaussianMixture(*(torch.tensor(v, dtype=torch.float64) for v in ([[TARGET[0]]], [[[TARGET[1] ** 2]]])))


# --- What is measured, and the mistakes that train without an error message -------------------------------------------


class WrongSign(ScoreImplicitMatching):
    """+d'(y)·(d_psi - x_0), as Algorithm 2 is printed."""

    def __call__(self, x_0: Data, y: Data, error: Data) -> PerSample:
        """The loss a sample."""
        return dot(self.distance.gradient(y), error)


class DistanceDetached(ScoreImplicitMatching):
    """-sg(d'(y))·(d_psi - x_0)."""

    def __call__(self, x_0: Data, y: Data, error: Data) -> PerSample:
        """The loss a sample."""
        return -dot(self.distance.gradient(y).detach(), error)


class NoisySampleDetached(ScoreImplicitMatching):
    """x_t detached in both networks: of the loss only the subtracted x_0 depends on the generator."""

    def __call__(self, x_0: Data, y: Data, error: Data) -> PerSample:
        """The loss a sample."""
        return super().__call__(x_0, y.detach(), error.detach() - (x_0 - x_0.detach()))


class SampleDetached(ScoreImplicitMatching):
    """x_0 detached where d_psi(x_t) - x_0 subtracts it."""

    def __call__(self, x_0: Data, y: Data, error: Data) -> PerSample:
        """The loss a sample."""
        return super().__call__(x_0, y, error + (x_0 - x_0.detach()))


class WithoutGradient(nn.Module):
    """A denoiser that is called under no_grad."""

    def __init__(self, denoiser: Denoiser) -> None:
        super().__init__()
        self.denoiser = denoiser

    def forward(self, x_t: Data, sigma: Sigma, condition: Condition = None) -> Data:
        """d(x_t, sigma)."""
        return x_t + self.residual(x_t, sigma)

    def residual(self, x_t: Data, sigma: Sigma, condition: Condition = None) -> Data:
        """d(x_t, sigma) - x_t."""
        with torch.no_grad():
            return residual(self.denoiser, x_t, sigma)


Mistake: TypeAlias = Callable[[Distillation], Distillation]


def _objective(kind: type[ScoreImplicitMatching]) -> Mistake:
    def make(it: Distillation) -> Distillation:
        assert isinstance(it.objective, ScoreImplicitMatching)
        return replace(it, objective=kind(it.objective.distance))

    return make


RIGHT = "as it should be"
MISTAKES: dict[str, Mistake] = {
    RIGHT: _objective(ScoreImplicitMatching),
    "wrong sign": _objective(WrongSign),
    "d'(y) detached": _objective(DistanceDetached),
    "x_t detached": _objective(NoisySampleDetached),
    "x_0 detached": _objective(SampleDetached),
    "teacher under no_grad": lambda it: replace(it, teacher=WithoutGradient(it.teacher)),
    "online under no_grad": lambda it: replace(it, online=WithoutGradient(it.online)),
}
"""From a `Distillation` to one with the mistake."""


def players(theta: Tensor, distance: Distance, mistake: str = RIGHT, copies: int = 1) -> Distillation:
    """A distillation at theta = (mean, scale), with the exact online network; the generator may have n copies of it."""
    mean, scale = theta[:1, None], theta[1:, None]
    it = Distillation(
        teacher=TEACHER,
        online=Gaussian(mean, scale).requires_grad_(False),
        generator=Generator(Affine(mean.repeat(copies, 1), scale.repeat(copies, 1)), levels=(2.5,)),
        objective=ScoreImplicitMatching(distance),
        online_weighting=Uniform(),
        generator_weighting=Uniform(),
    )
    return MISTAKES[mistake](it)


# --- Gradients: by quadrature, and of samples -------------------------------------------------------------------------


def tensor(values: object) -> Tensor:
    """In double precision."""
    return torch.tensor(values, dtype=torch.float64)


def _grid(points: int, levels: int) -> tuple[Tensor, Sigma, PerSample]:
    """A rule over (u, sigma): u standard normal, by the trapezoid rule; ln sigma by Gauss and Hermite."""
    u = torch.linspace(-9, 9, points, dtype=torch.float64)
    density = torch.exp(-(u**2) / 2)
    nodes, weights = (tensor(values) for values in np.polynomial.hermite_e.hermegauss(levels))
    sigma = torch.exp(TIMES.mean + TIMES.std * nodes)
    weight = density[:, None] / density.sum() * weights / weights.sum()
    return u.repeat_interleave(levels), sigma.repeat(points), weight.flatten()


def exact_gradient(distance: Distance, theta: Tensor, points: int = 1201, levels: int = 40) -> Tensor:
    """∂/∂(mean, scale) of E d(d_p(x_t) - d_q(x_t)), with the law of x_t cut off from them [3.1]."""
    u, sigma, weight = _grid(points, levels)
    law = Gaussian(theta[:1, None], theta[1:, None])
    x_t = (theta[0] + torch.hypot(theta[1], sigma) * u)[:, None]
    d = distance.value(law.residual(x_t, sigma) - TEACHER.residual(x_t, sigma))
    return torch.stack([g.flatten()[0] for g in torch.autograd.grad((weight * d).sum(), list(law.parameters()))])


def expected_gradient(distance: Distance, theta: Tensor, mistake: str, points: int = 1201, levels: int = 40) -> Tensor:
    """∂/∂(mean, scale) of the expectation of the loss: what a mistake has in the place of `exact_gradient`.

    x_t depends on (z, eps) through u = (scale z + sigma eps)/std(x_t); the loss and its gradient are quadratic in the
    orthogonal v, for which three nodes are exact.
    """
    u, sigma, weight = _grid(points, levels)
    v, weight_v = (tensor(values) for values in np.polynomial.hermite_e.hermegauss(3))
    u, v = u.repeat_interleave(3), v.repeat(len(u))
    sigma, weight = sigma.repeat_interleave(3), (weight[:, None] * weight_v / weight_v.sum()).flatten()
    std = torch.hypot(theta[1], sigma)
    z, eps = (theta[1] * u - sigma * v) / std, (sigma * u + theta[1] * v) / std
    it = players(theta, distance, mistake)
    loss, _ = it.generator_loss(z[:, None], sigma, eps[:, None])
    return torch.stack([g.sum() for g in torch.autograd.grad((weight * loss).sum(), list(it.generator.parameters()))])


def sampled_gradients(distance: Distance, theta: Tensor, mistake: str, n: int, seed: int) -> Tensor:
    """∂ loss/∂(mean, scale) of each of `n` samples, `[n, 2]`: one copy of the parameters a sample."""
    rng = torch.Generator().manual_seed(seed)
    z, eps = torch.randn(2, n, 1, generator=rng, dtype=torch.float64)
    it = players(theta, distance, mistake, copies=n)
    loss, _ = it.generator_loss(z, sample(TIMES, n, rng).double(), eps)
    return torch.cat(torch.autograd.grad(loss.sum(), list(it.generator.parameters())), 1)


def errors(distance: Distance, mistake: str, counts: list[int], seeds: int) -> Tensor:
    """‖gradient of n samples - exact gradient‖ / ‖exact gradient‖, `[seeds, counts]`."""
    theta = tensor(START)
    exact = exact_gradient(distance, theta)
    found: list[Tensor] = []
    for seed in range(seeds):
        sums = sampled_gradients(distance, theta, mistake, counts[-1], seed).cumsum(0)
        means = torch.stack([sums[n - 1] / n for n in counts])
        found.append((means - exact).norm(dim=1) / exact.norm())
    return torch.stack(found)


# --- Trainings --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Trace:
    """What a training left: `theta` `[steps + 1, 2]`; of each step the loss, its standard error, and mean ‖y‖."""

    theta: Tensor
    loss: Tensor
    loss_error: Tensor
    y: Tensor


def train(distance: Distance, mistake: str, steps: int, batch: int = 256, rate: float = 0.008, seed: int = 0) -> Trace:
    """Adam with betas (0, 0.999) on `generator_loss` from `START`, with an online network exact at every step.

    The rate falls linearly to zero. Adam is written out: torch's own takes seconds to be imported.
    """
    rng = torch.Generator().manual_seed(seed)
    theta, square = tensor(START), torch.zeros(2, dtype=torch.float64)
    path, rows = [theta], list[Tensor]()
    for step in range(steps):
        z, eps = torch.randn(2, batch, 1, generator=rng, dtype=torch.float64)
        it = players(theta, distance, mistake)
        loss, y = it.generator_loss(z, sample(TIMES, batch, rng).double(), eps)
        gradient = torch.cat(torch.autograd.grad(loss.mean(), list(it.generator.parameters()))).flatten()
        square = 0.999 * square + 0.001 * gradient**2
        direction = gradient / ((square / (1 - 0.999 ** (step + 1))).sqrt() + 1e-8)
        theta = theta - rate * (1 - step / steps) * direction
        theta[1].clamp_(min=0.05)  # a scale is positive
        path.append(theta)
        rows.append(torch.stack([loss.mean().detach(), loss.std().detach() / math.sqrt(batch), y.mean()]))
    return Trace(torch.stack(path), *torch.stack(rows).T)


PAPER = PseudoHuber(c=0.03)
"""The paper's distance."""
