"""`simdistill demo`: a page that compares samples of teacher and student."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional

from simdistill.commands.common import ABOUT_RUN, Common, Host, PublicName, TeacherOfRun, own_teacher
from simdistill.config.options import first_word, parse_options
from simdistill.demo.pair import Pair
from simdistill.demo.serving import serve_pair


@dataclass(frozen=True)
class _Demo(Common):
    run: Positional[str] = ""
    """Folder of a run, or a shipped student: fashion-mnist, faces, faces-unguided."""
    port: int = 8766
    """Port to listen on."""
    host: Host = "127.0.0.1"
    public_name: PublicName = ()
    teacher: TeacherOfRun = None


ABOUT = f"""Open a local page that compares samples and speed of teacher and student.

  simdistill demo fashion-mnist
  simdistill demo runs/digits

- Type a prompt or choose a class; both draw from the same noise.
{ABOUT_RUN}
"""


def run(words: Sequence[str]) -> None:
    """`simdistill demo RUN …`."""
    run, rest = first_word(words, "demo", "RUN")
    options = parse_options(_Demo(), [run, *rest], "demo RUN", ABOUT)
    pair = Pair(options.run, own_teacher(options.teacher, Path(options.run)), options.device)
    serve_pair(pair, options.host, options.port, options.public_name)
