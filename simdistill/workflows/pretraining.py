"""Training a teacher on images, and a classifier for the features of the metrics."""

import copy
import os
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from simdistill.config.settings import settings_from_mapping, to_mapping
from simdistill.data.embeddings import Embeddings
from simdistill.data.images import ImageSet, array_set, open_images
from simdistill.data.notes import Notes
from simdistill.evaluation.extractors import load_extractor
from simdistill.evaluation.features import accuracy, train_classifier, write_classifier
from simdistill.evaluation.quality import evaluate
from simdistill.evaluation.reference import Reference, data_reference
from simdistill.evaluation.sampling import teacher_sampler
from simdistill.runs.folder import RunFolder, check_new_run
from simdistill.runs.logs import check_logs, open_logs
from simdistill.support.bar import progress_bar
from simdistill.support.checks import require
from simdistill.support.stopping import Interrupted, stop_requests
from simdistill.teachers.autoencoders import Autoencoder
from simdistill.teachers.teacher import Asked, Judged, Teacher
from simdistill.teachers.weights import read_into, write_network
from simdistill.training.checkpoints import check_resumable
from simdistill.training.loop import Loop
from simdistill.training.milestones import Measured, Measurement, Underway
from simdistill.training.pretrainer import PretrainingTrainer
from simdistill.training.pretraining import Pretraining
from simdistill.workflows.budget import Costs, cost_of, costs_of
from simdistill.workflows.evaluating import milestone, picture_alone
from simdistill.workflows.lengthening import lengthened
from simdistill.workflows.measuring import WITHIN_BUDGET, Budget, Measurements
from simdistill.workflows.models import Device

FILES = ("data", "prompts", "autoencoder", "start", "features")  # settings that may name files
ENCODED = 256  # images that are encoded to latents at a time


def pretrain(
    settings: Pretraining,
    out: str | Path,
    overwrite: bool = False,
    device: Device = "cpu",
    log: Sequence[str] = (),
    measured: Measurements = WITHIN_BUDGET,
) -> dict[str, Any]:
    """Train a teacher on the images `settings.data` into the folder `out`; returns its metrics, if it is measured.

    The file `generator.safetensors` there is a teacher for `distill`. `measured` sets how often and how finely it is
    measured. Raises as `distill` does, and `ValueError` if the images cannot be opened.
    """
    check_logs(log)
    _alone()
    check_new_run(Path(out), overwrite)
    prepared = _prepared(settings, device)
    with RunFolder.begin(Path(out), {"verb": "pretrain", **to_mapping(settings)}, overwrite) as run:
        return _pretrain(run, *prepared, device, log, measured)


def resume_pretraining(
    out: str | Path,
    device: Device = "cpu",
    log: Sequence[str] = (),
    iterations: int | None = None,
    measured: Measurements = WITHIN_BUDGET,
) -> dict[str, Any]:
    """Resume an interrupted `pretrain`, as `distilling.resume` does, or train a finished one for longer.

    Raises `ValueError` as that does.
    """
    check_logs(log)
    _alone()
    run = RunFolder.open(Path(out))
    settings = settings_of(run)
    with run.locked():
        check_resumable(run.checkpoints, run.iteration)
        if iterations is not None:
            settings = lengthened(run, settings, iterations)
        return _pretrain(run, *_prepared(settings, device), device, log, measured)


def settings_of(run: RunFolder) -> Pretraining:
    """The settings in a run's folder; `ValueError` if it is not a pretraining."""
    values = run.configuration()
    if values.pop("verb", None) != "pretrain":
        raise ValueError(f"{run.path}: not the run of a pretraining")
    return settings_from_mapping(Pretraining(), values)


def train_features(
    data: str, out: str | Path, features: int = 32, iterations: int = 3000, pad: int = 0
) -> tuple[dict[str, float], Notes]:
    """Train a classifier on the images `data`, store it in the file `out`; returns its accuracies, and notes on `data`.

    These are for the training images and, if there are any, the held-out ones. Images get black margins up to the edge
    `pad`.
    """
    images = open_images(data).padded(pad)
    with progress_bar(f"reading {images.name}", len(images)) as advance:
        images.moments(advance)  # what is wrong with an image is said before the training
    classifier = train_classifier(images, features, iterations)
    shares = {"training": accuracy(classifier, images)}
    if images.held_out is not None and images.held_out.labels is not None:
        shares["held_out"] = accuracy(classifier, images.held_out)
    write_classifier(Path(out), classifier, data=images.name, accuracy=shares)
    return shares, images.notes


def _alone() -> None:
    count = os.environ.get("WORLD_SIZE", "1")
    require(count == "1", "WORLD_SIZE", count, "1: pretraining runs in one process; start it without torchrun")


