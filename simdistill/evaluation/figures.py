"""Metrics as they are stored and printed: {mean, std, seeds, values} over the evaluation seeds."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from simdistill.config.expressions import expression
from simdistill.evaluation.table import OF_FEW, RANKED_BY, Metric, all_metrics, metric_named, own_row, quick_metrics
from simdistill.method.metrics import OwnMetric


def over_seeds(values: Sequence[float], minimum: bool = False) -> dict[str, Any]:
    """A metric's values as mean, standard deviation (0 for one value), their number, and the values themselves.

    With `minimum` also their minimum.
    """
    x = torch.tensor(values, dtype=torch.float64)
    std = float(x.std()) if len(x) > 1 else 0.0
    figure = {"mean": float(x.mean()), "std": std, "seeds": len(x), "values": x.tolist()}
    return figure | {"minimum": float(x.min())} if minimum else figure


def figures_of(values: Sequence[Mapping[str, float]], own: Sequence[OwnMetric] = ()) -> dict[str, dict[str, Any]]:
    """The stored form of metrics, by name, from their values at each evaluation seed."""
    found = [metric for metric in all_metrics(own) if metric.name in values[0]]
    return {metric.name: over_seeds([one[metric.name] for one in values], metric.minimum) for metric in found}


def described(own: Sequence[OwnMetric]) -> dict[str, dict[str, str]]:
    """Title, direction and code of the user's own metrics, by name: a later reader may not have their code."""
    return {metric.name: {"title": metric.title, "better": metric.better, "code": expression(metric)} for metric in own}


def metrics_of(figures: Mapping[str, Any]) -> tuple[Metric, ...]:
    """The metrics that a stored evaluation may have: those of the table, and the user's own that it describes."""
    own = figures.get("own_metrics", {})
    return (*all_metrics(), *(own_row(name, **about) for name, about in own.items()))


def in_short(figures: Mapping[str, Any], features: str | None, few: bool = False) -> str:
    """The quick metrics of a sampler as short text, such as "Fréchet 0.644, precision 0.877, recall 0.322".

    Of `few` samples, the distance for these comes in place of the first.
    """
    shown = [metric_named(OF_FEW if few and metric.name == RANKED_BY else metric.name) for metric in quick_metrics()]
    names = {metric: metric.heading_in(features) or metric.title.lower() for metric in shown if metric.name in figures}
    return ", ".join(f"{name} {metric.text(figures[metric.name])}" for metric, name in names.items())


def total_samples(figures: Mapping[str, Any]) -> int:
    """The number of samples of a sampler's metrics, over all evaluation seeds."""
    return figures["samples"] * figures[RANKED_BY]["seeds"]
