"""Noise distributions within the range of levels that a teacher was trained on."""

import sys
from dataclasses import replace
from typing import Any

from simdistill.config.recipes import Recipe
from simdistill.method.denoisers import GaussianMixture
from simdistill.method.noise import kept_inside, share_outside
from simdistill.teachers.teacher import Teacher

NOISES = ("generator_noise", "online_noise")
NEGLIGIBLE = 0.01  # share of draws outside, up to which a distribution is left as it is


def shares_outside(recipe: Recipe, teacher: Teacher) -> dict[str, float]:
    """The share of each noise distribution's draws outside the teacher's range; 0 for exact densities, which have none.

    For those of NOISES; a method of your own may draw others.
    """
    exact = isinstance(teacher.unguided, GaussianMixture)
    ends = teacher.sigma_min, teacher.sigma_max
    return {name: 0.0 if exact else share_outside(getattr(recipe, name), *ends) for name in NOISES}


def kept_in_range(recipe: Recipe, teacher: Teacher, shown: bool = True) -> Recipe:
    """The recipe with distributions truncated to the teacher's range if more than 1 % of their draws are outside.

    Unchanged if `outside_range` is "allow". What is done is said on stderr if `shown`. Raises `ValueError` if a
    distribution has no level in the range.
    """
    truncated: dict[str, Any] = {}
    low, high = teacher.sigma_min, teacher.sigma_max
    for name, share in shares_outside(recipe, teacher).items():
        if share <= NEGLIGIBLE:
            continue
        option = f"--{name.replace('_', '-')}"
        outside = f"{option}: {share:.1%} of its levels are outside the teacher's range, {low:.3g} … {high:.3g}"
        if recipe.outside_range == "allow":
            done = "they are drawn nevertheless (--outside-range allow)"
        else:
            truncated[name] = _inside(option, getattr(recipe, name), low, high)
            done = "truncated to it (--outside-range allow draws them)"
        if shown:
            print(f"{outside}: {done}", file=sys.stderr, flush=True)
    return replace(recipe, **truncated) if truncated else recipe


def _inside(option: str, distribution: Any, low: float, high: float) -> Any:
    try:
        return kept_inside(distribution, low, high)
    except ValueError as error:
        remedy = "give one with levels in it, or the range that the teacher was trained on"
        none = f"{option} {distribution}: has no level in the teacher's range {low:g} … {high:g}"
        raise ValueError(f"{none}: {remedy}") from error
