"""`simdistill convert`: a published teacher as a file of this package."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional

from simdistill.options import first_word, parse_options
from simdistill.workflows import converting

ABOUT = """Store the network of an EDM checkpoint as a safetensors file, which loads faster and anywhere.

  simdistill convert edm-cifar10-32x32-uncond-vp.pkl cifar10.safetensors
  simdistill distill cifar10-uncond --teacher cifar10.safetensors

Nothing in the .pkl is executed, here as with --teacher FILE.pkl: docs/teachers.md says how it is read."""


@dataclass(frozen=True)
class _Convert:
    source: Positional[Path] = Path()
    """The .pkl file to read."""
    out: Positional[Path] = Path()
    """The .safetensors file to write."""
    overwrite: bool = False
    """Replace the file if it is there already."""
    json: bool = False
    """Print the results as JSON, and nothing else, on stdout."""


def run(words: Sequence[str]) -> None:
    """`simdistill convert FILE.pkl FILE.safetensors …`."""
    source, rest = first_word(words, "convert", "FILE.pkl")
    out, rest = first_word(rest, "convert FILE.pkl", "FILE.safetensors")
    options = parse_options(_Convert(), [source, out, *rest], "convert FILE.pkl FILE.safetensors", ABOUT)
    result = converting.convert(options.source, options.out, options.overwrite)
    if options.json:
        return print(json.dumps(result))
    shape = "×".join(map(str, result["shape"]))
    what = f"{result['network']} with {result['parameters']:,} parameters, {result['preconditioning']}"
    return print(f"{options.out}: {what}, samples {shape}, {result['classes'] or 'no'} classes")
