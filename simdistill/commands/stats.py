"""`simdistill stats`: compute reference statistics of images."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional

from simdistill.commands.common import Common, Inception, Pad, chosen_features
from simdistill.config.options import first_word, parse_options
from simdistill.data.images import open_images
from simdistill.support.checks import require
from simdistill.support.files import check_output
from simdistill.training.processes import joined
from simdistill.workflows import statistics


@dataclass(frozen=True)
class _Stats(Common):
    data: Positional[str] = ""
    """Images: digits, a .zip or folder of images, CIFAR-10's archive, a folder of IDX files."""
    out: Path | None = None
    """Output .npz; not computed again if it has these statistics already."""
    inception: Inception = None
    features: str = ""
    """Other feature space: pixels, digits, fashion-mnist, faces, imagenet, or a classifier's .safetensors (of
    `simdistill features`)."""
    pad: Pad = 0


ABOUT = """Compute reference statistics of images, in EDM's format, for `evaluate`.

For the FID:
  simdistill stats DATA --out ref.npz --inception inception-2015-12-05.pt

For a Fréchet distance without Inception's weights:
  simdistill stats DATA --out ref.npz --features imagenet

- DATA is digits, a .zip or folder of images, CIFAR-10's archive, or a folder of
  IDX files.
- Under torchrun, several GPUs share the work.
- TorchScript (.pt) is a program: only read files whose author you trust.
"""


def run(words: Sequence[str]) -> None:
    """`simdistill stats DATA --out FILE …`."""
    data, rest = first_word(words, "stats", "DATA")
    options = parse_options(_Stats(), [data, *rest], "stats DATA", ABOUT)
    features = chosen_features(options.inception, options.features)
    if not features:
        open_images(data)  # what is wrong with it comes first
    remedy = "given, or --features pixels, digits, fashion-mnist, faces, imagenet or a classifier's .safetensors"
    require(features != "", "--inception", None, remedy)
    out = options.out
    if out is None or out.suffix != ".npz":
        raise ValueError(f"--out = {str(out)!r}: must be a .npz")
    check_output(out)
    with joined(options.device) as (processes, device):
        stored, notes = statistics.store_statistics(data, out, features, device, processes, options.pad)
        if not processes.is_main:
            return
    found = {
        "out": str(out),
        "images": stored.statistics.images,
        "dimensions": len(stored.statistics.moments.mean),
        "features": stored.extractor,
        "computed": notes is not None,
        "notes": {} if notes is None else notes.counts(),
    }
    if notes is not None:
        notes.tell(stored.data or data)
    text = f"{out}: {found['images']:,} images of {stored.data}, {found['dimensions']:,} features ({stored.extractor})"
    print(json.dumps(found) if options.json else text + ("" if found["computed"] else " (already computed)"))
