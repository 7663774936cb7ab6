"""`simdistill export`: a generator as a file that runs without this package."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tyro.conf import Positional

from simdistill.commands.common import own_teacher
from simdistill.config.options import first_word, parse_options
from simdistill.workflows import exporting
from simdistill.workflows.pipelines import export_pipeline

ABOUT = """Write a one-step generator as one file: standard normal z, and class labels, to samples.

A text-to-image student becomes a diffusers pipeline's folder (--to diffusers), whose pipeline is called with
num_inference_steps=1, guidance_scale=1.

The file is read back, and compared with the generator on batches of several sizes, before it takes its place.
docs/export.md has the lines that run each of them.
"""


@dataclass(frozen=True)
class _Export:
    run: Positional[Path] = Path()
    """Folder of the run, a .safetensors that a run kept, or the name of a shipped student: fashion-mnist, faces,
    faces-unguided."""
    to: Literal["safetensors", "onnx", "torch-export", "diffusers"] = "safetensors"
    """The format: safetensors has the network's weights and how to use them, for the library that they come from; onnx
    runs in ONNX Runtime, torch-export in torch alone; diffusers is for text-to-image runs."""
    out: Path | None = None
    """The file to write; one-step with the format's suffix if not given, in RUN or, for a file or a name, here. Of
    diffusers the folder; RUN/pipeline if not given."""
    ema: int = 0
    """Which of the recipe's EMAs of the generator, counted from 0."""
    teacher: str | None = None
    """The run's teacher, package.module:function, if its network is code of your own; its folder, if that has moved."""
    json: bool = False
    """Print the result as JSON, and nothing else, on stdout."""


def run(words: Sequence[str]) -> None:
    """`simdistill export RUN …`."""
    run, rest = first_word(words, "export", "RUN")
    options = parse_options(_Export(), [run, *rest], "export RUN", ABOUT)
    teacher = own_teacher(options.teacher, options.run)
    if options.to == "diffusers":
        found = export_pipeline(options.run, options.out, teacher, options.ema)
    else:
        found = exporting.export(options.run, options.to, options.out, teacher, options.ema)
    files = found.path.rglob("*") if found.path.is_dir() else [found.path]
    result = {"out": str(found.path), "to": options.to, "bytes": sum(file.stat().st_size for file in files)}
    result |= {"difference": found.difference, **found.about}
    said = f"{found.path}: {result['bytes']:,} bytes; largest difference from the generator {found.difference:.1e}"
    print(json.dumps(result) if options.json else said)
