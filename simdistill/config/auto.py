"""The recipe `auto`: every setting of a distillation from what was read off the teacher; docs/auto.md tells why.

All noise levels, weights and c are multiples of the spread of the teacher's samples: for the same data times k they are
k times as large, and what has no unit stays the same.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from simdistill.config.recipes import Recipe
from simdistill.method.distances import PseudoHuber
from simdistill.method.ema import PowerEMA
from simdistill.method.noise import LogNormal, kept_inside
from simdistill.method.objectives import ScoreImplicitMatching
from simdistill.method.weightings import EDM
from simdistill.support.checks import require

NAME = "auto"

C_OF_MANY = 0.00108  # c over spread √dimensions: 0.00054 (Song and Dhariwal 2024) for data of standard deviation 0.5
SIGMA_INIT, SIGMA_INIT_OF_FEW = 5.0, 1.7  # over the spread (the paper's 2.5 for 0.5); at most, over the first component
WIDTHS = 3.0  # standard deviations of ln sigma between the levels of details and of the first component …
NARROWEST = 1.2  # … but no less than EDM's
ONLINE_CENTRE, ONLINE_WIDTH = -0.5, 1.2  # of the online network, over the spread: EDM's for training teachers
COARSEST = 0.25  # largest level of details over the spread
RATE, FASTEST = 0.32, 1e-3  # learning rate times √parameters, and its largest value
AVERAGED = 0.05  # relative width of the EMA
WARMUP, SHORTEST_WARMUP = 100, 20  # iterations per iteration of warm-up; iterations
PASSES = 11  # forward passes' worth of work per sample and iteration

SMALLEST_BATCH, LARGEST_BATCH = 32, 512
WORK_OF_BATCH = 5e7  # operations of a forward pass of a batch on a CPU, below which a larger one is nearly free
GPU_BATCH, BATCH_OF_LARGE, LARGE_WORK = 256, 64, 1e11  # … for networks of that many operations per sample
LARGE = 100_000_000  # parameters, from which on GPUs compute in bf16

CPU_SPEED, CPU_SECONDS, CPU_ITERATIONS = 3e10, 1800.0, (1000, 8000)
GPU_SPEED, GPU_SECONDS, GPU_ITERATIONS = 3e13, 43_200.0, (5000, 50_000)


@dataclass(frozen=True)
class Reading:
    """What the recipe `auto` knows of a teacher. Raises `ValueError` if its samples have no spread."""

    shape: tuple[int, ...]
    sigma_min: float
    sigma_max: float
    spread: float
    """Standard deviation of a coordinate of its samples, around their mean."""
    structure: float
    """Standard deviation of its samples along their first principal component, at least the spread."""
    detail: float
    """The level at which a denoiser's error is half of the noise: what is smaller is seen below it."""
    parameters: int
    flops: float
    """Floating-point operations of a call of the network, per sample."""
    features: str = ""
    """A shipped feature space that fits, if there is one."""
    latents: bool = False
    gpu: bool = False

    def __post_init__(self) -> None:
        sound = 0 < self.spread < math.inf
        require(sound, "spread of the teacher's samples", self.spread, "positive and finite; is its network loaded?")

    @property
    def dimensions(self) -> int:
        """The number of coordinates of a sample."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class Choice:
    """A setting, its value, and the reason for it."""

    name: str
    value: Any
    why: str


def choices(read: Reading, batch: int | None = None, iterations: int | None = None) -> tuple[Choice, ...]:
    """The settings for a teacher, in the order of a recipe; `batch` and `iterations` if they are given already."""
    return (*_levels(read), *_length(read, batch, iterations))


def chosen(made: Sequence[Choice], base: Recipe = Recipe()) -> Recipe:  # noqa: B008  (frozen)
    """The recipe `base` with these choices."""
    return replace(base, **{choice.name: choice.value for choice in made})


def _levels(read: Reading) -> list[Choice]:
    """All that has the unit of the data."""
    spread, low, high = read.spread, read.sigma_min, read.sigma_max
    told = f"samples' spread {spread:.3g}"
    fine = min(read.detail, COARSEST * spread)
    capped = "" if fine == read.detail else ", at most a quarter of the spread"
    apart = math.log(read.structure / fine)
    centre, width = _rounded(math.log(fine) + apart / 2), _rounded(max(NARROWEST, apart / WIDTHS))
    online = min(_rounded(math.log(spread) + ONLINE_CENTRE), centre)
    few = 1 / math.sqrt(read.dimensions) > C_OF_MANY * math.sqrt(read.dimensions)
    c = spread * max(C_OF_MANY * math.sqrt(read.dimensions), 1 / math.sqrt(read.dimensions))
    rule = "spread / √dimensions" if few else "0.00108 spread √dimensions"
    inside = f"within the teacher's {low:.3g} … {high:.3g}"
    return [
        Choice("objective", ScoreImplicitMatching(PseudoHuber(_rounded(c))), f"{rule}, {read.dimensions} dimensions"),
        Choice(
            "generator_noise",
            _inside("generator_noise", LogNormal(centre, width), low, high),
            f"from details, {fine:.2g}{capped}, to the first component, {read.structure:.3g}; {inside}",
        ),
        Choice(
            "online_noise",
            _inside("online_noise", LogNormal(online, ONLINE_WIDTH), low, high),
            f"EDM's, scaled by the spread, and not above the generator's; {inside}",
        ),
        Choice("online_weighting", EDM(_rounded(spread)), told),
        _sigma_init(read),
    ]


def _sigma_init(read: Reading) -> Choice:
    many, few = SIGMA_INIT * read.spread, SIGMA_INIT_OF_FEW * read.structure
    why = f"{SIGMA_INIT:g} × spread" if many <= few else f"{SIGMA_INIT_OF_FEW:g} × first component"
    return Choice("sigma_init", _rounded(min(many, few, read.sigma_max)), why)


def _length(read: Reading, batch: int | None, iterations: int | None) -> list[Choice]:
    """All that has no unit: rates, batch, length, average."""
    rate = _rounded(min(FASTEST, RATE / math.sqrt(read.parameters)))
    size = f"{read.parameters:,} parameters"
    size_of_batch = _batch(read) if batch is None else batch
    work = PASSES * read.flops * size_of_batch
    speed, seconds, (fewest, most) = (
        (GPU_SPEED, GPU_SECONDS, GPU_ITERATIONS) if read.gpu else (CPU_SPEED, CPU_SECONDS, CPU_ITERATIONS)
    )
    affordable = 100 * round(max(fewest, min(most, seconds * speed / work)) / 100)
    length = affordable if iterations is None else iterations
    hours = length * work / speed / 3600
    where = "a GPU" if read.gpu else "a CPU core"
    made = [
        Choice("generator_lr", rate, size),
        Choice("online_lr", rate, size),
        Choice("warmup", max(SHORTEST_WARMUP, length // WARMUP), f"1 % of the iterations, at least {SHORTEST_WARMUP}"),
        Choice("decay", "linear", "the generator settles at the end"),
        Choice("batch", size_of_batch, f"{read.flops / 1e6:,.1f} MFLOP per sample and call, on {where}"),
        Choice("share_samples", True, "saves a forward pass in eleven"),
        Choice("iterations", length, f"about {_time(hours)} on {where}"),
        Choice("ema", (PowerEMA(AVERAGED),), "its width follows the length of training"),
    ]
    if read.features:
        made.append(Choice("features", read.features, "the shipped classifier takes such samples"))
    if read.gpu and read.parameters >= LARGE:
        made.append(Choice("precision", "bf16", f"{size}, on a GPU"))
    return made


def _batch(read: Reading) -> int:
    if read.gpu:
        return BATCH_OF_LARGE if read.flops > LARGE_WORK else GPU_BATCH
    free = WORK_OF_BATCH / max(read.flops, 1.0)
    return max(SMALLEST_BATCH, min(LARGEST_BATCH, 2 ** round(math.log2(free))))


def _inside(name: str, distribution: LogNormal, low: float, high: float) -> Any:
    try:
        return kept_inside(distribution, low, high)
    except ValueError as error:
        raise ValueError(
            f"{name} = {distribution}: no level within the teacher's range {low:g} … {high:g}: are its samples in the "
            "units of its range?"
        ) from error


def _rounded(value: float) -> float:
    """To four significant digits, to be read."""
    return float(f"{value:.4g}")


def _time(hours: float) -> str:
    return f"{hours * 60:.0f} minutes" if hours < 2 else f"{hours:,.0f} hours"
