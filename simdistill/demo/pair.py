"""A teacher and its student, ready to draw what they are asked for, with the time that each takes."""

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
POINTS = 2000  # of vectors, whatever is asked: a few show nothing
LONGEST = 1000  # characters of a prompt
EDGE = 192  # pixels of a picture, at least


@dataclass(frozen=True)
class Wish:
    """What to draw: a `prompt` or a `label`, as the networks take them, so many samples, from the seeds `seed`, …"""

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
    """What one of the two drew: a PNG, the network evaluations of each sample, and the seconds that all took."""

    who: str
    png: bytes
    nfe: int
    seconds: float


class Pair:
    """The student of the run, or the shipped one, that `out` names, and its teacher.

    Raises `ValueError` if there is no such run or student, or its teacher is code that `teacher` must name.
    """

    def __init__(self, out: str, teacher: Teacher | None = None, device: Device = "cpu") -> None:
        self._teacher, recipe = teacher_and_recipe(out, teacher)
        self.name, self.device = Path(out).name, torch.device(device)
        self._recipe = replace(recipe, prompts="")
        self._student = load_generator(out, self._teacher)[0].to(self.device)
        self._drawing = threading.Lock()  # so that times are those of one alone
        self._teacher.check(self.device)

    @property
    def takes_text(self) -> bool:
        """Whether they draw from prompts."""
        return self._teacher.text is not None

    @property
    def classes(self) -> int:
        """How many labels they know."""
        return self._teacher.classes

    @cached_property
    def labels(self) -> list[str]:
        """What the labels stand for: names, where these come with the package, and else the numbers themselves."""
        names = read_prompts(Path(self._recipe.teacher)) if self._recipe.teacher in BUNDLED else []
        return names if len(names) == self.classes else [str(label) for label in range(self.classes)]

    @cached_property
    def example(self) -> str:
        """A prompt of the kind that they were taught by, if one comes with the package."""
        known = self.takes_text and self._recipe.teacher in BUNDLED
        return read_prompts(Path(self._recipe.teacher))[0] if known else ""

    def cut(self, wish: Wish) -> int:
        """To how many tokens the prompt is cut, 0 if it is not."""
        return self._encoder.limit if self.takes_text and cut(self._encoder, [wish.prompt]) else 0

    def draw(self, wish: Wish) -> Iterator[Drawing]:
        """The student's drawing, then the teacher's, from the same noise; each when it is done.

        Raises `ValueError` for a label that there is not, or no prompt where one is needed.
        """
        teacher, rows = self._asked(wish)
        pair = {"student": student_sampler(self._student, teacher), "teacher": teacher_sampler(teacher)}
        for who, sampler in pair.items():
            yield self._drawn(who, sampler, wish, teacher, rows)

    def _asked(self, wish: Wish) -> tuple[Teacher, Rows]:
        """The teacher with what is wished for as its condition, and the row of it that each sample has."""
        teacher, rows = self._teacher, None
        if self.takes_text:
            require(wish.prompt.strip() != "", "prompt", wish.prompt, "given: what to draw")
            teacher = teacher.with_prompts(self._encoder([wish.prompt]), self._nothing)
            rows = torch.zeros(self._many(wish), dtype=torch.int64)
        elif self.classes:
            require(0 <= wish.label < self.classes, "label", wish.label, f"in 0 … {self.classes - 1}")
            rows = torch.full((self._many(wish),), wish.label)
        return teacher.prepared(self._recipe), rows

    def _many(self, wish: Wish) -> int:
        """How many samples to draw: of vectors enough to show a law."""
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
