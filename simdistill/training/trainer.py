"""Algorithm 2 with what surrounds it: random draws, optimizers, learning rates, averages of the generator."""

import copy
from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.profiler import record_function

from simdistill.config.recipes import Recipe
from simdistill.method.algorithm import Distillation, denoising_loss, frozen
from simdistill.method.generator import Generator
from simdistill.method.noise import NoiseLaw, stratified
from simdistill.method.shapes import Condition, Data, PerSample, Sigma
from simdistill.teachers.teacher import Teacher
from simdistill.training.ema import EMA
from simdistill.training.processes import ALONE, Processes
from simdistill.training.profile import NoiseProfile
from simdistill.training.randomness import normal_rows, stream
from simdistill.training.sharding import recompute_blocks, shard
from simdistill.training.state import Parts, restore, state_of
from simdistill.training.update import Update


class Draw(NamedTuple):
    """The random inputs of one update, one row a sample."""

    z: Data
    sigma: Sigma
    eps: Data
    condition: Condition

    def parts(self, n: int) -> list["Draw"]:
        """The draw in `n` parts as equal as can be."""
        conditions = [None] * n if self.condition is None else self.condition.tensor_split(n)
        columns = (column.tensor_split(n) for column in (self.z, self.sigma, self.eps))
        return [Draw(*part) for part in zip(*columns, conditions, strict=True)]


