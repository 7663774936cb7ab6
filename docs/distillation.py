"""Algorithm 2 with its three players as one value: what the experiments of the docs, and the tests, integrate."""

from dataclasses import dataclass

import torch

from simdistill.method.algorithm import Batch, ScoreDistillation
from simdistill.method.denoisers import Denoiser
from simdistill.method.objectives import Objective
from simdistill.method.shapes import Condition, Data, PerSample, Sigma
from simdistill.method.weightings import Weighting
from simdistill.training.trainer import DistillationTrainer


@dataclass(frozen=True)
class Distillation:
    """The teacher d_q, the online network d_psi, the generator g_theta, and what the two updates minimise."""

    teacher: Denoiser
    online: Denoiser
    generator: torch.nn.Module
    objective: Objective
    online_weighting: Weighting
    generator_weighting: Weighting

    @classmethod
    def of(cls, trainer: DistillationTrainer) -> "Distillation":
        """That of a training, whose networks it shares."""
        recipe, players = trainer.recipe, (trainer.players[name] for name in ("teacher", "online", "generator"))
        return cls(*players, recipe.objective, recipe.online_weighting, recipe.generator_weighting)

    def denoising_loss(self, z: Data, sigma: Sigma, eps: Data, condition: Condition = None) -> PerSample:
        """The online network's, a sample."""
        return self._algorithm.online_loss(self._networks, Batch(z, sigma, eps, condition)).value

    def generator_loss(
        self, z: Data, sigma: Sigma, eps: Data, condition: Condition = None
    ) -> tuple[PerSample, PerSample]:
        """The generator's, a sample, and ‖y‖."""
        loss = self._algorithm.generator_loss(self._networks, Batch(z, sigma, eps, condition))
        return loss.value, loss.metrics["y_norm"]

    @property
    def _algorithm(self) -> ScoreDistillation:
        return ScoreDistillation(
            objective=self.objective,
            online_weighting=self.online_weighting,
            generator_weighting=self.generator_weighting,
        )

    @property
    def _networks(self) -> dict[str, object]:
        return {"teacher": self.teacher, "online": self.online, "generator": self.generator}
