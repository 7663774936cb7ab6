"""Exporting a generator as a file that runs without this package, and comparing it with the generator."""

import contextlib
import io
import logging
import sys
import warnings
from collections.abc import Generator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from simdistill.method.generator import Generator as Student
from simdistill.method.samplers import noise_from_seeds
from simdistill.support.checks import require
from simdistill.support.files import check_output, file_name, replacing
from simdistill.teachers.teacher import Teacher
from simdistill.workflows.formats import FORMATS, Sampler
from simdistill.workflows.models import load_generator

TOLERANCE = 1e-4
BATCHES = (1, 3, 65)
CHECK_SEED = 2**30  # first seed of the compared samples


@dataclass(frozen=True)
class Exported:
    """The result of `export`: the file, its metadata, and the largest difference from the generator's samples."""

    path: Path
    about: dict[str, Any]
    difference: float


def export(
    out: str | Path, to: str, path: Path | None = None, teacher: Teacher | None = None, ema: int = 0
) -> Exported:
    """Export the generator `out` (see `load_generator`) as a file that maps standard normal z (and labels) to samples.

    `to` is safetensors, onnx or torch-export. Before it is kept, the file is read back and compared with the generator
    on batches of several sizes. `path` is by default `one-step` (or `4-steps`, …) with the format's suffix, in the
    run's folder; of another generator it is in the current folder, with its name before. Give the `teacher` if its
    network is your own code.

    Raises `ValueError` for an unknown generator or format, a missing library, a network that cannot be exported, or
    samples that differ by more than 1e-4.
    """
    require(to in FORMATS, "--to", to, f"one of {', '.join(FORMATS)}")
    form = FORMATS[to]
    if path is not None:
        check_output(path)
    generator, facts = load_generator(out, teacher, ema)
    what = "diffusers for a text-to-image generator, whose teacher must be a pipeline's folder"
    require(not facts.get("text"), "--to", to, what)
    shape, classes = tuple(facts["shape"]), int(facts["classes"])
    steps = "one-step" if len(generator.levels) == 1 else f"{len(generator.levels)}-steps"
    own = Path(out).is_dir()
    name = file_name("" if own else Path(out).stem, steps, f"ema-{ema}" if ema else "")
    path = path or (Path(out) if own else Path()) / f"{name}{form.suffix}"
    require(path.suffix == form.suffix, "--out", str(path), f"a {form.suffix} for --to {to}")
    check_output(path)
    place, source = path.resolve(), Path(out).resolve()
    mine = place == source or (path.name.startswith("generator") and place.parent == source)
    require(not mine, "--out", str(path), "another file: this one may belong to the run")
    about = _describe(generator, shape, classes)
    _say(f"exporting {sum(p.numel() for p in generator.parameters()):,} parameters to {to}")
    with replacing(path) as temporary:
        with _silenced():
            about |= form.write(generator, about, temporary)
            sampler = form.read(generator, temporary)
        _say(f"comparing batches of {', '.join(map(str, BATCHES))} samples with the generator's")
        difference = _difference(sampler, generator, shape, classes)
        require(difference <= TOLERANCE, f"{path}: difference from the generator", difference, f"at most {TOLERANCE}")
    return Exported(path, about, difference)


def _describe(generator: Student, shape: tuple[int, ...], classes: int) -> dict[str, Any]:
    """The description of a file for its readers, as JSON values."""
    inputs = {"z": f"float32 [batch, {', '.join(map(str, shape))}], standard normal"}
    labels = {"labels": f"int64 [batch], 0 to {classes - 1}"} if classes else {}
    return {
        "simdistill": version("simdistill"),
        "inputs": inputs | labels,
        "samples": "float32, the shape of z, in the units of the teacher's data: pictures in [-1, 1], not clipped",
        "shape": list(shape),
        "classes": classes,
        "levels": list(generator.levels),
        "nfe": generator.nfe,
    }


@torch.no_grad()
def _difference(sampler: Sampler, generator: Student, shape: tuple[int, ...], classes: int) -> float:
    """The largest difference between the sampler's and the generator's samples, over batches of `BATCHES`."""
    found: list[torch.Tensor] = []
    for n in BATCHES:
        z = noise_from_seeds(range(CHECK_SEED, CHECK_SEED + n), shape)
        rng = torch.Generator().manual_seed(n)
        labels = torch.randint(classes, (n,), generator=rng) if classes else None
        found.append((sampler(z, labels) - generator(z, labels)).abs().max())
    return float(torch.stack(found).max())  # NaN if one is NaN


@contextlib.contextmanager
def _silenced() -> Generator[None]:
    """Suppress what exporters print, warn and log; errors still show."""
    level, said = logging.root.manager.disable, io.StringIO()
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)


def _say(what: str) -> None:
    print(what, file=sys.stderr, flush=True)
