"""Detecting divergence: telling it from mere noise."""

import math
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

REMEMBERED = 50  # metrics in the running median
NEEDED = 10  # metrics before a norm can be called exploding


def trouble(metrics: Mapping[str, Any], before: Sequence[Mapping[str, Any]]) -> str | None:
    """A message if the newest `metrics` show divergence, else None; `before` are the earlier metrics.

    Divergence is a number that is not finite, or a norm (of a gradient, of y) that explodes: its logarithm exceeds the
    median of its last 50 values by more than ln 30 and more than ten times their median absolute deviation. A few
    outliers do not move the median, and if a norm merely rises, its median follows.
    """
    for name, value in metrics.items():
        if isinstance(value, float) and not math.isfinite(value):
            return f"{name} is {value}"
    for name in (name for name in metrics if name.endswith("_norm")):
        known = [math.log(r[name]) for r in before if r.get(name, 0) > 0][-REMEMBERED:]
        value = metrics.get(name, 0)
        if len(known) < NEEDED or value <= 0:
            continue
        middle = median(known)
        usual = median(abs(k - middle) for k in known)
        if math.log(value) > middle + max(math.log(30), 10 * usual):
            return f"{name} is {value:.3g}, after a median of {math.exp(middle):.3g}"
    return None
