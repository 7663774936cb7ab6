"""The options of every subcommand, and what it prints. Long work shows its progress on stderr, results go to stdout."""

import io
import json
import os
import sys
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from tyro.conf import Positional, arg

from simdistill.configuration import (
    read_toml,
    settings_from_mapping,
    to_mapping,
    to_toml,
)
from simdistill.evaluation.pictures import picture
from simdistill.files import write_atomically
from simdistill.options import building_blocks, first_word, parse_numbers, parse_options
from simdistill.recipes import RECIPES, Recipe
from simdistill.runs import RunFolder
from simdistill.teachers.teacher import Teacher, load_teacher
from simdistill.training.pretrain import Pretraining
from simdistill.validation import require
from simdistill.workflows import distilling, measuring, pretraining, watching

ABOUT_RESUMING = "Go on with an interrupted run, with its own settings; on a CPU to the same weights bit by bit."


@dataclass(frozen=True)
class _Common:
    device: str = "cuda" if torch.cuda.is_available() else "cpu"
    """Where to compute: cpu, cuda, cuda:1, …"""
    json: bool = False
    """Print the results as JSON, and nothing else, on stdout."""

    def __post_init__(self) -> None:
        try:
            torch.empty(0, device=self.device)
        except (RuntimeError, AssertionError) as error:
            raise ValueError(f"device = {self.device!r}: must be one that this machine has, as cpu") from error


@dataclass(frozen=True)
class _Distill(_Common):
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
class _Resume(_Common):
    resume: Path = Path()
    """Folder of the run to go on with."""
    log: tuple[str, ...] = ()
    """Services that get the metrics besides the run's folder: tensorboard, wandb, trackio."""


@dataclass(frozen=True)
class _ResumeDistillation(_Resume):
    teacher: str | None = None
    """Its teacher, package.module:function, if it is code of your own."""


@dataclass(frozen=True)
class _Sample(_Common):
    run: Positional[Path] = Path()
    """Folder of the run."""
    seeds: str = "0-79"
    """Seeds of the samples, as 0-63 or 1,5,8-11; each gives the same sample in whatever company."""
    labels: str | None = None
    """Class labels, as 3 or 0-9: seed s has the (s mod their number)-th of them; all classes if not given."""
    out: Path | None = None
    """A .png with all samples, a .npy with the numbers, or a folder for a .png each; RUN/samples.png if not given."""
    average: int = 0
    """Which of the recipe's averages of the generator, counted from 0."""
    teacher: str | None = None
    """The run's teacher, package.module:function, if its network is code of your own."""


@dataclass(frozen=True)
class _Evaluate(_Common):
    run: Positional[Path] = Path()
    """Folder of the run."""
    samples: int = 2000
    """Samples an evaluation seed."""
    seeds: int = 5
    """Evaluation seeds, over which mean and spread are taken."""
    teacher: str | None = None
    """The run's teacher, package.module:function, if it is code of your own."""


@dataclass(frozen=True)
class _Watch:
    run: Positional[Path] = Path()
    """Folder of the run."""
    port: int = 8765
    """Port of the page; 0 takes any that is free."""
    host: str = "127.0.0.1"
    """Address to listen on; 0.0.0.0 shows the page to the whole network."""


@dataclass(frozen=True)
class _Pretrain(_Common):
    settings: Annotated[Pretraining, arg(name="")] = Pretraining()  # noqa: RUF009  (frozen)
    out: Path = Path("runs/digits-teacher")
    """Folder of the run; its generator.safetensors is a --teacher for distill."""
    overwrite: bool = False
    """Delete a run that is in the folder already."""
    log: tuple[str, ...] = ()
    """Services that get the metrics besides the run's folder: tensorboard, wandb, trackio."""


@dataclass(frozen=True)
class _Features:
    json: bool = False
    """Print the results as JSON, and nothing else, on stdout."""
    out: Path = Path("runs/digits-classifier.safetensors")
    """The file to write."""


