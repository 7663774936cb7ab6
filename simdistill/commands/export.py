"""`simdistill export`: export a generator as a file that runs without this package."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tyro.conf import Positional

from simdistill.commands.common import ABOUT_RUN, EmaPlace, Json, TeacherOfRun, own_teacher
from simdistill.config.options import first_word, parse_options
from simdistill.support.bar import progress_bar
from simdistill.workflows import exporting
from simdistill.workflows.pipelines import export_pipeline

ABOUT = f"""Export a student as a file that runs without this package.

  simdistill export runs/digits --to onnx
  simdistill export runs/pixart --to diffusers

- The file maps standard normal z (and class labels) to samples.
- --to diffusers is for text-to-image students. It writes the folder of a
  pipeline, to be called with num_inference_steps=1, guidance_scale=1.
- Before it is kept, the file is read back and compared with the generator on
  batches of several sizes.
- docs/export.md shows how to run each format.
{ABOUT_RUN}
- RUN may also be a file: the generator.safetensors of a run.
"""


@dataclass(frozen=True)
class _Export:
    run: Positional[Path] = Path()
    """Folder of a run, the .safetensors of a generator, or a shipped student: fashion-mnist, faces, faces-unguided."""
    to: Literal["safetensors", "onnx", "torch-export", "diffusers"] = "safetensors"
    """Format: safetensors (weights, with how to use them, for the library that the network is from),
    onnx (for ONNX Runtime), torch-export (for PyTorch alone), or diffusers (a pipeline, for text-to-image)."""
    out: Path | None = None
    """Output file; if not given, one-step with the format's suffix in RUN if that is a folder, otherwise RUN-one-step.
    With --to diffusers: output folder; RUN/pipeline if not given."""
    ema: EmaPlace = 0
    teacher: TeacherOfRun = None
    json: Json = False


def run(words: Sequence[str]) -> None:
    """`simdistill export RUN …`."""
    run, rest = first_word(words, "export", "RUN")
    options = parse_options(_Export(), [run, *rest], "export RUN", ABOUT)
    teacher = own_teacher(options.teacher, options.run)
    with progress_bar(f"exporting to {options.to}, and comparing"):
        if options.to == "diffusers":
            found = export_pipeline(options.run, options.out, teacher, options.ema)
        else:
            found = exporting.export(options.run, options.to, options.out, teacher, options.ema)
    files = found.path.rglob("*") if found.path.is_dir() else [found.path]
    result = {"out": str(found.path), "to": options.to, "bytes": sum(file.stat().st_size for file in files)}
    result |= {"difference": found.difference, **found.about}
    said = f"{found.path}: {result['bytes']:,} bytes; largest difference from the generator: {found.difference:.1e}"
    print(json.dumps(result) if options.json else said)
