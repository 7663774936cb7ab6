"""The progress of a run, from its metrics: how far it is, how fast it goes, and whether it is still running."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal, TypeAlias

Record: TypeAlias = Mapping[str, Any]
State: TypeAlias = Literal["running", "evaluating", "finished", "stopped", "silent"]

RECENT = 10  # lines of the metrics for the current pace
PATIENCE = 120.0  # seconds without a new file before a run is called silent


@dataclass(frozen=True)
class Progress:
    """The progress of a training."""

    iteration: int
    total: int | None
    seconds: float
    pace: float | None
    """Iterations per second over the last lines; None before the first."""
    line_seconds: float
    """Mean seconds between two of the last lines."""
    losses: Mapping[str, float]
    """The latest losses."""

    @classmethod
    def of(cls, records: Sequence[Record], total: int | None) -> "Progress":
        """The progress of a training of `total` iterations, from its records in any order."""
        lines, recent = log_lines(records), _steps(records)[-RECENT:]
        iterations, seconds = (sum(step[k] for step in recent) for k in range(2))
        return cls(
            iteration=max((record["iteration"] for record in records), default=0),
            total=total,
            seconds=max((record["seconds"] for record in records), default=0.0),
            pace=iterations / seconds if seconds > 0 else None,
            line_seconds=seconds / max(len(recent), 1),
            losses=losses_of(lines[-1]) if lines else {},
        )

    @property
    def trained(self) -> bool:
        """Whether the training is over."""
        return self.total is not None and self.iteration >= self.total

    @property
    def remaining(self) -> float | None:
        """Estimated seconds left, at the current pace; None if unknown."""
        if self.total is None or not self.pace:
            return None
        return max(self.total - self.iteration, 0) / self.pace

    def state(self, evaluated: bool, silence: float, stopped: bool = False) -> State:
        """The state of the run, `silence` seconds after its last change.

        `evaluated` if nothing is left to do after the training, `stopped` if a signal stopped it. Runs that write lines
        rarely become silent later.
        """
        if self.trained and evaluated:
            return "finished"
        if stopped:
            return "stopped"
        if silence > max(PATIENCE, 5 * self.line_seconds):
            return "silent"
        return "evaluating" if self.trained else "running"


def losses_of(record: Record) -> dict[str, float]:
    """The losses in a record, by name: "online_loss", "generator_loss", …; "loss" in a pretraining."""
    return {name: value for name, value in record.items() if name == "loss" or name.endswith("_loss")}


def titled(name: str) -> str:
    """A metric's name as a title: "online_loss" becomes "Online loss"."""
    return name.replace("_", " ").capitalize()


def log_lines(records: Sequence[Record]) -> list[Record]:
    """The records with losses, sorted by iteration; without milestones and rollbacks."""
    return sorted((record for record in records if losses_of(record)), key=_place)


def _steps(records: Sequence[Record]) -> list[tuple[int, float]]:
    """The iterations and seconds of each line of losses, since the previous line or rollback.

    Iterations that a rollback discarded are not counted.
    """
    ends = sorted((record for record in records if losses_of(record) or "rollback" in record), key=_place)
    places = pairwise([(0, 0.0), *map(_place, ends)])
    return [(b[0] - a[0], b[1] - a[1]) for end, (a, b) in zip(ends, places, strict=True) if losses_of(end)]


def _place(record: Record) -> tuple[int, float]:
    return record["iteration"], record["seconds"]


def short(value: float) -> str:
    """A value with three significant digits or all integer ones: 4,750 or 0.0312."""
    return (f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}").replace("-", "−")
