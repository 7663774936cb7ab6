"""Names of version 0.1 in configurations, and what they are called now: a run's folder of then still opens."""

from collections.abc import Mapping
from typing import Any

FORMER_SETTINGS = {"averages": "ema", "accumulation": "gradient_accumulation"}
FORMER_NAMES = {"HalfLife": "EMA", "PowerFunction": "PowerEMA"}
FORMER_ARGUMENTS = {
    "EMA": {"images": "half_life"},
    "Clamped": {"law": "distribution"},
    "Truncated": {"law": "distribution"},
}
"""Of settings, of building blocks, and of the arguments of building blocks (by their present names)."""
FORMER_FIGURES = {"evaluations": "nfe", "floor": "real", "averages": "ema"}
FORMER_METRICS = {"loss": "online_loss", "gradient_norm": "online_gradient_norm"}
"""In `evaluation.json`, and in the `metrics.jsonl` of a distillation."""
BARE_FIGURES = (
    *("frechet", "inception_score", "precision", "recall", "density", "coverage", "kernel", "energy"),
    *("sliced_wasserstein", "modes_found", "within_4_sigma", "mass_deviation"),
)
"""Metrics that were stored as bare numbers: shares, with their deviations in `spread`, and all of held-out samples."""


def present(values: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """`values` by their present names, in mappings inside of mappings, too."""
    return {
        names.get(name, name): present(value, names) if isinstance(value, dict) else value
        for name, value in values.items()
    }


def present_figures(values: Mapping[str, Any]) -> dict[str, Any]:
    """Figures of version 0.1, of a sampler or of several, in the present form; those of today as they are.

    Every metric becomes {mean, std, seeds, values}: of what was a bare number no single values are known, unless of one
    set, and a standard deviation of 0 may be an unknown one.
    """
    values = {FORMER_FIGURES.get(name, name): value for name, value in values.items()}
    spread, distance = values.get("spread", {}), values.get("frechet")
    if "mean" not in spread:  # or it is a metric of the user's own that is called so
        values.pop("spread", None)
    seeds = distance.get("seeds", 1) if isinstance(distance, dict) else 1
    found: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, dict) and "mean" in value:
            found[name] = {"seeds": len(value["values"]), **value} if "values" in value else value
        elif isinstance(value, dict):
            found[name] = present_figures(value)
        elif name in BARE_FIGURES and not isinstance(value, str):  # a gallery calls its densities by name
            every = [value] if seeds == 1 else []
            found[name] = {"mean": value, "std": spread.get(name, 0.0), "seeds": seeds, "values": every}
        else:
            found[name] = value
    return found
