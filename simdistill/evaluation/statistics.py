"""The statistics of a set of images: its moments, and the features of some; gathered in constant memory.

Up to rounding, the result depends neither on how the images are split nor on the number of processes.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from simdistill.data.images import ImageSet
from simdistill.evaluation.extractors import Extractor
from simdistill.evaluation.metrics import Features, Moments
from simdistill.evaluation.running import RunningInceptionScore, RunningMoments
from simdistill.method.shapes import Data

KEPT = 10_000
"""The most images whose features are kept, for all metrics but the Fréchet distance: 82 MB of Inception's."""


BATCH = 500  # images that are decoded at a time


@runtime_checkable
class Together(Protocol):
    """The processes that share the images, such as `simdistill.training.processes.Processes`."""

    @property
    def is_main(self) -> bool:
        """Whether this is the process that writes files and shows progress."""
        ...

    def rows(self, batch: int) -> slice:
        """The rows of `batch` that are for this process."""
        ...

    def all_reduce(self, tensor: Tensor) -> Tensor:
        """The sum of `tensor` over the processes, in place."""
        ...


class Alone:
    """A single process."""

    is_main = True

    def rows(self, batch: int) -> slice:
        """All."""
        return slice(0, batch)

    def all_reduce(self, tensor: Tensor) -> Tensor:
        """Its own."""
        return tensor


ALONE = Alone()


@dataclass(frozen=True)
class Statistics:
    """The number of `images`, their `moments`, and the `features` of some, or None if only the moments are known."""

    images: int
    moments: Moments
    features: Float[Tensor, "kept dimensions"] | None = None
    inception_score: float | None = None

    @classmethod
    def of(cls, features: Features) -> "Statistics":
        """The statistics of a set, from all its features."""
        return cls(len(features), Moments.of(features), features)


class Gathering:
    """Gathers the statistics of `images` images in the feature space of an extractor.

    Each process adds its own images. The features of the same `KEPT` images, chosen at random, are kept, whichever
    process adds them. With `scored` the Inception Score is computed too, if the extractor has classes.
    """

    def __init__(self, extractor: Extractor, images: int, scored: bool = False) -> None:
        self._extractor, self._images = extractor, images
        order = torch.randperm(images, generator=torch.Generator().manual_seed(0))
        self._numbers = order[:KEPT].sort().values  # data sets are often sorted by class
        self._score = RunningInceptionScore(images) if scored and extractor.probabilities else None
        self._moments: RunningMoments | None = None
        self._kept = torch.empty(0)

    def add(self, first: int, images: Data) -> Features:
        """Add some images, numbered from `first`; returns their features."""
        with torch.no_grad():
            features = self._extractor.features(images)
        self.add_features(first, features)
        return features

    @torch.no_grad()
    def add_features(self, first: int, features: Features) -> None:
        """Add the features of some images, numbered from `first`."""
        if self._moments is None:
            self._moments = RunningMoments(features.shape[1], features.device)
            self._kept = torch.zeros(len(self._numbers), features.shape[1], dtype=features.dtype)
        self._moments.add(features)
        start, stop = torch.searchsorted(self._numbers, torch.tensor([first, first + len(features)])).tolist()
        self._kept[start:stop] = features.cpu()[self._numbers[start:stop] - first]
        if self._score is not None and self._extractor.probabilities is not None:
            self._score.add(first, self._extractor.probabilities(features))

    def statistics(self, together: Together = ALONE) -> Statistics:
        """The statistics of all images of all processes; to be called once, in every process, after each added some.

        Raises `ValueError` for a value that is not finite.
        """
        if self._moments is None:
            raise ValueError(f"images = {self._images}: must be at least one per process: start fewer processes")
        moments = self._moments.moments(together.all_reduce)
        score = None if self._score is None else self._score.value(together.all_reduce)
        return Statistics(self._images, moments, together.all_reduce(self._kept), score)


def statistics_of(
    images: ImageSet, extractor: Extractor, together: Together = ALONE, advance: Callable[[int], None] = lambda _: None
) -> Statistics:
    """The statistics of a set of images, decoded a few at a time; `advance` is called with the number done."""
    gathering, rows = Gathering(extractor, len(images)), together.rows(len(images))
    for first in range(rows.start, rows.stop, BATCH):
        part = range(first, min(first + BATCH, rows.stop))
        gathering.add(first, images.batch(part))
        advance(len(part))
    return gathering.statistics(together)
