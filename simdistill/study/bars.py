"""The results as a bar chart for a paper: votes for each side, and ties."""

import io
from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

from matplotlib.figure import Figure
from matplotlib.patches import Patch

from simdistill.study.results import Results

Kind: TypeAlias = Literal["png", "svg", "pdf"]

COLOURS = {"a": "#bf4116", "tie": "#cfcabf", "b": "#2c62ad"}
LONG = 30  # characters of a name that fit
LABELS = {"overall": "Overall", "text": "Text", "quality": "Quality"}


def bars(results: Results, kind: Kind = "png") -> bytes:
    """One bar per question: the shares of all its votes and, below, the number of votes.

    Next to it is the preference rate of side a (ties excluded) with its bootstrap interval. Without ties the interval
    is also drawn below the bar, on the same scale, and 50 % is marked.
    """
    questions = {name: found for name, found in results["questions"].items() if found["votes"]}
    figure = Figure(figsize=(6.5, 0.75 + 0.85 * max(len(questions), 1)), dpi=200, layout="constrained")
    axes = figure.add_subplot()
    for row, found in enumerate(questions.values()):
        _bar(axes, row, found, results["a"])
    axes.set_yticks(range(len(questions)), [LABELS[name] for name in questions])
    axes.set_ylim(max(len(questions), 1) - 0.3, -0.4)
    axes.set_xlim(0, 1)
    axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0 %", "25 %", "50 %", "75 %", "100 %"])
    axes.tick_params(length=0, labelsize=8)
    axes.spines[["top", "right", "left", "bottom"]].set_visible(False)
    names = {"a": results["a"], "tie": "tie", "b": results["b"]}
    ties = any(found["ties"] for found in questions.values())
    handles = [Patch(color=COLOURS[side], label=name) for side, name in names.items() if ties or side != "tie"]
    title = "simulated votes" if results["simulated"] else None
    columns = 3 if max(map(len, names.values())) <= LONG else 1
    legend = figure.legend(
        handles=handles, loc="outside upper center", ncols=columns, frameon=False, fontsize=9, title=title
    )
    for label in legend.get_texts():
        label.set_parse_math(False)  # names are the user's
    buffer = io.BytesIO()
    figure.savefig(buffer, format=kind)
    return buffer.getvalue()


def _bar(axes: Any, row: int, found: dict[str, Any], side_a: str) -> None:
    wins = found["preference"]["wins"]
    shares = {"a": wins, "tie": found["ties"], "b": found["votes"] - wins - found["ties"]}
    start = 0.0
    for (side, count), percent in zip(shares.items(), whole_percents([*shares.values()]), strict=True):
        share = count / found["votes"]
        axes.barh(row, share, left=start, height=0.54, color=COLOURS[side])
        if share > 0.06:
            colour = "#1f2328" if side == "tie" else "white"
            axes.text(start + share / 2, row, f"{percent} %", ha="center", va="center", color=colour, fontsize=9)
        start += share
    interval, rate, text = found["bootstrap"], found["preference"]["rate"], f"n = {found['votes']}"
    if not found["ties"]:  # the interval excludes ties: on the bar's scale only if there are none
        axes.plot([0.5, 0.5], [row - 0.27, row + 0.27], color="#1f2328", linewidth=0.8, linestyle=(0, (2, 2)))
        if interval is not None:
            axes.plot(interval, [row + 0.335] * 2, color="#1f2328", linewidth=1.2, marker="|", markersize=5)
    if rate is not None:
        name = side_a if len(side_a) <= LONG else f"{side_a[: LONG - 1]}…"
        text += f"; {name} preferred in {100 * rate:.1f} % of non-tied votes"
        text += "" if interval is None else f" ({100 * interval[0]:.1f} to {100 * interval[1]:.1f} %)"
    axes.text(0, row + 0.48, text, ha="left", va="center", color="#1f2328", fontsize=8, parse_math=False)


def whole_percents(counts: Sequence[int]) -> list[int]:
    """Shares in whole per cent that add up to 100 (largest remainder method)."""
    total = sum(counts)
    floors = [100 * count // total for count in counts]
    rests = sorted(range(len(counts)), key=lambda k: (-(100 * counts[k] % total), k))
    up = rests[: 100 - sum(floors)]
    return [floor + (k in up) for k, floor in enumerate(floors)]
