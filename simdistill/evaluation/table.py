"""Every metric as one row of one table: what it is called, what it needs, and how it is computed.

Evaluations, report, comparison and command line go over the rows and know no name but `RANKED_BY`: another row is
another metric in all of them.
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
"""Which nearest neighbour the balls of precision and recall reach to (Kynkäänniemi et al. 2019)."""
RANKED_BY = "frechet"
"""The metric that variants are ranked by, and that a training is followed by: a distance, lower is better."""

Needs: TypeAlias = Literal["moments", "classes", "features", "mixture"]
"""Mean and covariance of both sets; probabilities of classes; features of both sets; the exact mixture, too."""
Section: TypeAlias = Literal["main", "modes", "own", "further"]
"""The tables of a report."""


@dataclass(frozen=True)
class Compared:
    """Samples and the reference that they are compared with. What several metrics share is computed once.

    `mixture` is the exact distribution of the reference, where it is known; `radii` are those of the reference's balls
    (see `precision_recall`), if they are at hand.
    """

    samples: Statistics
    reference: Statistics
    mixture: GaussianMixture | None = None
    radii: Float[Tensor, " _"] | None = None

    def has(self, needs: Needs) -> bool:
        """Whether there is what a metric needs."""
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
        """Of the samples; it is gathered while they are drawn."""
        assert self.samples.inception_score is not None
        return self.samples.inception_score

    @cached_property
    def balls(self) -> PrecisionRecall:
        """What the balls of nearest neighbours tell: four metrics at once."""
        return precision_recall(*self.features, NEIGHBOURS, self.radii)

    @cached_property
    def modes(self) -> Modes:
        """How the samples spread over the modes of the mixture: three metrics at once."""
        assert self.mixture is not None
        return modes(self.features[0], self.mixture)


@dataclass(frozen=True)
class Metric:
    """A row of the table. Its figures are {mean, std, seeds, values} over the evaluation seeds."""

    name: str
    """Its key in JSON and in CSV."""
    title: str
    """What the report calls it."""
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
    """What the command line's tables call it; those without one are left to the report and the files."""
    format: str = ".3f"
    """How its values are written where a column of the report does not say."""
    quick: bool = False
    """Whether the milestones of a training are measured by it, too."""
    inception: str = ""
    """Title and heading in the features of Inception-v3, if the literature has a name for it there."""
    minimum: bool = False
    """Whether the least of the evaluation seeds is kept, too, as is customary of the FID."""

    def value(self, compared: Compared) -> float | None:
        """Its value for some samples; None if there is not what it needs."""
        return self.function(compared) if self.function is not None and compared.has(self.needs) else None

    def title_in(self, features: str | None) -> str:
        """Its title in features of that name."""
        return self.inception if self.inception and of_inception(features) else self.title

    def heading_in(self, features: str | None) -> str:
        """Its heading in features of that name."""
        return self.inception if self.inception and of_inception(features) else self.heading

    def shows_minimum(self, figure: Mapping[str, Any], features: str | None) -> bool:
        """Whether the least of the seeds is shown beside their mean: of the FID, if there are several."""
        return self.minimum and of_inception(features) and figure["seeds"] > 1

    def text(self, figure: Mapping[str, Any], spread: bool = False) -> str:
        """The mean of a figure as text, and its `spread` if there is one."""
        mean = f"{figure['mean']:{self.format}}"
        return f"{mean} ± {figure['std']:{self.format}}" if spread and figure["seeds"] > 1 else mean


# fmt: off
METRICS: tuple[Metric, ...] = (
    Metric("frechet", "Fréchet distance", "lower", "moments",
           lambda c: frechet_distance(c.samples.moments, c.reference.moments), "main",
           "how far means and covariances of samples and reference are apart",
           heading="Fréchet", quick=True, inception="FID", minimum=True),
    Metric("inception_score", "Inception Score", "higher", "classes",
           lambda c: c.inception_score, "main",
           "how sure a classifier is of each image, and how many classes it sees",
           heading="IS", format=".2f"),
    Metric("precision", "Precision", "higher", "features",
           lambda c: c.balls.precision, "main",
           "share of the samples that look like the reference: fidelity",
           heading="precision", quick=True),
    Metric("recall", "Recall", "higher", "features",
           lambda c: c.balls.recall, "main",
           "share of the reference that the samples can look like: diversity",
           heading="recall", quick=True),
    Metric("modes_found", "Modes found", "higher", "mixture",
           lambda c: float(c.modes.found), "modes",
           "modes that have at least a tenth of their weight in samples within 4σ",
           heading="modes", format=".4g"),
    Metric("within_4_sigma", "Within 4σ of a mode", "higher", "mixture",
           lambda c: c.modes.within, "modes",
           "share of the samples",
           heading="within 4σ", format=".4f"),
    Metric("mass_deviation", "Largest error of a mode's mass", "lower", "mixture",
           lambda c: c.modes.deviation, "modes",
           "relative to its weight; part of it is chance, the more the fewer the samples",
           format=".1%"),
    Metric("density", "Density", "higher", "features",
           lambda c: c.balls.density, "further",
           "how densely the reference surrounds the samples; may pass 1"),
    Metric("coverage", "Coverage", "higher", "features",
           lambda c: c.balls.coverage, "further",
           "share of the reference that has a sample close by"),
    Metric("kernel", "Kernel distance", "lower", "features",
           lambda c: kernel_distance(*c.features), "further",
           "squared MMD with a cubic kernel, unbiased: around 0, or below, for equal distributions",
           format=".5f"),
    Metric("energy", "Energy distance", "lower", "features",
           lambda c: energy_distance(*c.features), "further",
           "pairs across the sets against pairs within them",
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
"""What stands, or once stood, beside the metrics in JSON, and in the tables of a comparison."""


def metric_named(name: str) -> Metric:
    """The row of the table that has this name."""
    return next(metric for metric in METRICS if metric.name == name)


def all_metrics(own: Sequence[OwnMetric] = ()) -> tuple[Metric, ...]:
    """The rows of the table, and behind them those of the user's own metrics; raises as `check_metrics`."""
    check_metrics(own)
    return (*METRICS, *map(_row_of, own))


def quick_metrics() -> tuple[Metric, ...]:
    """The rows that the milestones of a training are measured by."""
    return tuple(metric for metric in METRICS if metric.quick)


def check_metrics(own: Sequence[OwnMetric]) -> None:
    """Raise `ValueError` for a metric whose name is taken or no name, or that cannot be named in a configuration."""
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
    """The row of a user's own metric, which its `code`, an expression, computes."""
    return Metric(name, title, better, "features", function, "own", f"computed by {code}", heading=name)
