"""Samples of a student: of a run's, a file's, or one that comes with the package."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from simdistill.config.recipes import Recipe
from simdistill.evaluation.sampling import draw, student_sampler
from simdistill.method.generator import Generator
from simdistill.method.shapes import Pictures
from simdistill.runs.folder import RunFolder
from simdistill.support.checks import require
from simdistill.teachers.encoders import encoded, load_encoder
from simdistill.teachers.teacher import Teacher
from simdistill.workflows.models import Device, folder_teacher, known_from, load_generator, recipe_of


@dataclass(frozen=True)
class Student:
    """A generator, ready to draw: `sample` checks what it is asked, as the command line does.

    `teacher` is what is known of its teacher: shapes, classes or text, how latents are decoded. `name` says where the
    student came from, and `device` where it computes.
    """

    generator: Generator
    teacher: Teacher
    name: str
    recipe: Recipe = Recipe()  # noqa: RUF009  (frozen)
    device: Device = "cpu"

    @property
    def nfe(self) -> int:
        """Network evaluations a sample."""
        return self.generator.nfe

    def sample(
        self,
        seeds: Sequence[int],
        labels: int | Sequence[int] | None = None,
        prompts: Sequence[str] = (),
        latents: bool = False,
    ) -> Pictures:
        """One sample a seed, `[len(seeds), *shape]` on the CPU, images in [-1, 1]; latents are decoded, or left so.

        Seed s has the label `labels[s % len(labels)]`, or s % classes for None; of a generator that takes text it has
        `prompts[s % len(prompts)]`, encoded by the teacher's own encoder, or the run's prompts in turn. The same seed
        and condition give the same sample regardless of batch. Raises `ValueError` for a seed, label or prompt that the
        generator does not know.
        """
        known, labels = self.teacher, [labels] if isinstance(labels, int) else labels
        require(labels is None or known.classes > 0, "labels", labels, "left out: the generator knows no classes")
        require(not prompts or known.text is not None, "prompt", [*prompts], "left out: the generator takes no text")
        require(labels is None or len(labels) > 0, "labels", labels, "at least one, or left out")
        for label in labels or ():
            require(0 <= label < known.classes, "labels", label, f"in 0 … {known.classes - 1}")
        known = self._asked(prompts)
        chosen = range(known.conditions) if labels is None else labels
        rows = torch.tensor([chosen[seed % len(chosen)] for seed in seeds]) if chosen else None
        drawn = draw(student_sampler(self.generator.to(self.device), known), seeds, known.shape, rows, self.device)
        return drawn if latents else known.decoded(drawn, self.device)

    def _asked(self, prompts: Sequence[str]) -> Teacher:
        """The teacher with these prompts, encoded by its own encoder, or with the run's."""
        known = self.teacher
        if known.text is None:
            return known
        if prompts:
            encoder = load_encoder(known.asked.encoder, self.device, tokens=known.text.tokens)
            return known.with_prompts(encoded(encoder, prompts))
        own = self.recipe.prompts != "" or known.asked.prompts is not None
        require(own, "--prompt", "", f"given: {self.name} has no prompts of its own")
        return known.prepared(self.recipe)


def load_student(out: str | Path, teacher: Teacher | None = None, device: Device = "cpu", ema: int = 0) -> Student:
    """The student of a run's folder, of a .safetensors that a run kept, or a shipped one (see `load_generator`).

    `teacher` is needed if the network is one of your own; `ema` counts through the recipe's EMAs. Raises `ValueError`
    if there is no such student, or its weights are missing or damaged.
    """
    teacher = teacher or folder_teacher(out)
    generator, facts = load_generator(out, teacher, ema)
    recipe = recipe_of(RunFolder.open(Path(out))) if Path(out).is_dir() else Recipe()
    return Student(generator, teacher or known_from(generator, facts), str(out), recipe, device)


def sample(
    out: str | Path,
    seeds: Sequence[int],
    labels: int | Sequence[int] | None = None,
    teacher: Teacher | None = None,
    device: Device = "cpu",
    ema: int = 0,
    prompts: Sequence[str] = (),
    latents: bool = False,
) -> Pictures:
    """One sample a seed of the student `out`: `load_student` and `Student.sample` in one call."""
    return load_student(out, teacher, device, ema).sample(seeds, labels, prompts, latents)
