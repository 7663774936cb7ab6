"""Algorithm 2: score implicit matching, as two losses that are deterministic functions of their random inputs."""

from collections.abc import Generator as Generates
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn

from simdistill.method.denoisers import Denoiser, residual
from simdistill.method.generator import Generator
from simdistill.method.noise import diffuse
from simdistill.method.objectives import Objective
from simdistill.method.shapes import Condition, Data, PerSample, Sigma, dot, like
from simdistill.method.weightings import Weighting


@dataclass(frozen=True)
class Distillation:
    """The three players of Algorithm 2 and what each of the two updates minimises.

    The trainer draws z, sigma, eps and the condition and hands them in, one row a sample, so that a run can be
    repeated, split over processes, or integrated by quadrature in a test. Both losses return shape `[batch]`.
    """

    teacher: Denoiser  # d_q, frozen
    online: Denoiser  # d_psi, of the generator's current law
    generator: Generator  # g_theta
    objective: Objective
    online_weighting: Weighting
    generator_weighting: Weighting

    def denoising_loss(self, z: Data, sigma: Sigma, eps: Data, condition: Condition = None) -> PerSample:
        """Update psi: w(sigma) ‖d_psi(x_t, sigma) - x_0‖² on fresh, detached samples [B.2]."""
        with torch.no_grad():
            x_0 = self.generator(z, condition)
        return denoising_loss(self.online, self.online_weighting, x_0, sigma, eps, condition)

    def generator_loss(
        self, z: Data, sigma: Sigma, eps: Data, condition: Condition = None
    ) -> tuple[PerSample, PerSample]:
        """Update theta: the matching loss of fresh samples. The caller keeps psi `frozen` until after the gradient."""
        return self.matching_loss(self.generator(z, condition), sigma, eps, condition)

    def matching_loss(
        self, x_0: Data, sigma: Sigma, eps: Data, condition: Condition = None
    ) -> tuple[PerSample, PerSample]:
        """w(sigma) times the objective, and ‖y‖₂, the honest signal of convergence (detached)."""
        x_t = diffuse(x_0, sigma, eps)  # gradients flow through x_t …
        r_psi = residual(self.online, x_t, sigma, condition)  # … and through both networks' inputs
        r_q = residual(self.teacher, x_t, sigma, condition)
        y = r_psi - r_q  # d_psi - d_q
        error = r_psi + like(sigma, eps) * eps  # d_psi - x_0
        weight = self.generator_weighting(sigma, (error - y).detach())  # d_q - x_0
        return weight * self.objective(x_0, y, error), y.detach().flatten(1).norm(dim=1)


def denoising_loss(
    denoiser: Denoiser, weighting: Weighting, x_0: Data, sigma: Sigma, eps: Data, condition: Condition = None
) -> PerSample:
    """w(sigma) ‖d(x_0 + sigma eps, sigma) - x_0‖² [B.2]: what the online network and every teacher are trained with."""
    error = residual(denoiser, diffuse(x_0, sigma, eps), sigma, condition) + like(sigma, eps) * eps
    return weighting(sigma, error) * dot(error, error)


@contextmanager
def frozen(module: nn.Module) -> Generates[None]:
    """Within the block no parameter of `module` that was trainable collects a gradient; its inputs still do."""
    trainable = [p for p in module.parameters() if p.requires_grad]
    for p in trainable:
        p.requires_grad_(False)
    try:
        yield
    finally:
        for p in trainable:
            p.requires_grad_(True)
