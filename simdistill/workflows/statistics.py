"""Computing and storing reference statistics of a set of images."""

import hashlib
import json
from pathlib import Path

from simdistill.data.images import open_images
from simdistill.data.notes import Notes
from simdistill.evaluation.extractors import Extractor, load_extractor
from simdistill.evaluation.statistics import KEPT, statistics_of
from simdistill.evaluation.stored import Stored, read_statistics, write_statistics
from simdistill.support.bar import progress_bar
from simdistill.training.processes import ALONE, Processes
from simdistill.workflows.models import Device

READING = 2  # counts changes of how files are read: statistics of an earlier reading are computed again


def store_statistics(
    data: str, out: str | Path, features: str, device: Device = "cpu", processes: Processes = ALONE, pad: int = 0
) -> tuple[Stored, Notes | None]:
    """Store the statistics of the images `data` in the file `out`; returns them, and notes on the images read.

    The notes are None if the statistics were not computed. Images get black margins up to the edge `pad`.

    They are not computed again if the file already has those of the same images (by the names, sizes and times of their
    files) and features. `features` is as for `load_extractor`; several processes share the work. A held-out part of the
    data gets its own statistics in the same file.

    Raises `ValueError` if images or weights cannot be read, or if `out` holds something else.
    """
    images = open_images(data).padded(pad)  # first: what is wrong with it does not depend on the features
    out, extractor = Path(out), load_extractor(features, device)
    inputs = _inputs(data, extractor, pad)
    if processes.on_main(lambda: _known(out) == inputs):  # one process decides for all
        return read_statistics(out), None
    held_out = images.held_out
    total = len(images) + (len(held_out) if held_out else 0)
    with progress_bar(f"features of {images.name}", len(range(total)[processes.rows(total)]), processes.is_main) as bar:
        stored = Stored(
            statistics_of(images, extractor, processes, bar),
            None if held_out is None else statistics_of(held_out, extractor, processes, bar),
            extractor.name,
            images.name,
            inputs,
        )
    processes.on_main(lambda: write_statistics(out, stored))
    for other in processes.gathered(images.notes):
        images.notes.include(other)
    return stored, images.notes


def _known(out: Path) -> str | None:
    """The digest of the inputs of the statistics in `out`; `ValueError` if the file must not be replaced."""
    if not out.exists():
        return None
    stored = read_statistics(out)
    if stored.inputs is None:
        raise ValueError(f"--out = {out}: not made by `simdistill stats`, so it is not overwritten; give another --out")
    return stored.inputs


def _inputs(data: str, extractor: Extractor, pad: int) -> str:
    """A digest of what the statistics depend on: the data's files and their reading, the extractor, kept features."""
    path = Path(data)
    files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
    status = [(str(file.relative_to(path)), file.stat()) for file in files if file.exists()]
    read = [data if not status else "", [(name, s.st_size, s.st_mtime_ns) for name, s in status]]
    facts = [READING, pad, extractor.name, KEPT, *read]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()
