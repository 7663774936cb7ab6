"""A progress bar on stderr for work that is counted in images."""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from functools import partial

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


@contextmanager
def progress_bar(what: str, images: int, shown: bool) -> Generator[Callable[[int], None]]:
    """A function to be called with every number of images done; it moves a bar if that is `shown`, on a terminal."""
    console = Console(stderr=True)
    description = TextColumn("{task.description}", markup=False)  # it may be the name of a file
    columns = (description, BarColumn(), MofNCompleteColumn(), TextColumn("ETA"), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not (shown and console.is_terminal)) as progress:
        yield partial(progress.advance, progress.add_task(what, total=images))
