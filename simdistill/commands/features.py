"""`simdistill features`: train a classifier whose features the metrics can use."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from simdistill.commands.common import Json, Overwrite, Pad
from simdistill.config.options import first_word, parse_options
from simdistill.support.checks import require
from simdistill.support.files import check_output
from simdistill.workflows import pretraining


@dataclass(frozen=True)
class _Features:
    json: Json = False
    overwrite: Overwrite = False
    out: Path | None = None
    """Output file; runs/NAME-classifier.safetensors if not given."""
    features: int = 32
    """Number of hidden features: the dimension of the feature space."""
    iterations: int = 3000
    """Training iterations, each on a batch of 128 images."""
    pad: Pad = 0


def run(words: Sequence[str]) -> None:
    """`simdistill features DATA …`."""
    data, rest = first_word(words, "features", "DATA")
    about = """Train a classifier whose hidden features the metrics can use.

  simdistill features DATA

- DATA is labelled images: digits, a .zip or folder of images, CIFAR-10's
  archive, or a folder of IDX files.
"""
    options = parse_options(_Features(), rest, "features DATA", about)
    name = Path(data).name.partition(".")[0]
    out = options.out or Path("runs") / f"{name}-classifier.safetensors"
    free = options.overwrite or not out.exists()
    require(free, "--out", str(out), "a new file; give another, or --overwrite it")
    check_output(out)
    shares, notes = pretraining.train_features(data, out, options.features, options.iterations, options.pad)
    notes.tell(name)
    accuracy = ", ".join(f"{part} {share:.4f}" for part, share in shares.items())
    print(json.dumps({**shares, "notes": notes.counts()}) if options.json else f"{out}: accuracy {accuracy}")
