"""A training's progress bar, its clock, and its signals to stop."""

import signal
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

STOPPING = [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1]  # Ctrl-C, and schedulers' notices


class Bar:
    """A progress bar on a terminal, otherwise a line per milestone; nothing unless `shown`."""

    def __init__(self, iteration: int, iterations: int, shown: bool) -> None:
        self._iterations, self._shown = iterations, shown
        self._console = Console(stderr=True)
        self._progress: Progress | None = None
        self._task = TaskID(0)
        if shown and self._console.is_terminal:
            columns = (
                BarColumn(bar_width=None),
                MofNCompleteColumn(),
                TextColumn("{task.fields[speed]}"),
                TextColumn("ETA"),
                TimeRemainingColumn(),
                TextColumn("{task.fields[quality]}"),
            )
            self._progress = Progress(*columns, console=self._console)
            self._task = self._progress.add_task("", total=iterations, completed=iteration, speed="", quality="")
            self._progress.start()

    def advance(self, iteration: int, images_per_second: float) -> None:
        """Show the iteration and the speed."""
        if self._progress is not None:
            self._progress.update(self._task, completed=iteration, speed=f"{images_per_second:,.0f} images/s")

    def milestone(self, iteration: int, seconds: float, text: str) -> None:
        """Show the quality at a milestone."""
        if self._progress is not None:
            self._progress.update(self._task, quality=text)
        elif self._shown:
            self.say(f"{iteration:>8}/{self._iterations} iterations  {seconds:6.0f} s  {text}")

    def say(self, text: str) -> None:
        """Print a line above the bar."""
        if self._progress is not None:
            self._progress.console.print(text, highlight=False)
        elif self._shown:
            print(text, file=sys.stderr, flush=True)

    def close(self) -> None:
        """Restore the terminal."""
        if self._progress is not None:
            self._progress.stop()


class Stopwatch:
    """Seconds of training, including those `before` an interruption."""

    def __init__(self, before: float) -> None:
        self._start = time.perf_counter() - before

    @property
    def seconds(self) -> float:
        """The seconds so far, rounded to milliseconds."""
        return round(time.perf_counter() - self._start, 3)


@contextmanager
def stop_requests() -> Generator[list[str]]:
    """A list to which the signals of `STOPPING` append their names, so that iterations are never cut in two.

    A second Ctrl-C stops at once. Other signals may come twice (from a scheduler and from torchrun) without effect.
    """
    asked: list[str] = []

    def ask(number: int, frame: object) -> None:
        if asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        asked.append(signal.Signals(number).name)

    try:
        previous = {number: signal.signal(number, ask) for number in STOPPING}
    except ValueError:  # not in the main thread: leave signals alone
        previous = {}
    try:
        yield asked
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
