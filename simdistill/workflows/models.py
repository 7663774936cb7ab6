"""Loading the generators and teachers of runs, files and shipped students."""

import copy
from importlib.resources import as_file, files
from pathlib import Path
from shlex import quote
from typing import Any, TypeAlias

import torch
from torch import nn

from simdistill.config.expressions import names_code
from simdistill.config.recipes import RECIPES, Levels, Recipe
from simdistill.config.settings import field_types, settings_from_mapping
from simdistill.method.denoisers import Preconditioned
from simdistill.method.generator import Generator
from simdistill.runs.folder import RunFolder
from simdistill.support.checks import require
from simdistill.support.libraries import TEXT, need
from simdistill.teachers.autoencoders import Autoencoder
from simdistill.teachers.loading import is_code, is_single_file, load_teacher
from simdistill.teachers.teacher import Asked, Judged, Teacher
from simdistill.teachers.weights import is_partial, read_into, read_network

Device: TypeAlias = torch.device | str

STUDENTS = ("fashion-mnist", "faces", "faces-unguided")
"""The generators shipped with the package; `simdistill/weights/README.md` describes how they were made."""


def open_run(out: str | Path) -> RunFolder:
    """Open a run's folder; `ValueError` if it is not one."""
    if not Path(out).exists():
        takers = "`sample`, `export`, `score`, `demo`, `study` and `quiz`"
        shipped = f"the shipped students ({', '.join(STUDENTS)}) are for {takers}"
        raise ValueError(f"RUN = {str(out)!r}: no such folder; runs are made by `simdistill distill`; {shipped}")
    return RunFolder.open(Path(out))


def is_shipped(out: str | Path) -> bool:
    """Whether this names one of `STUDENTS` and not an existing folder of the same name."""
    return str(out) in STUDENTS and not Path(out).exists()


def check_extra(out: str | Path) -> None:
    """Raise `MissingLibrary` if this names a shipped student whose libraries are not installed."""
    if is_shipped(out) and RECIPES[str(out)].teacher == "faces":
        need(str(out), *TEXT)


def teacher_and_recipe(out: str | Path, teacher: Teacher | None = None) -> tuple[Teacher, Recipe]:
    """The teacher and the recipe of a run's or a shipped student; give the `teacher` if it is your own code.

    Raises `ValueError` if there is no such student.
    """
    if is_shipped(out):
        recipe = RECIPES[str(out)]
        return teacher or load_teacher(recipe.teacher), recipe
    run = open_run(out)
    return teacher or teacher_of(run), recipe_of(run)


def load_generator(out: str | Path, teacher: Teacher | None = None, ema: int = 0) -> tuple[Generator, dict[str, Any]]:
    """The generator of a run, in eval mode, and its facts; give the `teacher` if its network is your own code.

    `out` is a run's folder, a generator's .safetensors, or one of `STUDENTS`. `ema` is an index into the recipe's EMAs.
    The network of a teacher from a folder is looked up there again.

    Raises `ValueError` if there is no such run or file, or if its weights are missing or damaged.
    """
    if is_shipped(out):
        check_extra(out)
        with as_file(files("simdistill") / "weights" / f"{out}-student.safetensors") as path:
            return load_generator(path, ema=ema)
    if Path(out).suffix == ".safetensors":
        require(ema == 0, "ema", ema, f"0: {out} holds one generator")
        return _read_generator(Path(out), teacher)
    run = open_run(out)
    last = len(run.configuration().get("ema", [0])) - 1
    require(0 <= ema <= last, "ema", ema, f"in 0 … {last}, one of the run's EMAs")
    path = run.ema(ema)
    if not path.exists():
        raise ValueError(f"{path}: no such file yet; go on with `simdistill distill --resume {quote(str(out))}`")
    partial = teacher is None and is_partial(path)  # it needs what the training left as the teacher has it
    return _read_generator(path, teacher or (teacher_of(run) if partial else folder_teacher(out)))


