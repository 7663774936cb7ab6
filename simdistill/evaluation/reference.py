"""What samples are judged against, and every metric that there are features for."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from simdistill.data.images import ImageSet
from simdistill.evaluation.extractors import SHIPPED, Extractor, load_extractor
from simdistill.evaluation.metrics import (
    ball_radii,
    energy_distance,
    frechet_distance,
    kernel_distance,
    precision_recall,
    sliced_wasserstein,
)
from simdistill.evaluation.modes import modes
from simdistill.evaluation.statistics import Statistics, statistics_of
from simdistill.evaluation.stored import Stored, read_statistics
from simdistill.method.denoisers import GaussianMixture
from simdistill.method.shapes import Data, Pictures
from simdistill.support.checks import require

NEIGHBOURS = 3  # that the balls of precision and recall reach to (Kynkäänniemi et al. 2019)


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

    def measure(self, samples: Statistics) -> dict[str, float]:
        """Every metric of some samples that their features and the reference's allow for."""
        found, x, y = self.quick(samples), samples.features, self.statistics.features
        if samples.inception_score is not None:
            found["inception_score"] = samples.inception_score
        if x is None or y is None:
            return found
        distances = {"kernel": kernel_distance, "energy": energy_distance, "sliced_wasserstein": sliced_wasserstein}
        found |= {name: distance(x, y) for name, distance in distances.items()}
        return found if self.mixture is None else found | modes(x, self.mixture).figures()

    def quick(self, samples: Statistics) -> dict[str, float]:
        """The metrics to follow a training by: Fréchet distance, precision, recall, density and coverage."""
        found = {"frechet": frechet_distance(samples.moments, self.statistics.moments)}
        x, y = samples.features, self.statistics.features
        return found if x is None or y is None else found | asdict(precision_recall(x, y, NEIGHBOURS, self._radii))

    @cached_property
    def _radii(self) -> Tensor | None:
        """Those of the reference's balls, if there are enough features for any."""
        y = self.statistics.features
        return None if y is None or len(y) <= NEIGHBOURS else ball_radii(y, NEIGHBOURS)

    def real(self) -> dict[str, Any] | None:
        """The metrics of the held-out real samples: what no generator should be said to beat."""
        return None if self.held_out is None else {"samples": self.held_out.images, **self.measure(self.held_out)}


def data_reference(name: str, images: ImageSet, extractor: Extractor) -> Reference:
    """A set of images as the reference, and its held-out part, if there is one, as the floor."""
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
