"""`simdistill features`: train the classifier whose features the metrics use."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from simdistill.options import first_word, parse_options
from simdistill.workflows import pretraining


@dataclass(frozen=True)
class _Features:
    json: bool = False
    """Print the results as JSON, and nothing else, on stdout."""
    out: Path = Path("runs/digits-classifier.safetensors")
    """The file to write."""


def run(words: Sequence[str]) -> None:
    """`simdistill features digits …`."""
    name, rest = first_word(words, "features", "DATA", ["digits"])
    about = "Train the classifier whose features the metrics use."
    options = parse_options(_Features(), rest, f"features {name}", about)
    accuracy = pretraining.train_features(options.out)
    shares = ", ".join(f"{part} {share:.4f}" for part, share in accuracy.items())
    print(json.dumps(accuracy) if options.json else f"{options.out}: accuracy {shares}")
