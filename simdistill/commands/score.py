"""`simdistill score`: score text-to-image samples by CLIP and by models of human preference."""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from tyro.conf import Positional

from simdistill.commands.common import Column, Common, FirstSeed
from simdistill.config.options import parse_options
from simdistill.evaluation.preferences import TITLES
from simdistill.support.checks import require
from simdistill.support.files import check_output, file_name, write_atomically
from simdistill.workflows.scoring import Protocol, is_run, score


@dataclass(frozen=True)
class _Score(Common):
    models: Positional[tuple[Path, ...]] = ()
    """Text-to-image runs (teacher and student), the shipped students faces and faces-unguided,
    or folders with one image per prompt."""
    prompts: Path = Path()
    """Prompts to draw: figure-3 (the paper's), faces, or a file: .txt (one per line), .csv, .tsv, .parquet, .jsonl;
    or a folder of `simdistill encode`."""
    column: Column = ""
    clip: Path | None = None
    """For the CLIP score: folder of a transformers CLIPModel such as openai/clip-vit-large-patch14."""
    aesthetic: Path | None = None
    """For the aesthetic score: LAION's sac+logos+ava1-l14-linearMSE.pth; needs a ViT-L/14 as --clip."""
    pickscore: Path | None = None
    """For PickScore: folder of PickScore_v1."""
    image_reward: Path | None = None
    """For ImageReward: ImageReward.pt, with the vocab.txt of bert-base-uncased beside it."""
    hpsv2: Path | None = None
    """For HPSv2: HPS_v2.1_compressed.pt or HPS_v2_compressed.pt, in the folder of CLIP-ViT-H-14-laion2B-s32B-b79K."""
    seed: FirstSeed = 0
    student_only: bool = False
    """Leave out the runs' teachers, which take most of the time."""
    out: Path | None = None
    """Output .json, with a .csv beside it (one row per image); if not given, scores-MODELS-PROMPTS.json in the first
    run, or here."""


ABOUT = """Score text-to-image models: one image per prompt, from the same seeds.

  simdistill score runs/pixart --prompts figure-3 --clip clip-vit-large-patch14
  simdistill score runs/pixart sdxl-turbo --prompts coco.txt \\
      --clip clip-vit-large-patch14 --pickscore PickScore_v1 \\
      --aesthetic sac+logos+ava1-l14-linearMSE.pth

- Prints means and standard deviations over the prompts, and the mean difference
  from the first model with its standard error.
- sdxl-turbo is a folder of another model's images: 0.png for the first prompt,
  and so on.
- Nothing is downloaded. docs/text-to-image.md says where to get the weights.
"""


def run(words: Sequence[str]) -> None:
    """`simdistill score MODEL … --prompts FILE …`."""
    options = parse_options(_Score(), words, "score MODEL …", ABOUT)
    require(len(options.models) > 0, "MODEL", "", "given: a run's folder, a shipped student or a folder of images")
    require(options.prompts != Path(), "--prompts", "", "given: a file of prompts, or figure-3")
    runs = [path for path in options.models if is_run(path) and path.is_dir()]
    out = options.out or (runs[0] if runs else Path()) / _file_of(options)
    require(out.suffix == ".json", "--out", str(out), "a .json; a .csv is written beside it")
    check_output(out)
    weights = {name: getattr(options, name) for name in TITLES}
    protocol = Protocol(options.prompts, options.seed, options.column, options.student_only, options.device)
    found = score(options.models, weights, protocol)
    figures = {"source": str(options.prompts), "seed": options.seed, **found.figures()}
    write_atomically(out, json.dumps(figures, indent=2).encode())
    write_atomically(out.with_suffix(".csv"), found.table())
    if options.json:
        return print(json.dumps(figures))
    _print(figures)
    return print(f"{figures['prompts']} prompts; scores of each image: {out.with_suffix('.csv')}")


def _file_of(options: _Score) -> str:
    """A name that tells what was scored, so that other scores are not overwritten."""
    models = [path.resolve().name for path in options.models]
    parts = ["scores", *models, options.prompts.stem, *([f"seed-{options.seed}"] if options.seed else [])]
    return f"{file_name(*parts)}.json"


def _print(figures: dict[str, Any]) -> None:
    """Print the scores as a table: one row per model, then one row per difference."""
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
