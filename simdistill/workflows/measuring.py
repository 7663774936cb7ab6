"""A run's network, its samples, and its figures beside those of its teacher."""

import copy
import json
from collections.abc import Sequence
from dataclasses import replace
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import nn

from simdistill.config.recipes import RECIPES, Levels, Recipe
from simdistill.config.settings import settings_from_mapping
from simdistill.evaluation.extractors import of_inception
from simdistill.evaluation.quality import (
    Sampler,
    balanced_labels,
    draw,
    evaluate,
    evaluations,
    machine,
    reference_for,
    teacher_sampler,
)
from simdistill.evaluation.reference import Reference
from simdistill.method.denoisers import Preconditioned
from simdistill.method.generator import Generator
from simdistill.method.shapes import Data, Pictures
from simdistill.method.text import Text
from simdistill.reports.pictures import picture, side_by_side
from simdistill.reports.report import write_report
from simdistill.runs.folder import RunFolder
from simdistill.support.checks import require
from simdistill.support.files import write_atomically
from simdistill.teachers.autoencoders import Autoencoder
from simdistill.teachers.encoders import encoded, load_encoder
from simdistill.teachers.teacher import Teacher, is_code, load_teacher
from simdistill.teachers.weights import read_into, read_network
from simdistill.training.processes import ALONE, Processes

Device: TypeAlias = torch.device | str

MILESTONE_SAMPLES = 2000
MILESTONE_SEEDS = 3
STUDENTS = ("fashion-mnist", "faces", "faces-unguided")
"""The generators that come with the package; `simdistill/weights/README.md` tells how they were made."""
PICTURE_SEEDS = range(80)  # of the pictures over time and of the report


def sample(
    out: str | Path,
    seeds: Sequence[int],
    labels: Sequence[int] | None = None,
    teacher: Teacher | None = None,
    device: Device = "cpu",
    average: int = 0,
    prompts: Sequence[str] = (),
    pictures: bool = False,
) -> Pictures:
    """One sample a seed of the generator `out` (see `load_generator`), on the CPU; latents, if `pictures`, decoded.

    Seed s has the label `labels[s % len(labels)]`, or s % classes for None; of a generator that takes text it has
    `prompts[s % len(prompts)]`, encoded by the teacher's own encoder, or the run's prompts in turn. The same seed and
    condition give the same sample whatever the other seeds. `teacher` is needed if the network is one of your own.
    Raises `ValueError` for a condition that the generator does not know, or if there is no such generator.
    """
    teacher = teacher or folder_teacher(out)
    generator, facts = load_generator(out, teacher, average)
    known = teacher or _known(generator, facts)
    require(labels is None or known.classes > 0, "labels", labels, "left out: the generator knows no classes")
    require(not prompts or known.text is not None, "prompt", list(prompts), "left out: the generator takes no text")
    for label in labels or ():
        require(0 <= label < known.classes, "labels", label, f"in 0 … {known.classes - 1}")
    if prompts:
        known = replace(known, prompts=_encoded(prompts, known, device))
    elif known.text is not None:
        recipe = recipe_of(RunFolder.open(Path(out))) if Path(out).is_dir() else Recipe()
        own = recipe.prompts != "" or known.prompts is not None
        require(own, "--prompt", "", f"given: {out} has no prompts of its own")
        known = known.prepared(recipe)
    chosen = range(known.conditions) if labels is None else labels
    rows = torch.tensor([chosen[seed % len(chosen)] for seed in seeds]) if chosen else None
    drawn = draw(quiet(generator.to(device), known), seeds, known.shape, rows, device)
    return known.pictured(drawn, device) if pictures else drawn


