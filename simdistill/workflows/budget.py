"""How finely a run is measured: so that measuring takes at most a tenth of the training's time, unless asked for."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from simdistill.evaluation.extractors import Extractor
from simdistill.evaluation.reference import Reference
from simdistill.evaluation.sampling import Sampler, balanced_labels, batch_for, draw
from simdistill.evaluation.statistics import Statistics
from simdistill.method.samplers import noise_from_seeds
from simdistill.teachers.teacher import Teacher

SHARE = 0.1  # of the training's time …
FEWEST_SECONDS = 10.0  # … or this, if it is more
BATCH_SECONDS = 4.0  # for a batch: a request to stop waits for one
PICTURED, PICTURED_ALONE = 80, 16  # samples in each picture, and in that of a milestone that is not measured
TIMED = 64  # samples, to find out what one takes …
COMPARED, GROWTH = 500, 1.5  # … and what their metrics take; those of n take (n/500)^1.5 times as long


@dataclass(frozen=True)
class Fineness:
    """With how many samples, seeds and milestones a run is measured."""

    samples: int
    """Samples of each sampler per evaluation seed at the end, and of the teacher for the reference; 0: no figures."""
    seeds: int
    """Evaluation seeds at the end."""
    milestones: int
    """Milestones of the training, besides its start."""
    milestone_samples: int
    """Samples per evaluation seed at a milestone; 0: a picture only."""
    milestone_seeds: int
    """Evaluation seeds at a milestone."""


# fmt: off
LADDER = (  # samples, seeds, milestones, their samples, their seeds; the first whose cost is allowed is taken
    Fineness(2000, 5, 16, 2000, 3),
    Fineness(2000, 5, 16, 2000, 1),
    Fineness(2000, 3,  8, 2000, 1),
    Fineness(1000, 3,  8, 1000, 1),
    Fineness( 500, 3,  8,  500, 1),
    Fineness( 500, 3,  4,  500, 1),
    Fineness( 200, 3,  4,  200, 1),
    Fineness( 100, 3,  4,  100, 1),
    Fineness(  50, 3,  2,   50, 1),
    Fineness(   0, 0,  2,  100, 1),  # two seeds, or 20 samples, cannot tell noise from the teacher (docs/metrics.md)
    Fineness(   0, 0,  2,   50, 1),
    Fineness(   0, 0,  2,    0, 1),
)
# fmt: on
FULL = LADDER[0]


@dataclass(frozen=True)
class Cost:
    """Seconds that a sampler takes: for each network call `call`, and `sample` for each sample in it."""

    nfe: int
    call: float
    sample: float

    def seconds(self, samples: int, batch: int) -> float:
        """For so many samples, `batch` at a time."""
        return self.nfe * (math.ceil(samples / batch) * self.call + samples * self.sample)

    def batch(self, most: int) -> int:
        """The samples that are drawn in `BATCH_SECONDS`, at most `most` and at least one."""
        room = BATCH_SECONDS / self.nfe - self.call
        return max(1, min(most, int(room / self.sample) if room > 0 else 1))


@dataclass(frozen=True)
class Costs:
    """What measuring takes, in seconds: the samplers, the features of a sample, the metrics of `COMPARED` samples."""

    milestone: Cost
    final: tuple[Cost, ...]
    reference: Cost | None
    """That of the reference's sampler; None if the reference is there, or needs no network."""
    features: float
    quick: float
    full: float
    batch: int
    """Samples that are drawn at a time."""

    def seconds(self, chosen: Fineness) -> float:
        """Of everything that is measured, in all."""

        def metrics(samples: int, compared: float) -> float:
            return samples * self.features + max(1.0, (samples / COMPARED) ** GROWTH) * compared

        n, few, batch = chosen.samples, chosen.milestone_samples, self.batch
        once = self.milestone.seconds(PICTURED_ALONE, batch)
        if few:
            once = chosen.milestone_seeds * (self.milestone.seconds(few, batch) + metrics(few, self.quick))
        pictured = sum(cost.seconds(min(PICTURED, n), batch) for cost in self.final) if n else 0.0
        drawn = sum(cost.seconds(n, batch) + metrics(n, self.full) for cost in self.final) if n else 0.0
        against = self.reference.seconds(max(n, few), batch) if self.reference is not None else 0.0
        return (chosen.milestones + 1) * once + pictured + chosen.seeds * drawn + against


def chosen(costs: Costs, training_seconds: float, asked: Callable[[Fineness], Fineness]) -> Fineness:
    """The finest of the `LADDER`, as changed by what is `asked`, whose cost is allowed; else the coarsest."""
    allowed = max(FEWEST_SECONDS, SHARE * training_seconds)
    ladder = [asked(fineness) for fineness in LADDER]
    return next((one for one in ladder if costs.seconds(one) <= allowed), ladder[-1])


def cost_of(sampler: Sampler, teacher: Teacher, device: torch.device | str, nfe: int | None = None) -> Cost:
    """What a sampler takes, here and now, from one sample and from some; `nfe` if it stands for a longer one."""

    def call(samples: int) -> float:
        labels = balanced_labels(samples, teacher.conditions)
        return _seconds(lambda: draw(sampler, range(samples), teacher.shape, labels, device)) / sampler.nfe

    call(1)  # to warm up
    one = call(1)
    many = min(TIMED, batch_for(teacher.shape), int(BATCH_SECONDS / max(one * sampler.nfe, 1e-9)))
    if many < 2:  # too slow to find out what larger batches save
        return Cost(nfe or sampler.nfe, 0.0, one)
    sample = max((call(many) - one) / (many - 1), 1e-9)
    return Cost(nfe or sampler.nfe, max(one - sample, 0.0), sample)


def costs_of(
    milestone: Cost,
    final: Sequence[Cost],
    reference: Cost | None,
    teacher: Teacher,
    extractor: Extractor,
    device: torch.device | str,
) -> Costs:
    """What measuring takes in all, with the time of features and metrics measured on noise."""
    few = max(2, min(TIMED, batch_for(teacher.shape)))
    noise = noise_from_seeds(range(few), teacher.shape).to(device)
    features = extractor.features(noise)
    each = _seconds(lambda: extractor.features(noise)) / few
    rows = features.cpu().float().repeat(-(-COMPARED // few), 1)[:COMPARED]
    rows = rows + rows.std() * torch.randn(rows.shape, generator=torch.Generator().manual_seed(0))
    statistics = Statistics.of(rows)
    like = Reference("noise", extractor, statistics)
    quick, full = (
        min(_seconds(partial(measure, statistics)) for _ in range(2)) for measure in (like.quick, like.measure)
    )
    drawing = [milestone, *final] if reference is None else [milestone, *final, reference]
    batch = min(cost.batch(batch_for(teacher.shape)) for cost in drawing)
    return Costs(milestone, tuple(final), reference, each, quick, full, batch)


def _seconds(action: Callable[[], Any]) -> float:
    """Seconds that the action takes; what it returns is on the CPU, so that a GPU is done."""
    began = time.perf_counter()
    action()
    return time.perf_counter() - began
