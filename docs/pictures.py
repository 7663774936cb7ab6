"""`python -m docs.pictures`: renew the pictures and the tables of docs/theory.md. Half a minute on one core."""

import math
from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.tables import Table, publish
from docs.experiments import (
    MISTAKES,
    PAPER,
    RIGHT,
    START,
    TARGET,
    Trace,
    errors,
    exact_gradient,
    expected_gradient,
    tensor,
    train,
)
from simdistill.method.distances import L1, Distance, Exponential, Huber, PoweredL2, PseudoHuber, SquaredL2
from simdistill.reports.charts import told_apart

FOLDER = Path(__file__).parent
PAGE = FOLDER / "theory.md"
COUNTS, SEEDS = [2**k for k in range(4, 19)], 24
STEPS = 300
LINES = {"d'(y) detached": "--", "x_t detached": ":"}
"""How lines are drawn that lie on others."""
SIX = [SquaredL2(), PoweredL2(1.5), Exponential(beta=0.5), L1(), Huber(delta=0.5), PseudoHuber(c=0.5)]
"""The distances as they are drawn: with parameters that a picture can show."""


def main() -> None:
    """Measure, draw, and put the tables in their places."""
    torch.set_num_threads(1)
    converging = {
        f"{PAPER}": errors(PAPER, RIGHT, COUNTS, SEEDS),
        f"{SquaredL2()}": errors(SquaredL2(), RIGHT, COUNTS, SEEDS),
        f"{PAPER}, d'(y) detached": errors(PAPER, "d'(y) detached", COUNTS, SEEDS),
    }
    traces = {mistake: train(PAPER, mistake, STEPS) for mistake in MISTAKES}
    ratios = gradient_ratios(PAPER)
    pictures = {
        "theory-error": draw_errors(converging),
        "theory-mistakes": draw_ratios(ratios),
        "theory-trainings": draw_trainings(traces),
        "theory-loss": draw_loss(traces[RIGHT]),
        "theory-distances": draw_distances(SIX),
    }
    for name, figure in pictures.items():
        metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
            figure.savefig(FOLDER / f"{name}.svg", metadata=metadata)
    tables = [error_table(converging), mistake_table(ratios, traces)]
    PAGE.write_text(publish(PAGE.read_text(encoding="utf-8"), tables), encoding="utf-8")


# --- Figures of the text ----------------------------------------------------------------------------------------------


def gradient_ratios(distance: Distance) -> dict[str, list[float]]:
    """The expected gradient with each mistake over the exact one: for mean and scale."""
    theta = tensor(START)
    exact = exact_gradient(distance, theta)
    return {mistake: (expected_gradient(distance, theta, mistake) / exact).tolist() for mistake in MISTAKES}


def slope(counts: Sequence[int], found: torch.Tensor) -> float:
    """Of the straight line through ln of the root mean square over the seeds, against ln n."""
    x, y = tensor(counts).log(), found.square().mean(0).sqrt().log()
    x = x - x.mean()
    return (x @ y / (x @ x)).item()


def error_table(converging: dict[str, torch.Tensor]) -> Table:
    """Root mean squares over the seeds, and the slope."""
    shown = COUNTS[::7]
    rows = []
    for name, found in converging.items():
        rms = found.square().mean(0).sqrt().tolist()
        rows.append([name, *(f"{rms[COUNTS.index(n)]:.3f}" for n in shown), f"{slope(COUNTS, found):.2f}"])
    title = f"Relative error of the gradient of n samples, root mean square over {SEEDS} seeds"
    return Table("errors", title, ["loss", *(f"n = {n:,}" for n in shown), "slope"], rows)


def mistake_table(ratios: dict[str, list[float]], traces: dict[str, Trace]) -> Table:
    """What a mistake does to the gradient, and where it leads."""
    rows = []
    for mistake, pair in ratios.items():
        end = traces[mistake].theta[-1].tolist()
        there = "yes" if math.dist(end, TARGET) < 0.01 else "no"
        rows.append(
            [mistake, *(f"{round(ratio, 2) + 0.0:.2f}" for ratio in pair), f"{end[0]:.2f}, {end[1]:.2f}", there]
        )
    columns = ["", "mean: times the exact gradient", "scale", f"mean, scale after {STEPS} steps", "the teacher's?"]
    return Table("mistakes", "What each mistake does to the gradient, and where a training ends", columns, rows)


# --- Pictures ---------------------------------------------------------------------------------------------------------


