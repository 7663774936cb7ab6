"""Samples of a run's generator, a file's, or a shipped one's."""

from collections.abc import Sequence
from pathlib import Path

import torch

from simdistill.config.recipes import Recipe
from simdistill.evaluation.sampling import draw, student_sampler
from simdistill.method.shapes import Pictures
from simdistill.method.text import Text
from simdistill.runs.folder import RunFolder
from simdistill.support.checks import require
from simdistill.teachers.encoders import encoded, load_encoder
from simdistill.teachers.teacher import Teacher
from simdistill.workflows.models import Device, folder_teacher, known_from, load_generator, recipe_of


def sample(
    out: str | Path,
    seeds: Sequence[int],
    labels: Sequence[int] | None = None,
    teacher: Teacher | None = None,
    device: Device = "cpu",
    ema: int = 0,
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
    generator, facts = load_generator(out, teacher, ema)
    known = teacher or known_from(generator, facts)
    require(labels is None or known.classes > 0, "labels", labels, "left out: the generator knows no classes")
    require(not prompts or known.text is not None, "prompt", list(prompts), "left out: the generator takes no text")
    for label in labels or ():
        require(0 <= label < known.classes, "labels", label, f"in 0 … {known.classes - 1}")
    if prompts:
        known = known.with_prompts(_encoded(prompts, known, device))
    elif known.text is not None:
        recipe = recipe_of(RunFolder.open(Path(out))) if Path(out).is_dir() else Recipe()
        own = recipe.prompts != "" or known.asked.prompts is not None
        require(own, "--prompt", "", f"given: {out} has no prompts of its own")
        known = known.prepared(recipe)
    chosen = range(known.conditions) if labels is None else labels
    rows = torch.tensor([chosen[seed % len(chosen)] for seed in seeds]) if chosen else None
    drawn = draw(student_sampler(generator.to(device), known), seeds, known.shape, rows, device)
    return known.decoded(drawn, device) if pictures else drawn


def _encoded(prompts: Sequence[str], teacher: Teacher, device: Device) -> Text:
    """The prompts, by the teacher's own encoder."""
    tokens = 0 if teacher.text is None else teacher.text.tokens
    return encoded(load_encoder(teacher.asked.encoder, device, tokens=tokens), prompts)