def distill(words: Sequence[str]) -> None:
    """`simdistill distill RECIPE …` or `simdistill distill --resume RUN`."""
    if _asks_to_resume(words):
        asked = parse_options(_ResumeDistillation(), words, "distill", ABOUT_RESUMING)
        teacher = _own(asked.teacher) or measuring.teacher_of(RunFolder.open(asked.resume))
        _spare_threads(_parameters(teacher))
        distilling.resume(asked.resume, teacher, asked.device, asked.log)
        return _report_run(asked.resume, asked.json)
    name, rest = first_word(words, "distill", "RECIPE", RECIPES)
    options = parse_options(_Distill(settings=RECIPES[name]), rest, f"distill {name}", _about_distill())
    if options.config is not None:
        base = _configured(RECIPES[name], options.config)
        options = parse_options(_Distill(settings=base), rest, f"distill {name}", _about_distill())
    recipe, out = options.settings, options.out or Path("runs") / name
    require(recipe.teacher != "", "--teacher", recipe.teacher, f"given for {name}: FILE.safetensors or module:function")
    teacher = load_teacher(recipe.teacher)
    if options.dry_run:
        plan = {"out": str(out), "parameters": _parameters(teacher), "recipe": to_mapping(recipe)}
        return print(json.dumps(plan) if options.json else _plan_as_text(plan))
    _spare_threads(_parameters(teacher))
    distilling.distill(teacher, recipe, out, options.overwrite, options.device, options.log)
    return _report_run(out, options.json)


def sample(words: Sequence[str]) -> None:
    """`simdistill sample RUN …`."""
    run, rest = first_word(words, "sample", "RUN")
    options = parse_options(_Sample(), [run, *rest], "sample RUN", "Draw samples from a run's one-step generator.")
    seeds = parse_numbers("--seeds", options.seeds)
    labels = None if options.labels is None else parse_numbers("--labels", options.labels)
    drawn = measuring.sample(options.run, seeds, labels, _own(options.teacher), options.device, options.average)
    out = options.out or options.run / "samples.png"
    if out.suffix == ".npy":
        buffer = io.BytesIO()
        np.save(buffer, drawn.numpy())
        write_atomically(out, buffer.getvalue())
    elif out.suffix == ".png":
        write_atomically(out, picture(drawn, columns=10 if len(drawn) % 10 == 0 else round(len(drawn) ** 0.5 + 0.499)))
    else:
        require(out.suffix == "", "--out", str(out), "a .png, a .npy, or a folder")
        for seed, one in zip(seeds, drawn, strict=True):
            write_atomically(out / f"{seed:06d}.png", picture(one[None], columns=1, edge=1))
    result = {"out": str(out), "samples": len(drawn)}
    print(json.dumps(result) if options.json else f"{len(drawn)} sample{'s' if len(drawn) > 1 else ''} in {out}")


def evaluate(words: Sequence[str]) -> None:
    """`simdistill evaluate RUN …`."""
    run, rest = first_word(words, "evaluate", "RUN")
    about = (
        "Measure a run's teacher, student and undistilled start side by side, and renew its evaluation.json, "
        "pictures and report, unless those rest on more samples."
    )
    options = parse_options(_Evaluate(), [run, *rest], "evaluate RUN", about)
    teacher = _own(options.teacher) or measuring.teacher_of(RunFolder.open(options.run))
    _spare_threads(_parameters(teacher))
    figures = measuring.evaluate_run(options.run, teacher, options.samples, options.seeds, options.device)
    _print_figures(figures, options.run, options.json)


def watch(words: Sequence[str]) -> None:
    """`simdistill watch RUN …`."""
    run, rest = first_word(words, "watch", "RUN")
    about = "Show a run in progress as a live page. It reads the run's folder and touches nothing, so the run goes on."
    options = parse_options(_Watch(), [run, *rest], "watch RUN", about)
    watching.watch(options.run, options.host, options.port)


