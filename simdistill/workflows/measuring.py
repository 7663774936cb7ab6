"""How a run is measured: as finely as asked for, or as its time allows."""

import copy
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import torch
from torch import nn

from simdistill.config.recipes import Recipe
from simdistill.evaluation.quality import FEWEST_SAMPLES, extractor_for, reference_for
from simdistill.evaluation.reference import Reference
from simdistill.evaluation.sampling import student_sampler, teacher_sampler
from simdistill.method.denoisers import GaussianMixture
from simdistill.method.generator import Generator
from simdistill.runs.folder import RunFolder
from simdistill.runs.logs import Log
from simdistill.support.bar import duration
from simdistill.support.checks import require
from simdistill.support.files import write_atomically
from simdistill.support.json_text import read_json
from simdistill.teachers.teacher import Teacher
from simdistill.training.milestones import MILESTONES, Measured, Underway
from simdistill.training.trainer import DistillationTrainer
from simdistill.workflows.budget import FULL, SHARE, Cost, Costs, Fineness, chosen, cost_of, costs_of
from simdistill.workflows.evaluating import milestone, picture_alone, picture_beside


@dataclass(frozen=True)
class Measurements:
    """How often, and with how many samples, a run is measured; the training does not depend on it.

    What is None follows from the cost of a sample: all in all, measuring takes at most a tenth of the training's time.
    """

    milestones: int | None = None
    """Milestones of the training, besides its start; 0 for none."""
    seeds: int | None = None
    """Evaluation seeds per milestone; 0 measures and draws nothing there."""
    samples: int | None = None
    """Samples of student, teacher and start per evaluation seed at the end; 0 leaves it to `simdistill evaluate`."""
    observe: Callable[[DistillationTrainer], None] | None = None
    """Called with the trainer at each milestone, before the next step."""
    milestone_samples: int | None = None
    """Samples per evaluation seed at a milestone."""

    def __post_init__(self) -> None:
        for name, value in (("milestones", self.milestones), ("seeds", self.seeds)):
            require(value is None or value >= 0, name, value, "at least 0")
        none_at_all = self.samples in (None, 0)
        enough = none_at_all or (self.samples or 0) >= FEWEST_SAMPLES
        require(enough, "evaluation_samples", self.samples, f"at least {FEWEST_SAMPLES}, or 0 for no evaluation")
        few = self.milestone_samples
        require(few is None or few >= FEWEST_SAMPLES, "milestone_samples", few, f"at least {FEWEST_SAMPLES}")

    @property
    def grid(self) -> int:
        """The milestones at which the training gives its network."""
        return MILESTONES if self.milestones is None else self.milestones

    def of(self, fineness: Fineness) -> Fineness:
        """The fineness, as changed by what was asked for. In full at the end, if only the samples were asked for."""
        asked = (self.samples, None if self.samples is None else FULL.seeds, self.milestones)
        asked = (*asked, self.milestone_samples, self.seeds)
        names = ("samples", "seeds", "milestones", "milestone_samples", "milestone_seeds")
        values = {name: value for name, value in zip(names, asked, strict=True) if value is not None}
        return Fineness(**{**asdict(fineness), **values})


WITHIN_BUDGET = Measurements()


