"""The lives of a training that is killed again and again; what test_kills runs in processes of its own."""

import time
from dataclasses import replace
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path

import torch

from simdistill.averages import HalfLife, PowerFunction
from simdistill.evaluation.quality import Reference
from simdistill.recipes import RECIPES
from simdistill.teachers.teacher import load_teacher
from simdistill.training import checkpoints, loop
from simdistill.workflows import distilling, measuring

RECIPE = replace(
    RECIPES["digits"],
    batch=4,
    iterations=400,
    averages=(HalfLife(2000), PowerFunction(0.1)),
    checkpoint_minutes=0,  # at every line of the metrics
)


def live(path: Path, saving: "Synchronized[int]") -> None:
    """Begin the run in `path`, or go on with it, to its end; `saving` is 1 while a checkpoint is being written."""
    torch.set_num_threads(1)
    loop.LOG_EVERY = 10
    measuring.MILESTONE_SAMPLES = 20
    distilling.evaluate_run = lambda *_, **__: {}
    distilling.reference_for = lambda *_, **__: Reference("any", lambda x: x.flatten(1), torch.ones(20, 64).tril())
    write = checkpoints.write_checkpoint

    def marked(*arguments):
        saving.value = 1
        try:
            return write(*arguments)
        finally:
            saving.value = 0

    loop.write_checkpoint = marked
    if (path / "config.toml").exists():
        distilling.resume(path)
    else:
        distilling.distill(load_teacher("digits"), RECIPE, path)


def death(delay: float, in_a_save: bool, saving: "Synchronized[int]", alive) -> None:
    """Wait for the moment to kill: `delay` seconds from now, or into the next save."""
    if in_a_save:
        while not saving.value and alive():
            time.sleep(0.001)
    time.sleep(delay)
