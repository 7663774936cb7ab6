"""`simdistill stats`: reference statistics of images."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional

from simdistill.commands.common import Common, chosen_features
from simdistill.config.options import first_word, parse_options
from simdistill.support.checks import require
from simdistill.training.processes import joined
from simdistill.workflows import statistics


@dataclass(frozen=True)
class _Stats(Common):
    data: Positional[str] = ""
    """The images: digits, a .zip or folder of images, CIFAR-10's archive, a folder of IDX files."""
    out: Path | None = None
    """The .npz to write; not computed again if it has these statistics already."""
    inception: Path | None = None
    """Weights of the FID's Inception-v3: inception-2015-12-05.pt or pt_inception-2015-12-05-6726825d.pth."""
    features: str = ""
    """Other features: pixels, digits, fashion-mnist, faces, imagenet, or a classifier's .safetensors."""


ABOUT = """Compute the reference statistics that `evaluate --reference` compares with, in EDM's format.

  simdistill stats DATA --out ref.npz --inception inception-2015-12-05.pt    for the FID
  simdistill stats DATA --out ref.npz --features imagenet                    for a Fréchet distance without them

torchrun spreads the work over GPUs. TorchScript (.pt) is a program: read only files whose author you trust.
"""


def run(words: Sequence[str]) -> None:
    """`simdistill stats DATA --out FILE …`."""
    data, rest = first_word(words, "stats", "DATA")
    options = parse_options(_Stats(), [data, *rest], "stats DATA", ABOUT)
    features = chosen_features(options.inception, options.features)
    remedy = "given, or --features pixels, digits, fashion-mnist, faces or imagenet"
    require(features != "", "--inception", None, remedy)
    out = options.out
    if out is None or out.suffix != ".npz":
        raise ValueError(f"--out = {str(out)!r}: must be the .npz to write")
    with joined(options.device) as (processes, device):
        stored, computed = statistics.store_statistics(data, out, features, device, processes)
        if not processes.is_main:
            return
    found = {
        "out": str(out),
        "images": stored.statistics.images,
        "dimensions": len(stored.statistics.moments.mean),
        "features": stored.extractor,
        "computed": computed,
    }
    text = f"{out}: {found['images']:,} images of {stored.data} in {found['dimensions']:,} features {stored.extractor}"
    print(json.dumps(found) if options.json else text + ("" if computed else " already"))
