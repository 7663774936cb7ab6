"""A progress bar on stderr for work counted in images."""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from functools import partial

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


@contextmanager
def progress_bar(what: str, images: int, shown: bool) -> Generator[Callable[[int], None]]:
    """A context whose function advances the bar by a number of images; shown only if `shown`, and on a terminal."""
    console = Console(stderr=True)
    description = TextColumn("{task.description}", markup=False)  # may contain a file's name
    columns = (description, BarColumn(), MofNCompleteColumn(), TextColumn("ETA"), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not (shown and console.is_terminal)) as progress:
        yield partial(progress.advance, progress.add_task(what, total=images))
