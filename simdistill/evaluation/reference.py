"""What samples are judged against: a set of images or samples, by its statistics."""

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
from simdistill.evaluation.metrics import ball_radii
from simdistill.evaluation.statistics import Statistics, statistics_of
from simdistill.evaluation.stored import Stored, read_statistics
from simdistill.evaluation.table import NEIGHBOURS, Compared, Metric, all_metrics, quick_metrics
from simdistill.method.denoisers import GaussianMixture
from simdistill.method.metrics import OwnMetric
from simdistill.method.shapes import Data, Pictures
from simdistill.support.checks import require


@dataclass(frozen=True)
class Reference:
    """The `statistics` of a set of images, by its `name`, and of a held-out set where there is one.

    `mixture` is the law of the set where it is known exactly, in the features of the `extractor`.
    """

    name: str
    extractor: Extractor
    statistics: Statistics
    held_out: Statistics | None = None
    mixture: GaussianMixture | None = None

    def measure(self, samples: Statistics, own: Sequence[OwnMetric] = ()) -> dict[str, float]:
        """By name every metric of the table, and of the user's `own`, that there is what it needs for."""
        return self._values(samples, all_metrics(own))

    def quick(self, samples: Statistics) -> dict[str, float]:
        """The metrics to follow a training by."""
        return self._values(samples, quick_metrics())

    def real(self, own: Sequence[OwnMetric] = ()) -> dict[str, Any] | None:
        """The figures of the held-out real samples, one value each: what no generator should be said to beat."""
        if self.held_out is None:
            return None
        return {"samples": self.held_out.images, **figures_of([self.measure(self.held_out, own)], own)}

    def _values(self, samples: Statistics, metrics: Sequence[Metric]) -> dict[str, float]:
        compared = Compared(samples, self.statistics, self.mixture, self._radii)
        values = {metric.name: metric.value(compared) for metric in metrics}
        return {name: value for name, value in values.items() if value is not None}

    @cached_property
    def _radii(self) -> Tensor | None:
        """Those of the reference's balls, if there are enough features for any."""
        y = self.statistics.features
        return None if y is None or len(y) <= NEIGHBOURS else ball_radii(y, NEIGHBOURS)


def data_reference(name: str, images: ImageSet, extractor: Extractor) -> Reference:
    """A set of images as the reference, with its held-out part, if there is one."""
    held_out = None if images.held_out is None else statistics_of(images.held_out, extractor)
    return Reference(name, extractor, statistics_of(images, extractor), held_out)


def stored_reference(
    path: Path,
    features: str,
    shape: tuple[int, ...],
    device: torch.device | str = "cpu",
    decode: Callable[[Data], Pictures] | None = None,
) -> Reference:
    """The statistics in a `.npz` as the reference of samples of that `shape`, which if they are latents `decode` shows.

    `features` is a name or a file as `load_extractor` takes it; it may be left out if the file says that they are those
    of a shipped extractor. Raises `ValueError` if the file cannot be read, or is in other features.
    """
    stored = read_statistics(path)
    extractor = load_extractor(features or _named(stored, path), device).after(decode)
    other = f"{stored.extractor}, of {path}: samples are compared in the features that the reference is in"
    require(stored.extractor in (None, extractor.name), "features", extractor.name, other)
    d, found = len(stored.statistics.moments.mean), extractor.features(torch.zeros(2, *shape)).shape[1]
    require(found == d, f"dimensions of {extractor.name}", found, f"{d}, as in {path}: take the extractor that made it")
    count = f"{stored.statistics.images:,} images of " if stored.statistics.images else ""
    name = f"{count}{stored.data or path.name} in the features {extractor.name}"
    return Reference(name, extractor, stored.statistics, stored.held_out)


def check_reference(
    stored: str, features: str, shape: tuple[int, ...], decode: Callable[[Data], Pictures] | None = None
) -> None:
    """Raise `ValueError` if a reference's file, or the weights of its features, will not do for samples of `shape`."""
    if stored:
        stored_reference(Path(stored), features, shape, decode=decode)
    elif features:
        load_extractor(features).after(decode).features(torch.zeros(2, *shape))


def _named(stored: Stored, path: Path) -> str:
    """The extractor that the file names, if it can be had without another file."""
    extractor = stored.extractor or ""
    name = extractor.rpartition("-")[0] or extractor  # without the digits of its weights
    whose = extractor or "an extractor that it does not name, as Inception-v3 if it is EDM's"
    if name not in SHIPPED:
        raise ValueError(f"{path}: is in the features of {whose}: give the weights by --inception or --features")
    return name