class Budget:
    """The fineness of a run's measuring, decided once: when it is first needed, and the training's pace is known.

    It is kept in the run's folder, so that a resumed run is measured alike. Only the main process has one.
    """

    def __init__(self, run: RunFolder, measured: Measurements, costs: Callable[[], Costs]) -> None:
        self._run, self._measured, self._costs = run, measured, costs
        self._found: tuple[Fineness, int | None] | None = None

    def fineness(self, seconds: Callable[[], float]) -> Fineness:
        """How finely to measure a training that takes `seconds()` in all."""
        return self._decided(seconds)[0]

    @property
    def batch(self) -> int | None:
        """Samples to draw at a time, so that a request to stop need not wait; None as long as that is not known."""
        return None if self._found is None else self._found[1]

    def measures(self, iteration: int, iterations: int, seconds: Callable[[], float]) -> bool:
        """Whether the milestone at this iteration is measured: of a grid of 16, it may be every other or fourth."""
        fineness = self.fineness(seconds)
        if not fineness.milestone_seeds:
            return False
        if self._measured.milestones is not None:
            return True
        place = round(iteration * MILESTONES / iterations)
        return place % (MILESTONES // fineness.milestones) == 0

    def _decided(self, seconds: Callable[[], float]) -> tuple[Fineness, int | None]:
        if self._found is None:
            self._found = self._stored() or self._decide(seconds)
        return self._found

    def _stored(self) -> tuple[Fineness, int | None] | None:
        if self._measured.of(FULL) == self._measured.of(Fineness(0, 0, 0, 0, 0)):
            return self._measured.of(FULL), None  # nothing is left to decide
        try:
            kept = read_json(self._run.measuring)
            fineness = Fineness(**{name: int(kept["fineness"][name]) for name in asdict(FULL)})
            return self._measured.of(fineness), int(kept["batch"])
        except (OSError, ValueError, KeyError, TypeError):  # not there, or damaged
            return None

    def _decide(self, seconds: Callable[[], float]) -> tuple[Fineness, int | None]:
        training, costs = seconds(), self._costs()
        fineness = chosen(costs, training, self._measured.of)
        takes = costs.seconds(fineness)
        about = {"fineness": asdict(fineness), "batch": costs.batch, "seconds": takes, "training_seconds": training}
        write_atomically(self._run.measuring, json.dumps(about | {"costs": asdict(costs)}, indent=2).encode())
        if fineness != self._measured.of(FULL):
            print(_said(fineness, takes, training), file=sys.stderr, flush=True)
        return fineness, costs.batch


class Measuring:
    """Measures the milestones of a run, in the main process, beside its training."""

    def __init__(
        self,
        run: RunFolder,
        teacher: Teacher,
        recipe: Recipe,
        start: nn.Module,
        device: torch.device,
        measured: Measurements,
        logs: Sequence[Log],
    ) -> None:
        self._run, self._teacher, self._recipe, self._start = run, teacher, recipe, start
        self._device, self._logs = device, logs
        self._reference: Reference | None = None
        self.budget = Budget(run, measured, self._costs)

    def milestone(self, student: Generator, iteration: int, training: Underway) -> Measured:
        """Measure the student of an iteration; None if the budget leaves it out."""
        if not self.budget.measures(iteration, self._recipe.iterations, training.seconds):
            return None
        fineness, found = self.budget.fineness(training.seconds), None
        sampler, teacher, batch = student_sampler(student, self._teacher), self._teacher, self.budget.batch
        where = self._run, iteration
        if fineness.milestone_samples:
            against = self._against(fineness, training.between)
            found = milestone(*where, sampler, teacher, against, self._device, fineness, batch, training.between)
        else:
            picture_alone(*where, sampler, teacher, self._device)
        picture = self._run.picture(f"{iteration:08d}")
        for service in self._logs:
            if picture.exists():
                service.picture("student", iteration, picture)
        return found

    def pictures(self, student: Generator, teacher: Teacher) -> None:
        """Picture a student that the budget has no time to measure, beside its teacher and its start."""
        start = Generator(copy.deepcopy(self._start).to(self._device), student.levels)
        both = {"student": student_sampler(student, teacher), "undistilled": student_sampler(start, teacher)}
        picture_beside(self._run, both, teacher, self._device)

    def before_sharding(self, processes: int) -> None:
        """Draw the reference before the training: the teacher is whole on the device only then.

        Its pace is not known yet, so that eleven forward passes a sample stand for it.
        """
        module = self._teacher.trainable
        if module is not None:
            module.to(self._device)

        def seconds() -> float:
            rows = self._recipe.batch // processes
            return self._recipe.iterations * 11 * self._student_cost().seconds(rows, rows)

        fineness = self.budget.fineness(seconds)
        if fineness.samples or fineness.milestone_samples:
            self._against(fineness, lambda: None)
        if module is not None:
            module.to("cpu")

    def _against(self, fineness: Fineness, between: Callable[[], None]) -> Reference:
        if self._reference is None:
            samples, recipe = max(fineness.samples, fineness.milestone_samples), self._recipe
            asked = self._teacher, samples, self._device, recipe.reference, recipe.features
            self._reference = reference_for(*asked, kept=self._run.reference, between=between)
        return self._reference

    def _student_cost(self) -> Cost:
        start = Generator(copy.deepcopy(self._start).to(self._device), (self._recipe.sigma_init,))
        return cost_of(student_sampler(start, self._teacher), self._teacher, self._device)

    def _costs(self) -> Costs:
        teacher, recipe, student = self._teacher, self._recipe, self._student_cost()
        short, whole = teacher_sampler(teacher, 2), teacher_sampler(teacher)
        asked = cost_of(short, teacher, self._device, whole.nfe)
        given = recipe.reference or teacher.judged.data or self._run.reference.is_file()
        drawn = None if given or isinstance(teacher.denoiser, GaussianMixture) else asked
        extractor = extractor_for(teacher, self._device, recipe.reference, recipe.features)
        final = (asked, *[student] * (1 + len(recipe.ema)))  # the teacher, the start, the student by each EMA
        return costs_of(student, final, drawn, teacher, extractor, self._device)


def _said(fineness: Fineness, takes: float, training: float) -> str:
    count, few = fineness.milestones, fineness.milestone_samples
    at_milestones = f"{fineness.milestone_seeds} × {few} at" if few else "only pictures, no figures, at"
    at_milestones += f" {count} milestone{'s' if count != 1 else ''}"
    at_the_end = f"{fineness.seeds} × {fineness.samples} at the end" if fineness.samples else "none at the end"
    return (
        f"measuring with fewer samples, for at most {SHARE:.0%} of the time or ten seconds: {at_milestones}, "
        f"{at_the_end}; about {duration(takes)} beside {duration(training)} of training; "
        "--milestones, --milestone-samples and --evaluation-samples override this"
    )
