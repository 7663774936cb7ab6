"""Building blocks drawn at random, for the properties that hold for any of them."""

import dataclasses
from typing import get_type_hints

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from simdistill.config.expressions import PLACES
from simdistill.method.noise import (
    NoiseDistribution,
)


def blocks(kind):
    """Building blocks of a class, or for a place, with arbitrary legal arguments, some left at defaults."""
    if kind in PLACES:
        known = PLACES[kind].known
        simple = [k for k in known if NoiseDistribution not in get_type_hints(k).values()]
        nested = [k for k in known if k not in simple]
        return st.one_of([st.deferred(lambda k=k: blocks(k)) for k in simple + nested])

    def build(arguments):
        try:
            return kind(**arguments)
        except ValueError:
            return None

    def argument(hint):
        if hint is float:
            return st.one_of(st.floats(1e-3, 0.999), st.floats(1, 100))
        return st.integers(3, 50) if hint is int else blocks(hint)

    hints = get_type_hints(kind)
    required = {f.name for f in dataclasses.fields(kind) if f.default is dataclasses.MISSING}
    return (
        st.fixed_dictionaries(
            {name: argument(hints[name]) for name in required},
            optional={name: argument(hints[name]) for name in hints if name not in required},
        )
        .map(build)
        .filter(lambda block: block is not None)
    )


many = settings(
    max_examples=30,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow],
)
