"""How good a sampler is: every metric against a reference, over several evaluation seeds, and its speed."""

import os
import platform
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from importlib.resources import as_file, files
from statistics import median
from typing import Any, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from simdistill.data.images import ImageSet, open_images
from simdistill.denoisers import GaussianMixture
from simdistill.evaluation.features import ImageClassifier
from simdistill.evaluation.metrics import (
    Features,
    Moments,
    energy_distance,
    frechet_distance,
    kernel_distance,
    precision_recall,
    sliced_wasserstein,
)
from simdistill.sampling import heun, noise_from_seeds
from simdistill.shapes import Condition, Data
from simdistill.teachers.teacher import Teacher
from simdistill.teachers.weights import read_into
from simdistill.validation import require

Sampler: TypeAlias = Callable[[Data, Condition], Data]
"""sampler(z, condition): one sample for each row of standard normal z."""

TEACHER_STEPS = 18  # of Heun's sampler: 35 evaluations, EDM's setting for small images
REFERENCE_SEED = 2**31  # far from the seeds that are evaluated
BATCH = 500  # samples that a network is called with
REFERENCE_IMAGES = 10_000  # of a larger set: every one of them is compared with every sample


@dataclass(frozen=True)
class Reference:
    """What samples are judged against: `features` of the reference set, and of a held-out set where there is one."""

    name: str
    extract: Callable[[Data], Features]
    features: Features
    held_out: Float[Tensor, "held_out dimensions"] | None = None

    def measure(self, features: Features) -> dict[str, float]:
        """Every metric of one set of features."""
        return {
            **self.glance(features),
            "kernel": kernel_distance(features, self.features),
            "energy": energy_distance(features, self.features),
            "sliced_wasserstein": sliced_wasserstein(features, self.features),
        }

    def glance(self, features: Features) -> dict[str, float]:
        """The metrics to follow a training by: Fréchet distance, precision, recall, density and coverage."""
        distance = frechet_distance(Moments.of(features), self._moments)
        return {"frechet": distance, **asdict(precision_recall(features, self.features))}

    @cached_property
    def _moments(self) -> Moments:
        return Moments.of(self.features)

    def floor(self) -> dict[str, Any] | None:
        """The metrics of the held-out real samples: what no generator should be said to beat."""
        return None if self.held_out is None else {"samples": len(self.held_out), **self.measure(self.held_out)}


def reference_for(teacher: Teacher, samples: int = 2000, device: torch.device | str = "cpu") -> Reference:
    """What a student of `teacher` is judged against.

    For the digits, the training images in the features of the shipped classifier; for a teacher without a data set,
    `samples` of its own by the reference sampler (of an exact mixture, exact ones), as they are: the distance then
    measures distillation alone.
    """
    if teacher.data == "digits":
        name = "the digits' 1,348 training images in the features of the shipped classifier"
        return data_reference(name, open_images("digits"), digits_classifier())
    require(teacher.data is None, "data", teacher.data, "digits, or absent: no other reference is known")
    if isinstance(teacher.denoiser, GaussianMixture):
        exact = teacher.denoiser.sample(samples, torch.Generator().manual_seed(REFERENCE_SEED))
        return Reference(f"{samples} exact samples", lambda x: x, exact)
    seeds = range(REFERENCE_SEED, REFERENCE_SEED + samples)
    own = draw(teacher_sampler(teacher), seeds, teacher.shape, balanced_labels(samples, teacher.classes), device)
    return Reference(f"{samples} samples of the teacher", lambda x: x.flatten(1), own.flatten(1))


def data_reference(name: str, data: ImageSet, classifier: ImageClassifier) -> Reference:
    """A labelled set as the reference and its held-out part as the floor, in the classifier's features."""

    @torch.no_grad()
    def extract(images: Data) -> Features:
        return torch.cat([classifier.features(part) for part in images.split(BATCH)])

    def features(images: ImageSet) -> Features:
        return extract(images.batch(range(min(len(images), REFERENCE_IMAGES))))

    return Reference(name, extract, features(data), None if data.held_out is None else features(data.held_out))


def digits_classifier() -> ImageClassifier:
    """The classifier that the package ships; `simdistill features` made it."""
    with as_file(files("simdistill") / "weights" / "digits-classifier.safetensors") as path:
        return read_into(ImageClassifier((1, 8, 8), 10, 32), path)[0]