def pretrain(words: Sequence[str]) -> None:
    """`simdistill pretrain digits …` or `simdistill pretrain --resume RUN`."""
    if _asks_to_resume(words):
        asked = parse_options(_Resume(), words, "pretrain", ABOUT_RESUMING)
        _spare_threads_for(pretraining.settings_of(RunFolder.open(asked.resume)))
        figures = pretraining.resume_pretraining(asked.resume, asked.device, asked.log)
        return print(json.dumps(figures)) if asked.json else _print_table({"teacher": figures})
    name, rest = first_word(words, "pretrain", "DATA", ["digits"])
    about = "Train a class-conditional teacher by EDM's denoising loss. `simdistill pretrain digits …`."
    options = parse_options(_Pretrain(), rest, f"pretrain {name}", about)
    _spare_threads_for(options.settings)
    figures = pretraining.pretrain_digits(options.settings, options.out, options.overwrite, options.device, options.log)
    return print(json.dumps(figures)) if options.json else _print_table({"teacher": figures})


def features(words: Sequence[str]) -> None:
    """`simdistill features digits …`."""
    name, rest = first_word(words, "features", "DATA", ["digits"])
    about = "Train the classifier whose features the metrics use."
    options = parse_options(_Features(), rest, f"features {name}", about)
    accuracy = pretraining.train_features(options.out)
    shares = ", ".join(f"{part} {share:.4f}" for part, share in accuracy.items())
    print(json.dumps(accuracy) if options.json else f"{options.out}: accuracy {shares}")


def _asks_to_resume(words: Sequence[str]) -> bool:
    return any(word.split("=")[0] == "--resume" for word in words)


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


def _own(name: str | None) -> Teacher | None:
    return None if name is None else load_teacher(name)


def _parameters(teacher: Teacher) -> int:
    return sum(p.numel() for p in teacher.trainable.parameters()) if teacher.trainable else 0


def _spare_threads(parameters: int) -> None:
    """Compute on one thread for a network too small to gain from more; OMP_NUM_THREADS overrides it.

    With the passive waiting that `cli` sets, the digits' iteration takes half as long on one thread as on two, on idle
    cores and on busy ones. The weights that a seed gives then do not depend on the number of cores either.
    """
    if parameters < 1_000_000 and "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(1)


def _spare_threads_for(settings: Pretraining) -> None:
    _spare_threads(sum(p.numel() for p in settings.build((1, 8, 8), 10, 1.0).parameters()))


def _plan_as_text(plan: dict[str, Any]) -> str:
    return f"# would write {plan['out']}; {plan['parameters']:,} parameters a network\n{to_toml(plan['recipe'])}"


def _report_run(out: Path, as_json: bool) -> None:
    if os.environ.get("RANK", "0") != "0":  # of a run in several processes the first one reports
        return
    _print_figures(json.loads(RunFolder(out).evaluation.read_text()), out, as_json)


def _print_figures(figures: dict[str, Any], out: Path, as_json: bool) -> None:
    if as_json:
        return print(json.dumps(figures))
    rows = {"teacher": "teacher", "student": "student", **figures["averages"], "undistilled": "undistilled"}
    _print_table({title: figures[name] for name, title in rows.items()})
    floor = figures["floor"]
    if floor:
        print(f"held-out real samples ({floor['samples']}): Fréchet {floor['frechet']:.3f}")
    print(f"student / teacher images per second: {figures['speedup']}x   report: {out / 'report.html'}")
    return None


def _print_table(rows: dict[str, dict[str, Any]]) -> None:
    table = Table(box=None, pad_edge=False)
    for heading in ("", "Fréchet", "precision", "recall", "evaluations", "images/s"):
        table.add_column(heading, justify="left" if not heading else "right")
    for name, row in rows.items():
        frechet = row["frechet"]
        table.add_row(
            name,
            f"{frechet['mean']:.3f} ± {frechet['std']:.3f}",
            f"{row['precision']:.3f}",
            f"{row['recall']:.3f}",
            str(row["evaluations"]),
            f"{row['images_per_second']:,.0f}",
        )
    Console(file=sys.stdout).print(table)
