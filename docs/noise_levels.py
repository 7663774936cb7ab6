"""`python -m docs.noise_levels [TEACHER …]`: which noise levels give the generator a useful gradient.

TEACHER is as for `--teacher`, by default "digits". For each, distillations with the recipe "digits" are stopped at some
iterations, and the gradient of the generator's loss is computed at one noise level at a time: once with the online
network as it is, once with a copy that was fitted to the present generator. Where the two agree, the online network has
kept up, and the update does what the theorem says. Writes docs/noise-levels.svg and the table of
docs/noise-levels.md.
"""

import copy
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import matplotlib as mpl
import torch
from jaxtyping import Float
from matplotlib.figure import Figure
from rich.console import Console
from rich.progress import track
from torch import Tensor

from benchmarks.tables import Table, publish
from docs.distillation import Distillation
from simdistill.config.recipes import KARRAS_TIMES, RECIPES, SIM_TIMES
from simdistill.method.algorithm import frozen
from simdistill.method.noise import LogNormal, NoiseDistribution, sample
from simdistill.method.shapes import Condition, Data
from simdistill.reports.charts import told_apart
from simdistill.teachers.loading import load_teacher
from simdistill.training.trainer import DistillationTrainer

FOLDER = Path(__file__).parent
PAGE = FOLDER / "noise-levels.md"
DIGITS = RECIPES["digits"]
NOISE = {
    "the paper's": SIM_TIMES,
    "SiD's (Karras)": KARRAS_TIMES,
    f"the recipe's, {DIGITS.generator_noise}": DIGITS.generator_noise,
}
LEVELS = torch.logspace(-2, 1.25, 14)
MOMENTS = (500, 1500)
SEEDS = 2
BATCHES = 24
FIT, FIT_BATCH, FIT_TIMES = 1000, 256, LogNormal(-0.7, 2.0)


@dataclass(frozen=True)
class Gradients:
    """The generator's gradients at some noise levels, from `batches` independent mini-batches."""

    mean: Float[Tensor, "levels parameters"]
    squared: Float[Tensor, " levels"]
    """The mean of the mini-batches' ‖gradient‖²."""
    batches: int

    @property
    def signal(self) -> Float[Tensor, " levels"]:
        """An unbiased estimate of ‖E gradient‖²."""
        return (self.batches * self.mean.square().sum(1) - self.squared) / (self.batches - 1)

    @property
    def noise(self) -> Float[Tensor, " levels"]:
        """The total variance of a mini-batch's gradient."""
        return self.squared - self.signal


@dataclass(frozen=True)
class Heard:
    """What each noise level tells the generator: a row per training seed, a column per level."""

    signal: Float[Tensor, "seeds levels"]
    """‖right gradient‖ over the standard deviation of a mini-batch's."""
    kept_up: Float[Tensor, "seeds levels"]
    """⟨used, right⟩ / ‖right‖²: 1 where the online network has kept up, 0 where the update says nothing."""

    @property
    def useful(self) -> Float[Tensor, "seeds levels"]:
        """The part of the update in the right direction, over its noise."""
        return self.signal * self.kept_up


def gradients(distillation: Distillation, shape: tuple[int, ...], classes: int, batches: int, seed: int) -> Gradients:
    """The gradients at each of `LEVELS`, with the same random numbers."""
    weights = list(distillation.generator.parameters())
    means, squares = [], []
    for level in LEVELS:
        rng = torch.Generator().manual_seed(seed)
        total, squared = torch.zeros(()), 0.0
        for _ in range(batches):
            z, eps, condition = draw(DIGITS.batch, shape, classes, rng)
            with frozen(distillation.online):
                loss, _ = distillation.generator_loss(z, level.expand(DIGITS.batch), eps, condition)
                found = torch.autograd.grad(loss.mean(), weights)
            gradient = torch.cat([g.flatten() for g in found])
            total, squared = total + gradient, squared + gradient.square().sum().item()
        means.append(total / batches)
        squares.append(squared / batches)
    return Gradients(torch.stack(means), torch.tensor(squares), batches)


def caught_up(distillation: Distillation, shape: tuple[int, ...], classes: int, updates: int) -> Distillation:
    """The distillation with a copy of the online network, fitted to the generator by `updates` on large batches."""
    found = replace(distillation, online=copy.deepcopy(distillation.online))
    optimizer = torch.optim.Adam(found.online.parameters(), betas=DIGITS.betas)
    rng = torch.Generator().manual_seed(0)
    for k in range(updates):
        optimizer.param_groups[0]["lr"] = 3 * DIGITS.online_lr * (1 - k / updates)
        z, eps, condition = draw(FIT_BATCH, shape, classes, rng)
        optimizer.zero_grad()
        found.denoising_loss(z, sample(FIT_TIMES, FIT_BATCH, rng), eps, condition).mean().backward()
        optimizer.step()
    return found


def draw(n: int, shape: tuple[int, ...], classes: int, rng: torch.Generator) -> tuple[Data, Data, Condition]:
    """z, eps and labels of a mini-batch."""
    z, eps = (torch.randn(n, *shape, generator=rng) for _ in range(2))
    return z, eps, torch.randint(classes, (n,), generator=rng) if classes else None


