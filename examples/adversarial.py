"""A method of your own: Algorithm 2 with a discriminator and real images, as SiDA (Zhou et al. 2024) and DMD2 add.

    PYTHONPATH=. simdistill distill digits --method "examples.adversarial:Adversarial(weight=0.02)"

The discriminator D is a third network. From the online network's features of noisy samples, it learns to distinguish
real images from generated ones; the generator also learns to fool it (Goodfellow et al. 2014):

    L_D = softplus(-D(real)) + softplus(D(fake)),    L_g = Algorithm 2's + weight · softplus(-D(fake)).
"""

from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from simdistill.method.algorithm import Batch, Loss, Networks, ScoreDistillation, Update
from simdistill.method.noise import diffuse
from simdistill.method.shapes import Condition, Data, PerSample, Sigma
from simdistill.training.sharding import blocks

HIDDEN = 64


@dataclass(frozen=True)
class Adversarial:
    """Algorithm 2 with a discriminator of real `data`. Its loss has the `weight`; `lr` is its learning rate.

    `base` is the recipe's own Algorithm 2: the trainer fills it in.
    """

    data: str = "digits"
    weight: float = 0.02
    lr: float = 1e-3
    base: ScoreDistillation = field(default=ScoreDistillation(), repr=False)

    student: ClassVar[str] = "generator"

    @property
    def algorithm_2(self) -> ScoreDistillation:
        """The base, with the generator's samples shared: the adversarial loss uses the same ones."""
        return replace(self.base, share_samples=True)

    def networks(self, teacher: Any, start: nn.Module) -> dict[str, nn.Module]:
        """Online network and generator from the teacher's weights, and a small, randomly initialised discriminator."""
        networks = self.algorithm_2.networks(teacher, start)
        one = torch.zeros(1, *teacher.shape), torch.ones(1), teacher.blank(1)
        width = features(networks["online"], *one).shape[1]
        discriminator = nn.Sequential(nn.Linear(width, HIDDEN), nn.SiLU(), nn.Linear(HIDDEN, 1))
        return {**networks, "discriminator": discriminator}

    def updates(self) -> tuple[Update, ...]:
        """The updates of generator and online network as before, then the discriminator's."""
        generator, online = self.algorithm_2.updates()
        fooling = replace(generator, loss=self.generator_loss, freezes=(*generator.freezes, "discriminator"))
        telling = Update("discriminator", self.base.online_noise, self.discriminator_loss, self.lr, images=self.data)
        return fooling, online, replace(telling, freezes=("online",))

    def generator_loss(self, networks: Networks, batch: Batch) -> Loss:
        """Update theta: Algorithm 2's loss, and the adversarial loss."""
        loss = self.algorithm_2.generator_loss(networks, batch)
        logits = judged(networks, loss.x_0, batch, batch.condition)
        metrics = {**loss.metrics, "taken_for_real": logits.detach().sigmoid()}
        return Loss(loss.value + self.weight * softplus(-logits), metrics, loss.x_0)

    def discriminator_loss(self, networks: Networks, batch: Batch) -> Loss:
        """Update D: real images against fresh samples of the generator, at the same noise levels."""
        with torch.no_grad():
            x_0 = networks["generator"](batch.z, batch.condition)
        real = judged(networks, batch.images, batch, batch.images_condition)
        fake = judged(networks, x_0, batch, batch.condition)
        return Loss(softplus(-real) + softplus(fake))


def judged(networks: Networks, x_0: Any, batch: Batch, condition: Condition) -> PerSample:
    """D's logits that samples are real, from the features of x_t."""
    x_t = diffuse(x_0, batch.sigma, batch.eps)
    return networks["discriminator"](features(networks["online"], x_t, batch.sigma, condition))[:, 0]


def features(denoiser: nn.Module, x_t: Data, sigma: Sigma, condition: Condition) -> Tensor:
    """The output of the last residual block of a denoiser's network, averaged over positions: `[batch, channels]`."""
    *_, last = blocks(denoiser)
    seen: list[Tensor] = []
    handle = last.register_forward_hook(lambda _module, _inputs, output: seen.append(output))
    try:
        denoiser(x_t, sigma, condition)
    finally:
        handle.remove()
    return seen[0].flatten(2).mean(2) if seen[0].ndim > 2 else seen[0]
