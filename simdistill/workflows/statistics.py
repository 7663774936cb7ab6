"""Computing and storing reference statistics of a set of images."""

import hashlib
import json
from pathlib import Path

from simdistill.data.images import open_images
from simdistill.evaluation.extractors import Extractor, load_extractor
from simdistill.evaluation.statistics import KEPT, statistics_of
from simdistill.evaluation.stored import Stored, read_statistics, write_statistics
from simdistill.support.bar import progress_bar
from simdistill.training.processes import ALONE, Processes
from simdistill.workflows.models import Device


def store_statistics(
    data: str, out: str | Path, features: str, device: Device = "cpu", processes: Processes = ALONE
) -> tuple[Stored, bool]:
    """Store the statistics of the images `data` in the file `out`; returns them, and whether they were computed.

    They are not computed again if the file already has those of the same images (by the names, sizes and times of their
    files) and features. `features` is as for `load_extractor`; several processes share the work. A held-out part of the
    data gets its own statistics in the same file.

    Raises `ValueError` if images or weights cannot be read, or if `out` holds something else.
    """
    out, extractor = Path(out), load_extractor(features, device)
    inputs = _inputs(data, extractor)
    if processes.on_main(lambda: _known(out) == inputs):  # one process decides for all
        return read_statistics(out), False
    images = open_images(data)
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
    return stored, True


def _known(out: Path) -> str | None:
    """The digest of the inputs of the statistics in `out`; `ValueError` if the file must not be replaced."""
    if not out.exists():
        return None
    stored = read_statistics(out)
    if stored.inputs is None:
        raise ValueError(f"--out = {out}: not made by `simdistill stats`, so it is not overwritten; give another --out")
    return stored.inputs


def _inputs(data: str, extractor: Extractor) -> str:
    """A digest of what the statistics depend on: the data's files, the extractor, the number of kept features."""
    path = Path(data)
    files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
    status = [(str(file.relative_to(path)), file.stat()) for file in files if file.exists()]
    facts = [data if not status else "", extractor.name, KEPT, [(n, s.st_size, s.st_mtime_ns) for n, s in status]]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()
