"""Training a teacher by EDM's denoising loss (Karras et al. 2022), on images or on samples of an exact teacher."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from simdistill.data.embeddings import Embeddings
from simdistill.data.images import ImageSet
from simdistill.data.listings import CAPTIONS
from simdistill.method.algorithm import denoising_loss
from simdistill.method.denoisers import Preconditioned
from simdistill.method.ema import EMA
from simdistill.method.noise import sample
from simdistill.method.shapes import Condition, Data, Sigma
from simdistill.method.weightings import EDM
from simdistill.support.checks import require
from simdistill.teachers.weights import read_into
from simdistill.training import augmentation
from simdistill.training.ema import AveragedWeights, averaged
from simdistill.training.pretraining import Pretraining
from simdistill.training.randomness import stream
from simdistill.training.state import Parts, restore, state_of


@dataclass(frozen=True)
class _Told:
    """A denoiser conditioned on the augmentation of the batch."""

    denoiser: Preconditioned
    how: Tensor

    def __call__(self, x_t: Data, sigma: Sigma, condition: Condition = None) -> Data:
        return x_t + self.residual(x_t, sigma, condition)

    def residual(self, x_t: Data, sigma: Sigma, condition: Condition = None) -> Data:
        return self.denoiser.residual(x_t, sigma, condition, self.how)


class PretrainingTrainer:
    """Fits a denoiser to `data`, one `step` at a time; sigma_data is computed from the data.

    With `prompts`, it is conditioned on the images' captions, which must all be among them. It starts from the weights
    in `settings.start`, if given. `average` is the denoiser to keep. All random numbers are functions of
    (settings.seed, iteration). Raises `ValueError` for missing captions, or weights of another network.
    """

    def __init__(
        self,
        data: ImageSet,
        settings: Pretraining,
        device: torch.device | str = "cpu",
        prompts: Embeddings | None = None,
    ) -> None:
        self.settings, self.device, self.data = settings, torch.device(device), data
        picture, squares = data.moments()
        mean = round(float(picture.mean()), 3)
        shift = {"none": 0.0, "mean": mean, "picture": picture.float()}[settings.centre]
        centre = picture if settings.centre == "picture" else picture.mean()
        variance = float((squares - (2 * picture - centre) * centre).mean())  # E(x - centre)²
        self.sigma_data = round(math.sqrt(max(variance, 0.0)), 3)
        self.prompts, self._captions = prompts, None if prompts is None else _captions(data, prompts)
        text = None if prompts is None else prompts.encoding.text
        denoiser = settings.build(data.shape, data.classes, self.sigma_data, shift, text)
        if settings.start:
            denoiser, _ = read_into(denoiser, Path(settings.start))
        self.denoiser = denoiser.requires_grad_().to(device).train()
        self.optimizer = torch.optim.Adam(self.denoiser.parameters(), lr=settings.lr, fused=True)
        self.ema = AveragedWeights(self.denoiser, EMA(settings.ema_half_life))
        self.iteration, self.rollbacks = 0, 0
        self._losses = torch.zeros(2, device=device)

    def step(self) -> None:
        """One optimizer step on a random batch."""
        settings, rng = self.settings, stream(self.settings.seed, self.iteration)
        torch.manual_seed(torch.randint(2**62, (), generator=rng).item())  # for dropout
        k = torch.randint(len(self.data), (settings.batch,), generator=rng)
        sigma = sample(settings.noise, settings.batch, rng).to(self.device)
        eps = torch.randn(settings.batch, *self.data.shape, generator=rng).to(self.device)
        condition = self._condition(k, rng)
        x_0, denoiser = self.data.batch(k.tolist()).to(self.device), self.denoiser
        if settings.augment:
            how = augmentation.draw(settings.batch, settings.augment, rng).to(self.device)
            x_0, denoiser = augmentation.moved(x_0, how), _Told(denoiser, augmentation.labels(how))
        loss = denoising_loss(denoiser, EDM(self.sigma_data), x_0, sigma, eps, condition)
        loss.mean().backward()
        for group in self.optimizer.param_groups:
            group["lr"] = settings.lr * self._rate()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.iteration += 1
        self.ema.update(self.denoiser, settings.batch, self.images)
        self._losses += torch.stack([loss.detach().sum(), loss.new_tensor(len(loss))])

    def _condition(self, k: Tensor, rng: torch.Generator) -> Condition:
        """The labels of images `k`, or their captions with caption dropout."""
        if self.prompts is not None and self._captions is not None:
            left_out = torch.rand(len(k), generator=rng) < self.settings.caption_dropout
            rows = self._captions[k]
            left_out |= rows < 0
            return self.prompts[rows.clamp(min=0)].replaced(left_out, self.prompts.empty).to(self.device)
        labels = self.data.labels
        return None if labels is None else labels[k].to(self.device)

    @property
    def average(self) -> Preconditioned:
        """A copy of the denoiser with its EMA, in eval mode and frozen."""
        return averaged(self.denoiser, self.ema)

    @property
    def iterations(self) -> int:
        """The total number of iterations."""
        return self.settings.iterations

    @property
    def images(self) -> int:
        """Images seen so far."""
        return self.iteration * self.settings.batch

    def metrics(self) -> dict[str, Any]:
        """The mean loss since the last call."""
        mean = float(self._losses[0] / self._losses[1])
        self._losses.zero_()
        return {"loss": mean}

    def state(self) -> dict[str, Tensor]:
        """Everything that later iterations depend on, as named tensors."""
        return {**state_of(self._parts()), "position": torch.tensor([self.iteration, self.rollbacks])}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Continue from a `state`; `ValueError` if it is of another network."""
        restore(self._parts(), state)
        self.iteration, self.rollbacks = state["position"].tolist()

    def _parts(self) -> Parts:
        return {"denoiser": self.denoiser, "ema": self.ema.tensors, "optimizer": self.optimizer}

    def _rate(self) -> float:
        done = self.iteration / self.iterations
        rise = min(1.0, (done + 1 / self.iterations) / self.settings.warmup) if self.settings.warmup else 1.0
        fall = 0.5 * (1 + float(torch.cos(torch.tensor(torch.pi * done)))) if self.settings.decay == "cosine" else 1.0
        return 0.5**self.rollbacks * rise * fall


def _captions(data: ImageSet, prompts: Embeddings) -> Tensor:
    """The prompt of each image; -1 for no caption."""
    require(data.captions is not None, f"captions of {data.name}", None, f"in its {' or '.join(CAPTIONS)}")
    given = torch.tensor([bool(caption) for caption in data.captions or ()])
    rows = torch.full((len(given),), -1)
    if given.any():
        rows[given] = prompts.rows([caption for caption in data.captions or () if caption])
    return rows
