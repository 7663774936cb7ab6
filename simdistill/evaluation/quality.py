"""Evaluation of a sampler: its metrics against a reference over several evaluation seeds, and its speed."""

import os
import platform
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import torch

from simdistill.data.images import open_images
from simdistill.evaluation.drawn import Drawing
from simdistill.evaluation.extractors import PIXELS, Extractor, load_extractor
from simdistill.evaluation.figures import figures_of
from simdistill.evaluation.partial import NOTHING_KEPT, Partial
from simdistill.evaluation.reference import Reference, data_reference, stored_reference
from simdistill.evaluation.sampling import Sampler, batch_for, teacher_sampler
from simdistill.evaluation.statistics import ALONE, Statistics, Together
from simdistill.evaluation.stored import Stored, read_statistics, write_statistics
from simdistill.evaluation.table import check_metrics
from simdistill.method.denoisers import GaussianMixture
from simdistill.method.metrics import OwnMetric
from simdistill.support.bar import progress_bar
from simdistill.support.checks import require
from simdistill.teachers.teacher import Teacher

REFERENCE_SEED = 2**31  # far from the seeds that are evaluated
SAMPLES, SEEDS = 2000, 5  # of an evaluation in full: samples per evaluation seed, and seeds
FEWEST_SAMPLES = 10
RATE = "images_per_second"


def extractor_for(
    teacher: Teacher, device: torch.device | str = "cpu", stored: str = "", features: str = ""
) -> Extractor:
    """The feature space of the reference that `reference_for` gives, without making it."""
    if stored:
        return stored_reference(Path(stored), features, teacher.shape, device, teacher.judged.decode).extractor
    return load_extractor(features or teacher.judged.data or "pixels", device).after(teacher.judged.decode)


def reference_for(
    teacher: Teacher,
    samples: int = SAMPLES,
    device: torch.device | str = "cpu",
    stored: str = "",
    features: str = "",
    kept: Path | None = None,
    together: Together = ALONE,
    between: Callable[[], None] = lambda: None,
) -> Reference:
    """The reference for students of `teacher`.

    It is the statistics in the file `stored`, if given. Otherwise, for digits, it is the training images in the feature
    space of the shipped classifier; for a teacher without a data set, `samples` of its own from the reference sampler
    (for an exact mixture, exact ones), compared as they are: the distance then measures distillation alone. `features`
    names another feature space, as for `load_extractor`; latents are decoded for it, if the teacher can.

    A teacher's samples are drawn once: their statistics are in the file `kept` afterwards, and are taken from there if
    they are of at least as many samples. Several processes share the drawing. `between` is called after each batch; if
    it raises, what has been drawn so far is kept beside the file.
    """
    if stored:
        return stored_reference(Path(stored), features, teacher.shape, device, teacher.judged.decode)
    if teacher.judged.data == "digits":
        whose = f"features {features}" if features else "features of the shipped classifier"
        images, extractor = open_images("digits"), extractor_for(teacher, device, features=features)
        return data_reference(f"{images.name} in the {whose}", images, extractor)
    require(teacher.judged.data is None, "data", teacher.judged.data, "digits, or absent: no other reference is known")
    extractor = extractor_for(teacher, device, features=features)
    mixture = teacher.denoiser if isinstance(teacher.denoiser, GaussianMixture) else None
    if mixture is not None:
        own = mixture.sample(samples, torch.Generator().manual_seed(REFERENCE_SEED))
        exact = mixture if extractor is PIXELS else None
        found = Statistics.of(extractor.features(own))
        return Reference(f"{samples} exact samples", extractor, found, mixture=exact)
    if kept is not None and kept.is_file():
        before = read_statistics(kept)
        if before.extractor == extractor.name and before.statistics.images >= samples:
            return Reference(before.data or kept.name, extractor, before.statistics)
    partial = Partial(kept.with_suffix(".partial"), f"{samples} {extractor.name}") if kept else NOTHING_KEPT
    if together.is_main:
        partial.prepare()
    with progress_bar("drawing the reference", samples, together.is_main) as bar:

        def advance(count: int) -> None:
            bar(count)
            between()

        drawing = Drawing(teacher, device, batch_for(teacher.shape), together, partial, advance)
        seeds = range(REFERENCE_SEED, REFERENCE_SEED + samples)
        found = drawing.statistics("reference", teacher_sampler(teacher), extractor, seeds)[0]
    name = f"{samples} samples of the teacher"
    if kept is not None and together.is_main:
        write_statistics(kept, Stored(found, extractor=extractor.name, data=name))
        partial.finish()
    return Reference(name, extractor, found)