def draw_errors(converging: dict[str, torch.Tensor]) -> Figure:
    """Relative error against the number of samples, with quartiles over the seeds."""
    figure, (axes,) = _figure(1)
    axes.set(xscale="log", yscale="log", xlabel="samples n", ylabel="relative error of the gradient")
    for (name, found), colour in zip(converging.items(), told_apart(3), strict=True):
        low, middle, high = found.quantile(tensor([0.25, 0.5, 0.75]), 0)
        axes.fill_between(COUNTS, low, high, color=colour, alpha=0.2, linewidth=0)
        axes.plot(COUNTS, middle, color=colour, label=name)
    root = tensor(COUNTS).sqrt()
    level = (next(iter(converging.values())).median(0).values * root).median()
    axes.plot(COUNTS, level / root, color="black", linestyle=":", label="1/√n")
    axes.legend(frameon=False)
    return figure


def draw_ratios(ratios: dict[str, list[float]]) -> Figure:
    """Bars: the gradient with each mistake over the exact one."""
    figure, (axes,) = _figure(1, height=3.9)
    for k, (name, colour) in enumerate(zip(["mean", "scale"], told_apart(2), strict=True)):
        places = [row + (k - 0.5) * 0.38 for row in range(len(ratios))]
        axes.barh(places, [pair[k] for pair in ratios.values()], height=0.36, color=colour, label=name)
    axes.axvline(0, color="black", linewidth=0.8)
    axes.axvline(1, color="black", linestyle=":")
    axes.set(xlabel="times the exact gradient", yticks=range(len(ratios)), yticklabels=ratios)
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    axes.legend(frameon=False)
    return figure


def draw_trainings(traces: dict[str, Trace]) -> Figure:
    """Mean and scale over each training; dotted, the teacher's."""
    figure, panels = _figure(2, height=5.6)
    for k, (axes, name, limits) in enumerate(zip(panels, ["mean", "scale"], [(-0.6, 1.6), (0, 2.6)], strict=True)):
        for (mistake, trace), colour in zip(traces.items(), told_apart(len(traces)), strict=True):
            (line,) = axes.plot(trace.theta[:, k], LINES.get(mistake, "-"), color=colour, label=mistake)
            line.set_linewidth(4 if mistake == RIGHT else 1.5)
        axes.axhline(TARGET[k], color="black", linestyle=":")
        axes.set(ylabel=name, ylim=limits)
    panels[-1].set_xlabel("step")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False)
    return figure


def draw_loss(trace: Trace) -> Figure:
    """The loss of each batch with two standard errors, and ‖y‖."""
    figure, (above, below) = _figure(2, height=4.6)
    loss, spread = trace.loss, 2 * trace.loss_error
    above.fill_between(range(len(loss)), loss - spread, loss + spread, color=told_apart(1)[0], alpha=0.25, linewidth=0)
    above.plot(loss, linewidth=1)
    above.axhline(0, color="black", linestyle=":")
    above.set_ylabel("loss")
    below.plot(trace.y)
    below.set(ylabel="mean ‖y‖", xlabel="step", ylim=(0, None))
    return figure


def draw_distances(distances: Sequence[Distance]) -> Figure:
    """d(y) and d'(y) in one dimension."""
    figure, (above, below) = _figure(2, height=5.8)
    y = torch.linspace(-3, 3, 601, dtype=torch.float64)[:, None]
    for distance, colour in zip(distances, told_apart(len(distances)), strict=True):
        above.plot(y[:, 0], distance.value(y), color=colour, label=str(distance))
        below.plot(y[:, 0], distance.gradient(y)[:, 0], color=colour)
    above.set(ylabel="d(y)", ylim=(0, 4))
    below.set(ylabel="d'(y)", xlabel="y", ylim=(-3, 3))
    figure.legend(*above.get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False)
    return figure


def _figure(panels: int, height: float = 3.4) -> tuple[Figure, Sequence[Axes]]:
    """Panels below each other, on white, narrow enough that their text can be read on a telephone."""
    figure = Figure(figsize=(5.4, height), layout="constrained", facecolor="white")
    axes = [figure.add_subplot(panels, 1, k + 1) for k in range(panels)]
    for each in axes:
        each.grid(color="#dddddd")
        each.set_axisbelow(True)
        each.spines[["top", "right"]].set_visible(False)
    return figure, axes


if __name__ == "__main__":
    main()
