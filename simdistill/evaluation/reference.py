"""The reference of an evaluation: the statistics of a set of images or samples."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from simdistill.data.images import ImageSet
from simdistill.evaluation.extractors import SHIPPED, Extractor, load_extractor
from simdistill.evaluation.figures import figures_of
from simdistill.evaluation.metrics import ball_radii, mean_distance
from simdistill.evaluation.statistics import Statistics, statistics_of
from simdistill.evaluation.stored import Stored, read_statistics
from simdistill.evaluation.table import (
    NEIGHBOURS,
    OF_FEW,
    Compared,
    Metric,
    all_metrics,
    metric_named,
    quick_metrics,
)
from simdistill.method.denoisers import GaussianMixture
from simdistill.method.metrics import OwnMetric
from simdistill.method.shapes import Data, Pictures
from simdistill.support.checks import require


@dataclass(frozen=True)
class Reference:
    """The `statistics` of a set of images called `name`, and of a held-out set if there is one.

    `mixture` is the exact distribution of the set, if known, in the feature space of the `extractor`.
    """

    name: str
    extractor: Extractor
    statistics: Statistics
    held_out: Statistics | None = None
    mixture: GaussianMixture | None = None

    def measure(self, samples: Statistics, own: Sequence[OwnMetric] = ()) -> dict[str, float]:
        """All metrics of the table and the user's `own` by name, except those that need something missing."""
        return self._values(samples, all_metrics(own))

    def quick(self, samples: Statistics) -> dict[str, float]:
        """The quick metrics, for the milestones of a training; of few samples, also the distance for these."""
        few = samples.images <= len(self.statistics.moments.mean)
        return self._values(samples, (*quick_metrics(), *([metric_named(OF_FEW)] if few else [])))

    def real(self, own: Sequence[OwnMetric] = ()) -> dict[str, Any] | None:
        """The metrics of the real (held-out) samples, one value each: an upper bound for any generator."""
        if self.held_out is None:
            return None
        return {"samples": self.held_out.images, **figures_of([self.measure(self.held_out, own)], own)}

    def _values(self, samples: Statistics, metrics: Sequence[Metric]) -> dict[str, float]:
        within = self._within if any(metric.name == OF_FEW for metric in metrics) else None
        compared = Compared(samples, self.statistics, self.mixture, self._radii, within)
        values = {metric.name: metric.value(compared) for metric in metrics}
        return {name: value for name, value in values.items() if value is not None}

    @cached_property
    def _within(self) -> float | None:
        """The mean distance of the reference's pairs, if there are features."""
        return None if self.statistics.features is None else mean_distance(self.statistics.features)

    @cached_property
    def _radii(self) -> Tensor | None:
        """The radii of the reference's balls, if there are enough features."""
        y = self.statistics.features
        return None if y is None or len(y) <= NEIGHBOURS else ball_radii(y, NEIGHBOURS)


def data_reference(
    name: str, images: ImageSet, extractor: Extractor, advance: Callable[[int], None] = lambda _: None
) -> Reference:
    """A set of images as the reference, with its held-out part if it has one.

    `advance` is called with the number of images done, of both parts.
    """
    own = statistics_of(images, extractor, advance=advance)
    held_out = None if images.held_out is None else statistics_of(images.held_out, extractor, advance=advance)
    return Reference(name, extractor, own, held_out)


def stored_reference(
    path: Path,
    features: str,
    shape: tuple[int, ...],
    device: torch.device | str = "cpu",
    decode: Callable[[Data], Pictures] | None = None,
) -> Reference:
    """The statistics in a `.npz` as the reference for samples of `shape`; latents are decoded by `decode`.

    `features` is a name or a file as for `load_extractor`; it may be omitted if the file names a shipped extractor.
    Raises `ValueError` if the file cannot be read or has another feature space.
    """
    stored = read_statistics(path)
    extractor = load_extractor(features or _named(stored, path), device).after(decode)
    other = f"{stored.extractor}, as in {path}: samples and reference need the same feature space"
    require(stored.extractor in (None, extractor.name), "features", extractor.name, other)
    d, found = len(stored.statistics.moments.mean), extractor.features(torch.zeros(2, *shape)).shape[1]
    require(found == d, f"dimensions of {extractor.name}", found, f"{d}, as in {path}: use the extractor that made it")
    count = f"{stored.statistics.images:,} images of " if stored.statistics.images else ""
    name = f"{count}{stored.data or path.name} in the features {extractor.name}"
    return Reference(name, extractor, stored.statistics, stored.held_out)


def check_reference(
    stored: str, features: str, shape: tuple[int, ...], decode: Callable[[Data], Pictures] | None = None
) -> None:
    """Raise `ValueError` if the reference's file or the extractor's weights do not fit samples of `shape`."""
    if stored:
        stored_reference(Path(stored), features, shape, decode=decode)
    elif features:
        load_extractor(features).after(decode).features(torch.zeros(2, *shape))


def _named(stored: Stored, path: Path) -> str:
    """The extractor that the file names, if it needs no file of the user's."""
    extractor = stored.extractor or ""
    name = extractor.rpartition("-")[0] or extractor  # without the digits of its weights
    whose = extractor or "an extractor that it does not name (EDM's files: Inception-v3)"
    if name not in SHIPPED:
        raise ValueError(f"{path}: has the feature space of {whose}: give the weights with --inception or --features")
    return name
