"""The paper's Figure 1 as a self-contained page: which image took one step? The answers are at the end."""

import base64
import random
from collections.abc import Sequence
from dataclasses import dataclass

from simdistill.reports.report import templates
from simdistill.study.folder import Draft
from simdistill.study.pictures import bare_png, equal_sizes, is_small


@dataclass(frozen=True)
class Riddle:
    """Two images as data URIs; `student` is the index of the student's."""

    prompt: str
    pictures: tuple[str, str]
    student: int


def riddles(drafts: Sequence[Draft], seed: int = 0) -> list[Riddle]:
    """The drafts (side a is the student's) in random order, on random sides."""
    rng, found = random.Random(seed), list[Riddle]()
    for draft in rng.sample(drafts, len(drafts)):
        a, b = map(_uri, map(bare_png, equal_sizes(draft.a, draft.b, draft.prompt)))
        student = rng.randrange(2)
        found.append(Riddle(draft.prompt, (b, a) if student else (a, b), student))
    return found


def quiz_page(drafts: Sequence[Draft], name: str, seed: int = 0) -> str:
    """The HTML of a quiz about the student called `name`: self-contained, and counts the score without a script."""
    template = templates("simdistill.study").get_template("quiz.html.jinja")
    small = is_small(drafts[0].a.size)
    return template.render(
        riddles=riddles(drafts, seed), name=name, small=small, level_colours={"light": [], "dark": []}
    )


def _uri(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"
