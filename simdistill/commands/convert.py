"""`simdistill convert`: a published teacher or generator as files of this package, or images as EDM's zip."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional

from simdistill.config.options import first_word, parse_options
from simdistill.support.checks import require
from simdistill.workflows import converting

ABOUT = """Store the network of an EDM checkpoint as a safetensors file, which loads faster and anywhere.

  simdistill convert edm-cifar10-32x32-uncond-vp.pkl cifar10.safetensors
  simdistill distill cifar10-uncond --teacher cifar10.safetensors

Nothing in the .pkl is executed, here as with --teacher FILE.pkl: docs/teachers.md says how it is read.

Or make the text-to-image generator that the paper's authors publish, a .pth, a run's folder; its teacher is a diffusers
folder. Nothing in the .pth is executed either.

  simdistill convert SIM-DiT-600M.pth runs/sim-dit --teacher PixArt-XL-2-512x512
  simdistill sample runs/sim-dit --prompt "a happy cactus in the Sahara"

Or store images, CIFAR-10's archive, a folder, IDX files (docs/data.md), as a zip in EDM's format; of images with a
held-out part, the others.

  simdistill convert cifar-10-python.tar.gz cifar10-32x32.zip
"""


@dataclass(frozen=True)
class _Convert:
    source: Positional[Path] = Path()
    """The .pkl or .pth file, or the images, to read."""
    out: Positional[Path] = Path()
    """The .safetensors file, for a .pth the run's folder, or for images the .zip, to write."""
    teacher: Path | None = None
    """For a .pth: the diffusers folder of its teacher, PixArt-alpha."""
    overwrite: bool = False
    """Replace the file or the run if it is there already."""
    half: bool = False
    """Store the weights in half precision, half the size; the source may be any .safetensors of a network, too."""
    json: bool = False
    """Print the results as JSON, and nothing else, on stdout."""


def run(words: Sequence[str]) -> None:
    """`simdistill convert FILE.pkl FILE.safetensors …`, `… FILE.pth RUN …` or `… IMAGES FILE.zip …`."""
    source, rest = first_word(words, "convert", "FILE.pkl, FILE.pth or IMAGES")
    out, rest = first_word(rest, "convert SOURCE", "FILE.safetensors, RUN or FILE.zip")
    options = parse_options(_Convert(), [source, out, *rest], "convert SOURCE OUT", ABOUT)
    if options.source.suffix == ".pth":
        return _generator(options)
    require(options.teacher is None, "--teacher", str(options.teacher), "left out: it is for a .pth")
    if options.out.suffix == ".zip":
        require(not options.half, "--half", True, "left out: it is for weights")
        result = converting.convert_images(str(options.source), options.out, options.overwrite)
        what = f"{result['images']:,} images"
    else:
        result = converting.convert_teacher(options.source, options.out, options.overwrite, options.half)
        what = f"{result['network']} with {result['parameters']:,} parameters, {result['preconditioning']}, samples"
    if options.json:
        return print(json.dumps(result))
    shape = "×".join(map(str, result["shape"]))
    return print(f"{options.out}: {what} {shape}, {result['classes'] or 'no'} classes")


def _generator(options: _Convert) -> None:
    if options.teacher is None:
        raise ValueError("--teacher is missing: name the diffusers folder of the .pth's teacher, PixArt-XL-2-512x512")
    source, teacher = options.source, options.teacher
    result = converting.convert_generator(source, options.out, teacher, options.overwrite, options.half)
    if options.json:
        return print(json.dumps(result))
    what = f"{result['network']} with {result['parameters']:,} parameters"
    called = f"called once, at sigma = {result['sigma_init']} (time {result['time']})"
    return print(f"{options.out}: {what}, {called}, samples {'×'.join(map(str, result['shape']))}")
