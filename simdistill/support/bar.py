"""Progress on stderr: bars with the time left on a terminal, a line every ten seconds elsewhere."""

import sys
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskID, TextColumn
from rich.text import Text

LINE_SECONDS = 10.0  # between two lines of a bar where there is no terminal


class Bar:
    """A bar for work counted in samples, iterations or the like; without a `total`, only the time passed is known.

    Calling it advances it. Bars may be open in several threads at once: a terminal shows them below each other.
    """

    def __init__(self, what: str, total: int | None, done: int = 0) -> None:
        self.what, self.total, self.done, self.note = what, total, done, ""
        self.task = TaskID(-1)  # on a terminal
        self._first, self._began = done, time.monotonic()
        self._told = self._began

    def __call__(self, count: int = 1) -> None:
        """Advance by `count`."""
        self.done += count
        if _display.progress is not None and self.task >= 0:
            _display.progress.update(self.task, completed=self.done)

    def say(self, text: str) -> None:
        """Print a line above the bars."""
        if _display.progress is not None:
            _display.progress.console.print(text, highlight=False, markup=False)
        else:
            print(text, file=sys.stderr, flush=True)

    @property
    def told(self) -> str:
        """How far it is, how long it takes, and the note: "1,200/8,000, 1 min 10 s left, 512 samples/s"."""
        passed, more = time.monotonic() - self._began, self.done - self._first
        if self.total is None:
            texts = [duration(passed)]
        else:
            texts = [f"{self.done:,}/{self.total:,}"]
            if more > 0 and self.done < self.total:
                texts.append(f"{duration(passed / more * (self.total - self.done))} left")
        return ", ".join([*texts, *([self.note] if self.note else [])])

    def tell(self) -> None:
        """Print a line, if the last one is old."""
        now = time.monotonic()
        if now - self._told >= LINE_SECONDS:
            self._told = now
            print(f"{self.what}: {self.told}", file=sys.stderr, flush=True)


class SilentBar(Bar):
    """A bar that shows nothing, for processes that do not print."""

    def __init__(self) -> None:
        super().__init__("", None)

    def __call__(self, count: int = 1) -> None:
        """Nothing."""

    def say(self, text: str) -> None:
        """Nothing."""


@contextmanager
def progress_bar(what: str, total: int | None = None, shown: bool = True, done: int = 0) -> Generator[Bar]:
    """A bar for the block, of `total` steps of which `done` are done; nothing unless `shown`."""
    if not shown:
        yield SilentBar()
        return
    bar = Bar(what, total, done)
    _display.open(bar)
    try:
        yield bar
    finally:
        _display.close(bar)


def duration(seconds: float) -> str:
    """Seconds as text: "40 s", "1 min 40 s", "2 h 5 min" or "3 d 4 h"."""
    whole = int(seconds)
    for large, size, small, part in (("d", 86400, "h", 3600), ("h", 3600, "min", 60), ("min", 60, "s", 1)):
        if whole >= size:
            rest = whole % size // part
            return f"{whole // size} {large}" + (f" {rest} {small}" if rest else "")
    return f"{whole} s"


class _Told(ProgressColumn):
    """What a bar tells of itself."""

    def render(self, task: Task) -> Text:
        return Text(task.fields["bar"].told)


class _Display:
    """All open bars of the process: one live display on a terminal, otherwise a thread that prints lines."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._bars: list[Bar] = []
        self._ended: threading.Event | None = None
        self.progress: Progress | None = None

    def open(self, bar: Bar) -> None:
        with self._lock:
            self._bars.append(bar)
            if len(self._bars) == 1:
                self._start()
            if self.progress is not None:
                bar.task = self.progress.add_task(bar.what, total=bar.total, completed=bar.done, bar=bar)

    def close(self, bar: Bar) -> None:
        with self._lock:
            self._bars.remove(bar)
            if self.progress is not None:
                self.progress.remove_task(bar.task)
            if not self._bars:
                self._stop()

    def _start(self) -> None:
        console = Console(stderr=True)
        if console.is_terminal:
            columns = (TextColumn("{task.description}", markup=False), BarColumn(), _Told())
            # stdout has results, which must not go where the bars are
            self.progress = Progress(*columns, console=console, transient=True, redirect_stdout=False)
            self.progress.start()
            return
        self._ended = threading.Event()
        threading.Thread(target=self._tell, args=[self._ended], daemon=True).start()

    def _stop(self) -> None:
        if self.progress is not None:
            self.progress.stop()
        if self._ended is not None:
            self._ended.set()
        self.progress = self._ended = None

    def _tell(self, ended: threading.Event) -> None:
        while not ended.wait(LINE_SECONDS / 10):
            for bar in tuple(self._bars):
                bar.tell()


_display = _Display()