class DistillationTrainer:
    """Turns `teacher` into a one-step generator, one `step` at a time.

    Online network and generator start from `start`, by default the teacher's own weights. All random numbers are
    functions of (recipe.seed, iteration, row of the whole batch), drawn on the CPU: the same on every device, and
    however many `processes` share a batch. Each of `averages` is a generator to keep.

    Raises `ValueError` if there is nothing to start from, or fewer samples than processes and parts.
    """

    def __init__(
        self,
        teacher: Teacher,
        recipe: Recipe,
        start: nn.Module | None = None,
        device: torch.device | str = "cpu",
        processes: Processes = ALONE,
    ) -> None:
        begin = start if start is not None else teacher.trainable
        if begin is None:
            raise ValueError(f"teacher = {teacher.name!r}: has no weights to start from; give a network as `start`")
        if recipe.batch < processes.count * recipe.accumulation:
            fewest = processes.count * recipe.accumulation
            raise ValueError(f"batch = {recipe.batch}: must be at least processes × accumulation = {fewest}")
        self.recipe, self.device, self.processes = recipe, torch.device(device), processes
        self.teacher = teacher
        self._sharded = processes.shards(recipe.shard)
        self.online = self._placed(copy.deepcopy(begin))
        self.generator = self._placed(Generator(copy.deepcopy(begin), recipe.sigma_init))
        placed, interval = self._placed(teacher.unguided, trained=False), recipe.guidance_interval
        online = teacher.guide(self.online, recipe.online_guidance, interval)
        self.distillation = Distillation(
            teacher.guide(placed, recipe.teacher_guidance, interval),
            online,
            self.generator,
            recipe.objective,
            recipe.online_weighting,
            recipe.generator_weighting,
        )
        if recipe.share_samples:
            online_loss = partial(denoising_loss, online, recipe.online_weighting)
            generator_loss = self._with_samples
        else:
            online_loss, generator_loss = self.distillation.denoising_loss, self.distillation.generator_loss
        self.update_online = Update(self.online, online_loss, recipe, processes, self.device)
        self.update_generator = Update(self.generator, generator_loss, recipe, processes, self.device)
        blank = Generator(copy.deepcopy(begin), recipe.sigma_init)
        self.averages = [EMA(self._placed(copy.deepcopy(blank), trained=False), a) for a in recipe.averages]
        self._blank = blank if self._sharded else None
        self.profile = NoiseProfile(teacher.sigma_min, teacher.sigma_max, self.device, processes)
        self.iteration, self.setbacks = 0, 0

    def step(self) -> None:
        """One iteration of Algorithm 2: the online updates, then one generator update.

        With shared samples the generator's update comes first and leaves its samples to the online updates: in the
        other order the online network would be asked about the very samples that it has just been fitted to.
        """
        recipe, lr = self.recipe, self._rates()
        with record_function("draw"):
            draw = self._draw("generator", recipe.generator_noise)
            others = [self._draw(f"online {k}", recipe.online_noise) for k in range(recipe.online_steps)]
        if recipe.share_samples:
            x_0 = self._update_generator(draw, lr[1])
            others = [other._replace(z=x_0, condition=draw.condition) for other in others]
        for other in others:
            self._update_online(other, lr[0])
        if not recipe.share_samples:
            self._update_generator(draw, lr[1])
        self.iteration += 1
        with record_function("averages"):
            for ema in self.averages:
                ema.update(self.generator, recipe.batch, self.images)

    def _update_online(self, draw: Draw, lr: float) -> None:
        with record_function("online update"):
            losses, norm = self.update_online(draw.parts(self.recipe.accumulation), self.recipe.batch, lr)
            self.profile.add_online(torch.cat([loss for loss, *_ in losses]), norm)

    def _update_generator(self, draw: Draw, lr: float) -> Data:
        """Returns the samples, if they are to be shared; nothing of use if not."""
        # frozen until after the gradient: blocks may be computed once more for it
        with record_function("generator update"), frozen(self.online):
            returned, norm = self.update_generator(draw.parts(self.recipe.accumulation), self.recipe.batch, lr)
            loss, y, *x_0 = (torch.cat(column) for column in zip(*returned, strict=True))
            self.profile.add_generator(draw.sigma, loss, y, norm)
            return x_0[0] if x_0 else draw.z

    def _with_samples(
        self, z: Data, sigma: Sigma, eps: Data, condition: Condition
    ) -> tuple[PerSample, PerSample, Data]:
        """The generator's loss, and its samples for the online network."""
        x_0 = self.generator(z, condition)
        return *self.distillation.matching_loss(x_0, sigma, eps, condition), x_0

    def snapshot(self, k: int = 0, for_all: bool = False) -> Generator:
        """A whole copy of the k-th average, in eval mode, that later steps do not change.

        Where the training is sharded every process must ask, and the first one alone gets the weights, or `for_all`.
        """
        keep = self.processes.leads or for_all
        average = self.averages[k].module
        if self._blank is None:
            return average if not keep else copy.deepcopy(average)
        generator = copy.deepcopy(self._blank)
        state = state_of({"generator": average}, keep)
        if keep:
            restore({"generator": generator}, state)
        return generator.to(self.device).eval().requires_grad_(False)

    @property
    def iterations(self) -> int:
        """Where the recipe ends."""
        return self.recipe.iterations

    @property
    def images(self) -> int:
        """Images that the generator has been updated on."""
        return self.iteration * self.recipe.batch

    def readings(self) -> dict[str, Any]:
        """Means since the last reading, over all processes: losses, gradient norms, ‖y‖ in all and by noise level."""
        return self.profile.read()

    def state(self) -> dict[str, Tensor]:
        """Everything that later iterations depend on; whole, in the first process alone, but every one must ask."""
        return {
            **state_of(self._parts(), keep=self.processes.leads),
            "scale": torch.tensor([self.update_online.scale, self.update_generator.scale], dtype=torch.float64),
            "position": torch.tensor([self.iteration, self.setbacks]),
        }

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go on from what `state` returned, on any number of processes; `ValueError` if it is of other networks."""
        restore(self._parts(), state)
        self.update_online.scale, self.update_generator.scale = (tuple(pair) for pair in state["scale"].tolist())
        self.iteration, self.setbacks = state["position"].tolist()

    def _parts(self) -> Parts:
        return {
            "online": self.online,
            "generator": self.generator,
            **{f"average_{k}": ema.module for k, ema in enumerate(self.averages)},
            "online_optimizer": self.update_online.optimizer,
            "generator_optimizer": self.update_generator.optimizer,
        }

    def _draw(self, update: str, law: NoiseLaw) -> Draw:
        """The random inputs of an update, as many rows of the whole batch as fall to this process."""
        recipe, rows, at = self.recipe, self.processes.rows(self.recipe.batch), (self.iteration, update)
        z = normal_rows(rows, self.teacher.shape, recipe.seed, *at, "z")
        eps = normal_rows(rows, self.teacher.shape, recipe.seed, *at, "eps")
        rng = stream(recipe.seed, *at)  # a number or two a sample: everyone draws all, and takes its own
        sigma = stratified(law, recipe.batch, rng)[rows]
        among = self.teacher.conditions
        which = torch.randint(among, (recipe.batch,), generator=rng)[rows] if among else None
        condition = self.teacher.condition(which)
        return Draw(self._sent(z), self._sent(sigma), self._sent(eps), self._sent(condition))

    def _sent(self, column: Any) -> Any:
        """A tensor, or text, on this process's device, without waiting for what the device still has to do."""
        if column is None:
            return None
        column = column.pin_memory() if self.device.type == "cuda" else column
        return column.to(self.device, non_blocking=True)

    def _rates(self) -> tuple[float, float]:
        """Learning rates of online network and generator: risen, fallen, and halved at every setback."""
        recipe = self.recipe
        rise = min(1.0, (self.iteration + 1) / recipe.warmup) if recipe.warmup else 1.0
        fall = 1 - self.iteration / recipe.iterations if recipe.decay == "linear" else 1.0
        rise *= 0.5**self.setbacks
        return recipe.online_lr * rise, recipe.generator_lr * rise * fall

    def _placed(self, denoiser: Any, trained: bool = True) -> Any:
        """A network in eval mode (without dropout) on its device or devices, as the recipe says; others as they are."""
        if not isinstance(denoiser, nn.Module):
            return denoiser
        if self._sharded:
            module = copy.deepcopy(denoiser)  # the caller's own stays whole
            shard(module, self.processes.count, self.device)
        else:
            module = denoiser.to(self.device)
            if self.device.type == "cuda":  # the layout of its fast convolutions; CPUs lose by it in the norms
                module.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        recompute_blocks(module, self.recipe.gradient_checkpointing)
        return module.eval().requires_grad_(trained)
