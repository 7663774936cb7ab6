"""The proxy network of a teacher without weights: fitted to its samples, for the other networks to start from."""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from simdistill.data.images import array_set
from simdistill.evaluation.sampling import balanced_labels, draw, teacher_sampler
from simdistill.support.bar import progress_bar
from simdistill.support.stopping import Interrupted
from simdistill.teachers.teacher import Teacher
from simdistill.teachers.weights import write_network
from simdistill.training.pretrainer import PretrainingTrainer
from simdistill.training.pretraining import Pretraining
from simdistill.workflows.models import Device

PROXY = Pretraining(width=128, iterations=3000, ema_half_life=50_000)
PROXY_OCTAVES = 5  # of Fourier features, for samples of at most …
FEW = 4  # … this many coordinates: with more, the features would outnumber the data (docs/gallery.md)
PROXY_SAMPLES = 20_000
PROXY_SEED = 3 * 2**30  # far from the seeds of the evaluation and of the reference


def proxy_settings(shape: tuple[int, ...]) -> Pretraining:
    """How the proxy network for a teacher of samples of this `shape` is built and fitted."""
    return replace(PROXY, octaves=PROXY_OCTAVES) if math.prod(shape) <= FEW else PROXY


def fit_proxy(teacher: Teacher, path: Path, device: Device, stop: Sequence[str] = ()) -> None:
    """Fit a proxy network to samples of `teacher`, drawn with its denoiser, and store it in `path`.

    Raises `Interrupted` once a signal is in the list `stop`; a repeated call begins anew.
    """

    def between() -> None:
        if stop:
            raise Interrupted(
                f"stopped by {stop[0]} while fitting a proxy network, which --resume begins anew", stop[0]
            )

    seeds = range(PROXY_SEED, PROXY_SEED + PROXY_SAMPLES)
    labels = balanced_labels(len(seeds), teacher.conditions)
    with progress_bar("drawing the teacher's samples for a proxy network", len(seeds)) as bar:

        def advance(count: int) -> None:
            bar(count)
            between()

        samples = draw(teacher_sampler(teacher), seeds, teacher.shape, labels, device, advance)
    settings = proxy_settings(teacher.shape)
    trainer = PretrainingTrainer(array_set("the teacher's samples", samples, labels), settings, device)
    with progress_bar("fitting a proxy network to the teacher", trainer.iterations) as bar:
        for _ in range(trainer.iterations):
            trainer.step()
            bar()
            between()
    write_network(path, trainer.average)
