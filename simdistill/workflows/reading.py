"""What a teacher's own samples tell: its data's spread and structure, and whether it is sound as a sampler."""

import json
import math
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors.torch import load, save
from torch import Tensor

from simdistill.evaluation.sampling import balanced_labels, batch_for, draw, teacher_sampler
from simdistill.method.denoisers import residual
from simdistill.method.samplers import noise_from_seeds
from simdistill.method.shapes import Data, Rows
from simdistill.reports.pictures import picture
from simdistill.runs.folder import RunFolder
from simdistill.support.bar import progress_bar
from simdistill.support.files import write_atomically
from simdistill.teachers.sampler_check import WITHIN, Checked, check_sampler, spread_of, structure_of
from simdistill.teachers.teacher import Teacher
from simdistill.workflows.models import Device

READING_SEED = 7 * 2**29  # far from the seeds of evaluation, reference and proxy network
FIRST = 4  # samples that are timed
SIZES = (16, 32, 64, 128, 256, 512)
HANDFUL = 64  # samples, and …
HANDFUL_SECONDS = 4.0  # … about so long, to check a teacher
PICTURED = 64
DETAIL_LEVELS, HALF = 12, 0.5
NARROWINGS = 2  # of the range


@dataclass(frozen=True)
class Drawn:
    """Samples of a teacher by its reference sampler, `[n, *shape]` on the CPU, and the rows of their conditions."""

    samples: Data
    rows: Rows = None
    checked: Checked | None = None
    """What the check found, if it was made."""

    @property
    def spread(self) -> float:
        """The standard deviation of a coordinate around its mean."""
        return spread_of(self.samples)

    @property
    def structure(self) -> float:
        """The standard deviation along the first principal component; at least the spread."""
        return structure_of(self.samples)


def draw_some(teacher: Teacher, device: Device, most: int = HANDFUL, seconds: float = HANDFUL_SECONDS) -> Drawn:
    """As many of `SIZES` samples of `teacher`, up to `most`, as take about `seconds`; 16 however long they take.

    Their seeds are their own; a bar shows how long it takes.
    """
    sampler = teacher_sampler(teacher)

    def samples(first: int, n: int) -> Data:
        rows = balanced_labels(first + n, teacher.conditions)
        seeds = range(READING_SEED + first, READING_SEED + first + n)
        return draw(sampler, seeds, teacher.shape, None if rows is None else rows[first:], device)

    began = time.perf_counter()
    parts = [samples(0, FIRST)]
    each = (time.perf_counter() - began) / FIRST
    count = max(size for size in SIZES if size == SIZES[0] or (size <= most and size * each <= seconds))
    at_once = max(1, min(SIZES[0], batch_for(teacher.shape))) if each * count > 1 else count
    with progress_bar("samples of the teacher", count, shown=True) as advance:
        advance(FIRST)
        for first in range(FIRST, count, at_once):
            parts.append(samples(first, min(at_once, count - first)))
            advance(len(parts[-1]))
    return Drawn(torch.cat(parts), balanced_labels(count, teacher.conditions))


def draw_where_right(teacher: Teacher, device: Device, most: int, seconds: float) -> tuple[Teacher, Drawn, str]:
    """Samples of `teacher`; the teacher, up to the level above which the check finds it wrong; and what it found.

    Samples that start where it is wrong tell nothing of its data, so they are drawn again from where it is right. That
    must be above the data: from a level within them, samples are about as wide as the level.
    """
    drawn, why = draw_and_check(teacher, device, most, seconds), ""
    for _ in range(NARROWINGS):
        found = drawn.checked
        if found is None or found.hopeless or found.high == teacher.sigma_max:
            break
        narrower = teacher.within(0, float(f"{found.high:.4g}"))
        again = draw_and_check(narrower, device, most, seconds)
        if again.structure > WITHIN * narrower.sigma_max:
            break
        teacher, drawn, why = narrower, again, why or found.doubts[0].partition(";")[0]
    return teacher, drawn, why


