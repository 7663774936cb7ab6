"""The jobs of a comparison, each in its own process, several in parallel."""

import contextlib
import os
import queue
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from simdistill.evaluation.figures import in_short
from simdistill.evaluation.table import RANKED_BY
from simdistill.runs.folder import RunFolder, read_figures
from simdistill.support.files import write_atomically
from simdistill.support.stopping import Interrupted, stop_requests

DIVERGED = 3  # the exit code of a diverged training only: another try would end alike
TRIES = 2
LOOK = 1.0  # seconds between two updates of the display


@dataclass(frozen=True)
class Job:
    """A student to train and evaluate, or the teacher to evaluate, with its folder and name."""

    who: str
    name: str
    run: RunFolder
    iterations: int
    damage: str | None = None
    """Why its folder cannot be used, or None."""

    @property
    def failure(self) -> str | None:
        """Why it failed, or None."""
        path = failure_of(self.run)
        return self.damage or (path.read_text(encoding="utf-8") if path.exists() else None)

    def missing(self, samples: int, seeds: int) -> bool:
        """Whether it is still to be run: it has no such metrics, and no failure that another try would repeat."""
        hopeless = self.damage or (self.failure or "").startswith(_ending(DIVERGED))
        return not hopeless and self.figures(samples, seeds) is None

    def figures(self, samples: int, seeds: int) -> dict[str, Any] | None:
        """Its metrics with that many samples and evaluation seeds; None if it was not evaluated so."""
        try:
            found = read_figures(figures_of(self.run))
            return found if (found["samples"], found[RANKED_BY]["seeds"]) == (samples, seeds) else None
        except (OSError, ValueError, KeyError, TypeError):  # not there, or damaged
            return None


def figures_of(run: RunFolder) -> Path:
    """JSON: the metrics of a cell's student, or of the teacher."""
    return run.path / "figures.json"


def failure_of(run: RunFolder) -> Path:
    """Text: why a cell failed."""
    return run.path / "failure.txt"


@dataclass
class Workers:
    """`count` processes in parallel, with `threads` threads each, on the devices in turn.

    A job whose process dies is tried once more, from its last checkpoint. If it dies again, its folder says why, and
    the other jobs continue. A diverged training is not tried again.
    """

    teacher: str
    count: int
    threads: int
    devices: Sequence[str]
    samples: int
    seeds: int
    milestones: int
    _running: dict[int, subprocess.Popen[bytes]] = field(default_factory=dict)
    _stopping: bool = False

    def run(self, jobs: Sequence[Job]) -> None:
        """Do the jobs, with one progress display; raises `Interrupted` after a signal, once everything is saved."""
        if not jobs:
            return
        slots: queue.SimpleQueue[int] = queue.SimpleQueue()
        for slot in range(self.count):
            slots.put(slot)

        def one(job: Job) -> None:
            slot = slots.get()
            try:
                self._try(job, slot)
            finally:
                slots.put(slot)

        with stop_requests() as stop, Display(jobs) as display, ThreadPoolExecutor(self.count) as threads:
            futures = {threads.submit(one, job): job for job in jobs}
            self._follow(futures, display, stop)
        if stop:
            raise Interrupted(f"stopped by {stop[0]}; everything is saved, and the same command resumes", stop[0])

    def _follow(self, futures: dict[Future[None], Job], display: "Display", stop: Sequence[str]) -> None:
        waiting = set(futures)
        while waiting:
            if stop and not self._stopping:
                self._stop(futures)
                waiting = {future for future in waiting if not future.cancelled()}
            done, waiting = wait(waiting, LOOK, FIRST_COMPLETED)
            for future in done:
                future.result()
                display.finished(futures[future], futures[future].figures(self.samples, self.seeds))
            display.look([job for future, job in futures.items() if future.running()])

    def _stop(self, futures: dict[Future[None], Job]) -> None:
        """Ask the running processes to save and end; start no others."""
        self._stopping = True
        for future in futures:
            future.cancel()
        for process in list(self._running.values()):
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)

    def _try(self, job: Job, slot: int) -> None:
        failure = failure_of(job.run)
        for _ in range(TRIES):
            if self._stopping:
                return
            failure.unlink(missing_ok=True)
            code, said = self._once(job, slot)
            if code == 0 or self._stopping:
                return
            reason = _ending(code) if code < 0 else f"{_ending(code)}: {said}"  # a killed process could not report why
            write_atomically(failure, reason.encode())
            if code == DIVERGED:
                return

    def _once(self, job: Job, slot: int) -> tuple[int, str]:
        """The exit code of one try, and the last line of its log."""
        options = ["--teacher", self.teacher, "--samples", str(self.samples), "--seeds", str(self.seeds)]
        options += ["--milestones", str(self.milestones)]
        options += ["--device", self.devices[slot % len(self.devices)], "--parent", str(os.getpid())]
        command = [sys.executable, "-m", "simdistill.comparison.cell", job.who, str(job.run.path), *options]
        threads = {"OMP_NUM_THREADS": str(self.threads)}
        log = job.run.path / "log.txt"
        with log.open("ab") as file:
            # a group of its own: Ctrl-C reaches this process alone, which then asks the others
            process = subprocess.Popen(
                command, stdout=file, stderr=file, env={**os.environ, **threads}, start_new_session=True
            )
            self._running[slot] = process
            code = process.wait()
            del self._running[slot]
        lines = log.read_text(encoding="utf-8", errors="replace").split("\n")
        return code, next((line for line in reversed(lines) if line.strip()), "no output")