def teacher_sampler(teacher: Teacher, steps: int = TEACHER_STEPS) -> Sampler:
    """Heun's reference sampler over the teacher's own range of noise levels: 2 steps - 1 evaluations a sample."""
    return lambda z, condition: heun(teacher.denoiser, z, condition, steps, teacher.sigma_min, teacher.sigma_max)


def balanced_labels(n: int, classes: int) -> Condition:
    """0, 1, …, classes - 1, 0, 1, … `[n]`; None if there are no classes."""
    return torch.arange(n) % classes if classes else None


@torch.no_grad()
def draw(
    sampler: Sampler,
    seeds: Sequence[int],
    shape: Sequence[int],
    condition: Condition = None,
    device: torch.device | str = "cpu",
) -> Data:
    """`[len(seeds), *shape]` on the CPU: one sample for each seed, and for each row of `condition` if there is one."""
    parts = _parts(noise_from_seeds(seeds, shape), condition)
    return torch.cat([sampler(z.to(device), None if c is None else c.to(device)).cpu() for z, c in parts])


def evaluate(
    samplers: dict[str, tuple[Sampler, int]],
    teacher: Teacher,
    reference: Reference,
    samples: int = 2000,
    seeds: int = 5,
    thorough: bool = True,
    device: torch.device | str = "cpu",
) -> dict[str, dict[str, Any]]:
    """The figures of each named (sampler, evaluations a sample), on the same `seeds` × `samples` noises.

    `frechet` and the other distances are {mean, std, seeds, values}; `precision`, `recall`, `density` and `coverage`
    are means, their standard deviations in `spread`. `images_per_second` is the median over the seeds of the samplers'
    own time, starting noise given, taken in turns so that a busy machine slows all of them alike.
    Unless `thorough` only the metrics of `Reference.glance` are taken.
    """
    require(samples >= 10, "samples", samples, "at least 10")
    require(seeds >= 1, "seeds", seeds, "at least 1")
    if thorough:
        print(f"evaluating {seeds} × {samples} samples of {', '.join(samplers)}", file=sys.stderr, flush=True)
    condition = balanced_labels(samples, teacher.classes)
    condition = None if condition is None else condition.to(device)
    measured: dict[str, list[dict[str, float]]] = {name: [] for name in samplers}
    rates: dict[str, list[float]] = {name: [] for name in samplers}
    for seed in range(seeds):
        z = noise_from_seeds(range(seed * samples, (seed + 1) * samples), teacher.shape).to(device)
        for name, (sampler, _) in samplers.items():
            sampler(z[:BATCH], None if condition is None else condition[:BATCH])  # warm up
            _wait(z)
            started = time.perf_counter()
            drawn = [sampler(*part) for part in _parts(z, condition)]
            _wait(z)
            rates[name].append(samples / (time.perf_counter() - started))
            features = reference.extract(torch.cat(drawn).cpu())
            measured[name].append(reference.measure(features) if thorough else reference.glance(features))
    return {
        name: {
            **_summary(measured[name]),
            "evaluations": evaluations,
            "images_per_second": round(median(rates[name]), 1),
            "samples": samples,
        }
        for name, (_, evaluations) in samplers.items()
    }


def machine() -> str:
    """What the speeds were measured on."""
    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    threads = torch.get_num_threads()
    cores = f"{platform.machine()}, {os.cpu_count()} CPU cores{gpu}"
    return f"{cores}; PyTorch {torch.__version__}, {threads} thread{'s' if threads > 1 else ''}"


def _wait(z: Tensor) -> None:
    """Until a GPU has done what it was asked to: calls return before."""
    if z.is_cuda:
        torch.cuda.synchronize(z.device)


def _parts(z: Tensor, condition: Tensor | None) -> list[tuple[Tensor, Tensor | None]]:
    conditions = [None] * len(z.split(BATCH)) if condition is None else condition.split(BATCH)
    return list(zip(z.split(BATCH), conditions, strict=True))


def _summary(measured: list[dict[str, float]]) -> dict[str, Any]:
    values = {name: torch.tensor([m[name] for m in measured], dtype=torch.float64) for name in measured[0]}
    spread = {name: float(v.std()) if len(v) > 1 else 0.0 for name, v in values.items()}
    shares = ("precision", "recall", "density", "coverage")
    distances = {
        name: {"mean": float(v.mean()), "std": spread[name], "seeds": len(v), "values": v.tolist()}
        for name, v in values.items()
        if name not in shares
    }
    return {
        **distances,
        **{name: float(values[name].mean()) for name in shares},
        "spread": {name: spread[name] for name in shares},
    }