def draw_and_check(teacher: Teacher, device: Device, most: int = HANDFUL, seconds: float = HANDFUL_SECONDS) -> Drawn:
    """Samples as by `draw_some`, and what the check says of them."""
    drawn = draw_some(teacher, device, most, seconds)
    return replace(drawn, checked=check_sampler(teacher, drawn.samples, drawn.rows, device))


@torch.no_grad()
def detail_of(teacher: Teacher, drawn: Drawn, device: Device = "cpu") -> float:
    """The noise level at which the denoiser's squared error on `drawn` samples is half of sigma².

    Below it the samples' details show through the noise. Looked for from a 200th of the spread, or `sigma_min`, up to
    the spread, which it is if the error is above at every level: then the data are as smooth as a Gaussian.
    """
    spread, count = drawn.spread, min(len(drawn.samples), HANDFUL)
    lowest = max(spread / 200, teacher.sigma_min)
    if lowest >= spread:
        return spread
    levels = torch.logspace(math.log10(lowest), math.log10(spread), DETAIL_LEVELS).tolist()
    seeds = range(READING_SEED - count, READING_SEED)
    lower: tuple[float, float] | None = None
    for level in levels:
        share = _error(teacher, drawn, level, noise_from_seeds(seeds, teacher.shape), device) / level**2
        if share < HALF:
            if lower is None:
                return level
            below, before = lower
            part = (before - HALF) / (before - share)
            return math.exp(math.log(below) + part * math.log(level / below))
        lower = level, share
    return spread


def _error(teacher: Teacher, drawn: Drawn, level: float, eps: Data, device: Device) -> float:
    """The mean square of d(x_0 + sigma eps, sigma) - x_0 per coordinate, at one level, a batch at a time."""
    total, rows = 0.0, drawn.rows
    for part in torch.arange(len(eps)).split(batch_for(teacher.shape)):
        noise, x_0 = (level * eps[part]).to(device), drawn.samples[part].to(device)
        condition = teacher.condition(None if rows is None else rows[part].to(device), device)
        sigma = torch.full((len(part),), level, device=device)
        error = residual(teacher.unguided, x_0 + noise, sigma, condition) + noise
        total += float(error.double().square().sum())
    return total / eps.numel()


def file_of(run: RunFolder) -> Path:
    """Safetensors: the samples of the teacher that were drawn to read and check it."""
    return run.path / "teacher-samples.safetensors"


def keep(run: RunFolder, drawn: Drawn) -> None:
    """Store samples in a run's folder."""
    rows: dict[str, Tensor] = {} if drawn.rows is None else {"rows": drawn.rows}
    about = {"simdistill": json.dumps({"first_seed": READING_SEED})}
    write_atomically(file_of(run), save({"samples": drawn.samples.contiguous(), **rows}, about))


def kept(run: RunFolder) -> Drawn | None:
    """The samples in a run's folder, or None if there are none."""
    if not file_of(run).exists():
        return None
    found = load(file_of(run).read_bytes())
    return Drawn(found["samples"], found.get("rows"))


def check_as_sampler(run: RunFolder, teacher: Teacher, device: Device, drawn: Drawn | None = None) -> None:
    """Store and picture a few samples of a run's teacher, and warn on stderr if they do not fit its noise levels.

    Draws them, unless `drawn` are given. Once per run.
    """
    if file_of(run).exists():
        return
    if drawn is None or drawn.checked is None:
        drawn = draw_and_check(teacher, device)
    keep(run, drawn)
    shown = drawn.samples if len(teacher.shape) != 3 else drawn.samples[:PICTURED]
    if not bool(shown.isfinite().all()):
        shown = shown.nan_to_num(0, 0, 0)
    write_atomically(run.picture("teacher-check"), picture(teacher.decoded(shown, device)))
    assert drawn.checked is not None
    warn(drawn.checked.doubts, str(run.picture("teacher-check")))


def warn(found: list[str], where: str = "") -> None:
    """Print what speaks against a teacher on stderr, with the place of its picture."""
    seen = f" (its samples: {where})" if where else ""
    for sentence in found:
        print(f"warning: the teacher: {sentence}{seen}", file=sys.stderr, flush=True)