def _ending(code: int) -> str:
    if code == DIVERGED:
        return "diverged"
    return f"killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"


class Display:
    """Progress of many runs: on a terminal a bar per running job and one for all, otherwise a line when a job ends."""

    def __init__(self, jobs: Sequence[Job]) -> None:
        self._jobs, self._ended = jobs, 0
        self._console = Console(stderr=True)
        columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn())
        more = (TextColumn("ETA"), TimeRemainingColumn(), TextColumn("{task.fields[quality]}", markup=False))
        self._progress = Progress(*columns, *more, console=self._console, disable=not self._console.is_terminal)
        self._rows: dict[str, TaskID] = {}
        self._began = time.monotonic()

    def __enter__(self) -> "Display":
        self._progress.start()
        total = sum(job.iterations for job in self._jobs)
        self._total = self._progress.add_task("iterations, total", total=total, quality="")
        self._before = {job.name: _reached(job)[0] for job in self._jobs}
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def look(self, running: Sequence[Job]) -> None:
        """Show the progress of the running jobs."""
        if not self._console.is_terminal:
            return
        for name in self._rows.keys() - {job.name for job in running}:
            self._progress.remove_task(self._rows.pop(name))
        for job in running:
            iteration, quality = _reached(job)
            self._before[job.name] = iteration
            if job.name not in self._rows:
                self._rows[job.name] = self._progress.add_task(job.name, total=job.iterations, quality="")
            self._progress.update(self._rows[job.name], completed=iteration, quality=quality)
        self._progress.update(self._total, completed=sum(self._before.values()))

    def finished(self, job: Job, figures: dict[str, Any] | None) -> None:
        """Say how a job ended."""
        self._ended += 1
        self._before[job.name] = job.iterations
        said = job.failure or "stopped"
        if figures is not None:
            said = in_short(figures, figures.get("features"))
        line = f"{self._ended:>4}/{len(self._jobs)}  {time.monotonic() - self._began:6.0f} s  {job.name}: {said}"
        console: Callable[[str], None] = self._progress.console.print if self._console.is_terminal else _tell
        console(line)


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _reached(job: Job) -> tuple[int, str]:
    """The iteration that a job has reached, and its last milestone as text."""
    records = job.run.read_metrics()
    measured = [record for record in records if "quality" in record]
    last = ""
    if measured:
        quality, iteration = measured[-1]["quality"], measured[-1]["iteration"]
        last = f"{in_short({RANKED_BY: quality[RANKED_BY]}, quality.get('features'))} (at {iteration:,})"
    return max((record["iteration"] for record in records), default=0), last