def open_run(out: str | Path) -> RunFolder:
    """The run's folder; `ValueError` if it is none, which says who takes the shipped students."""
    if not Path(out).exists():
        takers = "`sample`, `export`, `score`, `demo`, `study` and `quiz`"
        shipped = f"{', '.join(STUDENTS)}, which come with the package, go to {takers}"
        raise ValueError(f"RUN = {str(out)!r}: no such folder: runs are made by `simdistill distill`; {shipped}")
    return RunFolder.open(Path(out))


def is_shipped(out: str | Path) -> bool:
    """Whether this names one of `STUDENTS`, and no folder that is called the same."""
    return str(out) in STUDENTS and not Path(out).exists()


def lesson_of(out: str | Path, teacher: Teacher | None = None) -> tuple[Teacher, Recipe]:
    """From whom, and how, the student of a run or a shipped one was taught; give the `teacher` if it is your own code.

    Raises `ValueError` if there is neither.
    """
    if is_shipped(out):
        recipe = RECIPES[str(out)]
        return teacher or load_teacher(recipe.teacher), recipe
    run = open_run(out)
    return teacher or teacher_of(run), recipe_of(run)


def load_generator(
    out: str | Path, teacher: Teacher | None = None, average: int = 0
) -> tuple[Generator, dict[str, Any]]:
    """The generator of a run, in eval mode, and its facts; give the `teacher` if its network is one of your own.

    `out` is the run's folder, a .safetensors that a run kept, or one of `STUDENTS`. `average` counts through the
    recipe's averages. A network that came in a folder is looked for there again.

    Raises `ValueError` if there is no such run or file, or its weights are missing or damaged.
    """
    if is_shipped(out):
        with as_file(files("simdistill") / "weights" / f"{out}-student.safetensors") as path:
            return load_generator(path, average=average)
    if Path(out).suffix == ".safetensors":
        require(average == 0, "average", average, f"0: {out} holds one generator")
        return _read_generator(Path(out), teacher)
    run = open_run(out)
    last = len(run.configuration().get("averages", [0])) - 1
    require(0 <= average <= last, "average", average, f"in 0 … {last}, one of the run's averages")
    path = run.average(average)
    if not path.exists():
        raise ValueError(f"{path}: no such file yet; go on with `simdistill distill --resume {out}`")
    return _read_generator(path, teacher or folder_teacher(out))


def _known(generator: Generator, facts: dict[str, Any]) -> Teacher:
    """What a generator's file tells of the teacher."""
    network: Any = generator.denoiser
    text = network.text if isinstance(network, Preconditioned) else None
    decode = Autoencoder(Path(facts["autoencoder"])) if "autoencoder" in facts else None
    encoder = facts.get("encoder", "")
    return Teacher(network, tuple(facts["shape"]), facts["classes"], decode=decode, text=text, encoder=encoder)


def _encoded(prompts: Sequence[str], teacher: Teacher, device: Device) -> Text:
    """The prompts, by the teacher's own encoder."""
    tokens = 0 if teacher.text is None else teacher.text.tokens
    return encoded(load_encoder(teacher.encoder, device, tokens=tokens), prompts)


def _read_generator(path: Path, teacher: Teacher | None) -> tuple[Generator, dict[str, Any]]:
    """The generator in a file, whose network is `teacher`'s if the file does not describe it."""
    own = None if teacher is None else teacher.trainable
    denoiser, facts = read_network(path) if own is None else read_into(copy.deepcopy(own), path)
    if "sigma_init" not in facts:
        raise ValueError(f"{path}: holds a teacher, not a generator; distil it with --teacher {path}")
    return Generator(denoiser, facts["sigma_init"]), facts


