"""The training loop of pretraining and distillation: progress, checkpoints, milestones, interruption, divergence."""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from shlex import quote
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from simdistill.runs.folder import RunFolder
from simdistill.runs.logs import Log
from simdistill.support.bar import progress_bar
from simdistill.support.stopping import Interrupted, stop_requests
from simdistill.training.checkpoints import all_finite, restore_newest, write_checkpoint
from simdistill.training.divergence import trouble
from simdistill.training.milestones import MILESTONES, Measurement, Milestones
from simdistill.training.processes import ALONE, Processes, Vote

LOG_EVERY = 50  # iterations between two lines of the metrics, and between two checks for divergence
LOG_SECONDS = 30.0  # … or after this time, if iterations take long
WARM, PACED = 2, 10  # iterations before, and until, the pace of the training is measured
ROLLBACKS = 3  # rollbacks before a training is given up


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


class Diverged(Exception):  # noqa: N818
    """The training diverged, and again after every rollback."""


class Loop:
    """Runs a training to its end, with checkpoints, metrics and usable weights.

    `at_milestone` is called at the start and at `milestones` evenly spaced iterations (0: never); what it returns is
    measured in a separate thread, during the training, and `stored` makes it of a file that it kept. Unless `patient`,
    a milestone is left out if the one before is still being measured. `keep` stores the usable weights with every
    checkpoint. Metrics go to the run's folder and to `logs`.
    """

    def __init__(
        self,
        trainer: Trainer,
        run: RunFolder,
        at_milestone: Callable[[], Measurement],
        keep: Callable[[], None],
        processes: Processes = ALONE,
        checkpoint_minutes: float = 1.0,
        milestones: int = MILESTONES,
        logs: Sequence[Log] = (),
        stored: Callable[[int, Path], Measurement] | None = None,
        patient: bool = True,
    ) -> None:
        self.trainer, self.run, self.processes, self.logs = trainer, run, processes, logs
        self._at_milestone, self._keep, self._stored = at_milestone, keep, stored
        self._checkpoint_seconds = 60 * checkpoint_minutes
        self._due = {round(k * trainer.iterations / milestones) for k in range(milestones + 1)} if milestones else set()
        self._patient, self._pace, self._said = patient, "", ""  # the last pace, and what the last milestone said

    def train(self) -> None:
        """Train to the last iteration, from the newest intact checkpoint if there is one.

        Raises `Interrupted` after Ctrl-C, SIGTERM or SIGUSR1, with everything saved; `OSError` if the disk refuses a
        checkpoint, with older ones intact; `Diverged` after `ROLLBACKS` rollbacks.
        """
        trainer, vote, main = self.trainer, Vote(self.processes), self.processes.is_main
        with stop_requests() as stop:
            self._milestones = Milestones(self.run, self._measured, stop)
            seconds = self._resume()
            if main:
                self.run.stopped.unlink(missing_ok=True)
            self._watch = _Stopwatch(seconds or 0.0)
            bar = progress_bar("training", trainer.iterations, main, done=trainer.iteration)
            with bar as self._bar, closing(self._milestones):
                self._take_up()
                if seconds is None:
                    self._save()  # for rollbacks in the first minutes; it also shows whether the disk has room
                if trainer.iteration in self._due and not self._is_known(trainer.iteration):
                    self._measure()
                begun, saved = trainer.iteration, time.monotonic()
                warm = logged = saved
                written = False  # did the previous iteration write a line of the metrics?
                while trainer.iteration < trainer.iterations:
                    trainer.step()
                    self._bar(trainer.iteration - self._bar.done)
                    if trainer.iteration - begun == WARM:
                        warm = _now()
                    elif trainer.iteration - begun == PACED:
                        self._expect((_now() - warm) / (PACED - WARM))
                    now = time.monotonic()
                    due, late = now - saved > self._checkpoint_seconds, now - logged > LOG_SECONDS
                    stopping, saving, logging = vote(bool(stop), main and due, late)
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
                        if trainer.iteration in self._due and not (stopping and not end):
                            self._measure()
                        if saving or stopping or end:
                            self._save()
                            saved = time.monotonic()
                        if stopping and not end:
                            self._stop(stop)
                    elif trainer.iteration in self._due:
                        self._measure()
                self._expect(self._watch.seconds / max(trainer.iteration, 1))  # if it was too short to be paced
                stopping = vote(bool(stop), False, False)[0]  # a signal during the last save
                if any(vote.close()[:1]) or stopping:
                    self._stop(stop)
                self._finish(stop)

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
        self._milestones.collect()
        self._pace = f"{speed:,.0f} samples/s"
        self._note()
        return True

    def _measure(self) -> None:
        """Start to measure the current network."""
        measurement = self._at_milestone()
        if self.processes.is_main:
            iteration, seconds = self.trainer.iteration, self._watch.seconds
            waits = self._patient or iteration == self.trainer.iterations
            if waits and iteration:  # the measurement before may still wait for the pace
                self._expect(seconds / iteration)
            self._milestones.add(iteration, seconds, measurement, waits)

    def _take_up(self) -> None:
        """Measure the networks of milestones whose measurement the run was stopped in."""
        if self._stored is not None and self.processes.is_main:
            known = {record["iteration"] for record in self._history if "quality" in record}
            self._milestones.take_up(self._stored, self.trainer.iteration, known)

    def _is_known(self, iteration: int) -> bool:
        """Whether this milestone has a record, or is being measured; its record may be missing after a stop."""
        recorded = any("quality" in record and record["iteration"] == iteration for record in self._history)
        return recorded or self._milestones.waits_for(iteration)

    def _measured(self, iteration: int, seconds: float, values: dict[str, Any], text: str) -> None:
        self._record({"iteration": iteration, "seconds": seconds, **values})
        if text:
            self._said = f"{text} (at {iteration:,})"
            self._note()
            self._bar.say(f"{iteration:>8}/{self.trainer.iterations} iterations  {seconds:6.0f} s  {text}")

    def _note(self) -> None:
        self._bar.note = ", ".join(filter(None, (self._pace, self._said)))

    def _finish(self, stop: Sequence[str]) -> None:
        """Wait for the last measurement; a request to stop leaves it to a resumed run."""

        def waited() -> bool:
            self._milestones.wait()
            self._milestones.keep()
            return self._milestones.waiting

        if self.processes.on_main(waited):
            self._stop(stop)

    @property
    def seconds(self) -> float:
        """Seconds of training so far, with those before an interruption."""
        return self._watch.seconds

    def _expect(self, pace: float) -> None:
        """Tell measurements how long the training takes, from its seconds per iteration."""
        self._milestones.underway.expect(pace * self.trainer.iterations)

    def _save(self) -> None:
        """Save a checkpoint and the usable weights; if weights are not finite, roll back instead."""
        trainer, state, seconds = self.trainer, self.trainer.state(), self._watch.seconds
        if not self.processes.on_main(lambda: all_finite(state)):
            return self._roll_back("a weight is not finite")
        self._milestones.keep()
        self._keep()  # before the checkpoint: a run that stops between the two repeats both when resumed
        self.processes.on_main(
            lambda: write_checkpoint(self.run.checkpoints, trainer.iteration, state, {"seconds": seconds})
        )
        return None

    def _resume(self) -> float | None:
        """Restore the newest intact checkpoint; returns its seconds of training, or None without one."""
        facts = restore_newest(self.run.checkpoints, self.trainer.restore, self.processes)
        iteration = -1 if facts is None else self.trainer.iteration
        self._history = self.processes.on_main(lambda: self.run.forget_after(iteration))
        seconds = None if facts is None else float(facts["seconds"])
        self._logged = (self.trainer.images, seconds or 0.0)
        return seconds

    def _roll_back(self, wrong: str) -> None:
        """Go back to the newest checkpoint with halved learning rates; `Diverged` after `ROLLBACKS` times."""
        trainer, at, rollbacks = self.trainer, self.trainer.iteration, self.trainer.rollbacks + 1
        self._milestones.discard()
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
            f"continue with --resume {quote(str(self.run.path))}",
            by,
        )


class _Stopwatch:
    """Seconds of training, including those `before` an interruption."""

    def __init__(self, before: float) -> None:
        self._start = time.perf_counter() - before

    @property
    def seconds(self) -> float:
        """The seconds so far, rounded to milliseconds."""
        return round(time.perf_counter() - self._start, 3)


def _now() -> float:
    """The time in seconds, once a GPU has done what it was given."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()
