"""`simdistill features`: train the classifier whose features the metrics use."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from simdistill.config.options import first_word, parse_options
from simdistill.workflows import pretraining


@dataclass(frozen=True)
class _Features:
    json: bool = False
    """Print the results as JSON, and nothing else, on stdout."""
    out: Path | None = None
    """The file to write; runs/NAME-classifier.safetensors if not given."""
    features: int = 32
    """Hidden activations: the dimensions in which samples are compared."""
    iterations: int = 3000
    """Optimizer steps on 128 images each."""


def run(words: Sequence[str]) -> None:
    """`simdistill features DATA …`."""
    data, rest = first_word(words, "features", "DATA")
    about = """Train the classifier of labelled images whose hidden activations are the features of the metrics.

  simdistill features DATA    DATA is digits, a .zip or folder of images, CIFAR-10's archive, a folder of IDX files
"""
    options = parse_options(_Features(), rest, "features DATA", about)
    name = Path(data).name.partition(".")[0]
    out = options.out or Path("runs") / f"{name}-classifier.safetensors"
    shares = pretraining.train_features(data, out, options.features, options.iterations)
    accuracy = ", ".join(f"{part} {share:.4f}" for part, share in shares.items())
    print(json.dumps(shares) if options.json else f"{out}: accuracy {accuracy}")