def evaluate_run(
    out: str | Path,
    teacher: Teacher | None = None,
    samples: int = 2000,
    seeds: int = 5,
    device: Device = "cpu",
    reference: str = "",
    features: str = "",
    batch: int | None = None,
    processes: Processes = ALONE,
    student_only: bool = False,
    prompts: str = "",
) -> dict[str, Any]:
    """Measure a run's teacher, student and undistilled generator side by side, and renew its pictures and report.

    They are left as they are if they rest on more samples than this evaluation. `reference`, `features` and `prompts`
    go before those of the run's recipe. Of several `processes` each draws its part of the samples, and all return the
    figures. With `student_only` neither teacher nor undistilled generator draw any, and nothing is written.

    Returns what it writes to `evaluation.json`: the figures that `simdistill.evaluation.quality.evaluate` describes,
    `reference` and `features`, what they were measured against and in, `floor`, those of held-out real samples where
    there are any, `speedup`, the student's images per second over the teacher's if it drew, and `machine`, what they
    were measured on. Raises `ValueError` if there is no such run, or its reference cannot be had.
    """
    run = open_run(out)
    recipe = recipe_of(run)
    if prompts:
        recipe = replace(recipe, prompts=prompts, held_out_prompts="")
    teacher = (teacher or teacher_of(run)).prepared(recipe).judged(recipe)
    teacher.check(device)
    start = starting_network(run, teacher)
    averages = recipe.averages
    students = [load_generator(out, Teacher(start, teacher.shape), k)[0].to(device) for k in range(len(averages))]
    start.to(device)
    samplers: dict[str, tuple[Sampler, int]] = {
        "teacher": (teacher_sampler(teacher), evaluations(teacher)),
        "student": (quiet(students[0], teacher), 1),
        "undistilled": (quiet(Generator(start, students[0].sigma_init), teacher), 1),
    }
    others = {f"average-{k}": repr(average) for k, average in enumerate(averages) if k > 0}
    samplers |= {name: (quiet(student, teacher), 1) for name, student in zip(others, students[1:], strict=True)}
    if student_only:
        samplers = {name: sampler for name, sampler in samplers.items() if name not in ("teacher", "undistilled")}
    stored, features = reference or recipe.reference, features or recipe.features
    against = reference_for(teacher, device=device, stored=stored, features=features)
    found = evaluate(samplers, teacher, against, samples, seeds, device=device, batch=batch, together=processes)
    figures: dict[str, Any] = {
        **found,
        "averages": others,
        "reference": against.name,
        "features": against.extractor.name,
        "floor": against.floor(),
        "machine": machine(),
    }
    if student_only:
        return figures
    ratio = found["student"]["images_per_second"] / found["teacher"]["images_per_second"]
    figures["speedup"] = round(ratio, 1)
    processes.lead(lambda: _keep(run, figures, samplers, teacher, device))
    return figures


def _keep(
    run: RunFolder, figures: dict[str, Any], samplers: dict[str, tuple[Sampler, int]], teacher: Teacher, device: Device
) -> None:
    """Write figures, pictures and report of an evaluation, unless those there rest on more samples."""
    if _samples(run) > figures["student"]["samples"] * figures["student"]["frechet"]["seeds"]:
        return
    for name, (sampler, _) in samplers.items():
        show(run, name, sampler, teacher, device)
    both = side_by_side(run.picture("teacher").read_bytes(), run.picture("student").read_bytes())
    write_atomically(run.picture("side-by-side"), both)
    write_atomically(run.evaluation, json.dumps(figures, indent=2).encode())
    write_report(run)


def milestone(
    run: RunFolder,
    iteration: int,
    sampler: Sampler,
    teacher: Teacher,
    reference: Reference,
    device: Device,
    seeds: int = MILESTONE_SEEDS,
) -> tuple[dict[str, Any], str]:
    """Measure and picture a sampler in the middle of a training: values for the metrics, and text for the progress."""
    drawn = _first_samples(sampler, teacher, device)
    if not bool(drawn.isfinite().all()):
        return {}, "samples are not finite"  # the training will see for itself that it has diverged
    write_atomically(run.picture(f"{iteration:08d}"), picture(teacher.pictured(drawn, device)))
    it = {"it": (sampler, 1)}
    figures = evaluate(it, teacher, reference, MILESTONE_SAMPLES, seeds, thorough=False, device=device)
    quality = {name: figures["it"][name] for name in ("frechet", "precision", "recall") if name in figures["it"]}
    distance = "FID" if of_inception(reference.extractor.name) else "Fréchet"
    recall = f", recall {quality['recall']:.2f}" if "recall" in quality else ""
    quality |= {"features": reference.extractor.name, "reference": reference.name}
    return {"quality": quality}, f"{distance} {quality['frechet']['mean']:.3f}{recall}"


