"""Write sets of images as EDM's zip files: PNG images, labels in `dataset.json`, captions in `metadata.jsonl`."""

import json
import zipfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

from torch import Tensor

from simdistill.data.images import ImageSet, pixels_of
from simdistill.data.listings import CAPTIONS, LABELS, caption_lines
from simdistill.data.pictures import picture_of
from simdistill.support.checks import require
from simdistill.support.files import replacing


def write_zip(path: Path, images: ImageSet, advance: Callable[[int], None] = lambda _: None, batch: int = 500) -> None:
    """Store `images` as EDM's zip, atomically; `open_images` reads the same bytes back.

    The files are `00000/img00000000.png`, …, a thousand per folder. `dataset.json` is {"labels": [[file, class], …]},
    or {"labels": null} without labels. `metadata.jsonl` has one line per caption: {"file_name": …, "text": …}.
    `advance` is called with the number of images written. A held-out part is not stored. Raises `ValueError` unless the
    samples are images of 1 or 3 channels.
    """
    decoded = len(images.shape) == 3 and images.shape[0] in (1, 3)
    require(decoded, f"shape of {images.name}", images.shape, "that of images with 1 or 3 channels")
    names = [f"{k // 1000:05d}/img{k:08d}.png" for k in range(len(images))]
    labels = None if images.labels is None else list(zip(names, images.labels.tolist(), strict=True))
    # PNGs are compressed already: the zip only stores them, as EDM's does, for random access
    with replacing(path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
        for start in range(0, len(images), batch):
            rows = range(start, min(start + batch, len(images)))
            pixels = pixels_of(images.batch(rows))
            for k, image in zip(rows, pixels, strict=True):
                archive.writestr(names[k], _png(image))
            advance(len(rows))
        archive.writestr(LABELS, json.dumps({"labels": labels}))
        if images.captions is not None:
            archive.writestr(CAPTIONS[0], caption_lines(zip(names, images.captions, strict=True)))


def _png(image: Tensor) -> bytes:
    buffer = BytesIO()
    picture_of(image).save(buffer, "PNG")
    return buffer.getvalue()
