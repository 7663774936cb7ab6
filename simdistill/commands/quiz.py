"""`simdistill quiz`: a page that asks which image is the student's."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional

from simdistill.commands.common import (
    ABOUT_RUN,
    Common,
    FirstSeed,
    Overwrite,
    Prompts,
    TeacherOfRun,
    own_teacher,
)
from simdistill.config.options import first_word, parse_options
from simdistill.study.pairing import Source, Wanted, draft_pairs
from simdistill.study.quiz import quiz_page
from simdistill.support.checks import require
from simdistill.support.files import check_output, write_atomically


@dataclass(frozen=True)
class _Quiz(Common):
    run: Positional[str] = ""
    """Folder of a run, or a shipped student: fashion-mnist, faces, faces-unguided."""
    prompts: Prompts = None
    each: int = 1
    """Pairs per prompt, from different seeds."""
    seed: FirstSeed = 0
    teacher: TeacherOfRun = None
    out: Path = Path("quiz.html")
    """Output .html."""
    overwrite: Overwrite = False


ABOUT = f"""Make a page like the paper's Figure 1: which of two images is the student's?

  simdistill quiz fashion-mnist
  simdistill quiz runs/pixart --prompts figure-3 --each 4 --out quiz.html

- Each pair shows an image by the student, in one step, and one by its teacher,
  in many, from the same noise. --seed also decides their order and sides.
- The page is one HTML file without scripts. It counts the right choices, and
  has the answers at its end.
- For a class-conditional model, --prompts has one prompt per class.
{ABOUT_RUN}
"""


def run(words: Sequence[str]) -> None:
    """`simdistill quiz RUN …`."""
    run, rest = first_word(words, "quiz", "RUN")
    options = parse_options(_Quiz(), [run, *rest], "quiz RUN", ABOUT)
    require(options.out.suffix == ".html", "--out", str(options.out), "a .html")
    free = options.overwrite or not options.out.exists()
    require(free, "--out", str(options.out), "a new file; give another, or --overwrite it")
    check_output(options.out)
    source = Source(options.run)
    require(source.draws, "RUN", options.run, "a run's folder, or the name of a shipped student")
    teacher = own_teacher(options.teacher, Path(options.run))
    wanted = Wanted(options.prompts, "", options.each, options.seed, teacher, options.device)
    drafts = draft_pairs(source, Source(options.run, "teacher"), wanted)
    write_atomically(options.out, quiz_page(drafts, Path(options.run).name, options.seed).encode())
    result = {"out": str(options.out), "pairs": len(drafts)}
    print(json.dumps(result) if options.json else f"{len(drafts)} pairs in {options.out}")
