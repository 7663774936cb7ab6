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


def present(values: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """`values` by their present names, in mappings inside of mappings, too."""
    return {
        names.get(name, name): present(value, names) if isinstance(value, dict) else value
        for name, value in values.items()
    }
