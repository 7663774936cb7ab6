"""The metrics, one table row each: its name, what it needs, and how it is computed.

Evaluation, report, comparison and command line go over the rows and know no name but `RANKED_BY`: a new row is a new
metric in all of them.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, TypeAlias, get_args

from jaxtyping import Float
from torch import Tensor

from simdistill.config.expressions import expression
from simdistill.config.former import FORMER_FIGURES
from simdistill.evaluation.extractors import of_inception
from simdistill.evaluation.metrics import (
    PrecisionRecall,
    energy_distance,
    frechet_distance,
    kernel_distance,
    precision_recall,
    sliced_wasserstein,
)
from simdistill.evaluation.modes import Modes, modes
from simdistill.evaluation.statistics import Statistics
from simdistill.method.denoisers import GaussianMixture
from simdistill.method.metrics import Better, OwnMetric
from simdistill.support.checks import require

NEIGHBOURS = 3
"""The k of the k-nearest-neighbour balls of precision and recall (Kynkäänniemi et al. 2019)."""
RANKED_BY = "frechet"
"""The metric that ranks variants and tracks a training: a distance, lower is better."""

OF_FEW = "energy"
"""The distance that takes its place where there are no more samples than the features have dimensions."""

Needs: TypeAlias = Literal["moments", "classes", "features", "mixture"]
"""Mean and covariance of both sets; class probabilities; features of both sets; also the exact mixture."""
Section: TypeAlias = Literal["main", "modes", "own", "further"]
"""The tables of a report."""


@dataclass(frozen=True)
class Compared:
    """Samples and their reference. What several metrics share is computed once.

    `mixture` is the exact distribution of the reference, where it is known; `radii` are those of the reference's balls
    (see `precision_recall`) and `within` the mean distance of its pairs (see `energy_distance`), if they are at hand.
    """

    samples: Statistics
    reference: Statistics
    mixture: GaussianMixture | None = None
    radii: Float[Tensor, " _"] | None = None
    within: float | None = None

    def has(self, needs: Needs) -> bool:
        """Whether it has what a metric needs."""
        features = self.samples.features is not None and self.reference.features is not None
        there = {
            "moments": True,
            "classes": self.samples.inception_score is not None,
            "features": features,
            "mixture": features and self.mixture is not None,
        }
        return there[needs]

    @property
    def features(self) -> tuple[Tensor, Tensor]:
        """Features `[n, d]` of the samples and `[m, d]` of the reference, for metrics that need them."""
        assert self.samples.features is not None
        assert self.reference.features is not None
        return self.samples.features, self.reference.features

    @property
    def inception_score(self) -> float:
        """The Inception Score of the samples, gathered while they are drawn."""
        assert self.samples.inception_score is not None
        return self.samples.inception_score

    @cached_property
    def balls(self) -> PrecisionRecall:
        """Precision, recall, density and coverage: four metrics from the same nearest neighbours."""
        return precision_recall(*self.features, NEIGHBOURS, self.radii)

    @cached_property
    def modes(self) -> Modes:
        """How the samples spread over the modes of the mixture, for three metrics."""
        assert self.mixture is not None
        return modes(self.features[0], self.mixture)


@dataclass(frozen=True)
class Metric:
    """A row of the table. Stored values are {mean, std, seeds, values} over the evaluation seeds."""

    name: str
    """Its key in JSON and in CSV."""
    title: str
    """Its name in the report."""
    better: Better
    """Whether "lower" or "higher" is better."""
    needs: Needs
    """Without it the metric is left out."""
    function: Callable[[Compared], float] | None
    """None where only figures are at hand: those of the user's own metrics in a stored evaluation."""
    section: Section
    meaning: str
    """A phrase that says what it measures."""
    heading: str = ""
    """Its heading in the command line's tables; without one it is only in the report and the files."""
    format: str = ".3f"
    """The format of its values, except in the report's columns."""
    quick: bool = False
    """Whether it is also measured at the milestones of a training."""
    inception: str = ""
    """Title and heading in Inception-v3's feature space, if the literature has a name for it there."""
    minimum: bool = False
    """Whether the minimum over the evaluation seeds is also stored, as is customary for the FID."""

    def value(self, compared: Compared) -> float | None:
        """Its value for some samples; None if something that it needs is missing."""
        return self.function(compared) if self.function is not None and compared.has(self.needs) else None

    def title_in(self, features: str | None) -> str:
        """Its title in the feature space of that name."""
        return self.inception if self.inception and of_inception(features) else self.title

    def heading_in(self, features: str | None) -> str:
        """Its heading in the feature space of that name."""
        return self.inception if self.inception and of_inception(features) else self.heading

    def shows_minimum(self, figure: Mapping[str, Any], features: str | None) -> bool:
        """Whether the minimum over the seeds is shown beside the mean: for the FID, if there are several seeds."""
        return self.minimum and of_inception(features) and figure["seeds"] > 1

    def text(self, figure: Mapping[str, Any], spread: bool = False) -> str:
        """The mean as text, with `spread` also the standard deviation, if there are several seeds."""
        mean = f"{figure['mean']:{self.format}}"
        return f"{mean} ± {figure['std']:{self.format}}" if spread and figure["seeds"] > 1 else mean


