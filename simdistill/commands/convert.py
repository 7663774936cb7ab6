"""`simdistill convert`: convert published checkpoints to this package's files, or images to EDM's zip."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from PIL import ImageColor
from tyro.conf import Positional

from simdistill.commands.common import Json, Overwrite
from simdistill.config.options import first_word, parse_options
from simdistill.data.framing import Crop, Framing
from simdistill.support.checks import require
from simdistill.support.files import check_output
from simdistill.workflows import converting

ABOUT = """Convert published checkpoints, or images, to this package's formats.

EDM's checkpoints (.pkl), to safetensors that load faster and anywhere:
  simdistill convert edm-cifar10-32x32-uncond-vp.pkl cifar10.safetensors
  simdistill distill cifar10-uncond --teacher cifar10.safetensors

The text-to-image generator that the paper's authors published (.pth), to a run:
  simdistill convert SIM-DiT-600M.pth runs/sim-dit \\
      --teacher PixArt-XL-2-512x512
  simdistill sample runs/sim-dit --prompt "a happy cactus in the Sahara"

Images (CIFAR-10's archive, a folder, IDX files; docs/data.md), to EDM's zip:
  simdistill convert cifar-10-python.tar.gz cifar10-32x32.zip

Images of all sizes, to EDM's zip of one size:
  simdistill convert photos photos-64x64.zip --size 64 --crop centre

- Nothing in a .pkl or .pth is executed (see docs/teachers.md).
- Held-out images are not converted.
- Images become what viewers show: upright, in sRGB, 8 bits a channel. What was
  converted, passed over or left out is counted in the output.
"""


@dataclass(frozen=True)
class _Convert:
    source: Positional[Path] = Path()
    """Input: a .pkl or .pth file, or images."""
    out: Positional[Path] = Path()
    """Output: a .safetensors file for a .pkl, a run's folder for a .pth, a .zip for images."""
    teacher: Path | None = None
    """For a .pth: diffusers folder of its teacher, PixArt-alpha."""
    overwrite: Overwrite = False
    half: bool = False
    """Store the weights in half precision, at half the size; also takes a network's .safetensors as input."""
    size: int = 0
    """Images: resize them to this many pixels a side; 0 keeps their size."""
    crop: Crop = "none"
    """Images: centre is EDM's center-crop (the largest centred square, Lanczos);
    adm is ADM's, for ImageNet as EDM and ADM have it (EDM's center-crop-dhariwal)."""
    channels: Literal[0, 1, 3] = 0
    """Images: 1 makes them grey, 3 RGB; 0 keeps what they are."""
    background: str = "white"
    """Images: colour under transparent pixels, such as black or '#808080'."""
    pad: int = 0
    """Images: add black margins up to this many pixels a side: 32 for MNIST's 28×28; 0 adds none."""
    json: Json = False


IMAGES_ONLY = ("size", "crop", "channels", "background", "pad")


def run(words: Sequence[str]) -> None:
    """`simdistill convert FILE.pkl FILE.safetensors …`, `… FILE.pth RUN …` or `… IMAGES FILE.zip …`."""
    source, rest = first_word(words, "convert", "FILE.pkl, FILE.pth or IMAGES")
    out, rest = first_word(rest, "convert SOURCE", "FILE.safetensors, RUN or FILE.zip")
    options = parse_options(_Convert(), [source, out, *rest], "convert SOURCE OUT", ABOUT)
    if options.out.suffix != ".zip":
        _check_no_images(options)
    check_output(options.out, folder=options.source.suffix == ".pth", option="OUT")
    if options.source.suffix == ".pth":
        return _generator(options)
    require(options.teacher is None, "--teacher", str(options.teacher), "left out: it is only for a .pth")
    if options.out.suffix == ".zip":
        require(not options.half, "--half", True, "left out: it is only for weights")
        _check_colour(options.background)
        framing = Framing(options.size, options.crop, options.channels)
        how = options.overwrite, framing, options.background, options.pad
        result = converting.convert_images(str(options.source), options.out, *how)
        what = f"{result['images']:,} images"
    else:
        result = converting.convert_teacher(options.source, options.out, options.overwrite, options.half)
        what = f"{result['network']} with {result['parameters']:,} parameters, {result['preconditioning']}, samples"
    if options.json:
        return print(json.dumps(result))
    shape = "×".join(map(str, result["shape"]))
    return print(f"{options.out}: {what} {shape}, {result['classes'] or 'no'} classes")


def _check_colour(name: str) -> None:
    try:
        ImageColor.getrgb(name)
    except ValueError as error:
        raise ValueError(f"--background = {name!r}: must be a colour, such as white or '#808080'") from error


def _check_no_images(options: _Convert) -> None:
    """Refuse the options for images where the output is no .zip."""
    default = _Convert()
    for name in IMAGES_ONLY:
        given = getattr(options, name)
        require(given == getattr(default, name), f"--{name}", given, "left out: it is only for images, into a .zip")


def _generator(options: _Convert) -> None:
    if options.teacher is None:
        raise ValueError("--teacher is missing: give the diffusers folder of the .pth's teacher, PixArt-XL-2-512x512")
    source, teacher = options.source, options.teacher
    result = converting.convert_generator(source, options.out, teacher, options.overwrite, options.half)
    if options.json:
        return print(json.dumps(result))
    what = f"{result['network']} with {result['parameters']:,} parameters"
    called = f"one evaluation at sigma = {result['sigma_init']} (timestep {result['time']})"
    return print(f"{options.out}: {what}, {called}, samples {'×'.join(map(str, result['shape']))}")
