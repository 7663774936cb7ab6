"""Algorithm 2: score implicit matching, as two losses that are deterministic functions of their random inputs."""

import copy
import math
from collections.abc import Callable, Mapping
from collections.abc import Generator as Generates
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, ClassVar, NamedTuple, Protocol, TypeAlias, runtime_checkable

import torch
from torch import nn

from simdistill.method.denoisers import Denoiser, residual
from simdistill.method.distances import PseudoHuber
from simdistill.method.generator import Generator
from simdistill.method.noise import LogNormal, NoiseDistribution, diffuse
from simdistill.method.objectives import Objective, ScoreImplicitMatching
from simdistill.method.shapes import Condition, Data, PerSample, Sigma, dot, like
from simdistill.method.weightings import EDM, Uniform, Weighting

Networks: TypeAlias = Mapping[str, Any]
"""The networks by name: "teacher" (d_q), and those that a method names."""


class Batch(NamedTuple):
    """The random inputs of one update, one row per sample, so that it can be repeated, split, or integrated."""

    z: Data
    sigma: Sigma
    eps: Data
    condition: Condition = None
    x_0: Data | None = None
    """Samples of the previous update, if the update reuses them."""
    images: Data | None = None
    """Real images, if the update asks for them."""
    images_condition: Condition = None
    """The labels of the real images."""


class Loss(NamedTuple):
    """The loss of an update, one number per sample, with its metrics."""

    value: PerSample
    metrics: dict[str, PerSample] = {}  # noqa: RUF012  (never written to)
    """Detached numbers to monitor the training; also shown by noise level."""
    x_0: Data | None = None
    """Samples for the following updates."""


@dataclass(frozen=True)
class Update:
    """One of a method's updates: the network that it trains, the noise distribution, and the loss."""

    network: str
    noise: NoiseDistribution
    loss: Callable[[Networks, Batch], Loss]
    lr: float
    freezes: tuple[str, ...] = ()
    """Other networks whose parameters are frozen during the update; the teacher's always are."""
    times: int | None = None
    """Repetitions per iteration, each with new random numbers; None means once."""
    decays: bool = False
    """Whether its learning rate follows the recipe's decay; all have the warm-up."""
    reuses_samples: bool = False
    """Whether it reuses the samples of the previous update, with their conditions."""
    images: str = ""
    """Real images for its batches, as `simdistill.data.images.open_images` takes them."""


@runtime_checkable
class Method(Protocol):
    """A distillation method: a frozen dataclass with its settings as fields. `student` names the network to keep.

    An optional field `base` gets the recipe's `ScoreDistillation`, to build on.
    """

    student: ClassVar[str]

    def networks(self, teacher: Any, start: nn.Module) -> dict[str, nn.Module]:
        """The networks to train, by name: copies of `start` (the teacher's network), or new ones."""
        ...

    def updates(self) -> tuple[Update, ...]:
        """The updates of an iteration, in order."""
        ...


@dataclass(frozen=True)
class ScoreDistillation:
    """Algorithm 2 with any objective: SIM [3.1], SiD, Diff-Instruct. The fields are those of a recipe.

    With shared samples, the generator's update comes first and passes its samples on to the online updates. In the
    other order, the online network would be evaluated on the very samples that it was just fitted to.
    """

    objective: Objective = ScoreImplicitMatching(PseudoHuber(c=0.03))  # noqa: RUF009  (frozen, as all below)
    generator_noise: NoiseDistribution = LogNormal(-3.5, 2.5)  # noqa: RUF009
    generator_weighting: Weighting = Uniform()  # noqa: RUF009
    generator_lr: float = 1e-5
    online_noise: NoiseDistribution = LogNormal(-1.2, 1.2)  # noqa: RUF009
    online_weighting: Weighting = EDM()  # noqa: RUF009
    online_lr: float = 1e-5
    online_steps: int = 1
    online_guidance: float = 1.0
    guidance_interval: tuple[float, float] = (0.0, math.inf)
    sigma_init: float = 2.5
    share_samples: bool = False

    student: ClassVar[str] = "generator"

    def networks(self, teacher: Any, start: nn.Module) -> dict[str, nn.Module]:
        """d_psi and g_theta, both from the teacher's weights."""
        online = teacher.guide(copy.deepcopy(start), self.online_guidance, self.guidance_interval)
        return {"online": online, "generator": Generator(copy.deepcopy(start), (self.sigma_init,))}

    def updates(self) -> tuple[Update, ...]:
        """First psi, then theta."""
        online = Update("online", self.online_noise, self.online_loss, self.online_lr, times=self.online_steps)
        generator = Update("generator", self.generator_noise, self.generator_loss, self.generator_lr, ("online",))
        generator = replace(generator, decays=True)
        if self.share_samples:
            return generator, replace(online, reuses_samples=True)
        return online, generator

    def online_loss(self, networks: Networks, batch: Batch) -> Loss:
        """Update psi: w(sigma) ‖d_psi(x_t, sigma) - x_0‖² on fresh, detached samples [B.2]."""
        x_0, sigma, eps, condition = batch.x_0, batch.sigma, batch.eps, batch.condition
        if x_0 is None:
            with torch.no_grad():
                x_0 = networks["generator"](batch.z, condition)
        return Loss(denoising_loss(networks["online"], self.online_weighting, x_0, sigma, eps, condition))

    def generator_loss(self, networks: Networks, batch: Batch) -> Loss:
        """Update theta: w(sigma) times the objective of fresh samples; ‖y‖₂, not the loss, shows convergence."""
        z, sigma, eps, condition, *_ = batch
        x_0 = networks["generator"](z, condition)
        x_t = diffuse(x_0, sigma, eps)  # gradients flow through x_t …
        r_psi = residual(networks["online"], x_t, sigma, condition)  # … and through both networks' inputs
        r_q = residual(networks["teacher"], x_t, sigma, condition)
        y = r_psi - r_q  # d_psi - d_q
        error = r_psi + like(sigma, eps) * eps  # d_psi - x_0
        weight = self.generator_weighting(sigma, (error - y).detach())  # d_q - x_0
        loss = weight * self.objective(x_0, y, error)
        return Loss(loss, {"y_norm": y.detach().flatten(1).norm(dim=1)}, x_0 if self.share_samples else None)


def denoising_loss(
    denoiser: Denoiser, weighting: Weighting, x_0: Data, sigma: Sigma, eps: Data, condition: Condition = None
) -> PerSample:
    """w(sigma) ‖d(x_0 + sigma eps, sigma) - x_0‖² [B.2]: the loss of the online network and of every teacher."""
    error = residual(denoiser, diffuse(x_0, sigma, eps), sigma, condition) + like(sigma, eps) * eps
    return weighting(sigma, error) * dot(error, error)


@contextmanager
def frozen(*modules: Any) -> Generates[None]:
    """Freeze the modules' parameters within the block; gradients still flow to the modules' inputs."""
    parameters = (p for module in modules if isinstance(module, nn.Module) for p in module.parameters())
    trainable = [p for p in parameters if p.requires_grad]
    for p in trainable:
        p.requires_grad_(False)
    try:
        yield
    finally:
        for p in trainable:
            p.requires_grad_(True)