# fmt: off
METRICS: tuple[Metric, ...] = (
    Metric("frechet", "Fréchet distance", "lower", "moments",
           lambda c: frechet_distance(c.samples.moments, c.reference.moments), "main",
           "distance between means and covariances of samples and reference",
           heading="Fréchet", quick=True, inception="FID", minimum=True),
    Metric("inception_score", "Inception Score", "higher", "classes",
           lambda c: c.inception_score, "main",
           "how confident a classifier is per image, and how diverse the classes are",
           heading="IS", format=".2f"),
    Metric("precision", "Precision", "higher", "features",
           lambda c: c.balls.precision, "main",
           "share of the samples that resemble the reference: fidelity",
           heading="precision", quick=True),
    Metric("recall", "Recall", "higher", "features",
           lambda c: c.balls.recall, "main",
           "share of the reference that the samples cover: diversity",
           heading="recall", quick=True),
    Metric("modes_found", "Modes found", "higher", "mixture",
           lambda c: float(c.modes.found), "modes",
           "modes with at least a tenth of their weight in samples within 4σ",
           heading="modes", format=".4g"),
    Metric("within_4_sigma", "Within 4σ of a mode", "higher", "mixture",
           lambda c: c.modes.within, "modes",
           "share of the samples",
           heading="within 4σ", format=".4f"),
    Metric("mass_deviation", "Largest error of a mode's mass", "lower", "mixture",
           lambda c: c.modes.deviation, "modes",
           "relative to its weight; includes sampling error, which grows with fewer samples",
           format=".1%"),
    Metric("density", "Density", "higher", "features",
           lambda c: c.balls.density, "further",
           "how densely the reference surrounds the samples; may exceed 1"),
    Metric("coverage", "Coverage", "higher", "features",
           lambda c: c.balls.coverage, "further",
           "share of the reference with a sample nearby"),
    Metric("kernel", "Kernel distance", "lower", "features",
           lambda c: kernel_distance(*c.features), "further",
           "squared MMD with a cubic kernel, unbiased: around 0, or below, for equal distributions",
           format=".5f"),
    Metric("energy", "Energy distance", "lower", "features",
           lambda c: energy_distance(*c.features, c.within), "further",
           "mean distance of pairs across the sets, against pairs within them",
           format=".5f"),
    Metric("sliced_wasserstein", "Sliced Wasserstein", "lower", "features",
           lambda c: sliced_wasserstein(*c.features), "further",
           "transport distance, averaged over directions"),
)
# fmt: on

BESIDE = (
    *("samples", "nfe", "images_per_second", "reference", "features", "real", "own_metrics", *FORMER_FIGURES),
    *("variant", "training_seed", "status", "failure", "iteration", "iterations", "images", "seconds"),
)
"""The other keys, today's and former ones, of JSON files and of a comparison's tables."""


def metric_named(name: str) -> Metric:
    """The row of the table with this name."""
    return next(metric for metric in METRICS if metric.name == name)


def all_metrics(own: Sequence[OwnMetric] = ()) -> tuple[Metric, ...]:
    """The rows of the table, then those of the user's own metrics; raises as `check_metrics`."""
    check_metrics(own)
    return (*METRICS, *map(_row_of, own))


def quick_metrics() -> tuple[Metric, ...]:
    """The metrics at the milestones of a training."""
    return tuple(metric for metric in METRICS if metric.quick)


def check_metrics(own: Sequence[OwnMetric]) -> None:
    """Raise `ValueError` for a metric whose name is taken or invalid, or that cannot be written in a configuration."""
    taken = [*(metric.name for metric in METRICS), *BESIDE]
    for metric in own:
        who = expression(metric)
        require(metric.name.isidentifier(), f"{who}: name", metric.name, "letters, digits and underscores")
        require(metric.name not in taken, f"{who}: name", metric.name, "another: this one is taken")
        require(metric.better in get_args(Better), f"{who}: better", metric.better, f"one of {get_args(Better)}")
        taken.append(metric.name)


def _row_of(own: OwnMetric) -> Metric:
    return own_row(own.name, own.title, own.better, expression(own), lambda c: float(own(*c.features)))


def own_row(
    name: str, title: str, better: Better, code: str, function: Callable[[Compared], float] | None = None
) -> Metric:
    """The row of a user's own metric, computed by `code`, an expression."""
    return Metric(name, title, better, "features", function, "own", f"computed by {code}", heading=name)
