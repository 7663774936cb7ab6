"""`simdistill sample`: draw from a one-step generator."""

import io
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tyro.conf import Positional, UseAppendAction

from simdistill.commands.common import Common, own_teacher
from simdistill.config.options import first_word, parse_numbers, parse_options
from simdistill.data.listings import CAPTIONS, caption_lines
from simdistill.data.prompts import read_prompts
from simdistill.method.shapes import Pictures
from simdistill.reports.pictures import captioned, picture
from simdistill.support.checks import require
from simdistill.support.files import write_atomically
from simdistill.workflows.sampling import load_student

SAMPLES, EACH = 80, 4  # if no seeds are named: without prompts, and of each of them
SHEET = 640  # pixels that a sheet of small pictures is enlarged to, at least


@dataclass(frozen=True)
class _Sample(Common):
    run: Positional[Path] = Path()
    """Folder of the run, a .safetensors that a run kept, or the name of a shipped student: fashion-mnist, faces,
    faces-unguided."""
    seeds: str | None = None
    """Seeds of the samples, as 0-63 or 1,5,8-11; each gives the same sample in whatever company. If not given, 0-79,
    or four for each of the prompts."""
    prompt: UseAppendAction[tuple[str, ...]] = ()
    """What to draw, for a text-to-image run: seed s has the (s mod their number)-th; the run's own if not given."""
    prompts: Path | None = None
    """More to draw: a file of prompts, as of `simdistill encode`, figure-3, the paper's own three, or faces."""
    labels: str | None = None
    """Class labels, as 3 or 0-9: seed s has the (s mod their number)-th of them; all classes if not given."""
    out: Path | None = None
    """A .png with all samples, beside the prompts if any are given, a .npy with the numbers, or a folder for a .png
    each, with a metadata.jsonl of the prompts; RUN/samples.png if not given, samples.png here for a generator that is
    no run's folder. Latents are decoded for a .png, if the run's teacher can, and left as they are in a .npy."""
    ema: int = 0
    """Which of the recipe's EMAs of the generator, counted from 0."""
    teacher: str | None = None
    """The run's teacher, package.module:function, if its network is code of your own; its folder, if that has moved."""


ABOUT = """Draw samples from a one-step generator, one network evaluation each.

  simdistill sample runs/digits --seeds 0-63 --labels 3
  simdistill sample faces --prompt "a smiling person with long red hair" --seeds 0-15
  simdistill sample faces --prompts captions.txt --out pictures   a .png each, and their captions as metadata.jsonl
  simdistill sample runs/pixart --prompts figure-3 --seeds 0-2
  simdistill sample fashion-mnist                          a shipped student, as faces: nothing needs to be trained
  simdistill sample student.safetensors                    runs/NAME/generator.safetensors, as somebody gave it away
"""


def run(words: Sequence[str]) -> None:
    """`simdistill sample RUN …`."""
    run, rest = first_word(words, "sample", "RUN")
    options = parse_options(_Sample(), [run, *rest], "sample RUN", ABOUT)
    labels = None if options.labels is None else parse_numbers("--labels", options.labels)
    prompts = [*options.prompt, *([] if options.prompts is None else read_prompts(options.prompts))]
    many = EACH * len(prompts) or SAMPLES
    seeds = range(many) if options.seeds is None else parse_numbers("--seeds", options.seeds)
    idle = set(range(len(prompts))) - {seed % len(prompts) for seed in seeds if prompts}
    if idle:
        print(f"warning: {len(idle)} of {len(prompts)} prompts are not drawn: no seed is theirs", file=sys.stderr)
    out = options.out or (options.run if options.run.is_dir() else Path()) / "samples.png"
    student = load_student(options.run, own_teacher(options.teacher, options.run), options.device, options.ema)
    drawn = student.sample(seeds, labels, prompts, latents=out.suffix == ".npy")
    if out.suffix == ".npy":
        buffer = io.BytesIO()
        np.save(buffer, drawn.numpy())
        write_atomically(out, buffer.getvalue())
    elif out.suffix == ".png":
        write_atomically(out, _sheet(drawn, seeds, prompts))
    else:
        require(out.suffix == "", "--out", str(out), "a .png, a .npy, or a folder")
        names = [f"{seed:06d}.png" for seed in seeds]
        for name, one in zip(names, drawn, strict=True):
            write_atomically(out / name, picture(one[None], columns=1, edge=1))
        if prompts:
            captions = caption_lines(zip(names, (prompts[seed % len(prompts)] for seed in seeds), strict=True))
            write_atomically(out / CAPTIONS, captions.encode())
    result = {"out": str(out), "samples": len(drawn)}
    print(json.dumps(result) if options.json else f"{len(drawn)} sample{'s' if len(drawn) > 1 else ''} in {out}")


def _sheet(drawn: Pictures, seeds: Sequence[int], prompts: Sequence[str]) -> bytes:
    """All samples as one picture: those of a prompt in its row, others in a grid."""
    if not prompts or drawn.shape[1] not in (1, 3):  # latents that cannot be decoded
        columns = 10 if len(drawn) % 10 == 0 else round(len(drawn) ** 0.5 + 0.499)
        return picture(drawn, columns, edge=max(32, SHEET // columns))
    of = torch.tensor(seeds) % len(prompts)
    return captioned([(prompt, drawn[of == k]) for k, prompt in enumerate(prompts) if (of == k).any()])
