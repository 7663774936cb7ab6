"""Algorithm 2 with what surrounds it: random draws, optimizers, learning rates, the average of the generator."""

import copy
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from simdistill.distill import Distillation
from simdistill.generator import Generator
from simdistill.noise import NoiseLaw, sample
from simdistill.recipes import Recipe
from simdistill.shapes import Condition, Data, Sigma
from simdistill.teachers.teacher import Teacher
from simdistill.training.ema import EMA
from simdistill.training.profile import NoiseProfile
from simdistill.training.randomness import stream
from simdistill.training.state import optimizer_state, restore_optimizer, with_prefix, without_prefix


class Draw(NamedTuple):
    """The random inputs of one update, one row a sample."""

    z: Data
    sigma: Sigma
    eps: Data
    condition: Condition

    def chunks(self, n: int) -> list["Draw"]:
        """The draw in `n` equal parts."""
        conditions = [None] * n if self.condition is None else self.condition.chunk(n)
        return [
            Draw(*part)
            for part in zip(self.z.chunk(n), self.sigma.chunk(n), self.eps.chunk(n), conditions, strict=True)
        ]


class DistillationTrainer:
    """Turns `teacher` into a one-step generator, one `step` at a time.

    Online network and generator start from `start`, by default the teacher's own weights. All random numbers are
    functions of (recipe.seed, iteration), drawn on the CPU for the whole batch. `average` is the generator to keep.

    Raises `ValueError` if there is nothing to start from.
    """

    def __init__(
        self, teacher: Teacher, recipe: Recipe, start: nn.Module | None = None, device: torch.device | str = "cpu"
    ) -> None:
        begin = start if start is not None else teacher.trainable
        if begin is None:
            raise ValueError(f"teacher = {teacher.name!r}: has no weights to start from; give a network as `start`")
        self.teacher, self.recipe, self.device = teacher, recipe, torch.device(device)
        if isinstance(teacher.denoiser, nn.Module):  # eval: no dropout in teacher, online network or generator
            teacher.denoiser.to(device).eval().requires_grad_(False)
        self.online = copy.deepcopy(begin).to(device).eval().requires_grad_(True)
        self.generator = Generator(copy.deepcopy(begin), recipe.sigma_init).to(device).eval().requires_grad_(True)
        self.distillation = Distillation(
            teacher.denoiser,
            self.online,
            self.generator,
            recipe.objective,
            recipe.online_weighting,
            recipe.generator_weighting,
        )
        self.online_optimizer = _adam(self.online, recipe)
        self.generator_optimizer = _adam(self.generator, recipe)
        self.ema = EMA(self.generator, recipe.ema_half_life)
        self.profile = NoiseProfile(teacher.sigma_min, teacher.sigma_max, self.device)
        self.iteration = 0

    def step(self) -> None:
        """One iteration of Algorithm 2: the online updates, then one generator update."""
        recipe, rng = self.recipe, stream(self.recipe.seed, self.iteration)
        self._set_rates()
        for _ in range(recipe.online_steps):
            for part in self._draw(recipe.online_noise, rng).chunks(recipe.accumulation):
                loss = self.distillation.denoising_loss(*part)
                (loss.sum() / recipe.batch).backward()
                self.profile.add_online(loss.detach())
            _update(self.online_optimizer)
        for part in self._draw(recipe.generator_noise, rng).chunks(recipe.accumulation):
            loss, y = self.distillation.generator_loss(*part)
            (loss.sum() / recipe.batch).backward()
            self.profile.add_generator(part.sigma, loss.detach(), y)
        _update(self.generator_optimizer)
        self.iteration += 1
        self.ema.update(self.generator, recipe.batch, self.images)

    @property
    def average(self) -> Generator:
        """The averaged generator, in eval mode."""
        return self.ema.average

    @property
    def iterations(self) -> int:
        """Where the recipe ends."""
        return self.recipe.iterations

    @property
    def images(self) -> int:
        """Images that the generator has been updated on."""
        return self.iteration * self.recipe.batch

    def readings(self) -> dict[str, Any]:
        """Means since the last reading: `loss` (the online network's), `generator_loss`, `y` by noise level."""
        return self.profile.read()

    def state(self) -> dict[str, Tensor]:
        """Everything that later iterations depend on, as named tensors."""
        return {
            **with_prefix("online.", self.online.state_dict()),
            **with_prefix("generator.", self.generator.state_dict()),
            **with_prefix("average.", self.average.state_dict()),
            **with_prefix("online_optimizer.", optimizer_state(self.online_optimizer)),
            **with_prefix("generator_optimizer.", optimizer_state(self.generator_optimizer)),
            "iteration": torch.tensor(self.iteration),
        }

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go on from what `state` returned; raises `KeyError` or `RuntimeError` if it is of another network."""
        self.online.load_state_dict(without_prefix("online.", state))
        self.generator.load_state_dict(without_prefix("generator.", state))
        self.average.load_state_dict(without_prefix("average.", state))
        restore_optimizer(self.online_optimizer, without_prefix("online_optimizer.", state))
        restore_optimizer(self.generator_optimizer, without_prefix("generator_optimizer.", state))
        self.iteration = int(state["iteration"])

    def _draw(self, law: NoiseLaw, rng: torch.Generator) -> Draw:
        n, shape, classes = self.recipe.batch, self.teacher.shape, self.teacher.classes
        z, sigma = torch.randn(n, *shape, generator=rng), sample(law, n, rng)
        eps = torch.randn(n, *shape, generator=rng)
        labels = torch.randint(classes, (n,), generator=rng).to(self.device) if classes else None
        return Draw(z.to(self.device), sigma.to(self.device), eps.to(self.device), labels)

    def _set_rates(self) -> None:
        recipe = self.recipe
        rise = min(1.0, (self.iteration + 1) / recipe.warmup) if recipe.warmup else 1.0
        fall = 1 - self.iteration / recipe.iterations if recipe.decay == "linear" else 1.0
        for group in self.online_optimizer.param_groups:
            group["lr"] = recipe.online_lr * rise
        for group in self.generator_optimizer.param_groups:
            group["lr"] = recipe.generator_lr * rise * fall


def _adam(module: nn.Module, recipe: Recipe) -> torch.optim.Adam:
    # the rates are set before every step
    return torch.optim.Adam(module.parameters(), lr=0.0, betas=recipe.betas, fused=True)


def _update(optimizer: torch.optim.Optimizer) -> None:
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
