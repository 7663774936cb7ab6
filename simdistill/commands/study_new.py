"""`simdistill study new`: make the pairs of images that people will see."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import Literal

from tyro.conf import Positional

from simdistill.commands.common import Column, Common, FirstSeed, TeacherOfRun, own_teacher
from simdistill.config.options import first_word, parse_options
from simdistill.study.folder import StudyFolder
from simdistill.study.pairing import Source, Wanted, draft_pairs
from simdistill.study.settings import Settings
from simdistill.support.checks import require
from simdistill.support.files import check_output
from simdistill.workflows.models import STUDENTS


@dataclass(frozen=True)
class _New(Common):
    study: Positional[Path] = Path()
    """Output folder of the study."""
    a: str = f"student:{STUDENTS[0]}"
    """First side: RUN or student:RUN (a run's student), teacher:RUN (its teacher), or a folder of images.
    RUN may be a shipped student: fashion-mnist, faces, faces-unguided."""
    b: str = f"teacher:{STUDENTS[0]}"
    """Second side, in the same form. Two folders are matched by the names of their images."""
    prompts: Path | None = None
    """Prompts to draw, and to show above the images: figure-3 (the paper's), or a file: .txt (one per line), .csv, …
    A class-conditional model takes one per class. Folders may have a metadata.jsonl instead.
    For folders, the column file_name names each prompt's image; without it, prompts are in the order of the names."""
    column: Column = ""
    each: int = 1
    """Pairs per prompt, from different seeds."""
    seed: FirstSeed = 0
    teacher: TeacherOfRun = None
    name_a: str = ""
    """Name of the first side in the results; participants never see it."""
    name_b: str = ""
    """Name of the second side in the results."""
    title: str = Settings.title
    """Title of the questionnaire."""
    contact: str = ""
    """Who runs the study and how to reach them; shown with the request for consent."""
    questions: Literal["one", "two"] = Settings.questions
    """one: text similarity and image quality in one question, as in the paper. two: a question for each."""
    tie: bool = Settings.tie
    """Allow a third answer: both are equally good."""
    checks: int = 0
    """Number of attention checks: an image of a pair beside the same pixels in random order.
    Participants who do not prefer the real image fail."""
    repeats: int = Settings.repeats
    """Number of pairs that every participant sees twice (not in a row), to measure consistency.
    The second answers do not count in the rates."""
    review: bool = Settings.review
    """Show only pairs that the owner has reviewed and kept."""


ABOUT = """Make a study: pairs of images by two models for the same prompts and seeds.

  simdistill study new studies/clothes
  simdistill study new studies/pixart --a runs/pixart --b teacher:runs/pixart \\
      --prompts figure-3 --tie --review
  simdistill study new studies/two --a turbo/ --b runs/pixart \\
      --prompts captions.txt

- Without --a and --b: the shipped student fashion-mnist against its teacher.
- All images are re-encoded in the same way, under random names.
"""


def run(words: Sequence[str]) -> None:
    """`simdistill study new STUDY …`."""
    path, rest = first_word(words, "study new", "STUDY")
    options = parse_options(_New(), [path, *rest], "study new STUDY", ABOUT)
    require(not options.study.exists(), "STUDY", str(options.study), "a new folder: it exists already")
    check_output(options.study, folder=True, option="STUDY")
    a, b = Source.named(options.a), Source.named(options.b)
    settings = Settings(
        title=options.title,
        contact=options.contact,
        a=options.name_a or _called(a, b),
        b=options.name_b or _called(b, a),
        questions=options.questions,
        tie=options.tie,
        repeats=options.repeats,
        review=options.review,
    )
    teacher = own_teacher(options.teacher, Path((a if a.draws else b).place))
    wanted = Wanted(options.prompts, options.column, options.each, options.seed, teacher, options.device)
    study = StudyFolder.create(options.study, settings, draft_pairs(a, b, wanted), options.checks)
    wanted.notes.tell(options.study.name)
    notes = wanted.notes.counts()
    made = {"study": str(study.path), "pairs": len(study.pairs), "a": settings.a, "b": settings.b, "notes": notes}
    if options.json:
        return print(json.dumps(made))
    print(f"{len(study.pairs)} pairs ({settings.a} against {settings.b}) in {study.path}")
    return print(f"next: simdistill study serve {quote(str(study.path))}")


def _called(source: Source, other: Source) -> str:
    """The default name of a side: of its run or folder, or student and teacher if both are of the same run."""
    return source.player if source.place == other.place and source.draws else Path(source.place).resolve().name
