"""How good faces are: their distance from real (held-out) ones, and whether they show what their captions say."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass
from functools import cached_property
from itertools import compress
from pathlib import Path
from typing import Any, TypeAlias

from benchmarks.tables import Table
from examples.faces.attributes import VALUES, Attributes
from examples.faces.judge import faces, follow, read_judge, spread
from examples.faces.making import read_lines
from simdistill.config.recipes import Recipe
from simdistill.data.embeddings import Embeddings
from simdistill.evaluation.extractors import load_extractor
from simdistill.evaluation.features import ImageClassifier
from simdistill.evaluation.reference import Reference
from simdistill.evaluation.sampling import Sampler, draw, student_sampler, teacher_sampler
from simdistill.evaluation.statistics import Statistics
from simdistill.method.generator import Generator
from simdistill.method.shapes import Pictures
from simdistill.support.checks import require
from simdistill.teachers.autoencoders import Autoencoder
from simdistill.teachers.loading import load_teacher
from simdistill.teachers.teacher import Teacher
from simdistill.workflows.models import load_generator


@dataclass(frozen=True)
class Figures:
    """The metrics of a set of pictures, one per caption, against as many other real ones."""

    nfe: int
    """Network evaluations per picture; 0 for real ones."""
    frechet: float
    """In the judge's feature space."""
    precision: float
    recall: float
    single: float
    """Share of the specified attributes that the judge sees."""
    told: float
    """Share of the pictures that show all specified attributes."""
    nine: float
    """The same for captions that specify all nine attributes."""
    spread: float
    """How uniform unspecified attributes are: 1 if all values are equally frequent."""


@dataclass(frozen=True)
class HeldOut:
    """The held-out faces of `data`: `count` captions to draw, and as many other faces as the reference.

    Raises `ValueError` if there are too few, or no caption specifies all nine attributes.
    """

    data: Path
    judge: Path
    count: int

    def __post_init__(self) -> None:
        there = len(self._all)
        require(
            2 <= self.count <= there // 2, "count", self.count, f"from 2 to {there // 2}, half of the held-out faces"
        )
        require(
            max(map(len, self._told)) == len(VALUES), "count", self.count, "larger: no caption specifies all attributes"
        )

    @property
    def captions(self) -> list[str]:
        """The captions to draw."""
        return [line["text"] for line in self._all[: self.count]]

    @property
    def pictures(self) -> Pictures:
        """The real faces of those captions."""
        return self._pictures[: self.count]

    def measure(self, pictures: Pictures, nfe: int) -> Figures:
        """The metrics of pictures, one per caption, drawn with so many network evaluations each."""
        found = self._reference.quick(Statistics.of(self._reference.extractor.features(pictures)))
        single, told = follow(self._judge, pictures, self._told)
        nine = [len(told) == len(VALUES) for told in self._told]
        _, all_nine = follow(self._judge, pictures[nine], list(compress(self._told, nine)))
        even = spread(self._judge, pictures, self._told)
        return Figures(nfe, found["frechet"], found["precision"], found["recall"], single, told, all_nine, even)

    @cached_property
    def _all(self) -> list[dict[str, Any]]:
        return read_lines(self.data / "held-out.zip")

    @property
    def _told(self) -> list[Attributes]:
        return [line["specified"] for line in self._all[: self.count]]

    @cached_property
    def _pictures(self) -> Pictures:
        return faces(self.data / "held-out.zip")[0]

    @cached_property
    def _judge(self) -> ImageClassifier:
        return read_judge(self.judge)

    @cached_property
    def _reference(self) -> Reference:
        extractor, others = load_extractor(str(self.judge)), self._pictures[self.count : 2 * self.count]
        return Reference("other held-out faces", extractor, Statistics.of(extractor.features(others)))


Player: TypeAlias = tuple[str, int, Callable[[Sequence[str]], Pictures]]
"""A name, the network evaluations per picture, and a function that draws a picture per caption."""


def players(
    teacher: str,
    scales: Sequence[float],
    runs: Sequence[Path],
    prompts: Path,
    interval: tuple[float, float] = (0.0, math.inf),
) -> Iterator[Player]:
    """The teacher with each of the guidance scales at the noise levels in `interval`, its undistilled start, and each
    run's student.

    A run is a folder, or a .safetensors from one. `prompts` is the folder of the captions, by `simdistill encode`.
    Raises `ValueError` for a missing teacher, run or caption.
    """
    known = load_teacher(teacher)
    for scale in scales:
        guided = known.prepared(Recipe(prompts=str(prompts), teacher_guidance=scale, guidance_interval=interval))
        name = "teacher" if scale == 1 else f"teacher, guidance {scale:g}"
        yield _player(name, teacher_sampler(guided), guided)
    plain = known.prepared(Recipe(prompts=str(prompts)))
    assert plain.trainable is not None  # as every network in a file or a folder
    yield _player("undistilled", student_sampler(Generator(plain.trainable), plain), plain)
    for run in runs:
        generator, _ = load_generator(run)
        yield _player(run.stem, student_sampler(generator, plain), plain)


def restored(teacher: str, pictures: Pictures) -> Pictures | None:
    """Real faces reconstructed by a latent teacher's autoencoder, the best that it can draw; None without one."""
    decode = load_teacher(teacher).judged.decode
    return decode(decode.latents(pictures)).clamp(-1, 1) if isinstance(decode, Autoencoder) else None


def _player(name: str, sampler: Sampler, teacher: Teacher) -> Player:
    def pictures(captions: Sequence[str]) -> Pictures:
        assert isinstance(teacher.asked.prompts, Embeddings)
        samples = draw(sampler, range(len(captions)), teacher.shape, teacher.asked.prompts.rows(captions))
        return teacher.decoded(samples).clamp(-1, 1)

    return name, sampler.nfe, pictures


def table(figures: Mapping[str, Figures], name: str) -> Table:
    """A table with a row per set of pictures."""
    rows = [
        [who, str(f.nfe or "–"), f"{f.frechet:.2f}", *(f"{share:.3f}" for share in astuple(f)[2:])]
        for who, f in figures.items()
    ]
    columns = [
        "faces",
        "NFE",
        "Fréchet distance",
        "precision",
        "recall",
        "single attribute",
        "all told",
        "all nine",
        "spread",
    ]
    return Table(name, "One face for each held-out caption", columns, rows)
