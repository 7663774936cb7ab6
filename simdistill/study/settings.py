"""A study's settings: the values in its `study.toml`."""

from dataclasses import dataclass
from typing import Literal, TypeAlias

from simdistill.support.checks import require

Side: TypeAlias = Literal["a", "b"]
Choice: TypeAlias = Literal["left", "right", "tie"]

QUESTIONS = {
    "overall": "Select the best image by text similarity and image quality.",
    "text": "Which image fits the text better?",
    "quality": "Which image is of better quality?",
}
"""The questions about a pair; the first is the paper's."""
MOST = 1000  # characters of a title or a contact


@dataclass(frozen=True)
class Settings:
    """A study's settings; fixed at its creation, so that every vote answers the same question.

    `a` and `b` name the two sides in the results, never on a participant's page. Each participant sees `repeats` pairs
    a second time. With `review`, only pairs that the owner has kept are shown. Raises `ValueError` for invalid values.
    """

    title: str = "Which image is better?"
    contact: str = ""
    a: str = "student"
    b: str = "teacher"
    questions: Literal["one", "two"] = "one"
    tie: bool = False
    repeats: int = 0
    review: bool = False
    identity: str = ""

    def __post_init__(self) -> None:
        require(0 < len(self.title) <= MOST, "--title", self.title[:40], f"given, at most {MOST} characters")
        require(len(self.contact) <= MOST, "--contact", self.contact[:40], f"at most {MOST} characters")
        require(self.a != self.b, "names of the two sides", self.a, "different; give --name-a and --name-b")
        require(self.repeats >= 0, "--repeats", self.repeats, "0 or more")

    @property
    def asked(self) -> tuple[str, ...]:
        """The questions about each pair: keys of `QUESTIONS`."""
        return ("overall",) if self.questions == "one" else ("text", "quality")

    @property
    def choices(self) -> tuple[Choice, ...]:
        """The possible answers."""
        return ("left", "right", "tie") if self.tie else ("left", "right")

    def called(self, side: Side) -> str:
        """The name of a side."""
        return self.a if side == "a" else self.b
