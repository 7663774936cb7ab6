"""Seconds of training until the digits' student reaches a Fréchet distance of 0.4, the contenders in turns.

Run as `python -m benchmarks.time_to_quality SEED SECONDS` in its own process for each training seed, on one thread.
"""

import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from benchmarks.machine import fresh
from benchmarks.reference import ReferenceLoop
from benchmarks.tables import Table, spread
from simdistill.comparison.grid import GRIDS
from simdistill.config.recipes import RECIPES, SIM_TIMES, Recipe
from simdistill.evaluation.metrics import Moments, frechet_distance
from simdistill.evaluation.quality import reference_for
from simdistill.evaluation.reference import Reference
from simdistill.evaluation.sampling import balanced_labels, draw, student_sampler
from simdistill.method.generator import Generator
from simdistill.teachers.loading import load_teacher
from simdistill.teachers.teacher import Teacher
from simdistill.training.trainer import DistillationTrainer

BOUND = 0.4
EVERY = 25  # iterations between two evaluations, whose own time is not counted
SAMPLES = 2000
SEEDS = 3
CAP = 120.0  # seconds of training after which a contender gives up

OURS = "simdistill, recipe digits"
DIGITS = RECIPES["digits"]
PAPER = replace(DIGITS, generator_noise=SIM_TIMES)  # rates, batch and EMA stay the digits'
SID = replace(DIGITS, **GRIDS["figure-2"]["sid-karras-sid"])
CONTENDERS: dict[str, tuple[bool, Recipe]] = {
    OURS: (True, DIGITS),
    "simdistill, recipe digits, fresh samples": (True, replace(DIGITS, share_samples=False)),
    "reference loop, recipe digits": (False, DIGITS),
    "reference loop, the paper's noise levels": (False, PAPER),
    "simdistill, SiD's loss, weight and noise levels": (True, SID),
}
"""By name: whether it is simdistill's trainer (or the reference loop), and its recipe."""


@dataclass
class Training:
    """A contender in training: its step, its generator (EMA), and its measurements."""

    step: Callable[[], Any]
    student: Callable[[], Generator]
    seconds: float = 0.0
    curve: list[tuple[int, float, float]] = field(default_factory=list)  # iteration, seconds, Fréchet distance

    @property
    def reached(self) -> bool:
        """Whether the last evaluation reached the bound."""
        return bool(self.curve) and self.curve[-1][2] <= BOUND

    def advance(self, iterations: int) -> None:
        """Train on, and add the time."""
        began = time.perf_counter()
        for _ in range(iterations):
            self.step()
        self.seconds += time.perf_counter() - began


def measure(quick: bool = False) -> dict[str, Any]:
    """The curves by contender and training seed."""
    seeds, cap = (1, 1.0) if quick else (SEEDS, CAP)
    return {"bound": BOUND, "curves": [fresh("time_to_quality", str(s), str(cap), threads=1) for s in range(seeds)]}


def tables(measured: dict[str, Any]) -> list[Table]:
    """One table; the relative speed is simdistill's seconds over those of the row, per seed."""
    rows: list[list[str]] = []
    for name in CONTENDERS:
        curves = [seed[name] for seed in measured["curves"]]
        ours = [seed[OURS] for seed in measured["curves"]]
        reached = [curve[-1][2] <= measured["bound"] for curve in curves]
        if not all(reached):
            best = min(curve[-1][2] for curve in curves)
            rows.append([name, f"reached by {sum(reached)} of {len(reached)}, best {best:.2f}", "–", "–"])
            continue
        seconds = [curve[-1][1] for curve in curves]
        ratios = [own[-1][1] / one for own, one in zip(ours, seconds, strict=True)]
        rows.append([name, spread(seconds, 1), spread([curve[-1][0] for curve in curves], 0), spread(ratios)])
    seeds = len(measured["curves"])
    title = f"Training on one thread until the Fréchet distance is at most {measured['bound']}, {seeds} training seeds"
    return [Table("time to quality", title, ["contender", "seconds", "iterations", "relative speed"], rows)]


def race(seed: int, cap: float) -> dict[str, list[tuple[int, float, float]]]:
    """Every contender's curve until it reaches the bound or has trained for `cap` seconds."""
    teacher = load_teacher("digits")
    reference = reference_for(teacher)
    trainings = {
        name: _training(teacher, replace(recipe, seed=seed), ours) for name, (ours, recipe) in CONTENDERS.items()
    }
    iteration = 0
    while racing := [t for t in trainings.values() if not t.reached and t.seconds < cap]:
        iteration += EVERY
        for training in racing:
            training.advance(EVERY)
            training.curve.append((iteration, training.seconds, _frechet(training.student(), teacher, reference)))
    return {name: training.curve for name, training in trainings.items()}


def _training(teacher: Teacher, recipe: Recipe, ours: bool) -> Training:
    if ours:
        trainer = DistillationTrainer(teacher, recipe)
        return Training(trainer.step, trainer.snapshot)
    loop = ReferenceLoop(teacher.denoiser, recipe, teacher.shape, teacher.classes)
    return Training(loop.step, lambda: Generator(loop.average, (recipe.sigma_init,)))


def _frechet(student: Generator, teacher: Teacher, reference: Reference) -> float:
    sampler, labels = student_sampler(student, teacher), balanced_labels(SAMPLES, teacher.classes)
    drawn = draw(sampler, range(SAMPLES), teacher.shape, labels)
    return frechet_distance(Moments.of(reference.extractor.features(drawn)), reference.statistics.moments)


if __name__ == "__main__":
    print(json.dumps(race(int(sys.argv[1]), float(sys.argv[2]))))
