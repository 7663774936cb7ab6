"""Milestones: the networks of some moments of a training, measured in a thread beside it."""

import contextlib
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from simdistill.runs.folder import RunFolder
from simdistill.support.checks import require

MILESTONES = 16  # evenly spaced, plus one at the start
POLL_SECONDS = 0.02  # between two looks at a measurement
SUFFIX = ".safetensors"

Record: TypeAlias = Callable[[int, float, dict[str, Any], str], None]
Measured: TypeAlias = tuple[dict[str, Any], str] | None
"""Values for the metrics, and a short text for the progress; None for a milestone that is left out."""


class Abandoned(Exception):  # noqa: N818
    """The training goes on, or ends, without this measurement."""


class Underway:
    """What a measurement may ask of the training beside it."""

    def __init__(self) -> None:
        self.ending = threading.Event()
        self._seconds: Future[float] = Future()

    def between(self) -> None:
        """To be called every few seconds: raises `Abandoned` if the training does not want the result any more."""
        if self.ending.is_set():
            raise Abandoned

    def seconds(self) -> float:
        """How long the whole training will take, in seconds; known after its first iterations."""
        return self._seconds.result()

    def expect(self, seconds: float) -> None:
        """Set how long it will take."""
        if not self._seconds.done():
            self._seconds.set_result(seconds)

    def end(self) -> "Underway":
        """Abandon what is being measured; returns what later measurements are to ask."""
        later = Underway()
        if self._seconds.done():
            later.expect(self._seconds.result())
        else:
            self._seconds.set_exception(Abandoned())
        self.ending.set()
        return later


@dataclass(frozen=True)
class Measurement:
    """A network to measure: `measure` does it, `keep` stores the network in a file, so that a resumed run can do it."""

    measure: Callable[[Underway], Measured]
    keep: Callable[[Path], None]


@dataclass
class _Milestone:
    iteration: int
    seconds: float
    measurement: Measurement
    result: Future[Measured]


class Milestones:
    """The measurements of a training, one at a time, in the main process.

    Networks that wait to be measured while a checkpoint is written are stored in the run's folder; a resumed run
    measures them first. `record` gets the iteration, the seconds and what was measured; nobody waits once there is a
    request to `stop`.
    """

    def __init__(self, run: RunFolder, record: Record, stop: Sequence[str]) -> None:
        self._folder, self._record, self._stop = run.unmeasured, record, stop
        self._thread = ThreadPoolExecutor(1)
        self._waiting: list[_Milestone] = []
        self.underway = Underway()

    def add(self, iteration: int, seconds: float, measurement: Measurement, waits: bool) -> None:
        """Measure the network of this moment; while another is being measured, only if the training `waits` for it."""
        if waits:
            self.wait()
        else:
            self.collect()
        if waits or not self._waiting:
            self._submit(iteration, seconds, measurement)

    def take_up(self, stored: Callable[[int, Path], Measurement], upto: int, known: set[int]) -> None:
        """Measure the `stored` networks of iterations up to `upto`, except the `known`; delete the others."""
        for path in sorted(self._folder.glob(f"*{SUFFIX}")):
            try:
                iteration, seconds = int(path.stem[:8]), float(path.stem[9:])
                require(iteration <= upto and iteration not in known, "iteration", iteration, f"new, and up to {upto}")
                self._submit(iteration, seconds, stored(iteration, path))
            except ValueError:  # of a moment that will come again, measured, or damaged
                path.unlink()

    @property
    def waiting(self) -> bool:
        """Whether something is being measured."""
        return bool(self._waiting)

    def waits_for(self, iteration: int) -> bool:
        """Whether the network of that iteration is being measured."""
        return any(milestone.iteration == iteration for milestone in self._waiting)

    def wait(self) -> None:
        """Wait until everything is measured, or there is a request to stop."""
        self.collect()
        while self._waiting and not self._stop:
            time.sleep(POLL_SECONDS)
            self.collect()

    def collect(self) -> None:
        """Record what has been measured."""
        while self._waiting and self._waiting[0].result.done():
            done = self._waiting[0]
            measured = done.result.result()
            self._waiting.pop(0)
            if measured is not None:
                self._record(done.iteration, done.seconds, *measured)
            self._file(done).unlink(missing_ok=True)

    def keep(self) -> None:
        """Store the networks that have not been measured yet."""
        self.collect()
        for milestone in self._waiting:
            if not self._file(milestone).exists():
                milestone.measurement.keep(self._file(milestone))

    def discard(self) -> None:
        """Forget the networks that have not been measured: the training goes back to an earlier moment."""
        self._end()
        for milestone in self._waiting:
            self._file(milestone).unlink(missing_ok=True)
        self._waiting.clear()

    def close(self) -> None:
        """End the thread; what it is measuring is abandoned."""
        self._end()
        self._thread.shutdown()
        with contextlib.suppress(OSError):  # none, or not empty
            self._folder.rmdir()

    def _submit(self, iteration: int, seconds: float, measurement: Measurement) -> None:
        result = self._thread.submit(measurement.measure, self.underway)
        self._waiting.append(_Milestone(iteration, seconds, measurement, result))

    def _end(self) -> None:
        self.underway = self.underway.end()
        for milestone in self._waiting:
            milestone.result.cancel()
        for milestone in self._waiting:
            if not milestone.result.cancelled():
                milestone.result.exception()  # wait

    def _file(self, milestone: _Milestone) -> Path:
        return self._folder / f"{milestone.iteration:08d}-{milestone.seconds:.3f}{SUFFIX}"
