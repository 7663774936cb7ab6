"""`simdistill score`: text-to-image pictures scored by CLIP and by networks that were taught what people prefer."""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from tyro.conf import Positional

from simdistill.commands.common import Common
from simdistill.config.options import parse_options
from simdistill.evaluation.preferences import TITLES
from simdistill.support.checks import require
from simdistill.support.files import write_atomically
from simdistill.workflows.scoring import Protocol, is_run, score


@dataclass(frozen=True)
class _Score(Common):
    models: Positional[tuple[Path, ...]] = ()
    """Folders of text-to-image runs, whose teacher and student draw, or faces, faces-unguided, the shipped ones; and
    folders of pictures, one a prompt."""
    prompts: Path = Path()
    """figure-3, the paper's; a .txt (one a line), .csv, .tsv, .parquet, .jsonl; or a folder of `simdistill encode`."""
    column: str = ""
    """What a table or JSON calls the prompts; the first of prompt, caption, text and txt if empty."""
    clip: Path | None = None
    """A folder of transformers' CLIPModel, as openai/clip-vit-large-patch14: the CLIP score."""
    aesthetic: Path | None = None
    """sac+logos+ava1-l14-linearMSE.pth, LAION's predictor: the aesthetic score. --clip must be ViT-L/14 then."""
    pickscore: Path | None = None
    """The folder of PickScore_v1: PickScore."""
    image_reward: Path | None = None
    """ImageReward.pt, with the vocab.txt of bert-base-uncased beside it: ImageReward."""
    hpsv2: Path | None = None
    """HPS_v2.1_compressed.pt or HPS_v2_compressed.pt, in the folder of CLIP-ViT-H-14-laion2B-s32B-b79K: HPSv2."""
    seed: int = 0
    """Of the first prompt's picture; each further one has the next."""
    student_only: bool = False
    """Leave out runs' teachers, whose many evaluations take most of the time."""
    out: Path | None = None
    """A .json for the figures; a .csv beside it has a row a picture. scores.json in the first run, else here."""


ABOUT = """Score one picture a prompt by each model, drawn from the same seeds, and show the scores side by side: means
and standard deviations over the prompts, and the mean difference from the first model with its standard error.

  simdistill score runs/pixart --prompts figure-3 --clip clip-vit-large-patch14
  simdistill score runs/pixart sdxl-turbo --prompts coco.txt --clip clip-vit-large-patch14 \\
      --aesthetic sac+logos+ava1-l14-linearMSE.pth --pickscore PickScore_v1

sdxl-turbo is a folder with pictures of another model: 0.png for the first prompt, and so on. Nothing is downloaded: the
weights are yours to bring, docs/text-to-image.md says from where.
"""


def run(words: Sequence[str]) -> None:
    """`simdistill score MODEL … --prompts FILE …`."""
    options = parse_options(_Score(), words, "score MODEL …", ABOUT)
    require(len(options.models) > 0, "MODEL", "", "given: a run's folder, a shipped student or a folder of pictures")
    require(options.prompts != Path(), "--prompts", "", "given: a file of prompts, or figure-3")
    runs = [path for path in options.models if is_run(path) and path.is_dir()]
    out = options.out or (runs[0] if runs else Path()) / "scores.json"
    require(out.suffix == ".json", "--out", str(out), "a .json; the .csv will be beside it")
    weights = {name: getattr(options, name) for name in TITLES}
    protocol = Protocol(options.prompts, options.seed, options.column, options.student_only, options.device)
    found = score(options.models, weights, protocol)
    figures = {"source": str(options.prompts), "seed": options.seed, **found.figures()}
    write_atomically(out, json.dumps(figures, indent=2).encode())
    write_atomically(out.with_suffix(".csv"), found.table())
    if options.json:
        return print(json.dumps(figures))
    _print(figures)
    return print(f"{figures['prompts']} prompts; every picture's scores are in {out.with_suffix('.csv')}")


def _print(figures: dict[str, Any]) -> None:
    """The figures as a table: a row a model, then a row a difference."""
    rows: dict[str, dict[str, str]] = {}
    for model, scores in figures["models"].items():
        rows[model] = {name: _pair(found["mean"], found["std"]) for name, found in scores.items()}
    for model, scores in figures["differences"].items():
        title = f"{model} - {figures['compared_with']}"
        rows[title] = {name: _pair(found["mean"], found["error"], "+") for name, found in scores.items()}
    table = Table(box=None, pad_edge=False)
    table.add_column("")
    for name in figures["weights"]:
        table.add_column(TITLES[name], justify="right", overflow="fold")
    for title, cells in rows.items():
        table.add_row(title, *cells.values())
    Console(file=sys.stdout, width=None if sys.stdout.isatty() else 120, markup=False).print(table)


def _pair(mean: float, spread: float | None, sign: str = "") -> str:
    return f"{mean:{sign}.3f}" + ("" if spread is None else f" ± {spread:.3f}")
