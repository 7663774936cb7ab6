"""`python -m docs.figure_2`: the tables and the picture of docs/figure-2.md from the folders of the four comparisons.

The commands on that page make the folders. Where one is missing or has open cells, the page's content stays. What was
renewed and what was kept is printed.
"""

from pathlib import Path

import matplotlib as mpl
import polars as pl
from matplotlib.figure import Figure

from benchmarks.tables import Table, publish
from simdistill.comparison.grid import GRIDS
from simdistill.comparison.results import summary

FOLDER = Path(__file__).parent
PAGE = FOLDER / "figure-2.md"
RUNS = {
    "figure-2": "MLP, conditional",
    "figure-2-unet": "U-Net, conditional",
    "figure-2-free": "MLP, unconditional",
    "figure-2-unet-free": "U-Net, unconditional",
}
"""The comparisons' folders in runs/, and their teachers."""
VARIANTS = list(GRIDS["figure-2"])
COLOURS = {"sim": "#bf4116", "sid": "#2c62ad", "diff": "#2f7a48"}  # of the method
TIMES = {"lognormal": "-", "karras": "--"}


def main() -> None:
    """Renew those parts of the page whose comparisons are finished."""
    done = {folder: name for folder, name in RUNS.items() if finished(Path("runs") / folder)}
    tables = [table(Path("runs") / folder, folder, name) for folder, name in done.items()]
    PAGE.write_text(publish(PAGE.read_text(encoding="utf-8"), tables), encoding="utf-8")
    for folder, name in RUNS.items():
        why = "renewed" if folder in done else f"kept: runs/{folder} is missing or has open cells"
        print(f"table of {name}: {why}")
    mpl.rcParams["svg.hashsalt"] = "figure-2"  # the same picture, the same bytes
    whole = set(done) == set(RUNS)
    if whole:
        curves(done).savefig(FOLDER / "figure-2.svg", metadata={"Date": None})
    print(f"figure-2.svg: {'renewed' if whole else 'kept: it needs all four'}")


def finished(folder: Path) -> bool:
    """Whether no cell of the comparison is open."""
    path = folder / "cells.csv"
    return path.exists() and "open" not in pl.read_csv(path)["status"].to_list()


def table(folder: Path, name: str, title: str) -> Table:
    """The variants of a comparison, best first."""
    cells = pl.read_csv(folder / "cells.csv")
    rows = [
        [
            f"`{row.variant}`",
            f"{row.distance:.3f}, {row.low:.3f}–{row.high:.3f}",
            *(f"{row.metrics[name]['mean']:.3f}" for name in ("precision", "recall")),
            "best" if row.p is None else f"{'worse' if row.differs else 'within noise'}, p = {row.p:.2g}",
        ]
        for row in summary(cells)
    ]
    seeds, iterations = cells["training_seed"].n_unique(), cells["iterations"][0]
    columns = ["variant", "Fréchet distance, 95 % interval", "precision", "recall", "against the best"]
    return Table(name, f"{title}: {iterations:,} iterations, {seeds} training seeds", columns, rows)


def curves(done: dict[str, str]) -> Figure:
    """Distance against generator updates, one panel per teacher: the geometric mean over the training seeds."""
    figure = Figure(figsize=(9, 6.4), layout="constrained")
    panels = figure.subplots(2, 2).flat
    for axes, (folder, title) in zip(panels, done.items(), strict=False):
        found = pl.read_csv(Path("runs") / folder / "milestones.csv").filter(pl.col("iteration") > 0)
        for variant in VARIANTS:
            means = (
                found.filter(pl.col("variant") == variant)
                .group_by("iteration", maintain_order=True)
                .agg(pl.col("frechet").log().mean().exp())
                .sort("iteration")
            )
            method, times, weight = (*variant.split("-"), "none")[:3]
            style = {"color": COLOURS[method], "linestyle": TIMES.get(times, ":")}
            width = 1.0 if weight == "sid" else 2.0
            axes.plot(means["iteration"], means["frechet"], label=variant, lw=width, **style)
        axes.set(title=title, yscale="log", xlabel="generator updates", ylabel="Fréchet distance")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
    return figure


if __name__ == "__main__":
    main()
