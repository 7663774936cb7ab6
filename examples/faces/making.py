"""The data set: zips of pictures with their captions, and a held-out part with unseen combinations."""

import io
import json
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console
from rich.progress import track

from examples.faces.attributes import PARTED_BY, Face, draw_attributes, draw_face, held_out
from examples.faces.captions import Caption, write_caption
from examples.faces.rendering import install, render
from simdistill.data.rows import json_lines
from simdistill.support.checks import require
from simdistill.support.files import replacing, write_atomically

PARTS = ("train", "held-out")
METADATA = "metadata.jsonl"
AT_ONCE = 1000  # faces per node process


def make(out: Path, count: int, held_out_count: int, seed: int) -> list[Path]:
    """Write `out`/train.zip and `out`/held-out.zip with so many faces; returns the two paths.

    Each has PNGs of 16×16 pixels under EDM's names and a metadata.jsonl as in Hugging Face's image folders, with a line
    per picture in order: `file_name`, `text`, all nine `attributes`, and those `specified` by the text. The same lines
    are in a .jsonl beside the zip. The same seed gives the same faces, and a larger count appends to them.

    Raises `ValueError` for invalid counts or seeds, and without node, npm or its packages.
    """
    require(count > 0, "count", count, "at least 1")
    require(held_out_count > 0, "held-out-count", held_out_count, "at least 1")
    require(seed >= 0, "seed", seed, "at least 0")
    install()
    made: list[Path] = []
    for part, n in zip(PARTS, (count, held_out_count), strict=True):
        drawn = [draw(part, seed, index) for index in _shown(range(n), f"choosing {part}")]
        path = out / f"{part}.zip"
        lines = [line(index, face, caption) for index, (face, caption) in enumerate(drawn)]
        write(path, pictures([face for face, _ in drawn], f"drawing {part}"), lines)
        write_atomically(out / f"{part}.jsonl", "".join(lines).encode())
        made.append(path)
    return made


def draw(part: str, seed: int, index: int) -> tuple[Face, Caption]:
    """The face of that number in "train" or "held-out", and its caption.

    A held-out face's caption always specifies the combination: without it, a perfect generator would draw those of the
    training part, and be far from the held-out faces.
    """
    rng = np.random.default_rng([seed, PARTS.index(part), index])
    attributes = draw_attributes(rng)
    apart = part == "held-out"
    while held_out(attributes) != apart:
        attributes = draw_attributes(rng)
    return draw_face(attributes, rng), write_caption(attributes, rng, always=PARTED_BY if apart else ())


def line(index: int, face: Face, caption: Caption) -> str:
    """The metadata of a picture, as a line of JSON."""
    about = {"file_name": file_name(index), "text": caption.text}
    return json.dumps({**about, "attributes": face.attributes, "specified": caption.specified}) + "\n"


def file_name(index: int) -> str:
    """EDM's name of a picture: a thousand per folder."""
    return f"{index // 1000:05}/img{index:08}.png"


def pictures(faces: list[Face], what: str) -> Iterable[NDArray[Any]]:
    """RGB `[16, 16, 3]` of each face, with a progress bar titled `what`."""
    starts = range(0, len(faces), AT_ONCE)
    for start in _shown(starts, what):
        yield from render([face.options for face in faces[start : start + AT_ONCE]])


def write(path: Path, images: Iterable[NDArray[Any]], lines: list[str]) -> None:
    """A zip of PNGs and their lines, reproducible to the byte."""
    with replacing(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        for index, pixels in enumerate(images):
            png = io.BytesIO()
            Image.fromarray(pixels).save(png, "PNG")
            archive.writestr(_entry(file_name(index)), png.getvalue())
        archive.writestr(_entry(METADATA), "".join(lines))


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The lines of the metadata.jsonl in a zip; `ValueError` if it is not from `make`."""
    try:
        with zipfile.ZipFile(path) as archive:
            return [row for _, row in json_lines(METADATA, io.BytesIO(archive.read(METADATA)))]
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path}: not a zip of faces ({error}); `python -m examples.faces make` writes one") from error


def _shown(numbers: range, what: str) -> Iterable[int]:
    """With a progress bar on stderr."""
    return track(numbers, what, console=Console(stderr=True), transient=True)


def _entry(name: str) -> zipfile.ZipInfo:
    """An uncompressed entry with the earliest date of the zip format."""
    entry = zipfile.ZipInfo(name)
    entry.external_attr = 0o644 << 16
    return entry
