"""Telling a training that has gone wrong from one that is merely noisy."""

import math
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

REMEMBERED = 50  # metrics
NEEDED = 10  # metrics before anything is called an explosion


def trouble(metrics: Mapping[str, Any], before: Sequence[Mapping[str, Any]]) -> str | None:
    """What is wrong with the newest `metrics`, in words, or None; `before` are those of the training so far.

    Wrong is a number that is not finite, and a norm (of a gradient, of y) that explodes: further above the median of
    its last 50 values, in logarithms, than ln 30 and than ten times their usual (median absolute) deviation from it.
    Medians are not moved by a few wild values, and a norm that merely rises takes its median along.
    """
    for name, value in metrics.items():
        if isinstance(value, float) and not math.isfinite(value):
            return f"the {name} is {value}"
    for name in (name for name in metrics if name.endswith("_norm")):
        known = [math.log(r[name]) for r in before if r.get(name, 0) > 0][-REMEMBERED:]
        value = metrics.get(name, 0)
        if len(known) < NEEDED or value <= 0:
            continue
        middle = median(known)
        usual = median(abs(k - middle) for k in known)
        if math.log(value) > middle + max(math.log(30), 10 * usual):
            return f"the {name} is {value:.3g}, after {math.exp(middle):.3g}"
    return None
