"""A teacher checked as a sampler: do its samples and its errors fit its noise levels?

A network can have the right shapes and still be wrong where distillation asks it: above some noise level, in another
unit, or everywhere. What is looked at needs no data, only samples of its own.
"""

import math
from dataclasses import dataclass, replace
from itertools import pairwise

import torch

from simdistill.method.denoisers import residual
from simdistill.method.samplers import heun, noise_from_seeds
from simdistill.method.shapes import Data, Rows
from simdistill.teachers.teacher import Teacher

STEPS = 10  # of Heun's sampler from lower starts
FEW = 16  # samples per start and per noise level
FALL = 4.0  # between two starts
STARTS = 4
LEVELS = 12  # at which errors are measured
NOTHING = 0.9  # spread over sigma_max, from which on the network removes no noise
NARROW = 0.4  # … from which on sigma_max is too small for the data
WITHIN = 0.7  # first component over the level from which samples start, that is within the data
GROWN = 2.0  # a spread that is so many times that from a lower start is wrong
WORSE = 1.5  # … and an error, over that of the better of two guesses
NARROWINGS = 4  # halvings of the gap between a right and a wrong start
QUANTILES = 2**20  # values, of which torch sorts 2**24 at most
WIRED = (
    "does it return x_0, and are its levels in the units of its data? One that predicts the noise or a velocity is "
    "wrapped in EpsilonPrediction, VelocityPrediction or FlowPrediction (docs/teachers.md)"
)
CHECK_SEED = 7 * 2**29 - 2**20  # far from all other seeds


def spread_of(samples: Data) -> float:
    """The standard deviation of a coordinate around its mean, over all coordinates."""
    return float(samples.flatten(1).double().var(0).mean().sqrt())


def structure_of(samples: Data) -> float:
    """The standard deviation along the first principal component; at least the spread."""
    centred = samples.flatten(1).double()
    centred = centred - centred.mean(0)
    values = torch.linalg.eigvalsh(centred @ centred.T)  # those of the covariance that are not zero
    return max(spread_of(samples), math.sqrt(max(float(values[-1]), 0.0) / (len(centred) - 1)))


@dataclass(frozen=True)
class Checked:
    """What speaks against a teacher, a sentence each with the remedy, and the level above which it is wrong."""

    doubts: list[str]
    high: float
    hopeless: bool = False
    """Whether it is wrong nearly everywhere, so that a training could only learn what is wrong."""


def check_sampler(teacher: Teacher, samples: Data, rows: Rows = None, device: torch.device | str = "cpu") -> Checked:
    """What speaks against a teacher, by its `samples` of the conditions `rows`.

    - The spread of samples must not grow with the level from which they start, and must be far below `sigma_max`.
    - On its own samples x_0, E ‖d(x_0 + sigma eps, sigma) - x_0‖² is at most that of guessing x_t or the mean,
      min(sigma², spread²) per coordinate, at every level of its range.
    - Pictures are in [-1, 1].
    """
    low, high = teacher.sigma_min, teacher.sigma_max
    if not bool(samples.isfinite().all()):
        told = "its samples are not finite: is the network loaded, and is [sigma_min, sigma_max] its range?"
        return Checked([told], high, hopeless=True)
    spread = spread_of(samples)
    if spread < low:
        told = (
            f"its samples are all alike (spread {spread:.2g}, below its smallest noise level {low:.2g}): does the "
            "network use its input, and is its range in the units of its data? One that predicts the noise is wrapped "
            "in EpsilonPrediction (docs/teachers.md)"
        )
        return Checked([told], high, hopeless=True)
    few, rows = samples[:FEW], None if rows is None else rows[:FEW]
    largest, lowest, plain = _right_start(teacher, few, rows, device)
    if largest == 0:
        return Checked([_hopeless(spread, high)], high, hopeless=True)
    if largest == high:
        found = _errors(teacher, few, rows, spread, high, device)
        return replace(found, doubts=found.doubts + _units(teacher, samples))
    found = _errors(teacher, _drawn(teacher, len(few), rows, lowest, device), rows, plain, largest, device)
    told = (
        f"it is wrong at high noise: samples that start at σ = {high:.3g} have a spread of {spread:.2g}, from "
        f"{largest:.2g} on {plain:.2g}; {_remedy('sigma_max', found.high)}"
    )
    return replace(found, doubts=[told, *(found.doubts if found.high == largest else [])])


def _remedy(end: str, level: float) -> str:
    ends = f"0 {level:.2g}" if end == "sigma_max" else f"{level:.2g} inf"
    size = "smaller" if end == "sigma_max" else "larger"
    return f"give it a {size} {end}, {level:.2g}: --teacher-range {ends}"


def _hopeless(spread: float, high: float) -> str:
    if spread > NOTHING * high:
        return (
            f"it removes no noise: its samples' spread {spread:.3g} is that of the noise at sigma_max = {high:.3g}; is "
            "the network loaded, and does sigma reach it? One that predicts the noise is wrapped in EpsilonPrediction "
            "(docs/teachers.md)"
        )
    return (
        f"its samples' spread {spread:.3g} is too near to sigma_max = {high:.3g}, at which only noise should be left; "
        f"give a sigma_max of {10 * spread:.2g}, or the samples in the units of its range"
    )


