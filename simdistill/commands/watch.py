"""`simdistill watch`: a run in progress as a page."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional

from simdistill.config.options import first_word, parse_options
from simdistill.workflows import watching


@dataclass(frozen=True)
class _Watch:
    run: Positional[Path] = Path()
    """Folder of the run."""
    port: int = 8765
    """Port of the page; 0 takes any that is free."""
    host: str = "127.0.0.1"
    """Address to listen on; 0.0.0.0 shows the page to the whole network."""


def run(words: Sequence[str]) -> None:
    """`simdistill watch RUN …`."""
    run, rest = first_word(words, "watch", "RUN")
    about = "Show a run in progress as a live page. It reads the run's folder and touches nothing, so the run goes on."
    options = parse_options(_Watch(), [run, *rest], "watch RUN", about)
    watching.watch(options.run, options.host, options.port)
