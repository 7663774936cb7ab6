"""The training loop of pretraining and distillation: progress, checkpoints, milestones, interruption, divergence."""

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from typing import Any, Protocol, TypeAlias, runtime_checkable

from torch import Tensor

from simdistill.runs.folder import RunFolder
from simdistill.runs.logs import Log
from simdistill.training.checkpoints import all_finite, newest_checkpoint, read_checkpoint, write_checkpoint
from simdistill.training.divergence import trouble
from simdistill.training.processes import ALONE, Processes, Vote
from simdistill.training.progress import Bar, Stopwatch, stop_requests

LOG_EVERY = 50  # iterations between two lines of the metrics, and between two checks for divergence
LOG_SECONDS = 30.0  # … or after this time, if iterations take long
MILESTONES = 16  # evenly spaced, plus one at the start
ROLLBACKS = 3  # rollbacks before a training is given up

Measuring: TypeAlias = Callable[[], tuple[dict[str, Any], str]]
"""Returns values for the metrics, and a short text for the progress bar; called in a separate thread."""


@runtime_checkable
class Trainer(Protocol):
    """What the loop needs from a trainer. All processes make the same calls in the same order."""

    iteration: int
    rollbacks: int  # each halves the learning rates

    @property
    def iterations(self) -> int:
        """The total number of iterations."""
        ...

    @property
    def images(self) -> int:
        """Images seen so far."""
        ...

    def step(self) -> None:
        """Do one iteration."""
        ...

    def metrics(self) -> dict[str, Any]:
        """Means since the last call, as JSON values; the numbers must be finite."""
        ...

    def state(self) -> dict[str, Tensor]:
        """A snapshot of everything that later iterations depend on."""
        ...

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Continue from `state`; `ValueError` if it does not fit."""
        ...


class Interrupted(Exception):  # noqa: N818  (not an error)
    """The training was stopped by the signal `by`; everything is saved."""

    def __init__(self, message: str, by: str) -> None:
        super().__init__(message)
        self.by = by


class Diverged(Exception):  # noqa: N818
    """The training diverged, and again after every rollback."""


class Loop:
    """Runs a training to its end, with checkpoints, metrics and usable weights.

    `at_milestone` is called at the start and at `milestones` evenly spaced iterations; the function that it returns
    measures the network of that moment in a separate thread, during the training. `keep` stores the usable weights with
    every checkpoint. Metrics go to the run's folder and to `logs`.
    """

    def __init__(
        self,
        trainer: Trainer,
        run: RunFolder,
        at_milestone: Callable[[], Measuring],
        keep: Callable[[], None],
        processes: Processes = ALONE,
        checkpoint_minutes: float = 1.0,
        milestones: int = MILESTONES,
        logs: Sequence[Log] = (),
    ) -> None:
        self.trainer, self.run, self.processes, self.logs = trainer, run, processes, logs
        self._at_milestone, self._keep = at_milestone, keep
        self._checkpoint_seconds = 60 * checkpoint_minutes
        self._due = {round(k * trainer.iterations / milestones) for k in range(milestones + 1)}
        self._measuring: list[tuple[int, float, Future[tuple[dict[str, Any], str]]]] = []

    def train(self) -> None:
        """Train to the last iteration, from the newest intact checkpoint if there is one.

        Raises `Interrupted` after Ctrl-C, SIGTERM or SIGUSR1, with everything saved; `OSError` if the disk refuses a
        checkpoint, with older ones intact; `Diverged` after `ROLLBACKS` rollbacks.
        """
        trainer, vote = self.trainer, Vote(self.processes)
        seconds = self._resume()
        self._watch = Stopwatch(seconds or 0.0)
        self._bar = Bar(trainer.iteration, trainer.iterations, self.processes.is_main)
        if self.processes.is_main:
            self.run.stopped.unlink(missing_ok=True)
        with closing(self._bar), ThreadPoolExecutor(1) as self._thread, stop_requests() as stop:
            if seconds is None:
                self._save()  # for rollbacks in the first minutes; it also shows whether the disk has room
            if trainer.iteration in self._due and not self._measured(trainer.iteration):
                self._measure()
            saved = logged = time.monotonic()
            written = False  # did the previous iteration write a line of the metrics?
            while trainer.iteration < trainer.iterations:
                trainer.step()
                now = time.monotonic()
                stopping, saving, logging = vote(bool(stop), self._save_is_due(now - saved), now - logged > LOG_SECONDS)
                if written:  # the votes are from before that line
                    saving = logging = False
                written = False
                end = trainer.iteration == trainer.iterations
                if trainer.iteration % LOG_EVERY == 0 or stopping or logging or end:
                    written = True
                    if not self._log():
                        saved = logged = time.monotonic()
                        continue
                    logged = now
                    if trainer.iteration in self._due:
                        self._measure()
                    if saving or stopping or end:
                        self._save()
                        saved = time.monotonic()
                    if stopping and not end:
                        self._stop(stop)
                elif trainer.iteration in self._due:
                    self._measure()
            stopping = vote(bool(stop), False, False)[0]  # a signal during the last save
            if any(vote.close()[:1]) or stopping:
                self._stop(stop)

    def _log(self) -> bool:
        """Write a line of the metrics; False if they show divergence and the training was rolled back."""
        metrics, seconds = self.trainer.metrics(), self._watch.seconds
        wrong = trouble(metrics, self._history)
        if wrong is not None:
            self._roll_back(wrong)
            return False
        speed = (self.trainer.images - self._logged[0]) / max(seconds - self._logged[1], 1e-3)
        self._logged = (self.trainer.images, seconds)
        self._record({"iteration": self.trainer.iteration, "seconds": seconds, "images_per_second": speed, **metrics})
        self._bar.advance(self.trainer.iteration, speed)
        self._collect()
        return True

    def _measure(self) -> None:
        """Start to measure the current network, after the previous measurement is done."""
        self._collect(wait=True)
        measuring = self._at_milestone()
        if self.processes.is_main:
            self._measuring.append((self.trainer.iteration, self._watch.seconds, self._thread.submit(measuring)))

    def _measured(self, iteration: int) -> bool:
        """Whether this milestone has a record; a run that stopped before it was done measures it again."""
        return any("quality" in record and record["iteration"] == iteration for record in self._history)

    def _save_is_due(self, age: float) -> bool:
        """Whether a checkpoint of this age is due; during a measurement it may get ten times as old.

        The main process, which measures, decides.
        """
        patience = 10 if self._measuring and not self._measuring[-1][2].done() else 1
        return self.processes.is_main and age > patience * self._checkpoint_seconds

    def _collect(self, wait: bool = False) -> None:
        """Record finished measurements."""
        while self._measuring and (wait or self._measuring[0][2].done()):
            iteration, seconds, future = self._measuring.pop(0)
            values, text = future.result()
            self._record({"iteration": iteration, "seconds": seconds, **values})
            self._bar.milestone(iteration, seconds, text)

    def _save(self) -> None:
        """Save a checkpoint and the usable weights; if weights are not finite, roll back instead."""
        self._collect(wait=True)  # a resumed run would not measure them again
        trainer, state, seconds = self.trainer, self.trainer.state(), self._watch.seconds
        if not self.processes.on_main(lambda: all_finite(state)):
            return self._roll_back("a weight is not finite")
        self._keep()  # first: a run that stops between the two repeats both when resumed
        self.processes.on_main(
            lambda: write_checkpoint(self.run.checkpoints, trainer.iteration, state, {"seconds": seconds})
        )
        return None

    def _resume(self) -> float | None:
        """Restore the newest intact checkpoint; returns its seconds of training, or None without one."""
        # one process chooses: on a network file system, others may see an outdated folder
        path = self.processes.on_main(lambda: newest_checkpoint(self.run.checkpoints))
        found = None if path is None else read_checkpoint(path)
        if found is not None:
            try:
                self.trainer.restore(found[0])
            except (KeyError, ValueError) as error:
                raise ValueError(f"{self.run.checkpoints}: do not match this run's configuration ({error})") from error
        iteration = self.trainer.iteration if found is not None else -1
        self._history = self.processes.on_main(lambda: self.run.forget_after(iteration))
        seconds = float(found[1]["seconds"]) if found is not None else None
        self._logged = (self.trainer.images, seconds or 0.0)
        return seconds

    def _roll_back(self, wrong: str) -> None:
        """Go back to the newest checkpoint with halved learning rates; `Diverged` after `ROLLBACKS` times."""
        trainer, at, rollbacks = self.trainer, self.trainer.iteration, self.trainer.rollbacks + 1
        for *_, future in self._measuring:
            future.exception()  # wait; its network is discarded
        self._measuring.clear()
        if rollbacks > ROLLBACKS:
            raise Diverged(
                f"{wrong} at iteration {at}, after {ROLLBACKS} rollbacks that each halved the learning rates; start "
                f"again with lower learning rates; the last good state is in {self.run.checkpoints}"
            )
        self._resume()
        self._logged = (trainer.images, self._watch.seconds)
        trainer.rollbacks = rollbacks
        rate = 0.5**rollbacks
        self._record({"iteration": trainer.iteration, "seconds": self._watch.seconds, "rollback": wrong, "rate": rate})
        self._bar.say(
            f"rollback: {wrong} at iteration {at}; going on from iteration {trainer.iteration} with learning rates "
            f"times {rate:g}"
        )
        self._save()

    def _record(self, values: dict[str, Any]) -> None:
        self._history.append(values)
        if self.processes.is_main:
            self.run.log_metrics(values)
            for log in self.logs:
                log.log_metrics(values)

    def _stop(self, signals: Sequence[str]) -> None:
        by = signals[0] if signals else "SIGTERM"  # received by another process
        if self.processes.is_main:
            self.run.stopped.touch()
        raise Interrupted(
            f"stopped by {by} at iteration {self.trainer.iteration}; everything is saved; "
            f"continue with --resume {self.run.path}",
            by,
        )
