"""`simdistill gallery`: exact two-dimensional densities, distilled."""

import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from rich.console import Console
from rich.table import Table
from tyro.conf import Positional, arg

from simdistill.commands.common import Common, limit_threads
from simdistill.commands.settings import about_blocks
from simdistill.config.options import parse_options
from simdistill.config.recipes import RECIPES, Recipe
from simdistill.data.densities import DENSITIES
from simdistill.evaluation.table import metric_named
from simdistill.gallery.figures import SHOWN
from simdistill.gallery.making import make_gallery
from simdistill.gallery.page import SETS
from simdistill.support.checks import require
from simdistill.support.files import check_output


@dataclass(frozen=True)
class _Gallery(Common):
    densities: Positional[tuple[str, ...]] = ()
    """gaussians-25, gaussians-8, rings, checkerboard; all if none is given."""
    out: Path = Path("runs/gallery")
    """Folder of the gallery."""
    settings: Annotated[Recipe, arg(name="")] = RECIPES["densities"]


ABOUT = """Distil two-dimensional densities whose scores are known exactly.

  simdistill gallery
  simdistill gallery rings --iterations 500 \\
      --objective "ScoreIdentity(alpha=0.5)" --out runs/rings-sid

- OUT/gallery.html shows, for each density, an animation of the training, final
  samples beside exact ones, and metrics.
- A density takes about four minutes on an idle core.
- The settings are those of `distill`.
- If stopped, the same command resumes the gallery; with more densities, it
  distils only the missing ones.
"""


def run(words: Sequence[str]) -> None:
    """`simdistill gallery [DENSITY …]`."""
    options = parse_options(_Gallery(), words, "gallery", f"{ABOUT}\n{about_blocks()}")
    densities = tuple(dict.fromkeys(options.densities)) or tuple(DENSITIES)
    for name in densities:
        require(name in DENSITIES, "DENSITY", name, f"one of {', '.join(DENSITIES)}")
    limit_threads(0)
    given = options.settings.teacher
    require(given == RECIPES["densities"].teacher, "--teacher", given, "left out: the densities are the teachers")
    check_output(options.out, folder=True)
    command = shlex.join(["simdistill", "gallery", *words])
    figures = make_gallery(densities, options.settings, options.out, options.device, command)
    if options.json:
        return print(json.dumps({"out": str(options.out), "densities": figures}))
    _print_figures(figures)
    print(f"page: {options.out / 'gallery.html'}")
    return None


def _print_figures(figures: Mapping[str, Mapping[str, Any]]) -> None:
    metrics = [metric_named(name) for name in SHOWN]
    table = Table(box=None, pad_edge=False)
    for heading in ("", "", *(metric.title.lower() for metric in metrics)):
        table.add_column(heading, justify="right" if heading else "left", overflow="fold")
    for name, found in figures.items():
        for key, title in SETS.items():
            cells = [metric.text(found[key][metric.name], spread=True) for metric in metrics]
            table.add_row(name, title.lower(), *cells)
    Console(file=sys.stdout, width=None if sys.stdout.isatty() else 140).print(table)
