"""Statistics of what a sampler draws, a batch at a time, shared by the processes."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from simdistill.evaluation.extractors import Extractor
from simdistill.evaluation.partial import NOTHING_KEPT, Partial
from simdistill.evaluation.sampling import Sampler, balanced_labels
from simdistill.evaluation.statistics import ALONE, Gathering, Statistics, Together
from simdistill.method.samplers import noise_from_seeds
from simdistill.teachers.teacher import Teacher

WARM_UP = 2  # samples that are drawn before the time is taken


@dataclass(frozen=True)
class Drawing:
    """How samples are drawn: whose, where, how many at a time, and by which processes `together`.

    `between` is called after each batch with its size; what it raises ends the drawing, with all batches in `partial`.
    """

    teacher: Teacher
    device: torch.device | str
    batch: int
    together: Together = ALONE
    partial: Partial = NOTHING_KEPT
    between: Callable[[int], None] = lambda _: None

    def statistics(
        self, name: str, sampler: Sampler, extractor: Extractor, seeds: range, scored: bool = False
    ) -> tuple[Statistics, float]:
        """The statistics of one sample for each of `seeds`, and how many are drawn per second.

        Rows of conditions are balanced over the seeds. The speed is that of the sampler alone. Results are kept in
        `partial` under `name`; `scored` as for `Gathering`.
        """
        rows = range(len(seeds))[self.together.rows(len(seeds))]
        labels = balanced_labels(len(seeds), self.teacher.conditions)
        gathering, seconds = Gathering(extractor, len(seeds), scored), 0.0
        for start in range(rows.start, rows.stop, self.batch):
            part = range(start, min(start + self.batch, rows.stop))
            kept = self.partial.features(name, part)
            if kept is not None:
                gathering.add_features(part.start, kept[0])
                passed = kept[1]
            else:
                z = noise_from_seeds(seeds[part.start : part.stop], self.teacher.shape).to(self.device)
                condition = None if labels is None else labels[part.start : part.stop].to(self.device)
                if start == rows.start:
                    sampler(z[:WARM_UP], None if condition is None else condition[:WARM_UP])
                samples, passed = _timed(sampler, z, condition)
                self.partial.keep_features(name, part, gathering.add(part.start, samples), passed)
            seconds += passed
            self.between(len(part))
        rate = self.together.all_reduce(torch.tensor(len(rows) / max(seconds, 1e-9)))
        return gathering.statistics(self.together), float(rate)


def _timed(sampler: Sampler, z: Tensor, condition: Tensor | None) -> tuple[Tensor, float]:
    """The samples, and the seconds that they took."""
    _wait(z)
    started = time.perf_counter()
    drawn = sampler(z, condition)
    _wait(drawn)
    return drawn, time.perf_counter() - started


def _wait(z: Tensor) -> None:
    """Wait until a GPU is done: calls return earlier."""
    if z.is_cuda:
        torch.cuda.synchronize(z.device)