def known_from(generator: Generator, facts: dict[str, Any]) -> Teacher:
    """What a generator's file tells of the teacher."""
    network: Any = generator.denoiser
    text = network.text if isinstance(network, Preconditioned) else None
    decode = Autoencoder(Path(facts["autoencoder"])) if "autoencoder" in facts else None
    asked, judged = Asked(encoder=facts.get("encoder", "")), Judged(decode=decode)
    return Teacher(network, tuple(facts["shape"]), facts["classes"], text=text, asked=asked, judged=judged)


def _read_generator(path: Path, teacher: Teacher | None) -> tuple[Generator, dict[str, Any]]:
    """The generator in a file, whose network is `teacher`'s if the file does not describe it."""
    own = None if teacher is None else teacher.trainable
    denoiser, facts = read_network(path) if own is None else read_into(copy.deepcopy(own), path)
    if "levels" not in facts and "sigma_init" in facts:  # files of version 0.1
        facts["levels"] = [facts["sigma_init"]]
    if "levels" not in facts:
        raise ValueError(f"{path}: a teacher, not a generator; distil it with --teacher {quote(str(path))}")
    return Generator(denoiser, facts["levels"]), facts


def folder_teacher(out: str | Path) -> Teacher | None:
    """The teacher of the run `out` if it is diffusers', a folder or one file, whose network's weights the run stores.

    None for any other teacher, if the folder is gone, or if `out` is not a run. Raises `ValueError` if it is damaged.
    """
    if not Path(out).is_dir():
        return None
    folder = Path(str(RunFolder.open(Path(out)).configuration().get("teacher", "")))
    there = folder.is_absolute() and (folder.is_dir() or is_single_file(str(folder)))
    return load_teacher(str(folder), levels_of(out)) if there else None


def levels_of(out: str | Path) -> Levels:
    """The noise levels of a diffusers folder as the teacher of the run `out`; its scheduler's if `out` is not a run."""
    is_run = (Path(out) / "config.toml").is_file()
    return RunFolder.open(Path(out)).configuration().get("teacher_levels", "scheduler") if is_run else "scheduler"


def starting_network(run: RunFolder, teacher: Teacher) -> nn.Module:
    """The network from which a run's networks start: the teacher, or the proxy network that was fitted to its samples.

    Raises `ValueError` if the teacher has no weights and the run has no proxy network.
    """
    return teacher.trainable or read_network(run.start)[0]


def teacher_of(run: RunFolder) -> Teacher:
    """The teacher that a run's configuration names; `ValueError` if it is code, which only the user may name."""
    recipe = recipe_of(run)
    name = recipe.teacher
    if name == "teacher" or is_code(name):
        what = "a Python object" if name == "teacher" else f"{name}, your own code"
        raise ValueError(f"{run.path}: its teacher is {what}; name it again with --teacher package.module:function")
    return load_teacher(name, recipe.teacher_levels)


def recipe_of(run: RunFolder, trusted: bool = False) -> Recipe:
    """The recipe in a run's folder; for a converted generator, what is known of it.

    Code that it names as package.module:Class(…) is imported only if `trusted`; otherwise such settings keep their
    defaults, because a run may come from a stranger. `ValueError` if the run is not a distillation.
    """
    values = run.configuration()
    if values.pop("verb", None) not in ("distill", "convert"):
        raise ValueError(f"{run.path}: not the run of a distillation")
    own = {} if trusted else own_code_of(run)
    values = {name: value for name, value in values.items() if name not in own}
    try:
        return settings_from_mapping(Recipe(), values)
    except ValueError as error:
        raise ValueError(f"{run.config}: {error}") from error


def own_code_of(run: RunFolder) -> dict[str, Any]:
    """The settings of a run, except its teacher, that name the user's own code."""
    kinds = field_types(Recipe)
    values = run.configuration()
    return {name: value for name, value in values.items() if name in kinds and names_code(value, kinds[name])}
