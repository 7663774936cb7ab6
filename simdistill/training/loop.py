"""The loop around pretraining and distillation alike: progress, checkpoints, milestones, interruption."""

import math
import signal
import sys
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol, runtime_checkable

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

from simdistill.runs import RunFolder
from simdistill.training.state import all_finite, read_checkpoint, write_checkpoint

CHECKPOINT_SECONDS = 20.0  # what a crash can cost
LOG_EVERY = 50  # iterations between two lines of the metrics, and between two looks for non-finite numbers


@runtime_checkable
class Trainer(Protocol):
    """What the loop needs of a training."""

    iteration: int

    @property
    def iterations(self) -> int:
        """Where it ends."""
        ...

    @property
    def images(self) -> int:
        """Images seen so far."""
        ...

    def step(self) -> None:
        """Do one iteration."""
        ...

    def readings(self) -> dict[str, Any]:
        """Means since the last reading, JSON values; of which the numbers must be finite."""
        ...

    def state(self) -> dict[str, Tensor]:
        """All that later iterations depend on."""
        ...

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go on from `state`."""
        ...


class Interrupted(Exception):  # noqa: N818  (not an error)
    """The user stopped the run; its state is saved."""


class Diverged(Exception):  # noqa: N818
    """A loss or a weight was not finite; the run's checkpoint, if there is one, is from before."""


def train(
    trainer: Trainer,
    run: RunFolder,
    at_milestone: Callable[[], tuple[dict[str, Any], str]],
    keep: Callable[[], None],
    milestones: int = 16,
) -> None:
    """Step `trainer` to its end.

    Resumes from the run's checkpoint if there is one. Every `CHECKPOINT_SECONDS` saves one and calls `keep`, which
    stores what is usable. At the start and at `milestones` evenly spaced iterations `at_milestone` returns values for
    the metrics and a short text for the progress bar; its time is not counted as training. Raises `Interrupted` after
    Ctrl-C or SIGTERM, with everything saved, and `Diverged` where a number is not finite.
    """
    seconds = resume(trainer, run)
    due = {round(k * trainer.iterations / milestones) for k in range(milestones + 1)}
    saved, first_image = time.monotonic(), trainer.images
    with _progress(trainer) as progress, _stop_requests() as stop:
        clock = _Stopwatch(seconds)

        def milestone() -> None:
            clock.pause()
            if not all_finite(trainer.state()):
                raise _diverged("a weight is not finite", trainer, run)
            values, text = at_milestone()
            run.record({"iteration": trainer.iteration, "seconds": round(clock.seconds, 3), **values})
            progress.milestone(trainer.iteration, clock.seconds, text)
            clock.go()

        if trainer.iteration == 0:
            milestone()
        while trainer.iteration < trainer.iterations:
            trainer.step()
            stopping, end = bool(stop), trainer.iteration == trainer.iterations
            if trainer.iteration % LOG_EVERY == 0 or stopping or end:
                readings = trainer.readings()
                for name, mean in readings.items():
                    if isinstance(mean, float) and not math.isfinite(mean):
                        raise _diverged(f"the {name} is {mean}", trainer, run)
                run.record({"iteration": trainer.iteration, "seconds": round(clock.seconds, 3), **readings})
                progress.advance(trainer.iteration, (trainer.images - first_image) / (clock.seconds - seconds))
                if trainer.iteration in due:
                    milestone()
                if stopping or end or time.monotonic() - saved > CHECKPOINT_SECONDS:
                    keep()  # first: a run that ends between the two is resumed, and keeps again
                    _save(trainer, run, clock.seconds)
                    saved = time.monotonic()
                if stopping and not end:
                    raise Interrupted(
                        f"stopped by {stop[0]} at iteration {trainer.iteration}, with everything saved; "
                        f"go on with --resume {run.path}"
                    )
            elif trainer.iteration in due:
                milestone()


def resume(trainer: Trainer, run: RunFolder) -> float:
    """Bring `trainer` to the run's checkpoint, if there is one; returns the seconds trained so far."""
    if not run.checkpoint.exists():
        run.forget_after(-1)
        return 0.0
    state, facts = read_checkpoint(run.checkpoint)
    try:
        trainer.restore(state)
        seconds = float(facts["seconds"])
    except (KeyError, RuntimeError) as error:
        raise ValueError(f"{run.checkpoint}: does not fit this run's configuration ({error})") from error
    run.forget_after(trainer.iteration)
    return seconds


def _save(trainer: Trainer, run: RunFolder, seconds: float) -> None:
    state = trainer.state()
    if not all_finite(state):
        raise _diverged("a weight is not finite", trainer, run)
    write_checkpoint(run.checkpoint, state, {"seconds": seconds})


def _diverged(what: str, trainer: Trainer, run: RunFolder) -> Diverged:
    kept = f"the last good checkpoint is {run.checkpoint}" if run.checkpoint.exists() else "before any checkpoint"
    return Diverged(f"{what} at iteration {trainer.iteration}; {kept}; start again with lower learning rates")


class _Stopwatch:
    """Seconds of training, pauses left out."""

    def __init__(self, before: float) -> None:
        self._before, self._since = before, time.perf_counter()
        self._running = True

    @property
    def seconds(self) -> float:
        return self._before + (time.perf_counter() - self._since if self._running else 0.0)

    def pause(self) -> None:
        self._before, self._running = self.seconds, False

    def go(self) -> None:
        self._since, self._running = time.perf_counter(), True


@contextmanager
def _stop_requests() -> Generator[list[str]]:
    """A list that Ctrl-C and SIGTERM put their name into, so that an iteration is never cut in two.

    A second Ctrl-C stops at once.
    """
    asked: list[str] = []

    def ask(number: int, frame: object) -> None:
        if asked:
            raise KeyboardInterrupt
        asked.append(signal.Signals(number).name)

    try:
        previous = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # not the main thread: signals are somebody else's business
        previous = {}
    try:
        yield asked
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


class _Bar:
    """A progress bar on a terminal, else a line at every milestone."""

    def __init__(self, progress: Progress, trainer: Trainer) -> None:
        self._progress, self._total = progress, trainer.iterations
        self._task = progress.add_task("", total=trainer.iterations, completed=trainer.iteration, speed="", quality="")

    def advance(self, iteration: int, images_per_second: float) -> None:
        self._progress.update(self._task, completed=iteration, speed=f"{images_per_second:,.0f} images/s")

    def milestone(self, iteration: int, seconds: float, text: str) -> None:
        self._progress.update(self._task, completed=iteration, quality=text)
        if not self._progress.console.is_terminal:
            print(f"{iteration:>8}/{self._total} iterations  {seconds:6.0f} s  {text}", file=sys.stderr, flush=True)


@contextmanager
def _progress(trainer: Trainer) -> Generator[_Bar]:
    console = Console(stderr=True)
    columns = (
        BarColumn(bar_width=None),
        MofNCompleteColumn(),
        TextColumn("{task.fields[speed]}"),
        TextColumn("ETA"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[quality]}"),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        yield _Bar(progress, trainer)
