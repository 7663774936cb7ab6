"""From the command to the first iteration, and what part of the time is spent in training: two distillations of a run.

Run as `python -m benchmarks.first_minutes TEACHER ITERATIONS LAUNCHED FOLDER` in its own process, as a user's command.
"""

import json
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.machine import finish, start
from benchmarks.tables import Table, spread

CALL_SECONDS = 0.05  # of the slow network
CASES = {"digits": ("digits", 300), "a network of 50 ms a call": ("benchmarks.first_minutes:slow", 30)}
REPEATS = 3


def measure(quick: bool = False) -> dict[str, Any]:
    """Seconds of each distillation by what they were spent on, several times."""
    found: dict[str, list[dict[str, float]]] = {}
    for name, (teacher, iterations) in CASES.items():
        for _ in range(1 if quick else REPEATS):
            with tempfile.TemporaryDirectory() as folder:
                words = [teacher, str(iterations // 10 if quick else iterations), str(time.time()), folder]
                found.setdefault(name, []).append(
                    finish(start([sys.executable, "-m", "benchmarks.first_minutes", *words], 1))
                )
    return {"runs": found}


def tables(measured: dict[str, Any]) -> list[Table]:
    """One table, a row for each teacher: medians and quartiles."""
    rows: list[list[str]] = []
    for name, runs in measured["runs"].items():
        share = median(run["steps"] / run["training"] for run in runs)
        seconds = [spread([run[what] for run in runs], 1) for what in ("first", "training", "whole")]
        rows.append([name, *seconds, f"{share:.0%}"])
    columns = ["teacher", "first iteration after", "first to last iteration", "whole command", "of it in iterations"]
    title = "The first minutes of `simdistill distill digits --teacher …`, seconds"
    return [Table("first-minutes", title, columns, rows)]


class Slow(nn.Module):
    """The exact denoiser of N(mean, I), after some sleep."""

    def __init__(self) -> None:
        super().__init__()
        self.mean = nn.Parameter(torch.zeros(1, 8, 8))

    def forward(self, x_t: Tensor, sigma: Tensor, condition: Tensor | None = None) -> Tensor:
        """(x_t + sigma² mean) / (1 + sigma²)."""
        time.sleep(CALL_SECONDS)
        variance = sigma.view(-1, 1, 1, 1) ** 2
        return (x_t + variance * self.mean) / (1 + variance)


def slow() -> Any:
    """A teacher whose network takes 50 ms a call."""
    from simdistill.teachers.teacher import Teacher

    return Teacher(Slow(), (1, 8, 8))


def run(teacher: str, iterations: str, launched: float, folder: Path) -> dict[str, float]:
    """Distil as the command line does, with the beginning and end of each iteration noted."""
    from simdistill.cli import main
    from simdistill.training.trainer import DistillationTrainer

    step, began, ended = DistillationTrainer.step, list[float](), list[float]()

    def noted(trainer: DistillationTrainer) -> None:
        began.append(time.time())
        step(trainer)
        ended.append(time.time())

    DistillationTrainer.step = noted
    main(
        ["distill", "digits", "--teacher", teacher, "--iterations", iterations, "--out", str(folder / "run"), "--json"]
    )
    return {
        "first": began[0] - launched,
        "training": ended[-1] - began[0],
        "steps": sum(end - begin for begin, end in zip(began, ended, strict=True)),
        "whole": time.time() - launched,
    }


if __name__ == "__main__":
    taken = run(sys.argv[1], sys.argv[2], float(sys.argv[3]), Path(sys.argv[4]))
    print(json.dumps(taken))
