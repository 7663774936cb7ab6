"""`gallery.html`: a self-contained page of the densities."""

import base64
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from simdistill.evaluation.table import metric_named
from simdistill.gallery.figures import PAIRED, SEEDS, SHOWN
from simdistill.gallery.frames import LEVEL
from simdistill.reports.report import embedded, templates
from simdistill.support.bar import duration

ABOUT = {
    "gaussians-25": "25 narrow Gaussians, σ = 0.05, at a distance of 1: a continuous map has to bridge them.",
    "gaussians-8": "8 narrow Gaussians, σ = 0.05, on a circle: no mass in the middle, where the noise is densest.",
    "rings": "Two concentric rings: shapes with holes, of 96 components that overlap along them.",
    "checkerboard": "Eight squares that touch at corners: edges on all sides, of 128 components that overlap.",
}
SETS = {"student": "Student", "exact": "Exact samples", "undistilled": "Undistilled start"}


def gallery_page(out: Path, figures: Mapping[str, Mapping[str, Any]], command: str) -> str:
    """The HTML of the finished densities, by name, from the pictures in their folders."""
    return (
        templates("simdistill.gallery")
        .get_template("gallery.html.jinja")
        .render(
            figures=figures,
            about=ABOUT,
            sets=SETS,
            films={name: _film(out / name / "animation.webp") for name in figures},
            stills={name: embedded(out / name / "beside.png") for name in figures},
            command=command,
            level=LEVEL,
            seeds=SEEDS,
            paired=PAIRED,
            duration=duration,
            metrics=[metric_named(name) for name in SHOWN],
            level_colours={"light": [], "dark": []},
        )
    )


def _film(path: Path) -> str:
    return f"data:image/webp;base64,{base64.b64encode(path.read_bytes()).decode()}"
