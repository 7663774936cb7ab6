"""`simdistill demo`: a page on which teacher and student draw the same thing side by side."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional

from simdistill.commands.common import Common, own_teacher
from simdistill.config.options import first_word, parse_options
from simdistill.demo.pair import Pair
from simdistill.demo.serving import serve_pair


@dataclass(frozen=True)
class _Demo(Common):
    run: Positional[str] = ""
    """Folder of the run, or the name of a shipped student: fashion-mnist, faces, faces-unguided."""
    port: int = 8766
    """Port of the page."""
    host: str = "127.0.0.1"
    """Address to listen on; 0.0.0.0 shows the page to the whole network."""
    teacher: str | None = None
    """The run's teacher, package.module:function, if it is code of your own."""


ABOUT = """Open a local page: type a prompt or pick a class, and see what teacher and student make of it, and how fast.

  simdistill demo fashion-mnist
  simdistill demo runs/digits
"""


def run(words: Sequence[str]) -> None:
    """`simdistill demo RUN …`."""
    run, rest = first_word(words, "demo", "RUN")
    options = parse_options(_Demo(), [run, *rest], "demo RUN", ABOUT)
    serve_pair(
        Pair(options.run, own_teacher(options.teacher, Path(options.run)), options.device), options.host, options.port
    )
