"""The trainer of a method: random draws, optimizers, learning rates, EMA of the student."""

import copy
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.profiler import record_function

from simdistill.config.recipes import Recipe
from simdistill.data.images import open_images
from simdistill.method.algorithm import Batch, Loss, Update, frozen
from simdistill.method.generator import Generator
from simdistill.method.noise import stratified
from simdistill.support.checks import require
from simdistill.teachers.teacher import Teacher
from simdistill.training.batches import in_parts, sent
from simdistill.training.ema import AveragedWeights, averaged
from simdistill.training.processes import ALONE, Processes
from simdistill.training.profile import NoiseProfile
from simdistill.training.randomness import normal_rows, stream
from simdistill.training.sharding import recompute_blocks, shard
from simdistill.training.state import Parts, restore, state_of
from simdistill.training.trained import open_for_training, parameter_names
from simdistill.training.update import Step


class DistillationTrainer:
    """Distils `teacher` into a student by the recipe's method, one `step` at a time.

    Its `networks`, by the method's names, start from `start`, by default the teacher's own weights. All random numbers
    are functions of (recipe.seed, iteration, row of the full batch), drawn on the CPU: the same on every device and for
    any number of `processes` that share a batch. `images` opens real images, if the method needs some.

    Raises `ValueError` if there is nothing to start from, or fewer samples than processes and micro-batches.
    """

    def __init__(
        self,
        teacher: Teacher,
        recipe: Recipe,
        start: nn.Module | None = None,
        device: torch.device | str = "cpu",
        processes: Processes = ALONE,
        images: Callable[[str], Any] = open_images,
    ) -> None:
        begin = start if start is not None else teacher.trainable
        if begin is None:
            raise ValueError(f"teacher = {teacher.name!r}: has no weights to start from; give a network as `start`")
        fewest = processes.world_size * recipe.gradient_accumulation
        if recipe.batch < fewest:
            raise ValueError(f"batch = {recipe.batch}: must be at least processes × gradient_accumulation = {fewest}")
        self.recipe, self.device, self.processes = recipe, torch.device(device), processes
        self.teacher, self.method = teacher, recipe.algorithm
        self._sharded = processes.shards(recipe.shard)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(recipe.seed)  # for the method's own networks
            made = self.method.networks(teacher, begin)
        self._blank: Any = copy.deepcopy(made[self.method.student]) if self._sharded else None
        self.networks = {name: open_for_training(self._placed(network)) for name, network in made.items()}
        placed = self._placed(teacher.unguided)
        guided = teacher.guide(placed, recipe.teacher_guidance, recipe.guidance_interval)
        self.players: dict[str, Any] = {"teacher": guided, **self.networks}
        self.updates = self.method.updates()
        names = [update.network for update in self.updates]
        unknown = sorted(set(names) - set(self.networks))
        require(not unknown, "updates of networks", unknown, f"of the method's: {', '.join(self.networks)}")
        require(len(set(names)) == len(names), "updates of networks", names, "one per network; `times` repeats it")
        self.steps = {
            update.network: Step(
                self.networks[update.network], partial(update.loss, self.players), recipe, processes, self.device
            )
            for update in self.updates
        }
        self._images = {update.images: images(update.images) for update in self.updates if update.images}
        for name, found in self._images.items():
            remedy = f"{teacher.shape}, as the teacher's samples; simdistill convert has --size, --channels and --pad"
            require(found.shape == teacher.shape, f"images of {name}: shape", found.shape, remedy)
        self.ema = [AveragedWeights(self.student, averaging) for averaging in recipe.ema]
        self.profile = NoiseProfile(teacher.sigma_min, teacher.sigma_max, self.device, processes)
        self.iteration, self.rollbacks = 0, 0

    @property
    def student(self) -> Any:
        """The network to keep, in its current state."""
        return self.networks[self.method.student]

    def step(self) -> None:
        """One iteration of the method: its updates, in order."""
        with record_function("draw"):
            drawn = [(update, self._draw(update, name)) for update in self.updates for name in _positions(update)]
        before: tuple[Batch, Loss] | None = None
        for update, batch in drawn:
            if update.reuses_samples and before is not None:
                batch = batch._replace(x_0=before[1].x_0, condition=before[0].condition)
            loss = self._update(update, batch)
            before = (batch, loss) if loss.x_0 is not None else before
        self.iteration += 1
        with record_function("ema"):
            for ema in self.ema:
                ema.update(self.student, self.recipe.batch, self.images)

    def _update(self, update: Update, batch: Batch) -> Loss:
        # frozen until after the gradient: checkpointed blocks are recomputed for it
        still = [self.players[name] for name in ("teacher", *update.freezes)]
        with record_function(f"{update.network} update"), frozen(*still):
            parts = in_parts(batch, self.recipe.gradient_accumulation)
            loss, norm = self.steps[update.network](parts, self.recipe.batch, self._rate(update))
            self.profile.add(update.network, batch.sigma, loss, norm)
            return loss

    def snapshot(self, k: int = 0, for_all: bool = False) -> Generator:
        """A full copy of the student with EMA k, in eval mode and frozen.

        If the training is sharded, all processes must call this; only the main process gets the weights, unless
        `for_all`.
        """
        keep = self.processes.is_main or for_all
        if self._blank is None:
            return averaged(self.student, self.ema[k]) if keep else self.student
        student, state = copy.deepcopy(self._blank), state_of({"student": self.ema[k].tensors}, keep)
        if keep:
            restore({"student": open_for_training(student)}, state)
        return student.to(self.device).eval().requires_grad_(False)

    @property
    def frozen_names(self) -> set[str]:
        """The names of the student's parameters that are not trained and keep the teacher's values."""
        return parameter_names(self.student, trained=False)

    @property
    def iterations(self) -> int:
        """The total number of iterations."""
        return self.recipe.iterations

    @property
    def images(self) -> int:
        """Images that the student was updated on."""
        return self.iteration * self.recipe.batch

    def metrics(self) -> dict[str, Any]:
        """Means since the last call, over all processes: losses, gradient norms, ‖y‖ in total and by noise level."""
        return self.profile.read()

    def state(self) -> dict[str, Tensor]:
        """Everything that later iterations depend on, in the main process; all processes must call this."""
        scales = {f"scale.{name}": torch.tensor(step.scale, dtype=torch.float64) for name, step in self.steps.items()}
        position = {"position": torch.tensor([self.iteration, self.rollbacks])}
        return {**state_of(self._parts(), keep=self.processes.is_main), **scales, **position}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Continue from a `state`, on any number of processes; `ValueError` if it is of other networks."""
        restore(self._parts(), state)
        for name, step in self.steps.items():
            scale, steps = state[f"scale.{name}"].tolist()
            step.scale = (scale, int(steps))
        self.iteration, self.rollbacks = state["position"].tolist()

    def _parts(self) -> Parts:
        return {
            **{f"network_{name}": network for name, network in self.networks.items()},
            **{f"ema_{k}": ema.tensors for k, ema in enumerate(self.ema)},
            **{f"optimizer_{name}": step.optimizer for name, step in self.steps.items()},
        }

    def _draw(self, update: Update, position: str) -> Batch:
        """The random inputs of an update: this process's rows of the full batch."""
        recipe, rows, at = self.recipe, self.processes.rows(self.recipe.batch), (self.iteration, position)
        z = normal_rows(rows, self.teacher.shape, recipe.seed, *at, "z")
        eps = normal_rows(rows, self.teacher.shape, recipe.seed, *at, "eps")
        rng = stream(recipe.seed, *at)  # a number or two per sample: all processes draw all and take their own
        sigma = stratified(update.noise, recipe.batch, rng)[rows]
        among = self.teacher.conditions
        which = torch.randint(among, (recipe.batch,), generator=rng)[rows] if among else None
        batch = Batch(z, sigma, eps, self.teacher.condition(which))
        if update.images:
            images = self._images[update.images]
            chosen = torch.randint(len(images), (recipe.batch,), generator=rng)[rows]
            labels = images.labels[chosen] if self.teacher.classes else None
            batch = batch._replace(images=images.at(chosen), images_condition=labels)
        return sent(batch, self.device)

    def _rate(self, update: Update) -> float:
        """An update's learning rate, with warm-up and decay, halved at every rollback."""
        recipe = self.recipe
        rise = min(1.0, (self.iteration + 1) / recipe.warmup) if recipe.warmup else 1.0
        fall = 1 - self.iteration / recipe.iterations if recipe.decay == "linear" and update.decays else 1.0
        rise *= 0.5**self.rollbacks
        return update.lr * rise * fall

    def _placed(self, denoiser: Any) -> Any:
        """A network in eval mode (without dropout) on its device or sharded; a callable that is no module unchanged."""
        if not isinstance(denoiser, nn.Module):
            return denoiser
        if self._sharded:
            module = copy.deepcopy(denoiser)  # do not shard the caller's
            shard(module, self.processes.world_size, self.device)
        else:
            module = denoiser.to(self.device)
            if self.device.type == "cuda":  # faster convolutions; on CPUs, norms would be slower
                module.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        recompute_blocks(module, self.recipe.gradient_checkpointing)
        return module.eval()


def _positions(update: Update) -> list[str]:
    """The names of an update's random streams, numbered if it is repeated."""
    return [update.network] if update.times is None else [f"{update.network} {k}" for k in range(update.times)]
