"""What `import simdistill` gives: the package's work as functions, in a few lines of Python."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from simdistill.config.auto import NAME
from simdistill.config.recipes import RECIPES, Recipe
from simdistill.config.settings import read_toml, settings_from_mapping
from simdistill.method.metrics import OwnMetric
from simdistill.runs.folder import RunFolder, check_new_run
from simdistill.support.checks import suggest
from simdistill.teachers.loading import load_teacher
from simdistill.teachers.teacher import Teacher
from simdistill.workflows import distilling, evaluating
from simdistill.workflows.auto import auto_recipe as auto_recipe  # which this module gives, too
from simdistill.workflows.auto import choose, lines, tell
from simdistill.workflows.measuring import Measurements
from simdistill.workflows.models import recipe_of, teacher_of
from simdistill.workflows.sampling import Student, load_student
from simdistill.workflows.sampling import sample as sample  # which this module gives, too


def load_generator(
    name: str | Path, teacher: Teacher | None = None, device: str | None = None, ema: int = 0
) -> Student:
    """The student of a run's folder, a .safetensors, or a shipped name ("fashion-mnist", "faces", "faces-unguided").

    Give the `teacher` if its network is code of your own. `ema` counts through the recipe's EMAs; `device` is a GPU, if
    there is one, by default. Raises `ValueError` if there is no such student.
    """
    return load_student(name, teacher, _device(device), ema)


def load_recipe(name: str | Path) -> Recipe:
    """A recipe by its name ("digits", "cifar10-uncond", …), from a TOML file, or that of a run's folder.

    Raises `ValueError` if there is none.
    """
    if str(name) in RECIPES:
        return RECIPES[str(name)]
    path = Path(name)
    if path.is_dir():
        return recipe_of(RunFolder.open(path))
    if path.suffix != ".toml":
        raise ValueError(
            f"recipe = {str(name)!r}: is no recipe, TOML file or run's folder{suggest(str(name), RECIPES)}"
        )
    values = read_toml(path)
    values.pop("verb", None)
    return settings_from_mapping(Recipe(), values)


def distill(
    teacher: Teacher | str,
    recipe: Recipe | str = NAME,
    out: str | Path = "",
    overwrite: bool = False,
    device: str | None = None,
    evaluation_samples: int | None = None,
) -> Student:
    """Distil `teacher` by `recipe` (objects, or names) into a student, with everything about it in the folder `out`.

    Without a recipe, or with "auto", the settings are chosen by what samples of the teacher tell (see `auto_recipe`).
    `out` is runs/RECIPE if not given.

    `evaluation_samples` for each of five seeds are drawn at the end to measure it; 0 for none; if not given, so many
    that measuring takes at most a tenth of the training's time, or ten seconds. Raises `ValueError` for bad settings or
    an existing folder, and what `simdistill.workflows.distilling.distill` raises.
    """
    where, measured, drawn = _device(device), Measurements(samples=evaluation_samples), None
    out = out or Path("runs") / (recipe if isinstance(recipe, str) else "distilled")
    check_new_run(Path(out), overwrite)
    if recipe == NAME:
        teacher = teacher if isinstance(teacher, Teacher) else load_teacher(teacher)
        auto = choose(teacher, where)
        tell(lines(auto))
        recipe, drawn = auto.recipe, auto.drawn
    recipe = recipe if isinstance(recipe, Recipe) else load_recipe(recipe)
    teacher = teacher if isinstance(teacher, Teacher) else load_teacher(teacher, recipe.teacher_levels)
    generator = distilling.distill(teacher, recipe, out, overwrite, where, measured=measured, drawn=drawn)
    return Student(generator, teacher.prepared(recipe), str(out), recipe, where)


def evaluate(
    run: str | Path,
    samples: int = 2000,
    seeds: int = 5,
    teacher: Teacher | None = None,
    device: str | None = None,
    metrics: Sequence[OwnMetric] = (),
) -> dict[str, Any]:
    """The figures of a run's teacher, student and undistilled start, side by side; renews its report.

    Each metric is {mean, std, seeds, values} over the evaluation seeds; `metrics` of your own are measured besides.
    Give the `teacher` if it is code of your own. Raises `ValueError` if there is no such run.
    """
    teacher = teacher or teacher_of(RunFolder.open(Path(run)))
    return evaluating.evaluate_run(run, teacher, samples, seeds, _device(device), metrics=metrics)


def _device(name: str | None) -> str:
    return name or ("cuda" if torch.cuda.is_available() else "cpu")
