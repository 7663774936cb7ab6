"""The options shared by `distill` and `plan`."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import arg

from simdistill.commands.common import Config, Overwrite
from simdistill.commands.training import Training
from simdistill.config.options import building_blocks, first_word, named_file, parse_options
from simdistill.config.recipes import RECIPES, Recipe
from simdistill.config.settings import read_toml, settings_from_mapping
from simdistill.support.checks import require


@dataclass(frozen=True)
class Distill(Training):
    """The options of a distillation and of its plan."""

    settings: Annotated[Recipe, arg(name="")] = RECIPES["digits"]
    out: Path | None = None
    """Output folder; runs/RECIPE if not given."""
    config: Config = None
    overwrite: Overwrite = False
    dry_run: bool = False
    """Print the plan and stop, as `simdistill plan` does."""
    gpu: tuple[str, ...] = ()
    """GPU models to plan for, such as A100-40GB; all known ones if none is given."""
    gpus: tuple[int, ...] = ()
    """Numbers of GPUs to plan for; 1 4 8 if none is given."""

    def out_of(self, name: str) -> Path:
        """The output folder for the recipe `name`."""
        return self.out or Path("runs") / name


def distill_options(words: Sequence[str], verb: str, about: str) -> tuple[str, Distill]:
    """The recipe's name and the options; recipe < --config < command line."""
    name, rest = first_word(words, verb, "RECIPE", RECIPES)
    base = configured(RECIPES[name], named_file(rest, "--config"))
    return name, parse_options(Distill(settings=base), rest, f"{verb} {name}", f"{about}\n\n{about_recipes(verb)}")


def about_recipes(verb: str) -> str:
    """How to name a recipe, or none, and which there are."""
    return f"""\
  simdistill {verb} --teacher X [options]{" " * (7 - len(verb))} settings for X, by its own samples
  simdistill {verb} RECIPE [options]{" " * (10 - len(verb))} RECIPE is one of
{textwrap.fill(", ".join(RECIPES), 76, initial_indent="    ", subsequent_indent="    ", break_on_hyphens=False)}

{about_blocks()}"""


def about_blocks() -> str:
    """How to write a recipe's building blocks."""
    return f"""\
The defaults below are the recipe's. Write building blocks as expressions:
  --objective "ScoreImplicitMatching(PseudoHuber(c=0.1))"
  --generator-noise "Truncated(LogNormal(-1, 2), 0.01, 50)"

Building blocks, with their arguments and defaults:
{building_blocks()}
"""


def configured(recipe: Recipe, path: Path | None) -> Recipe:
    """The recipe, updated by the settings of a TOML file, if one is given."""
    if path is None:
        return recipe
    values = read_toml(path)
    verb = values.pop("verb", "distill")
    require(verb == "distill", "--config", str(path), f"a configuration of distill, not of {verb}")
    try:
        return settings_from_mapping(recipe, values)
    except ValueError as error:
        raise ValueError(f"--config {path}: {error}") from error
