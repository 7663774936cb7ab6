"""The loop around pretraining and distillation alike: progress, checkpoints, milestones, interruption, divergence."""

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

LOG_EVERY = 50  # iterations between two lines of the metrics, and between two looks for divergence
LOG_SECONDS = 30.0  # … or less, where an iteration takes long
MILESTONES = 16  # evenly spaced, and one at the start
ROLLBACKS = 3  # roll-backs before a training is given up

Measuring: TypeAlias = Callable[[], tuple[dict[str, Any], str]]
"""Returns values for the metrics, and a short text for the progress bar; called in a thread of its own."""


@runtime_checkable
class Trainer(Protocol):
    """What the loop needs of a training. In several processes all do the same calls in the same order."""

    iteration: int
    rollbacks: int  # how often it was rolled back; every time its rates are halved

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

    def metrics(self) -> dict[str, Any]:
        """Means since the last reading, JSON values; of which the numbers must be finite."""
        ...

    def state(self) -> dict[str, Tensor]:
        """All that later iterations depend on, which they do not change any more."""
        ...

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go on from `state`; `ValueError` if it does not fit."""
        ...


class Interrupted(Exception):  # noqa: N818  (not an error)
    """The training was asked to stop, by the signal `by`; everything is saved."""

    def __init__(self, message: str, by: str) -> None:
        super().__init__(message)
        self.by = by


class Diverged(Exception):  # noqa: N818
    """The training went wrong, and again after every roll-back."""


class Loop:
    """Steps a training to its end and keeps what is needed to go on, to watch it, and to use it.

    `at_milestone` is called at the start and at `milestones` evenly spaced iterations; what it returns measures the
    network of that moment in a thread of its own, beside the training. `keep` stores what is usable, with every
    checkpoint. Metrics go to the run's folder and to `logs`.
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
        """Go on from the newest sound checkpoint, if there is one, to the last iteration.

        Raises `Interrupted` after Ctrl-C, SIGTERM or SIGUSR1, with everything saved; `OSError` where the disk takes no
        checkpoint, with those before intact; `Diverged` after `ROLLBACKS` roll-backs.
        """
        trainer, vote = self.trainer, Vote(self.processes)
        seconds = self._resume()
        self._watch = Stopwatch(seconds or 0.0)
        self._bar = Bar(trainer.iteration, trainer.iterations, self.processes.is_main)
        if self.processes.is_main:
            self.run.stopped.unlink(missing_ok=True)
        with closing(self._bar), ThreadPoolExecutor(1) as self._thread, stop_requests() as stop:
            if seconds is None:
                self._save()  # what a roll-back in the first minutes goes back to; and does the disk take it?
            if trainer.iteration in self._due and not self._measured(trainer.iteration):
                self._measure()
            saved = logged = time.monotonic()
            written = False  # a line of the metrics, by the iteration before
            while trainer.iteration < trainer.iterations:
                trainer.step()
                now = time.monotonic()
                stopping, saving, logging = vote(bool(stop), self._save_is_due(now - saved), now - logged > LOG_SECONDS)
                if written:  # the answers were given by then
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
            stopping = vote(bool(stop), False, False)[0]  # a signal that came while the end was being saved
            if any(vote.close()[:1]) or stopping:
                self._stop(stop)

    def _log(self) -> bool:
        """A line of the metrics; False if it tells of trouble, and the training was rolled back."""
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
        """Start to measure the network of this moment, once the one before is done."""
        self._collect(wait=True)
        measuring = self._at_milestone()
        if self.processes.is_main:
            self._measuring.append((self.trainer.iteration, self._watch.seconds, self._thread.submit(measuring)))

    def _measured(self, iteration: int) -> bool:
        """Whether there is a record of that milestone; a run that ended before it was done begins with it anew."""
        return any("quality" in record and record["iteration"] == iteration for record in self._history)

    def _save_is_due(self, age: float) -> bool:
        """Whether a checkpoint of that age is too old; rather than wait for a measurement it may get ten times as old.

        The first process decides, which measures.
        """
        patience = 10 if self._measuring and not self._measuring[-1][2].done() else 1
        return self.processes.is_main and age > patience * self._checkpoint_seconds

    def _collect(self, wait: bool = False) -> None:
        """Record what has been measured."""
        while self._measuring and (wait or self._measuring[0][2].done()):
            iteration, seconds, future = self._measuring.pop(0)
            values, text = future.result()
            self._record({"iteration": iteration, "seconds": seconds, **values})
            self._bar.milestone(iteration, seconds, text)

    def _save(self) -> None:
        """A checkpoint, and what is usable; with weights that are not finite a roll-back instead."""
        self._collect(wait=True)  # what a resumed run would not measure again
        trainer, state, seconds = self.trainer, self.trainer.state(), self._watch.seconds
        if not self.processes.on_main(lambda: all_finite(state)):
            return self._roll_back("a weight is not finite")
        self._keep()  # first: a run that ends between the two is resumed, and keeps again
        self.processes.on_main(
            lambda: write_checkpoint(self.run.checkpoints, trainer.iteration, state, {"seconds": seconds})
        )
        return None

    def _resume(self) -> float | None:
        """Bring the trainer to the newest sound checkpoint; returns the seconds trained until then, None for none."""
        # one process chooses: others may see the folder of a network file system as it was a minute ago
        path = self.processes.on_main(lambda: newest_checkpoint(self.run.checkpoints))
        found = None if path is None else read_checkpoint(path)
        if found is not None:
            try:
                self.trainer.restore(found[0])
            except (KeyError, ValueError) as error:
                raise ValueError(f"{self.run.checkpoints}: do not fit this run's configuration ({error})") from error
        iteration = self.trainer.iteration if found is not None else -1
        self._history = self.processes.on_main(lambda: self.run.forget_after(iteration))
        seconds = float(found[1]["seconds"]) if found is not None else None
        self._logged = (self.trainer.images, seconds or 0.0)
        return seconds

    def _roll_back(self, wrong: str) -> None:
        """Go back to the newest checkpoint and on with half the rates; `Diverged` after `ROLLBACKS` times."""
        trainer, at, rollbacks = self.trainer, self.trainer.iteration, self.trainer.rollbacks + 1
        for *_, future in self._measuring:
            future.exception()  # of a network that is given up
        self._measuring.clear()
        if rollbacks > ROLLBACKS:
            raise Diverged(
                f"{wrong} at iteration {at}, after {ROLLBACKS} roll-backs to half the rates each; start again with "
                f"lower learning rates; {self.run.checkpoints} holds the last good state"
            )
        self._resume()
        self._logged = (trainer.images, self._watch.seconds)
        trainer.rollbacks = rollbacks
        rate = 0.5**rollbacks
        self._record({"iteration": trainer.iteration, "seconds": self._watch.seconds, "rollback": wrong, "rate": rate})
        self._bar.say(f"{wrong} at iteration {at}: back to iteration {trainer.iteration}, with {rate:g} of the rates")
        self._save()

    def _record(self, values: dict[str, Any]) -> None:
        self._history.append(values)
        if self.processes.is_main:
            self.run.log_metrics(values)
            for log in self.logs:
                log.log_metrics(values)

    def _stop(self, signals: Sequence[str]) -> None:
        by = signals[0] if signals else "SIGTERM"  # that another process received
        if self.processes.is_main:
            self.run.stopped.touch()
        raise Interrupted(
            f"stopped by {by} at iteration {self.trainer.iteration}, with everything saved; "
            f"go on with --resume {self.run.path}",
            by,
        )
