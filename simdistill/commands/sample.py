"""`simdistill sample`: draw samples from a student."""

import io
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tyro.conf import Positional, UseAppendAction

from simdistill.commands.common import ABOUT_RUN, Common, EmaPlace, Prompts, TeacherOfRun, own_teacher
from simdistill.config.options import first_word, parse_numbers, parse_options
from simdistill.data.listings import CAPTIONS, caption_lines
from simdistill.data.notes import Notes
from simdistill.data.prompts import read_prompts
from simdistill.method.shapes import Pictures
from simdistill.reports.pictures import captioned, picture
from simdistill.support.bar import progress_bar
from simdistill.support.checks import require
from simdistill.support.files import check_output, file_name, write_atomically
from simdistill.workflows.sampling import load_student

SAMPLES, EACH = 80, 4  # the default number of samples: in total without prompts, or per prompt
SHEET = 640  # pixels to which a sheet of small images is enlarged, at least


@dataclass(frozen=True)
class _Sample(Common):
    run: Positional[Path] = Path()
    """Folder of a run, the .safetensors of a generator, or a shipped student: fashion-mnist, faces, faces-unguided."""
    seeds: str | None = None
    """Random seeds of the samples, as 0-63 or 1,5,8-11; a seed gives the same sample regardless of batch.
    If not given: 0-79, or four per prompt."""
    prompt: UseAppendAction[tuple[str, ...]] = ()
    """Prompt to draw, for a text-to-image run; the run's own prompts if none is given.
    With n prompts, seed s has prompt number s mod n."""
    prompts: Prompts = None
    labels: str | None = None
    """Class labels, as 3 or 0-9; all classes if not given. With n labels, seed s has label number s mod n."""
    out: Path | None = None
    """Output: a .png of all samples (with their prompts), a .npy of the values, or a folder with a .png per sample.
    A folder also gets a metadata.jsonl of the prompts. If not given: samples.png in RUN if that is a folder, otherwise
    RUN-samples.png here; the name also tells the --labels, --seeds, prompts and --ema that were asked for.
    Latents are decoded for a .png (if the teacher can), but not for a .npy."""
    ema: EmaPlace = 0
    teacher: TeacherOfRun = None


ABOUT = f"""Draw samples from a student, one per seed.

  simdistill sample runs/digits --seeds 0-63 --labels 3
  simdistill sample runs/pixart --prompts figure-3 --seeds 0-2
  simdistill sample faces --prompt "a smiling person with long red hair"
  simdistill sample faces --prompts captions.txt --out images
  simdistill sample fashion-mnist

{ABOUT_RUN}
- RUN may also be a file: the generator.safetensors of a run.
"""


def run(words: Sequence[str]) -> None:
    """`simdistill sample RUN …`."""
    run, rest = first_word(words, "sample", "RUN")
    options = parse_options(_Sample(), [run, *rest], "sample RUN", ABOUT)
    labels = None if options.labels is None else parse_numbers("--labels", options.labels)
    notes = Notes()
    prompts = [*options.prompt, *([] if options.prompts is None else read_prompts(options.prompts, notes=notes))]
    notes.tell("prompts")
    many = EACH * len(prompts) or SAMPLES
    seeds = range(many) if options.seeds is None else parse_numbers("--seeds", options.seeds)
    idle = set(range(len(prompts))) - {seed % len(prompts) for seed in seeds if prompts}
    if idle:
        print(f"warning: too few seeds: {len(idle)} of {len(prompts)} prompts are not drawn", file=sys.stderr)
    out = options.out or (options.run if options.run.is_dir() else Path()) / _file_of(options)
    known = out.suffix in (".npy", ".png", "")
    require(known, "--out", str(out), "a .png, a .npy, or a folder")
    check_output(out, folder=out.suffix == "")
    with progress_bar("loading the student"):
        student = load_student(options.run, own_teacher(options.teacher, options.run), options.device, options.ema)
    with progress_bar("sampling", len(seeds)) as bar:
        drawn = student.sample(seeds, labels, prompts, latents=out.suffix == ".npy", advance=bar)
    if out.suffix == ".npy":
        buffer = io.BytesIO()
        np.save(buffer, drawn.numpy())
        write_atomically(out, buffer.getvalue())
    elif out.suffix == ".png":
        write_atomically(out, _sheet(drawn, seeds, prompts))
    else:
        names = [f"{seed:06d}.png" for seed in seeds]
        for name, one in zip(names, drawn, strict=True):
            write_atomically(out / name, picture(one[None], columns=1, edge=1))
        if prompts:
            captions = caption_lines(zip(names, (prompts[seed % len(prompts)] for seed in seeds), strict=True))
            write_atomically(out / CAPTIONS[0], captions.encode())
    result = {"out": str(out), "samples": len(drawn)}
    print(json.dumps(result) if options.json else f"{len(drawn)} sample{'s' if len(drawn) > 1 else ''} in {out}")


def _file_of(options: _Sample) -> str:
    """A name that tells what was drawn, so that another picture is not overwritten."""
    asked = {"labels": options.labels, "seeds": options.seeds, "ema": str(options.ema or "")}
    parts = ["" if options.run.is_dir() else options.run.stem, "samples"]
    parts += [f"{name}-{value}" for name, value in asked.items() if value]
    parts += ["" if options.prompts is None else options.prompts.stem, " ".join(options.prompt)]
    return f"{file_name(*parts)}.png"


def _sheet(drawn: Pictures, seeds: Sequence[int], prompts: Sequence[str]) -> bytes:
    """All samples as one image: one row per prompt, or a grid without prompts."""
    if not prompts or drawn.shape[1] not in (1, 3):  # latents that cannot be decoded
        columns = 10 if len(drawn) % 10 == 0 else round(len(drawn) ** 0.5 + 0.499)
        return picture(drawn, columns, edge=max(32, SHEET // columns))
    of = torch.tensor(seeds) % len(prompts)
    return captioned([(prompt, drawn[of == k]) for k, prompt in enumerate(prompts) if (of == k).any()])
