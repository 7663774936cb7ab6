"""What is compared: variants of a recipe, each with several training seeds."""

import hashlib
import itertools
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

from simdistill.config.recipes import DMD_TIMES, EDM_TIMES, KARRAS_TIMES, SID, SIM, SIM_TIMES, Recipe
from simdistill.config.settings import convert, field_types, settings_from_mapping, to_mapping
from simdistill.method.distances import L1, Exponential, Huber, PoweredL2, PseudoHuber, SquaredL2
from simdistill.method.ema import EMA
from simdistill.method.noise import NoiseDistribution
from simdistill.method.objectives import DiffInstruct, Objective, ScoreIdentity, ScoreImplicitMatching
from simdistill.method.weightings import InverseError, Uniform, Weighting
from simdistill.support.checks import require

Grid: TypeAlias = Mapping[str, Mapping[str, Any]]
"""Variants by name: the settings that each changes in the recipe."""

FIXED = ("teacher", "reference", "features", "metrics", "seed", "iterations", "batch", "checkpoint_minutes")
"""Settings that all cells share: one teacher, reference and budget. Training seeds have their own option."""


def _figure_2(objective: Objective, times: NoiseDistribution, weighting: Weighting) -> dict[str, Any]:
    return {"objective": objective, "generator_noise": times, "generator_weighting": weighting}


# fmt: off
GRIDS: dict[str, Grid] = {
    # Objective × noise distribution × weighting of the generator's update, and Diff-Instruct.
    "figure-2": {
        "sim-lognormal-none": _figure_2(SIM, SIM_TIMES,    Uniform()),
        "sim-lognormal-sid":  _figure_2(SIM, SIM_TIMES,    InverseError()),
        "sim-karras-none":    _figure_2(SIM, KARRAS_TIMES, Uniform()),
        "sim-karras-sid":     _figure_2(SIM, KARRAS_TIMES, InverseError()),
        "sid-lognormal-none": _figure_2(SID, SIM_TIMES,    Uniform()),
        "sid-lognormal-sid":  _figure_2(SID, SIM_TIMES,    InverseError()),
        "sid-karras-none":    _figure_2(SID, KARRAS_TIMES, Uniform()),
        "sid-karras-sid":     _figure_2(SID, KARRAS_TIMES, InverseError()),
        "diff-instruct":      _figure_2(DiffInstruct(), EDM_TIMES, Uniform()),
    },
    # SIM with every distance, at parameters that suit ‖y‖ of 0.1 to 1.
    "table-4": {
        "squared L2":    {"objective": ScoreImplicitMatching(SquaredL2())},
        "powered L2":    {"objective": ScoreImplicitMatching(PoweredL2(alpha=1.0))},
        "exponential":   {"objective": ScoreImplicitMatching(Exponential(beta=1.0, alpha=1.0))},
        "L1":            {"objective": ScoreImplicitMatching(L1())},
        "Huber":         {"objective": ScoreImplicitMatching(Huber(delta=0.1))},
        "pseudo-Huber":  {"objective": ScoreImplicitMatching(PseudoHuber(c=0.03))},
    },
    # Other settings of Table 5, one choice at a time; `ready_made` adds an EMA with four times the half-life.
    "table-5": {
        "the recipe":     {},
        "2 online steps": {"online_steps": 2},
        "5 online steps": {"online_steps": 5},
        "c = 0.003":      {"objective": ScoreImplicitMatching(PseudoHuber(c=0.003))},
        "c = 0.3":        {"objective": ScoreImplicitMatching(PseudoHuber(c=0.3))},
        "no EMA":         {"ema": (EMA(0.0),)},
    },
    # Objective and weighting as published, with the recipe's noise distribution; docs/family.md derives them.
    "family": {
        "SIM":            {"objective": SIM,                "generator_weighting": Uniform()},
        "SiD, alpha 1":   {"objective": ScoreIdentity(1.0), "generator_weighting": InverseError()},
        "SiD, alpha 1.2": {"objective": ScoreIdentity(1.2), "generator_weighting": InverseError()},
        "Diff-Instruct":  {"objective": DiffInstruct(),     "generator_weighting": Uniform()},
        "DMD":            {"objective": DiffInstruct(),     "generator_weighting": InverseError()},
        "DMD, its times": {"objective": DiffInstruct(),     "generator_weighting": InverseError(),
                           "generator_noise": DMD_TIMES},
    },
}
# fmt: on
"""The paper's comparisons, for any recipe, and one of the methods of its family."""


