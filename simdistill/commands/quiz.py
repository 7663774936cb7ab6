"""`simdistill quiz`: a page that asks which image took one step."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional

from simdistill.commands.common import Common, own_teacher
from simdistill.config.options import first_word, parse_options
from simdistill.study.pairing import Source, Wanted, draft_pairs
from simdistill.study.quiz import quiz_page
from simdistill.support.checks import require
from simdistill.support.files import write_atomically


@dataclass(frozen=True)
class _Quiz(Common):
    run: Positional[str] = ""
    """Folder of the run, or the name of a shipped student: fashion-mnist, faces, faces-unguided."""
    prompts: Path | None = None
    """What to draw: a file of prompts, or figure-3, the paper's; of a model of classes one a class."""
    each: int = 1
    """Pairs for each prompt."""
    seed: int = 0
    """Of the first pair; each further one has the next. It also decides order and sides."""
    teacher: str | None = None
    """The run's teacher, package.module:function, if it is code of your own."""
    out: Path = Path("quiz.html")
    """The page to write."""
    overwrite: bool = False
    """Write it in the place of a file that is there."""


ABOUT = """The paper's Figure 1 as a page: pairs of images by a student, in one step, and by its teacher, in many, from
the same noise. Which is which? It counts your finds, and has the answers at its end. One file, without scripts.

  simdistill quiz fashion-mnist
  simdistill quiz runs/pixart --prompts figure-3 --each 4 --out quiz.html
"""


def run(words: Sequence[str]) -> None:
    """`simdistill quiz RUN …`."""
    run, rest = first_word(words, "quiz", "RUN")
    options = parse_options(_Quiz(), [run, *rest], "quiz RUN", ABOUT)
    require(options.out.suffix == ".html", "--out", str(options.out), "a .html")
    free = options.overwrite or not options.out.exists()
    require(free, "--out", str(options.out), "a new file; give another, or --overwrite it")
    source = Source(options.run)
    require(source.draws, "RUN", options.run, "a run's folder, or the name of a shipped student")
    teacher = own_teacher(options.teacher, Path(options.run))
    wanted = Wanted(options.prompts, "", options.each, options.seed, teacher, options.device)
    drafts = draft_pairs(source, Source(options.run, "teacher"), wanted)
    write_atomically(options.out, quiz_page(drafts, Path(options.run).name, options.seed).encode())
    result = {"out": str(options.out), "pairs": len(drafts)}
    print(json.dumps(result) if options.json else f"{len(drafts)} pairs in {options.out}")
