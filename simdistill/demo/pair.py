"""A teacher and its student, ready to draw samples; measures the time that each takes."""

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import torch

from simdistill.data.prompts import BUNDLED, read_prompts
from simdistill.evaluation.sampling import Sampler, draw, student_sampler, teacher_sampler
from simdistill.method.shapes import Rows
from simdistill.method.text import Text
from simdistill.reports.pictures import picture
from simdistill.support.checks import require
from simdistill.teachers.encoders import TextEncoder, cut, load_encoder
from simdistill.teachers.teacher import Teacher
from simdistill.workflows.models import Device, load_generator, teacher_and_recipe

MOST = 16  # samples at a time
POINTS = 2000  # samples of vectors, whatever is asked: a few show nothing
LONGEST = 1000  # characters of a prompt
EDGE = 192  # smallest edge of an image, in pixels


@dataclass(frozen=True)
class Wish:
    """What to draw: `count` samples for a `prompt` or a `label`, from the seeds `seed`, `seed` + 1, …"""

    prompt: str = ""
    label: int = 0
    seed: int = 0
    count: int = 4

    def __post_init__(self) -> None:
        require(len(self.prompt) <= LONGEST, "prompt", f"{len(self.prompt)} characters", f"at most {LONGEST}")
        require(0 <= self.seed < 2**31, "seed", self.seed, f"in 0 … {2**31 - 1}")
        require(1 <= self.count <= MOST, "count", self.count, f"in 1 … {MOST}")


@dataclass(frozen=True)
class Drawing:
    """Samples of student or teacher: a PNG, the network evaluations per sample (NFE), and the total seconds."""

    who: str
    png: bytes
    nfe: int
    seconds: float


class Pair:
    """The student `out` (a run's folder or a shipped student) and its teacher.

    Raises `ValueError` if there is no such student, or if its teacher is the user's own code and `teacher` is missing.
    """

    def __init__(self, out: str, teacher: Teacher | None = None, device: Device = "cpu") -> None:
        self._teacher, recipe = teacher_and_recipe(out, teacher)
        self.name, self.device = Path(out).name, torch.device(device)
        self._recipe = replace(recipe, prompts="")
        self._student = load_generator(out, self._teacher)[0].to(self.device)
        self._drawing = threading.Lock()  # one at a time, so that the times are right
        self._teacher.check(self.device)

    @property
    def takes_text(self) -> bool:
        """Whether the models take prompts."""
        return self._teacher.text is not None

    @property
    def classes(self) -> int:
        """The number of class labels."""
        return self._teacher.classes

    @cached_property
    def labels(self) -> list[str]:
        """The names of the classes, if the package has them; otherwise their numbers."""
        names = read_prompts(Path(self._recipe.teacher)) if self._recipe.teacher in BUNDLED else []
        return names if len(names) == self.classes else [str(label) for label in range(self.classes)]

    @cached_property
    def example(self) -> str:
        """An example of the training prompts, if the package has one; otherwise ""."""
        known = self.takes_text and self._recipe.teacher in BUNDLED
        return read_prompts(Path(self._recipe.teacher))[0] if known else ""

    def cut(self, wish: Wish) -> int:
        """The number of tokens to which the prompt is truncated; 0 if it is not."""
        return self._encoder.limit if self.takes_text and cut(self._encoder, [wish.prompt]) else 0

    def draw(self, wish: Wish) -> Iterator[Drawing]:
        """The student's samples, then the teacher's, from the same noise; each as soon as it is done.

        Raises `ValueError` for an unknown label, or if a prompt is missing.
        """
        teacher, rows = self._asked(wish)
        pair = {"student": student_sampler(self._student, teacher), "teacher": teacher_sampler(teacher)}
        for who, sampler in pair.items():
            yield self._drawn(who, sampler, wish, teacher, rows)

    def _asked(self, wish: Wish) -> tuple[Teacher, Rows]:
        """The teacher with the wish as its condition, and the condition's row for each sample."""
        teacher, rows = self._teacher, None
        if self.takes_text:
            require(wish.prompt.strip() != "", "prompt", wish.prompt, "given: describe what to draw")
            teacher = teacher.with_prompts(self._encoder([wish.prompt]), self._nothing)
            rows = torch.zeros(self._many(wish), dtype=torch.int64)
        elif self.classes:
            require(0 <= wish.label < self.classes, "label", wish.label, f"in 0 … {self.classes - 1}")
            rows = torch.full((self._many(wish),), wish.label)
        return teacher.prepared(self._recipe), rows

    def _many(self, wish: Wish) -> int:
        """The number of samples to draw; for vectors, enough to show their distribution."""
        return POINTS if len(self._teacher.shape) == 1 else wish.count

    def _drawn(self, who: str, sampler: Sampler, wish: Wish, teacher: Teacher, rows: Rows) -> Drawing:
        seeds = range(wish.seed, wish.seed + self._many(wish))
        with self._drawing:
            started = time.perf_counter()
            drawn = draw(sampler, seeds, teacher.shape, rows, self.device)
            seconds = time.perf_counter() - started
        png = picture(teacher.decoded(drawn, self.device), columns=min(4, wish.count), edge=EDGE)
        return Drawing(who, png, sampler.nfe, seconds)

    @cached_property
    def _encoder(self) -> TextEncoder:
        tokens = 0 if self._teacher.text is None else self._teacher.text.tokens
        return load_encoder(self._teacher.asked.encoder, self.device, tokens=tokens)

    @cached_property
    def _nothing(self) -> Text:
        return self._encoder.empty()