def evaluate(
    samplers: Mapping[str, Sampler],
    teacher: Teacher,
    reference: Reference,
    samples: int = SAMPLES,
    seeds: int = SEEDS,
    full: bool = True,
    device: torch.device | str = "cpu",
    batch: int | None = None,
    together: Together = ALONE,
    own: Sequence[OwnMetric] = (),
    partial: Partial = NOTHING_KEPT,
    between: Callable[[], None] = lambda: None,
) -> dict[str, dict[str, Any]]:
    """The metrics of each sampler by name, on the same `seeds` × `samples` noises.

    Each metric of the table (`simdistill.evaluation.table`), and of the user's `own`, is {mean, std, seeds, values}.
    Those that the reference does not allow are omitted; so are all but the quick ones unless `full`. Also given are
    `nfe`, `samples` (per seed) and `images_per_second`: the median over the seeds, for the samplers alone, without
    drawing the noise, in turns so that a busy machine slows all of them equally.

    Noise is drawn a batch at a time. Several processes share the work and return the same metrics, which depend neither
    on their number nor on `batch` (None: a suitable one). `between` is called after each batch; what it raises ends the
    evaluation, which goes on from its `partial` results if it is repeated. Raises `ValueError` for too few samples, no
    seeds, a batch below 1, and as `check_metrics`.
    """
    check_metrics(own)
    require(samples >= FEWEST_SAMPLES, "samples", samples, f"at least {FEWEST_SAMPLES}")
    require(seeds >= 1, "seeds", seeds, "at least 1")
    batch = batch_for(teacher.shape) if batch is None else batch
    require(batch >= 1, "batch", batch, "at least 1")
    if full and together.is_main:
        print(f"evaluating {seeds} × {samples} samples of {', '.join(samplers)}", file=sys.stderr, flush=True)
    measured: dict[str, list[dict[str, float]]] = {name: [] for name in samplers}
    rates: dict[str, list[float]] = {name: [] for name in samplers}
    rows = len(range(samples)[together.rows(samples)])
    with progress_bar("evaluating", seeds * len(samplers) * rows, together.is_main) as bar:

        def advance(count: int) -> None:
            bar(count)
            between()

        drawing = Drawing(teacher, device, batch, together, partial, advance)
        for seed in range(seeds):
            for name, sampler in samplers.items():
                key = f"{name}-{seed}"
                found = partial.figures(key)
                missing = together.all_reduce(torch.tensor(float(found is None)))  # all draw, or none
                if found is None or missing > 0:
                    began = time.monotonic()
                    noises = range(seed * samples, (seed + 1) * samples)
                    drawn, rate = drawing.statistics(key, sampler, reference.extractor, noises, scored=full)
                    found = {RATE: rate, **(reference.measure(drawn, own) if full else reference.quick(drawn))}
                    if together.is_main:
                        partial.keep_figures(key, found, time.monotonic() - began)
                else:
                    bar(rows)
                rates[name].append(found.pop(RATE))
                measured[name].append(found)
    return {
        name: {
            **figures_of(measured[name], own),
            "nfe": sampler.nfe,
            RATE: round(median(rates[name]), 1),
            "samples": samples,
        }
        for name, sampler in samplers.items()
    }


def machine() -> str:
    """The machine that speeds are measured on."""
    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    threads = torch.get_num_threads()
    cores = f"{platform.machine()}, {os.cpu_count()} CPU cores{gpu}"
    return f"{cores}; PyTorch {torch.__version__}, {threads} thread{'s' if threads > 1 else ''}"
