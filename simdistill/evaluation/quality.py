"""Evaluation of a sampler: its metrics against a reference over several evaluation seeds, and its speed."""

import os
import platform
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor

from simdistill.data.images import open_images
from simdistill.evaluation.extractors import PIXELS, load_extractor
from simdistill.evaluation.figures import figures_of
from simdistill.evaluation.reference import Reference, data_reference, stored_reference
from simdistill.evaluation.sampling import Sampler, balanced_labels, batch_for, draw, in_batches, teacher_sampler
from simdistill.evaluation.statistics import ALONE, Gathering, Statistics, Together
from simdistill.evaluation.table import check_metrics
from simdistill.method.denoisers import GaussianMixture
from simdistill.method.metrics import OwnMetric
from simdistill.method.samplers import noise_from_seeds
from simdistill.support.bar import progress_bar
from simdistill.support.checks import require
from simdistill.teachers.teacher import Teacher

REFERENCE_SEED = 2**31  # far from the seeds that are evaluated
FEWEST_SAMPLES = 10
ROUND = 4  # batches in memory, and timed, at once


def reference_for(
    teacher: Teacher, samples: int = 2000, device: torch.device | str = "cpu", stored: str = "", features: str = ""
) -> Reference:
    """The reference for students of `teacher`.

    It is the statistics in the file `stored`, if given. Otherwise, for digits, it is the training images in the feature
    space of the shipped classifier; for a teacher without a data set, `samples` of its own from the reference sampler
    (for an exact mixture, exact ones), compared as they are: the distance then measures distillation alone. `features`
    names another feature space, as for `load_extractor`; latents are decoded for it, if the teacher can.
    """
    if stored:
        return stored_reference(Path(stored), features, teacher.shape, device, teacher.judged.decode)
    if teacher.judged.data == "digits":
        whose = f"features {features}" if features else "features of the shipped classifier"
        images, extractor = open_images("digits"), load_extractor(features or "digits", device)
        return data_reference(f"{images.name} in the {whose}", images, extractor)
    require(teacher.judged.data is None, "data", teacher.judged.data, "digits, or absent: no other reference is known")
    extractor = load_extractor(features or "pixels", device).after(teacher.judged.decode)
    mixture = teacher.denoiser if isinstance(teacher.denoiser, GaussianMixture) else None
    if mixture is not None:
        own, what = mixture.sample(samples, torch.Generator().manual_seed(REFERENCE_SEED)), "exact samples"
    else:
        seeds, labels = range(REFERENCE_SEED, REFERENCE_SEED + samples), balanced_labels(samples, teacher.conditions)
        own, what = draw(teacher_sampler(teacher), seeds, teacher.shape, labels, device), "samples of the teacher"
    exact = mixture if extractor is PIXELS else None
    return Reference(f"{samples} {what}", extractor, Statistics.of(extractor.features(own)), mixture=exact)


def evaluate(
    samplers: Mapping[str, Sampler],
    teacher: Teacher,
    reference: Reference,
    samples: int = 2000,
    seeds: int = 5,
    full: bool = True,
    device: torch.device | str = "cpu",
    batch: int | None = None,
    together: Together = ALONE,
    own: Sequence[OwnMetric] = (),
) -> dict[str, dict[str, Any]]:
    """The metrics of each sampler by name, on the same `seeds` × `samples` noises.

    Each metric of the table (`simdistill.evaluation.table`), and of the user's `own`, is {mean, std, seeds, values}.
    Those that the reference does not allow are omitted; so are all but the quick ones unless `full`. Also given are
    `nfe`, `samples` (per seed) and `images_per_second`: the median over the seeds, for the samplers alone, without
    drawing the noise, in turns so that a busy machine slows all of them equally.

    Noise is drawn a few batches at a time. Several processes share the work and return the same metrics, which depend
    neither on their number nor on `batch` (None: a suitable one). Raises `ValueError` for too few samples, no seeds, a
    batch below 1, and as `check_metrics`.
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
    rows = range(samples)[together.rows(samples)]

    def gather(sampler: Sampler, seed: int) -> tuple[Statistics, float]:
        """The statistics of an evaluation seed's samples, and how many are drawn per second."""
        gathering, seconds = Gathering(reference.extractor, samples, scored=full), 0.0
        for part in _split(rows, ROUND * batch):
            parts = _noises(seed, part, samples, teacher, device, batch)
            if part.start == rows.start:
                sampler(*parts[0])  # warm up
            drawn, passed = _timed(sampler, parts)
            gathering.add(part.start, drawn)
            seconds += passed
            advance(len(part))
        rate = together.all_reduce(torch.tensor(len(rows) / max(seconds, 1e-9)))
        return gathering.statistics(together), float(rate)

    with progress_bar("samples", seeds * len(samplers) * len(rows), full and together.is_main) as advance:
        for seed in range(seeds):
            for name, sampler in samplers.items():
                found, rate = gather(sampler, seed)
                measured[name].append(reference.measure(found, own) if full else reference.quick(found))
                rates[name].append(rate)
    return {
        name: {
            **figures_of(measured[name], own),
            "nfe": sampler.nfe,
            "images_per_second": round(median(rates[name]), 1),
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


def _noises(
    seed: int, rows: range, samples: int, teacher: Teacher, device: torch.device | str, batch: int
) -> list[tuple[Tensor, Tensor | None]]:
    """Those rows of an evaluation seed's `samples` noises and labels, in batches on the device."""
    z = noise_from_seeds(range(seed * samples + rows.start, seed * samples + rows.stop), teacher.shape).to(device)
    labels = balanced_labels(samples, teacher.conditions)
    return in_batches(z, None if labels is None else labels[rows.start : rows.stop].to(device), batch)


def _timed(sampler: Sampler, parts: Sequence[tuple[Tensor, Tensor | None]]) -> tuple[Tensor, float]:
    """The samples, and the seconds that they took."""
    _wait(parts[0][0])
    started = time.perf_counter()
    drawn = torch.cat([sampler(*part) for part in parts])
    _wait(drawn)
    return drawn, time.perf_counter() - started


def _wait(z: Tensor) -> None:
    """Wait until a GPU is done: calls return earlier."""
    if z.is_cuda:
        torch.cuda.synchronize(z.device)


def _split(rows: range, size: int) -> list[range]:
    return [rows[start : start + size] for start in range(0, len(rows), size)]
