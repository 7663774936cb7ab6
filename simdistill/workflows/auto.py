"""The recipe `auto` for a teacher: its samples are drawn and read, and a batch is split until it fits the memory."""

import os
import sys
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from simdistill.config.auto import Choice, Reading, choices, chosen
from simdistill.config.expressions import expression
from simdistill.config.recipes import RECIPES, Recipe
from simdistill.teachers.loading import SHIPPED
from simdistill.teachers.teacher import Teacher
from simdistill.training.footprint import footprints, forward
from simdistill.workflows.models import Device
from simdistill.workflows.planning import starting_kind
from simdistill.workflows.reading import Drawn, detail_of, draw_and_check, draw_where_right

MOST, SECONDS = 256, 15.0  # samples to read, and about how long they may take
LEVELS = {"objective", "generator_noise", "online_noise", "online_weighting", "sigma_init"}
TRAINING = {"generator_lr", "online_lr", "warmup", "decay", "share_samples", "iterations", "ema"}
SETTINGS = LEVELS | TRAINING | {"batch", "gradient_accumulation"}
"""What `auto` chooses for any teacher."""
ROOM = 0.8  # of the free memory
IN_RANGE = 1.5  # largest sample of pictures in [-1, 1], as diffusion draws them


@dataclass(frozen=True)
class Auto:
    """The recipe for a teacher, why, and the samples that were read."""

    recipe: Recipe
    choices: tuple[Choice, ...]
    drawn: Drawn
    reading: Reading


def auto_recipe(teacher: Teacher, device: str | None = None) -> Recipe:
    """The recipe for `teacher` by what its own samples, its size and this machine's memory tell (docs/auto.md).

    `distill(teacher, out=…)` uses it; change it by `dataclasses.replace`. A teacher of text needs its prompts. Raises
    `ValueError` for samples that are not finite or all alike.
    """
    return choose(teacher, device or ("cuda" if torch.cuda.is_available() else "cpu")).recipe


def choose(
    teacher: Teacher,
    device: Device = "cpu",
    base: Recipe = Recipe(),  # noqa: B008  (frozen)
    given: Collection[str] = (),
) -> Auto:
    """The recipe `base` with all that is chosen for `teacher`; its settings `given` stay, and the others fit them."""
    whole = teacher.prepared(base)
    whole.check(device)
    narrowed: list[Choice] = []
    if "teacher_range" in given:
        teacher, drawn = whole, draw_and_check(whole, device, MOST, SECONDS)
    else:
        teacher, drawn, why = draw_where_right(whole, device, MOST, SECONDS)
        found = drawn.checked
        if found is not None and found.hopeless:
            raise ValueError(
                f"--teacher = {whole.name}: {found.doubts[0]}; to train all the same, give --teacher-range"
            )
        if why:
            narrowed = [
                Choice("teacher_range", (0.0, teacher.sigma_max), f"beyond, {why}; see images/teacher-check.png")
            ]
    read = read_off(teacher, drawn, device)
    made = choices(
        read,
        base.batch if "batch" in given else None,
        base.iterations if "iterations" in given else None,
    )
    made = tuple(choice for choice in (*narrowed, *made) if choice.name not in given)
    recipe = chosen(made, replace(base, teacher=teacher.name))
    if "gradient_accumulation" not in given:
        split = fitting(recipe, teacher, device)
        made, recipe = (*made, split), chosen([split], recipe)
    return Auto(recipe, made, drawn, read)


def read_off(teacher: Teacher, drawn: Drawn, device: Device = "cpu") -> Reading:
    """What `auto` knows of a teacher, from samples of it."""
    start = starting_kind(teacher)
    return Reading(
        teacher.shape,
        teacher.sigma_min,
        teacher.sigma_max,
        drawn.spread,
        drawn.structure,
        detail_of(teacher, drawn, device),
        sum(p.numel() for p in start.parameters()),
        _flops(teacher, start),
        _features(teacher, drawn),
        teacher.judged.decode is not None,
        torch.device(device).type == "cuda",
    )


def _flops(teacher: Teacher, start: nn.Module) -> float:
    """Operations of a call for one sample, products of matrices and convolutions; at least two per parameter."""
    least = 2.0 * max(1, sum(p.numel() for p in start.parameters()))
    try:
        return max(least, forward(teacher, start, 1)[1])
    except Exception:  # whatever the user's own code raises without data
        return least


def _features(teacher: Teacher, drawn: Drawn) -> str:
    """The feature space of a shipped teacher of the same kind: alike in shape and classes, and in [-1, 1]; else ""."""
    if teacher.name in SHIPPED:
        return RECIPES[teacher.name].features
    pictures: dict[tuple[int, ...], tuple[str, int]] = {(1, 8, 8): ("digits", 10), (1, 32, 32): ("fashion-mnist", 10)}

    name, classes = pictures.get(teacher.shape, ("", -1))
    return name if classes == teacher.classes and float(drawn.samples.abs().max()) < 2 * IN_RANGE else ""


def fitting(recipe: Recipe, teacher: Teacher, device: Device = "cpu") -> Choice:
    """The fewest micro-batches with which an iteration fits the memory that is free on `device`."""
    free = free_memory(device)
    try:
        need = footprints(teacher, recipe, starting_kind(teacher), gpu=torch.device(device).type == "cuda")[1]
    except Exception as error:  # whatever the user's own code raises without data
        return Choice("gradient_accumulation", 1, f"the memory cannot be simulated ({type(error).__name__})")
    fixed, busy = need.total - need.memory["activations"], need.memory["activations"]
    for parts in (n for n in range(1, recipe.batch + 1) if recipe.batch % n == 0):
        gradients = need.memory["generator"] if parts > 1 else 0
        share = -(-recipe.batch // parts) / need.micro_batch
        if fixed + gradients + share * busy <= ROOM * free:
            total = (fixed + gradients + share * busy) / 1e9
            return Choice("gradient_accumulation", parts, f"{total:.2g} of {free / 1e9:.3g} GB that are free")
    what = f"needs {fixed / 1e9:.3g} GB besides activations, and {free / 1e9:.3g} are free"
    return Choice("gradient_accumulation", recipe.batch, f"{what}: try --gradient-checkpointing or --precision bf16")


def free_memory(device: Device = "cpu") -> int:
    """Bytes that are free on a GPU, or of this machine's memory."""
    if torch.device(device).type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    try:
        facts = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
        return int(facts["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):  # no Linux
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2


def lines(auto: Auto) -> list[str]:
    """What was read and chosen, and why: a line for each setting."""
    read, count = auto.reading, len(auto.drawn.samples)
    head = (
        f"auto: by {count} samples of the teacher: spread {read.spread:.3g}, first component {read.structure:.3g}, "
        f"details {read.detail:.2g}; {'latents' if read.latents else 'samples'} of shape {list(read.shape)}"
    )
    return [head, *table(auto.choices)]


def table(made: Sequence[Choice]) -> list[str]:
    """A line for each choice, with its reason."""
    shown = [(choice.name.replace("_", "-"), _shown(choice.value), choice.why) for choice in made]
    width = max((len(name) for name, *_ in shown), default=0)
    return [f"  {name:<{width}}  {value}  ({why})" for name, value, why in shown]


def _shown(value: Any) -> str:
    if isinstance(value, tuple):
        return " ".join(map(_shown, value))
    return str(value) if isinstance(value, (bool, int, float, str)) else expression(value)


def tell(told: Sequence[str]) -> None:
    """Print lines on stderr."""
    print("\n".join(told), file=sys.stderr, flush=True)
