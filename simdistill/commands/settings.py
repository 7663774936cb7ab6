"""The words of a distillation: what `distill` and `plan` understand alike."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import arg

from simdistill.commands.common import Common, EvaluationSamples
from simdistill.config.options import building_blocks, first_word, named_file, parse_options
from simdistill.config.recipes import RECIPES, Recipe
from simdistill.config.settings import read_toml, settings_from_mapping
from simdistill.support.checks import require


@dataclass(frozen=True)
class Distill(Common):
    """The options of a distillation, and of its plan."""

    settings: Annotated[Recipe, arg(name="")] = RECIPES["digits"]
    out: Path | None = None
    """Folder of the run; runs/RECIPE if not given."""
    config: Path | None = None
    """TOML file with settings of the recipe, as in a run's config.toml; the command line overrides it."""
    overwrite: bool = False
    """Delete a run that is in the folder already."""
    log: tuple[str, ...] = ()
    """Services that get the metrics besides the run's folder: tensorboard, wandb, trackio."""
    evaluation_samples: EvaluationSamples = 2000
    dry_run: bool = False
    """Print the plan and stop, as `simdistill plan` does."""
    gpu: tuple[str, ...] = ()
    """Kinds of GPU to plan for, as A100-40GB; all known ones if none is given."""
    gpus: tuple[int, ...] = ()
    """Numbers of GPUs to plan for; 1 4 8 if none is given."""

    def out_of(self, name: str) -> Path:
        """The folder of the run of the recipe `name`."""
        return self.out or Path("runs") / name


def distill_options(words: Sequence[str], verb: str, about: str) -> tuple[str, Distill]:
    """The recipe's name and the options that `words` give; recipe < --config < command line."""
    name, rest = first_word(words, verb, "RECIPE", RECIPES)
    base = configured(RECIPES[name], named_file(rest, "--config"))
    return name, parse_options(Distill(settings=base), rest, f"{verb} {name}", f"{about}\n\n{_about_recipes(verb)}")


def _about_recipes(verb: str) -> str:
    return f"""\
  simdistill {verb} RECIPE [options]{" " * (10 - len(verb))} RECIPE is one of
{textwrap.fill(", ".join(RECIPES), 76, initial_indent="    ", subsequent_indent="    ", break_on_hyphens=False)}

{about_blocks()}"""


def about_blocks() -> str:
    """How a recipe's building blocks are written."""
    return f"""\
The defaults below are the recipe's. Objectives, distances, noise levels and weights are written as
  --objective "ScoreImplicitMatching(PseudoHuber(c=0.1))" --generator-noise "Truncated(LogNormal(-1, 2), 0.01, 50)"
from these building blocks:
{building_blocks()}
"""


def configured(recipe: Recipe, path: Path | None) -> Recipe:
    """The recipe with the settings of a file, if there is one, in place of its own."""
    if path is None:
        return recipe
    values = read_toml(path)
    verb = values.pop("verb", "distill")
    require(verb == "distill", "--config", str(path), f"of a distillation, not of {verb}")
    try:
        return settings_from_mapping(recipe, values)
    except ValueError as error:
        raise ValueError(f"--config {path}: {error}") from error
