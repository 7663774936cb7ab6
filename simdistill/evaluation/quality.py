"""How good a sampler is: every metric against a reference, over several evaluation seeds, and its speed."""

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
ROUND = 4  # batches that are held, and timed, at once


def reference_for(
    teacher: Teacher, samples: int = 2000, device: torch.device | str = "cpu", stored: str = "", features: str = ""
) -> Reference:
    """What a student of `teacher` is judged against.

    The statistics in the file `stored`, if one is named. Else, for the digits, the training images in the features of
    the shipped classifier; for a teacher without a data set, `samples` of its own by the reference sampler (of an exact
    mixture, exact ones), as they are: the distance then measures distillation alone. `features` names others, as
    `load_extractor` takes them; of latents that the teacher decodes they see the pictures.
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
    law = mixture if extractor is PIXELS else None
    return Reference(f"{samples} {what}", extractor, Statistics.of(extractor.features(own)), mixture=law)


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
    """The figures of each sampler by its name, on the same `seeds` × `samples` noises.

    Every metric of the table (`simdistill.evaluation.table`), and of the user's `own`, is {mean, std, seeds, values};
    what the reference does not allow for is left out, and unless `full` all but the quick ones. Beside them are `nfe`,
    `samples` (of each seed) and `images_per_second`: the median over the seeds of the samplers' own time, starting
    noise given, taken in turns so that a busy machine slows all of them alike.

    The noises are drawn and forgotten a few batches at a time; of several processes each takes a part, and all return
    the same figures, which depend neither on their number nor on `batch` (None: a usual one). Raises `ValueError` for
    too few samples, seeds or a batch below 1, and as `check_metrics`.
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
        """The statistics of an evaluation seed's samples, and how many are drawn a second."""
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
    """What the speeds were measured on."""
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
    """What the sampler draws, and the seconds that it takes."""
    _wait(parts[0][0])
    started = time.perf_counter()
    drawn = torch.cat([sampler(*part) for part in parts])
    _wait(drawn)
    return drawn, time.perf_counter() - started


def _wait(z: Tensor) -> None:
    """Until a GPU has done what it was asked to: calls return before."""
    if z.is_cuda:
        torch.cuda.synchronize(z.device)


def _split(rows: range, size: int) -> list[range]:
    return [rows[start : start + size] for start in range(0, len(rows), size)]