def heard(
    name: str, moments: tuple[int, ...] = MOMENTS, seeds: int = SEEDS, batches: int = BATCHES, fit: int = FIT
) -> dict[int, Heard]:
    """For the teacher `name`, what its noise levels tell at each of some iterations."""
    rows: dict[int, list[tuple[Tensor, Tensor]]] = {moment: [] for moment in moments}
    for seed in range(seeds):
        trainer = DistillationTrainer(load_teacher(name), replace(DIGITS, seed=seed))
        what = f"{name}, training seed {seed}"
        for moment in moments:
            for _ in track(range(moment - trainer.iteration), what, console=Console(stderr=True), transient=True):
                trainer.step()
            facts = trainer.teacher.shape, trainer.teacher.classes
            distillation = Distillation.of(trainer)
            used = gradients(distillation, *facts, batches, seed=1)
            right = gradients(caught_up(distillation, *facts, fit), *facts, batches, seed=2)
            strength = right.signal.clamp(min=0)
            rows[moment].append(
                ((strength / right.noise).sqrt(), (used.mean * right.mean).sum(1) / right.signal.clamp(min=1e-12))
            )
    return {
        moment: Heard(*(torch.stack(column) for column in zip(*found, strict=True))) for moment, found in rows.items()
    }


# --- What is published ------------------------------------------------------------------------------------------------


def told(noise: NoiseDistribution, useful: Float[Tensor, " levels"]) -> float:
    """The mean of `useful` over `noise`, divided by its maximum; outside `LEVELS` it counts as zero."""
    ends = torch.cat([LEVELS[:1].square() / LEVELS[1:2], LEVELS, LEVELS[-1:].square() / LEVELS[-2:-1]])
    shares = noise.cdf((ends[:-1] * ends[1:]).sqrt()).diff()  # levels are even in ln sigma: each stands for its middle
    return (shares @ useful / useful.max()).item()


def table(measured: Mapping[str, Mapping[int, Heard]]) -> Table:
    """What an average update under each noise distribution tells, mean ± standard deviation over the training seeds."""
    moments = [f"{name}, {moment}" for name, at in measured.items() for moment in at]
    columns = ["noise distribution", "median σ", *moments]
    seeds = {len(found.useful) for at in measured.values() for found in at.values()}
    rows: list[list[str]] = []
    for name, noise in NOISE.items():
        row = [name, f"{noise.quantile(torch.tensor([0.5])).item():.2g}"]
        for at in measured.values():
            for found in at.values():
                values = torch.tensor([told(noise, useful) for useful in found.useful])
                row.append(f"{values.mean():.2f} ± {values.std():.2f}")
        rows.append(row)
    title = (
        "What an average update tells the generator under each noise distribution, relative to the most informative "
        f"level: mean ± standard deviation over {seeds.pop()} training seeds, by teacher and iteration"
    )
    return Table("told", title, columns, rows)


def picture(measured: Mapping[str, Mapping[int, Heard]]) -> Figure:
    """By noise level: how well the online network has kept up, how useful updates are, and how many there are."""
    figure = Figure(figsize=(5.4, 8.8), layout="constrained", facecolor="white")
    panels = figure.subplots(3, 1, sharex=True)
    lines = [(f"{name}, {moment} iterations", found) for name, at in measured.items() for moment, found in at.items()]
    for (name, found), colour in zip(lines, told_apart(len(lines)), strict=True):
        for axes, values in zip(panels, (found.kept_up, found.useful), strict=False):
            low, middle, high = values.quantile(torch.tensor([0.0, 0.5, 1.0]), 0)
            axes.fill_between(LEVELS, low, high, color=colour, alpha=0.2, linewidth=0)
            axes.plot(LEVELS, middle, color=colour, label=name)
    for level in (0, 1):
        panels[0].axhline(level, color="black", linewidth=0.8, linestyle=":")
    panels[1].axhline(0, color="black", linewidth=0.8, linestyle=":")
    ends = torch.logspace(-2.2, 1.5, 60)
    middles = (ends[:-1] * ends[1:]).sqrt()
    for (name, noise), colour, style in zip(NOISE.items(), told_apart(len(NOISE)), ("-", "--", ":"), strict=True):
        panels[2].plot(middles, noise.cdf(ends).diff() / ends.log().diff(), color=colour, linestyle=style, label=name)
    panels[0].set(xscale="log", ylim=(-1.5, 2), ylabel="kept up")
    panels[1].set_ylabel("useful part over noise")
    panels[2].set(ylabel="updates per unit of ln σ", ylim=(0, None), xlabel="noise level σ")
    for axes in panels:
        axes.grid(color="#dddddd")
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].legend(frameon=False)
    figure.legend(*panels[2].get_legend_handles_labels(), loc="outside lower center", frameon=False)
    return figure


def main() -> None:
    """Measure, draw, and put the table in its place."""
    torch.set_num_threads(1)
    names = sys.argv[1:] or ["digits"]
    measured = {name: heard(name) for name in names}
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "noise levels"}):
        picture(measured).savefig(
            FOLDER / "noise-levels.svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type"))
        )
    PAGE.write_text(publish(PAGE.read_text(encoding="utf-8"), [table(measured)]), encoding="utf-8")


if __name__ == "__main__":
    main()