def _right_start(teacher: Teacher, few: Data, rows: Rows, device: torch.device | str) -> tuple[float, float, float]:
    """The largest level from which samples are no wider than elsewhere, the level of the least spread, and that.

    Elsewhere are lower levels that are still above the data. 0 for the first if samples are as wide as the noise.
    """
    high = teacher.sigma_max
    starts = [high / FALL**k for k in range(STARTS) if high / FALL**k > 2 * teacher.sigma_min]
    drawn = {start: _drawn(teacher, len(few), rows, start, device) for start in starts}
    spreads = {start: spread_of(samples) for start, samples in drawn.items()}
    if spreads[high] > NARROW * high:
        return 0, 0, spreads[high]
    above = {start: spreads[start] for start, samples in drawn.items() if structure_of(samples) <= WITHIN * start}
    plain = min(above.values(), default=spreads[high])
    right = lowest = max((start for start, value in above.items() if value == plain), default=high)
    for wrong, lower in pairwise(starts):
        if wrong <= right:
            break
        if spreads[wrong] <= GROWN * plain:
            return wrong, lowest, plain
        if spreads[lower] <= GROWN * plain:
            right = lower
            for _ in range(NARROWINGS):
                middle = math.sqrt(right * wrong)
                spread = spread_of(_drawn(teacher, len(few), rows, middle, device))
                right, wrong = (middle, wrong) if spread <= GROWN * plain else (right, middle)
            break
    return right, lowest, plain


@torch.no_grad()
def _drawn(teacher: Teacher, n: int, rows: Rows, start: float, device: torch.device | str) -> Data:
    """`n` samples by Heun's sampler from the level `start`, on the CPU; from every level the same noise, scaled."""
    z = noise_from_seeds(range(CHECK_SEED, CHECK_SEED + n), teacher.shape).to(device)
    condition = teacher.condition(None if rows is None else rows.to(device), device)
    return heun(teacher.denoiser, z, condition, STEPS, teacher.sigma_min, start).cpu()


@torch.no_grad()
def _errors(teacher: Teacher, x_0: Data, rows: Rows, spread: float, high: float, device: torch.device | str) -> Checked:
    """What is wrong with the errors on samples `x_0`, by noise level up to `high`, and where they are right."""
    low = teacher.sigma_min
    levels = torch.logspace(math.log10(low), math.log10(high), LEVELS + 2)[1:].tolist()
    eps = noise_from_seeds(range(CHECK_SEED + 2**16, CHECK_SEED + 2**16 + len(x_0)), teacher.shape).to(device)
    condition = teacher.condition(None if rows is None else rows.to(device), device)
    x_0 = x_0.to(device)
    ratios: dict[float, float] = {}
    for level in levels:
        sigma = torch.full((len(x_0),), level, device=device)
        error = residual(teacher.unguided, x_0 + level * eps, sigma, condition) + level * eps
        ratios[level] = float(error.square().mean()) / min(level, spread) ** 2
    wrong = [level for level in levels if not ratios[level] <= WORSE**2]
    if not wrong:
        return Checked([], high)
    right = [level for level in levels if level not in wrong]
    worst = math.sqrt(max(ratios[level] for level in wrong))
    where = f"σ = {wrong[0]:.2g}" if len(wrong) == 1 else f"σ = {wrong[0]:.2g} … {wrong[-1]:.2g}"
    told = f"at {where} its error is up to {worst:.2g} times that of a guess"
    if right and min(wrong) > max(right):
        return Checked([f"{told}; {_remedy('sigma_max', max(right))}"], max(right))
    most = len(wrong) > len(levels) / 2
    if right and max(wrong) < min(right) and not most:
        return Checked([f"{told}; {_remedy('sigma_min', min(right))}"], high)
    return Checked([f"{told}; {WIRED}"], high, hopeless=most)


def _units(teacher: Teacher, samples: Data) -> list[str]:
    """Whether pictures are in another range than [-1, 1]."""
    if len(teacher.shape) != 3 or teacher.shape[0] not in (1, 3) or teacher.judged.decode is not None:
        return []
    values = samples.flatten()[:QUANTILES].float()
    low, high = (float(values.quantile(share)) for share in (0.01, 0.99))
    positive = low > -0.15 * high and float(values.mean()) > 0.1 * high
    for top, wrapped in (
        (1.0, "2 d((x + 1)/2, sigma/2, c) - 1"),
        (255.0, "d(127.5 (x + 1), 127.5 sigma, c)/127.5 - 1"),
    ):
        if positive and 0.6 * top < high < 1.3 * top:
            return [
                f"its samples are in 0 … {top:g}, and pictures here are in -1 … 1; wrap it as {wrapped}, with "
                f"sigma_min and sigma_max {'times 2' if top == 1 else 'over 127.5'}"
            ]
    return []
