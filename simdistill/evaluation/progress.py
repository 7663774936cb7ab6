"""How far a run is, how fast it goes, and whether it still does: what its records can tell."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal, TypeAlias

Record: TypeAlias = Mapping[str, Any]
State: TypeAlias = Literal["running", "evaluating", "finished", "silent"]

RECENT = 10  # lines of the metrics that the present pace is taken over
PATIENCE = 120.0  # seconds without a sign of life before a run is called silent


@dataclass(frozen=True)
class Progress:
    """Where a training stands. Its seconds are those of training alone: measuring is not counted."""

    iteration: int
    total: int | None
    seconds: float
    pace: float | None
    """Iterations a second over the last lines; None before the first."""
    line_seconds: float
    """Between two of the last lines."""
    losses: Mapping[str, float]
    """The last that were written."""

    @classmethod
    def of(cls, records: Sequence[Record], total: int | None) -> "Progress":
        """The progress that `records`, in any order, tell of a training of `total` iterations."""
        timed = [record for record in records if "seconds" in record]
        lines = log_lines(records)
        points = [(0, 0.0), *((line["iteration"], line["seconds"]) for line in lines)][-RECENT - 1 :]
        iterations, seconds = (points[-1][k] - points[0][k] for k in range(2))
        return cls(
            iteration=max((record["iteration"] for record in timed), default=0),
            total=total,
            seconds=max((record["seconds"] for record in timed), default=0.0),
            pace=iterations / seconds if seconds > 0 else None,
            line_seconds=seconds / max(len(points) - 1, 1),
            losses={name: lines[-1][name] for name in ("loss", "generator_loss") if lines and name in lines[-1]},
        )

    @property
    def trained(self) -> bool:
        """Whether the training is over."""
        return self.total is not None and self.iteration >= self.total

    @property
    def remaining(self) -> float | None:
        """Seconds of training to come, at the present pace; None if nothing tells."""
        if self.total is None or not self.pace:
            return None
        return max(self.total - self.iteration, 0) / self.pace

    def state(self, evaluated: bool, silence: float) -> State:
        """What the run is at, `silence` seconds after its last sign of life; `evaluated` if nothing follows training.

        Lines that come rarely are waited for longer.
        """
        if self.trained and evaluated:
            return "finished"
        if silence > max(PATIENCE, 5 * self.line_seconds):
            return "silent"
        return "evaluating" if self.trained else "running"


def log_lines(records: Sequence[Record]) -> list[Record]:
    """The records of losses and the like, by iteration; milestones and notices left out."""
    lines = [record for record in records if "seconds" in record and "quality" not in record]
    return sorted(lines, key=lambda record: record["iteration"])


def paces(lines: Sequence[Record]) -> list[tuple[int, float]]:
    """Iterations a second up to the iteration of each of `lines`, from the one before it."""
    points = [(0, 0.0), *((line["iteration"], line["seconds"]) for line in lines)]
    return [(end[0], (end[0] - start[0]) / (end[1] - start[1])) for start, end in pairwise(points) if end[1] > start[1]]


def duration(seconds: float) -> str:
    """Seconds as "40 s", "1 min 40 s", "2 h 5 min" or "3 d 4 h"."""
    whole = int(seconds)
    for large, size, small, part in (("d", 86400, "h", 3600), ("h", 3600, "min", 60), ("min", 60, "s", 1)):
        if whole >= size:
            rest = whole % size // part
            return f"{whole // size} {large}" + (f" {rest} {small}" if rest else "")
    return f"{whole} s"


def short(value: float) -> str:
    """A value with the digits that tell something: 4,750 or 0.0312."""
    return (f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}").replace("-", "−")
