"""`simdistill distill`: from a teacher to a one-step generator."""

import json
import os
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from tyro.conf import arg

from simdistill.commands.common import (
    ABOUT_RESUMING,
    Common,
    Resume,
    asks_to_resume,
    own_teacher,
    parameters,
    print_figures,
    spare_threads,
)
from simdistill.configuration import read_toml, settings_from_mapping, to_mapping, to_toml
from simdistill.options import building_blocks, first_word, parse_options
from simdistill.recipes import RECIPES, Recipe
from simdistill.runs import RunFolder
from simdistill.teachers.teacher import load_teacher
from simdistill.validation import require
from simdistill.workflows import distilling, measuring


@dataclass(frozen=True)
class _Distill(Common):
    settings: Annotated[Recipe, arg(name="")] = RECIPES["digits"]
    out: Path | None = None
    """Folder of the run; runs/RECIPE if not given."""
    config: Path | None = None
    """TOML file with settings of the recipe, as in a run's config.toml; the command line overrides it."""
    overwrite: bool = False
    """Delete a run that is in the folder already."""
    log: tuple[str, ...] = ()
    """Services that get the metrics besides the run's folder: tensorboard, wandb, trackio."""
    dry_run: bool = False
    """Print the resolved settings and stop."""


@dataclass(frozen=True)
class _ResumeDistillation(Resume):
    teacher: str | None = None
    """Its teacher, package.module:function, if it is code of your own."""


def run(words: Sequence[str]) -> None:
    """`simdistill distill RECIPE …` or `simdistill distill --resume RUN`."""
    if asks_to_resume(words):
        asked = parse_options(_ResumeDistillation(), words, "distill", ABOUT_RESUMING)
        teacher = own_teacher(asked.teacher) or measuring.teacher_of(RunFolder.open(asked.resume))
        spare_threads(parameters(teacher))
        distilling.resume(asked.resume, teacher, asked.device, asked.log)
        return _report_run(asked.resume, asked.json)
    name, rest = first_word(words, "distill", "RECIPE", RECIPES)
    options = parse_options(_Distill(settings=RECIPES[name]), rest, f"distill {name}", _about_distill())
    if options.config is not None:
        base = _configured(RECIPES[name], options.config)
        options = parse_options(_Distill(settings=base), rest, f"distill {name}", _about_distill())
    recipe, out = options.settings, options.out or Path("runs") / name
    kinds = "FILE.pkl, FILE.safetensors, a diffusers FOLDER or module:function"
    require(recipe.teacher != "", "--teacher", recipe.teacher, f"given for {name}: {kinds}")
    teacher = load_teacher(recipe.teacher)
    if options.dry_run:
        plan = {"out": str(out), "parameters": parameters(teacher), "recipe": to_mapping(recipe)}
        return print(json.dumps(plan) if options.json else _plan_as_text(plan))
    spare_threads(parameters(teacher))
    distilling.distill(teacher, recipe, out, options.overwrite, options.device, options.log)
    return _report_run(out, options.json)


def _about_distill() -> str:
    return f"""Distil a teacher into a one-step generator by Algorithm 2: a folder with weights, metrics, report.

  simdistill distill RECIPE [options]    RECIPE is one of
{textwrap.fill(", ".join(RECIPES), 76, initial_indent="    ", subsequent_indent="    ", break_on_hyphens=False)}
  simdistill distill --resume RUN        goes on with an interrupted run, to the same weights bit by bit

The defaults below are the recipe's. Objectives, distances, noise levels and weights are written as
  --objective "ScoreImplicitMatching(PseudoHuber(c=0.1))" --generator-noise "Truncated(LogNormal(-1, 2), 0.01, 50)"
from these building blocks:
{building_blocks()}
"""


def _configured(recipe: Recipe, path: Path) -> Recipe:
    values = read_toml(path)
    verb = values.pop("verb", "distill")
    require(verb == "distill", "--config", str(path), f"of a distillation, not of {verb}")
    try:
        return settings_from_mapping(recipe, values)
    except ValueError as error:
        raise ValueError(f"--config {path}: {error}") from error


def _plan_as_text(plan: dict[str, Any]) -> str:
    return f"# would write {plan['out']}; {plan['parameters']:,} parameters a network\n{to_toml(plan['recipe'])}"


def _report_run(out: Path, as_json: bool) -> None:
    if os.environ.get("RANK", "0") != "0":  # of a run in several processes the first one reports
        return
    print_figures(json.loads(RunFolder(out).evaluation.read_text()), out, as_json)
