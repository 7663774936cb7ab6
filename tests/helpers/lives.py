"""The lives of a training that is killed again and again; what test_kills runs in processes of its own."""

import os
import signal
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from simdistill.config.recipes import RECIPES
from simdistill.evaluation.extractors import PIXELS
from simdistill.evaluation.reference import Reference
from simdistill.evaluation.statistics import Statistics
from simdistill.method.ema import EMA, PowerEMA
from simdistill.teachers.loading import load_teacher
from simdistill.training import checkpoints, loop
from simdistill.workflows import distilling, measuring

RECIPE = replace(
    RECIPES["digits"],
    batch=4,
    iterations=500,
    ema=(EMA(2000), PowerEMA(0.1)),
    checkpoint_minutes=0,  # at every line of the metrics
)
UNJUDGED = measuring.Measurements(milestones=16, seeds=3, samples=0, milestone_samples=20)


def live(path: Path, lines_in_saves: int | None = None) -> None:
    """Begin the run in `path`, or go on with it, to its end, or to that many lines of Python in saves of its state."""
    torch.set_num_threads(1)
    loop.LOG_EVERY = 10
    measuring.reference_for = lambda *_, **__: Reference("any", PIXELS, Statistics.of(torch.ones(20, 64).tril()))
    if lines_in_saves is not None:
        loop.write_checkpoint = dying(checkpoints.write_checkpoint, lines_in_saves)
    if (path / "config.toml").exists():
        distilling.resume(path, measured=UNJUDGED)
    else:
        distilling.distill(load_teacher("digits"), RECIPE, path, measured=UNJUDGED)


def dying(write: Callable[..., Any], lines: int) -> Callable[..., Any]:
    """`write`, during which SIGKILL comes at the given line of Python; counted on from one call to the next."""
    left = lines

    def trace(_frame: Any, event: str, _arg: Any) -> Any:
        nonlocal left
        left -= event == "line"
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return trace

    def traced(*arguments: Any) -> Any:
        sys.settrace(trace)
        try:
            return write(*arguments)
        finally:
            sys.settrace(None)

    return traced
