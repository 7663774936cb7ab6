"""Loading a teacher by name: shipped, exact, a file, a folder, or code."""

import importlib
import shlex
import sys
from dataclasses import replace
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

from simdistill.config.recipes import Levels
from simdistill.data.densities import DENSITIES
from simdistill.runs.folder import RunFolder, verb_of
from simdistill.support.checks import require
from simdistill.support.libraries import TEXT, need
from simdistill.support.tensors import read_names
from simdistill.teachers.autoencoders import Autoencoder
from simdistill.teachers.diffusers_folder import read_folder
from simdistill.teachers.edm import read_edm
from simdistill.teachers.foreign import SUFFIXES, pipeline_of, refusal
from simdistill.teachers.single_file import KINDS, TEXT_ENCODERS, configuration_of, has_part
from simdistill.teachers.teacher import Asked, Judged, Teacher
from simdistill.teachers.weights import has_header, read_network

SHIPPED = ("digits", "fashion-mnist", "faces")
"""The trained teachers that come with the package; `simdistill/weights/README.md` says how they were made."""

_NO_TEACHER = "is a student, which knows only the noise levels of its steps and is no teacher"


def load_teacher(name: str, levels: Levels = "scheduler") -> Teacher:
    """The teacher of that name: one of `SHIPPED` or `DENSITIES` (exact), a file, a folder or module:function.

    A file is a .safetensors of this package, a .pkl of EDM, or a checkpoint of Stable Diffusion beside a diffusers
    folder with its configuration; a folder is diffusers' (see `read_folder`, also for
    `levels`) or that of a pretraining. Nothing in them is executed. `package.module:function` is imported and called
    without arguments; it returns a `Teacher`. Raises `ValueError` with the remedy if there is no such teacher, or if
    the function returns something else.
    """
    if name in SHIPPED:
        if name == "faces":
            need("teacher = 'faces'", *TEXT)
        with as_file(files("simdistill") / "weights" / f"{name}-teacher.safetensors") as path:
            return replace(_from_file(path), name=name)
    if name in DENSITIES:
        mixture = DENSITIES[name]()
        return Teacher(mixture, mixture.shape, name=name)
    if is_single_file(name):
        return _from_folder(Path(name), levels)
    if _is_file(name):
        return _from_file(Path(name))
    if name.endswith(SUFFIXES) and Path(name).is_file():
        raise ValueError(f"teacher = {name!r}: {refusal(Path(name))}")
    if Path(name).is_dir() and verb_of(Path(name)):
        return _from_run(RunFolder(Path(name)))
    if Path(name).is_dir():
        return _from_folder(Path(name), levels)
    if name.endswith(".json") and Path(name).is_file():
        folder = shlex.quote(str(_folder_of(Path(name))))
        raise ValueError(f"teacher = {name!r}: is a configuration: name its folder, --teacher {folder}")
    others = 'a .safetensors or .pkl file, a diffusers folder, or "package.module:function"'
    known = ", ".join((*SHIPPED, *DENSITIES, others))
    require(":" in name, "teacher", name, known)
    return _from_function(name)


def _is_file(name: str) -> bool:
    """Whether a teacher's name is a file's."""
    return name.endswith((".safetensors", ".pkl"))


def is_single_file(name: str) -> bool:
    """Whether a name is that of a checkpoint of Stable Diffusion in one file whose configuration is on disk.

    Raises `ValueError` if it is damaged.
    """
    path = Path(name)
    if path.suffix != ".safetensors" or not path.is_file() or configuration_of(path) is None:
        return False
    return not has_header(path) and pipeline_of(read_names(path)) in KINDS


def is_code(name: str) -> bool:
    """Whether a teacher's name is package.module:function, which may only run if the user asks."""
    return ":" in name and not _is_file(name) and not Path(name).is_dir()


def named_run(path: Path, teacher: str) -> str:
    """A run as a command names it, quoted: with its teacher if that is code, which only the user may name."""
    return shlex.quote(path.as_posix()) + (f" --teacher {shlex.quote(teacher)}" if is_code(teacher) else "")


def _from_file(path: Path) -> Teacher:
    if path.suffix == ".safetensors" and not has_header(path):
        raise ValueError(f"teacher = '{path}': {refusal(path)}")
    denoiser, facts = (read_edm(path), {}) if path.suffix == ".pkl" else read_network(path)
    if facts.keys() & {"levels", "sigma_init"}:  # the latter of version 0.1
        raise ValueError(f"teacher = '{path}': {_NO_TEACHER}; give the one that it was distilled from")
    return Teacher(
        denoiser,
        denoiser.shape,
        denoiser.classes,
        denoiser.sigma_min,
        denoiser.sigma_max,
        name=str(path.resolve()),
        text=denoiser.text,
        asked=Asked(encoder=facts.get("encoder", "")),
        judged=Judged(facts.get("data"), Autoencoder(Path(facts["autoencoder"])) if "autoencoder" in facts else None),
    )


def _from_run(run: RunFolder) -> Teacher:
    """The network that a pretraining made; `ValueError` for the run of a distillation."""
    if verb_of(run.path) == "pretrain":
        remedy = f"train it first, simdistill pretrain --resume {shlex.quote(str(run.path))}"
        require(run.network.is_file(), "teacher", str(run.path), f"a trained one, with {run.network.name}: {remedy}")
        return _from_file(run.network)
    whose = str(run.configuration().get("teacher", "")) or "its teacher"
    raise ValueError(f"teacher = '{run.path}': {_NO_TEACHER}; give the one that it was distilled from, {whose}")


def _folder_of(path: Path) -> Path:
    """The folder of a configuration: the pipeline's, if it is that of a part."""
    folder = path.resolve().parent
    return folder.parent if (folder.parent / "model_index.json").is_file() else folder


def _from_folder(path: Path, levels: Levels) -> Teacher:
    """The teacher in a diffusers folder, or in a checkpoint of one file that such a folder describes."""
    folder, checkpoint = (path, None) if path.is_dir() else (configuration_of(path) or path, path)
    if checkpoint:
        print(f"{checkpoint}: read by the configuration in {folder}", file=sys.stderr, flush=True)
    denoiser, facts = read_folder(folder, levels, checkpoint)
    name = str(path.resolve())
    encoder = str(folder.resolve()) if (folder / "model_index.json").is_file() else ""  # else the network's own folder
    if checkpoint and has_part(checkpoint, *TEXT_ENCODERS):
        encoder = name
    asked = Asked(unconditional=facts.pop("unconditional", None), encoder=encoder)
    judged = Judged(decode=facts.pop("decode"))
    return Teacher(denoiser, name=name, asked=asked, judged=judged, **facts)


def _from_function(name: str) -> Teacher:
    module, _, function = name.partition(":")
    try:
        found: Any = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise ValueError(
            f"teacher = {name!r}: {error}; is the module on PYTHONPATH? For this folder, PYTHONPATH=. simdistill …"
        ) from error
    try:
        teacher = found()
    except Exception as error:  # whatever the user's own code raises
        raise ValueError(f"teacher = {name!r}: calling it failed ({type(error).__name__}: {error})") from error
    if not isinstance(teacher, Teacher):
        raise ValueError(  # noqa: TRY004  (what the user named is wrong)
            f"teacher = {name!r}: must return a simdistill.Teacher, not {type(teacher).__name__}"
        )
    return replace(teacher, name=name)
