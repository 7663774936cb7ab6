"""Drawing samples from a student: of a run, from a file, or shipped with the package."""

from collections.abc import Callable, Sequence
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
    """A generator, ready to draw samples; `sample` checks its arguments as the command line does.

    `teacher` is what is known of its teacher: shape, classes or text, and how latents are decoded. `name` is the
    student's source, and `device` where it computes.
    """

    generator: Generator
    teacher: Teacher
    name: str
    recipe: Recipe = Recipe()  # noqa: RUF009  (frozen)
    device: Device = "cpu"

    @property
    def nfe(self) -> int:
        """Network evaluations per sample."""
        return self.generator.nfe

    def sample(
        self,
        seeds: Sequence[int],
        labels: int | Sequence[int] | None = None,
        prompts: Sequence[str] = (),
        latents: bool = False,
        advance: Callable[[int], None] = lambda _: None,
    ) -> Pictures:
        """One sample per seed, `[len(seeds), *shape]` on the CPU, images in [-1, 1]; decoded, unless `latents`.

        Seed s gets the label `labels[s % len(labels)]`, or s % classes for None. With text, it gets
        `prompts[s % len(prompts)]`, encoded by the teacher's encoder, or the run's own prompts in turn. The same seed
        and condition give the same sample regardless of batch. `advance` is called with the number drawn, batch by
        batch. Raises `ValueError` for an invalid seed, label or prompt.
        """
        known, labels = self.teacher, [labels] if isinstance(labels, int) else labels
        require(labels is None or known.classes > 0, "labels", labels, "left out: the generator has no classes")
        require(not prompts or known.text is not None, "prompt", [*prompts], "left out: the generator takes no text")
        require(labels is None or len(labels) > 0, "labels", labels, "at least one, or left out")
        for label in labels or ():
            require(0 <= label < known.classes, "labels", label, f"in 0 … {known.classes - 1}")
        known = self._asked(prompts)
        chosen = range(known.conditions) if labels is None else labels
        rows = torch.tensor([chosen[seed % len(chosen)] for seed in seeds]) if chosen else None
        sampler = student_sampler(self.generator.to(self.device), known)
        drawn = draw(sampler, seeds, known.shape, rows, self.device, advance)
        return drawn if latents else known.decoded(drawn, self.device)

    def _asked(self, prompts: Sequence[str]) -> Teacher:
        """The teacher with these prompts, encoded by its encoder, or with the run's."""
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
    """Load the student of a run's folder, of a generator's .safetensors, or a shipped one (see `load_generator`).

    `teacher` is needed if the network is your own code; `ema` is an index into the recipe's EMAs. Raises `ValueError`
    if there is no such student, or if its weights are missing or damaged.
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
    """One sample per seed from the student `out`: `load_student` and `Student.sample` in one call."""
    return load_student(out, teacher, device, ema).sample(seeds, labels, prompts, latents)