@dataclass(frozen=True)
class Cell:
    """One run of a comparison: a variant of the recipe with a training seed."""

    variant: str
    recipe: Recipe

    @property
    def seed(self) -> int:
        """The training seed."""
        return self.recipe.seed

    @property
    def digest(self) -> str:
        """Eight hexadecimal digits that identify the recipe."""
        return hashlib.sha256(json.dumps(to_mapping(self.recipe), sort_keys=True).encode()).hexdigest()[:8]

    def folder(self, parent: Path) -> Path:
        """Its run's folder: an existing one of the same recipe, whatever its variant was called."""
        words = re.sub(r"[^A-Za-z0-9.]+", "-", self.variant).strip("-.")[:60]
        return next(parent.glob(f"*-{self.digest}"), parent / f"{words}-seed-{self.seed}-{self.digest}")


def ready_made(name: str, recipe: Recipe) -> Grid:
    """One of `GRIDS` for a recipe: table-5 gets a variant with four times the half-life of the recipe's first EMA."""
    grid, first = GRIDS[name], recipe.ema[0]
    if name != "table-5" or not isinstance(first, EMA) or first.half_life == 0:
        return grid
    return {**grid, "EMA, ×4": {"ema": (replace(first, half_life=4 * first.half_life),)}}


def product(axes: Mapping[str, Sequence[str]]) -> Grid:
    """All combinations of the values of `axes`, given as text; variants are named as their values are written.

    Raises `ValueError` for a setting that does not exist or that all cells share, for an invalid value, and for equal
    values in different notations: they would be the same recipe under two names.
    """
    kinds = field_types(Recipe)
    converted: dict[str, list[Any]] = {}
    written: dict[str, Sequence[str]] = {}
    for key, values in axes.items():
        key = key.replace("-", "_")
        varied = [name for name in kinds if name not in FIXED]
        require(key in varied, "--over", key, f"one of {', '.join(varied)} (training seeds: --seeds)")
        require(len(values) > 0, "--over", key, "followed by the values to compare")
        try:
            written[key], converted[key] = values, [convert(value, kinds[key]) for value in values]
        except ValueError as error:
            raise ValueError(f"--over {key}: {error}") from error
        for k, value in enumerate(converted[key]):
            first = converted[key].index(value)
            require(first == k, f"--over {key}", values[k], f"left out: it is the value {values[first]}, given before")
    axis = {key: list(zip(texts, converted[key], strict=True)) for key, texts in written.items()}
    found: dict[str, dict[str, Any]] = {}
    for chosen in itertools.product(*axis.values()):
        label = ", ".join(f"{key} {text}" for key, (text, _) in zip(axis, chosen, strict=True))
        found[label] = {key: value for key, (_, value) in zip(axis, chosen, strict=True)}
    return found


def cells(recipe: Recipe, grid: Grid, seeds: Sequence[int]) -> list[Cell]:
    """A cell for each variant and training seed, seed by seed: a comparison cut short has cells of all variants.

    Raises `ValueError` for an invalid variant, or an empty grid.
    """
    require(len(grid) > 0, "grid", {}, "given, by --grid or --over")
    found: list[Cell] = []
    for seed, (name, settings) in itertools.product(seeds, grid.items()):
        try:
            found.append(Cell(name, replace(settings_from_mapping(recipe, settings), seed=seed)))
        except ValueError as error:
            raise ValueError(f"variant {name!r}: {error}") from error
    return found


def varied(grid: Grid) -> list[str]:
    """The settings in which the variants differ, in a recipe's order."""
    changed = {key for settings in grid.values() for key in settings}
    return [key for key in field_types(Recipe) if key in changed]
