"""The results as bars, for a paper: how many votes went to either side, and to neither."""

import io
from typing import Any, Literal, TypeAlias

from matplotlib.figure import Figure
from matplotlib.patches import Patch

from simdistill.study.results import Results

Kind: TypeAlias = Literal["png", "svg", "pdf"]

COLOURS = {"a": "#bf4116", "tie": "#cfcabf", "b": "#2c62ad"}
LABELS = {"overall": "Overall", "text": "Text", "quality": "Quality"}


def bars(results: Results, kind: Kind = "png") -> bytes:
    """A bar a question, with the shares of all its votes, and the bootstrap's interval under the rate of a."""
    questions = {name: found for name, found in results["questions"].items() if found["votes"]}
    figure = Figure(figsize=(6.5, 0.75 + 0.75 * max(len(questions), 1)), dpi=200, layout="constrained")
    axes = figure.add_subplot()
    for row, found in enumerate(questions.values()):
        _bar(axes, row, found)
    axes.set_yticks(range(len(questions)), [LABELS[name] for name in questions])
    axes.invert_yaxis()
    axes.set_xlim(0, 1)
    axes.axvline(0.5, color="#1f2328", linewidth=0.8, linestyle=(0, (2, 2)))
    axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0 %", "25 %", "50 %", "75 %", "100 %"])
    axes.tick_params(length=0, labelsize=8)
    axes.spines[["top", "right", "left", "bottom"]].set_visible(False)
    names = {"a": results["a"], "tie": "tie", "b": results["b"]}
    ties = any(found["ties"] for found in questions.values())
    handles = [Patch(color=COLOURS[side], label=name) for side, name in names.items() if ties or side != "tie"]
    title = "simulated votes, of nobody" if results["simulated"] else None
    figure.legend(handles=handles, loc="outside upper center", ncols=3, frameon=False, fontsize=9, title=title)
    buffer = io.BytesIO()
    figure.savefig(buffer, format=kind)
    return buffer.getvalue()


def _bar(axes: Any, row: int, found: dict[str, Any]) -> None:
    wins = found["preference"]["wins"]
    shares = {"a": wins, "tie": found["ties"], "b": found["votes"] - wins - found["ties"]}
    start = 0.0
    for side, count in shares.items():
        share = count / found["votes"]
        axes.barh(row, share, left=start, height=0.6, color=COLOURS[side])
        if share > 0.06:
            colour = "#1f2328" if side == "tie" else "white"
            text = f"{100 * share:.0f} %"
            axes.text(start + share / 2, row, text, ha="center", va="center", color=colour, fontsize=9)
        start += share
    interval = found["bootstrap"]
    if interval is not None and not found["ties"]:  # of the votes for either, so it fits only where these are all
        axes.plot(interval, [row + 0.42] * 2, color="#1f2328", linewidth=1.2, marker="|", markersize=5)
