"""`simdistill watch`: a live page of a run in progress."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional

from simdistill.commands.common import Host, PublicName
from simdistill.config.options import first_word, parse_options
from simdistill.workflows import watching


@dataclass(frozen=True)
class _Watch:
    run: Positional[Path] = Path()
    """Folder of the run."""
    port: int = 8765
    """Port to listen on; 0 takes any free one."""
    host: Host = "127.0.0.1"
    public_name: PublicName = ()


def run(words: Sequence[str]) -> None:
    """`simdistill watch RUN …`."""
    run, rest = first_word(words, "watch", "RUN")
    about = "Show a run in progress as a live page; it only reads the run's folder."
    options = parse_options(_Watch(), [run, *rest], "watch RUN", about)
    watching.watch(options.run, options.host, options.port, options.public_name)