def _prepared(settings: Pretraining, device: Device) -> tuple[PretrainingTrainer, Reference]:
    data = open_images(settings.data).padded(settings.pad)
    data = data if settings.conditional and not settings.prompts else data.without_labels()
    reference = _reference(data, settings, device)  # reads every image
    data.notes.tell(data.name)
    if settings.autoencoder:
        there = (Path(settings.autoencoder) / "config.json").is_file()
        require(there, "autoencoder", settings.autoencoder, "the folder of a saved diffusers AutoencoderKL")
        autoencoder = Autoencoder(Path(settings.autoencoder))
        data = _latents(data, autoencoder, device)
        reference = replace(reference, extractor=reference.extractor.after(autoencoder))
    prompts = Embeddings(Path(settings.prompts)) if settings.prompts else None
    return PretrainingTrainer(data, settings, device, prompts), reference


def _latents(images: ImageSet, autoencoder: Autoencoder, device: Device) -> ImageSet:
    """The set with its images encoded to latents."""
    found: list[Tensor] = []
    with progress_bar("encoding images to latents", len(images)) as advance:
        for start in range(0, len(images), ENCODED):
            rows = range(start, min(start + ENCODED, len(images)))
            found.append(autoencoder.latents(images.batch(rows).to(device)).cpu())
            advance(len(rows))
    return replace(array_set(images.name, torch.cat(found), images.labels), captions=images.captions)


def _pretrain(
    run: RunFolder,
    trainer: PretrainingTrainer,
    reference: Reference,
    device: Device,
    log: Sequence[str],
    measured: Measurements,
) -> dict[str, Any]:
    known = "digits" if trainer.settings.data == "digits" else None
    told: dict[str, str] = {}
    if trainer.prompts is not None:
        told["encoder"] = trainer.prompts.encoding.name
    if trainer.settings.autoencoder:
        told["autoencoder"] = str(Path(trainer.settings.autoencoder).resolve())

    def teacher() -> Teacher:
        """The teacher in its current state."""
        net, prompts = trainer.average, trainer.prompts
        asked = Asked() if prompts is None else Asked(prompts, prompts.empty, told["encoder"])
        judged = Judged(known, Autoencoder(Path(told["autoencoder"])) if "autoencoder" in told else None)
        levels = net.sigma_min, net.sigma_max
        return Teacher(net, net.shape, net.classes, *levels, text=net.text, asked=asked, judged=judged)

    def keep() -> None:
        settings = _named(to_mapping(trainer.settings))
        write_network(run.network, trainer.average, data=known, settings=settings, **told)

    def costs() -> Costs:
        now = teacher()
        short, whole = teacher_sampler(now, 2), teacher_sampler(now)
        once = cost_of(short, now, device, whole.nfe)
        return costs_of(once, [once], None, now, reference.extractor, device)

    budget = Budget(run, measured, costs)

    def at_milestone() -> Measurement:
        return of(teacher(), trainer.iteration)

    def of(snapshot: Teacher, iteration: int) -> Measurement:
        network: Any = snapshot.denoiser

        def measure(training: Underway) -> Measured:
            if not budget.measures(iteration, trainer.iterations, training.seconds):
                return None
            fineness, sampler = budget.fineness(training.seconds), teacher_sampler(snapshot)
            if not fineness.milestone_samples:
                return picture_alone(run, iteration, sampler, snapshot, device)
            return milestone(
                run, iteration, sampler, snapshot, reference, device, fineness, budget.batch, training.between
            )

        return Measurement(measure, partial(write_network, denoiser=network))

    def stored(iteration: int, path: Path) -> Measurement:
        now = teacher()
        network = read_into(copy.deepcopy(trainer.average), path)[0].to(device)
        return of(replace(now, denoiser=network), iteration)

    logs = open_logs(log, run)
    with stop_requests() as stop:
        patient = measured.milestones is not None
        loop = Loop(
            trainer, run, at_milestone, keep, milestones=measured.grid, logs=logs, stored=stored, patient=patient
        )
        try:
            loop.train()
        finally:
            for service in logs:
                service.close()
        trained, fineness = teacher(), budget.fineness(lambda: loop.seconds)
        if not fineness.samples:
            return {}

        def between() -> None:
            if stop:
                raise Interrupted(f"stopped by {stop[0]} in the evaluation; what is measured is kept", stop[0])

        found = evaluate(
            {"teacher": teacher_sampler(trained)},
            trained,
            reference,
            fineness.samples,
            fineness.seeds,
            device=device,
            batch=budget.batch,
            between=between,
        )
        return found["teacher"]


def _named(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings with file names instead of paths, so that stored weights do not reveal local folders."""
    return {name: Path(value).name if name in FILES else value for name, value in settings.items()}


def _reference(data: ImageSet, settings: Pretraining, device: Device) -> Reference:
    """The reference of the metrics: the training images, in the feature space that the settings name."""
    require(settings.features != "", "--features", "", "a classifier from `simdistill features`, imagenet, or pixels")
    extractor = load_extractor(settings.features, device)
    with progress_bar(f"features of {data.name}", len(data) + len(data.held_out or ())) as advance:
        return data_reference(f"{data.name} in the features {extractor.name}", data, extractor, advance)
