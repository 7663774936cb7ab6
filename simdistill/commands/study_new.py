"""`simdistill study new`: the pairs of pictures that people will see."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tyro.conf import Positional

from simdistill.commands.common import Common, own_teacher
from simdistill.config.options import first_word, parse_options
from simdistill.study.folder import StudyFolder
from simdistill.study.pairing import Source, Wanted, draft_pairs
from simdistill.study.settings import Settings
from simdistill.support.checks import require
from simdistill.workflows.models import STUDENTS


@dataclass(frozen=True)
class _New(Common):
    study: Positional[Path] = Path()
    """Folder of the study, to be made."""
    a: str = f"student:{STUDENTS[0]}"
    """One side: RUN or student:RUN, a run's student; teacher:RUN, its teacher; a folder of pictures. RUN may be the
    name of a shipped student: fashion-mnist, faces, faces-unguided."""
    b: str = f"teacher:{STUDENTS[0]}"
    """The other side, likewise. Folders are matched by the names of their pictures."""
    prompts: Path | None = None
    """What people read above the pictures, and text-to-image runs draw from: a .txt (one a line), .csv, .jsonl …, or
    figure-3, the paper's. A model of classes takes one a class; folders may have a metadata.jsonl instead. A table's
    or JSON's column file_name says which picture of folders a prompt is of; without it they are in the names' order."""
    column: str = ""
    """What a table or JSON calls the prompts; the first of prompt, caption, text and txt if empty."""
    each: int = 1
    """Pairs for each prompt, from different seeds."""
    seed: int = 0
    """Of the first pair, for both sides; each further pair has the next."""
    teacher: str | None = None
    """The runs' teacher, package.module:function, if it is code of your own."""
    name_a: str = ""
    """What one side is called in the results; participants never see it."""
    name_b: str = ""
    """What the other is called."""
    title: str = Settings.title
    """Heading of the questionnaire."""
    contact: str = ""
    """Who asks, and how to reach them; shown beside the request for consent."""
    questions: Literal["one", "two"] = Settings.questions
    """one: the best image by text similarity and image quality, as in the paper. two: one question for each of them."""
    tie: bool = Settings.tie
    """A third answer: both are equally good."""
    checks: int = 0
    """Attention checks: so many pairs more, of a real picture of one of the pairs beside its own pixels in random
    order; who does not prefer the real one fails."""
    repeats: int = Settings.repeats
    """Pairs that every participant sees twice, at most all, never twice running: how consistent are the answers? The
    second answers do not count in the rates."""
    review: bool = Settings.review
    """Show only pairs that the owner has looked at and kept."""


ABOUT = """Make a study: pairs of pictures of two models for the same prompts, from the same seeds, re-encoded alike
under random names. Without --a and --b it is the shipped student of clothes against its teacher.

  simdistill study new studies/clothes
  simdistill study new studies/pixart --a runs/pixart --b teacher:runs/pixart --prompts figure-3 --tie --review
  simdistill study new studies/two --a turbo/ --b runs/pixart --prompts captions.txt
"""


def run(words: Sequence[str]) -> None:
    """`simdistill study new STUDY …`."""
    path, rest = first_word(words, "study new", "STUDY")
    options = parse_options(_New(), [path, *rest], "study new STUDY", ABOUT)
    require(not options.study.exists(), "STUDY", str(options.study), "a folder that is not there yet")
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
    made = {"study": str(study.path), "pairs": len(study.pairs), "a": settings.a, "b": settings.b}
    if options.json:
        return print(json.dumps(made))
    sides = f"{settings.a} against {settings.b}"
    print(f"{len(study.pairs)} pairs, {sides}, in {study.path}")
    return print(f"ask people: simdistill study serve {study.path}")


def _called(source: Source, other: Source) -> str:
    """What a side is called: after the run or folder, or of two players of one run after the player."""
    return source.player if source.place == other.place and source.draws else Path(source.place).resolve().name