def show(run: RunFolder, name: str, sampler: Sampler, teacher: Teacher, device: Device) -> None:
    """Store a picture of the sampler's first samples; of vectors, of more of them."""
    drawn = _first_samples(sampler, teacher, device)
    write_atomically(run.picture(name), picture(teacher.pictured(drawn, device)))


def folder_teacher(out: str | Path) -> Teacher | None:
    """The teacher of the run `out` if it came in a folder: of its network, a library's, the run stores only weights.

    None for any other teacher, if the folder is gone, or if `out` is no run. Raises `ValueError` if it is damaged.
    """
    if not Path(out).is_dir():
        return None
    folder = Path(str(RunFolder.open(Path(out)).configuration().get("teacher", "")))
    return load_teacher(str(folder), levels_of(out)) if folder.is_absolute() and folder.is_dir() else None


def levels_of(out: str | Path) -> Levels:
    """Whose noise levels a diffusers folder has as the teacher of the run `out`: its scheduler's if `out` is no run."""
    is_run = (Path(out) / "config.toml").is_file()
    return RunFolder.open(Path(out)).configuration().get("teacher_levels", "scheduler") if is_run else "scheduler"


def starting_network(run: RunFolder, teacher: Teacher) -> nn.Module:
    """What generator and online network of a run start from: the teacher, or the network that imitates it.

    Raises `ValueError` if the run has no imitation of a teacher without weights.
    """
    return teacher.trainable or read_network(run.start)[0]


def teacher_of(run: RunFolder) -> Teacher:
    """The teacher that a run's configuration names; `ValueError` if that is code, which only the user may name."""
    recipe = recipe_of(run)
    name = recipe.teacher
    if name == "teacher" or is_code(name):
        what = "an object in Python" if name == "teacher" else f"{name}, code of your own"
        raise ValueError(f"{run.path}: its teacher is {what}: name it again with --teacher package.module:function")
    return load_teacher(name, recipe.teacher_levels)


def recipe_of(run: RunFolder) -> Recipe:
    """The recipe in a run's folder; of a generator that was imported what is known of it.

    `ValueError` if the configuration is not one of a distillation.
    """
    values = run.configuration()
    if values.pop("verb", None) not in ("distill", "convert"):
        raise ValueError(f"{run.path}: is not the run of a distillation")
    try:
        return settings_from_mapping(Recipe(), values)
    except ValueError as error:
        raise ValueError(f"{run.config}: {error}") from error


def _first_samples(sampler: Sampler, teacher: Teacher, device: Device) -> Data:
    seeds = PICTURE_SEEDS if len(teacher.shape) == 3 else range(2000)
    return draw(sampler, seeds, teacher.shape, balanced_labels(len(seeds), teacher.conditions), device)


def _samples(run: RunFolder) -> int:
    """How many samples the run's stored figures rest on; 0 if there are none."""
    if not run.evaluation.exists():
        return 0
    try:
        student = json.loads(run.evaluation.read_text(encoding="utf-8"))["student"]
        return student["samples"] * student["frechet"]["seeds"]
    except (ValueError, KeyError, TypeError):  # damaged: to be written anew
        return 0


def quiet(generator: Generator, teacher: Teacher) -> Sampler:
    """The generator as a sampler, without gradients, for the conditions of its teacher."""
    return torch.no_grad()(lambda z, rows: generator(z, teacher.condition(rows, z.device)))
