"""Training the digits' teacher, and the classifier that the metrics take their features from."""

import copy
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from simdistill.configuration import settings_from_mapping, to_mapping
from simdistill.data.digits import Labelled, load_digits
from simdistill.evaluation.features import DigitsClassifier, train_digits_classifier
from simdistill.evaluation.quality import TEACHER_STEPS, evaluate, reference_for, teacher_sampler
from simdistill.logs import check_logs, open_logs
from simdistill.runs import RunFolder
from simdistill.teachers.teacher import Teacher
from simdistill.teachers.weights import write_network
from simdistill.training.loop import Loop, Measuring
from simdistill.training.pretrain import Pretraining, PretrainingTrainer
from simdistill.validation import require
from simdistill.workflows.measuring import Device, milestone

EVALUATIONS = 2 * TEACHER_STEPS - 1


def pretrain_digits(
    settings: Pretraining, out: str | Path, overwrite: bool = False, device: Device = "cpu", log: Sequence[str] = ()
) -> dict[str, Any]:
    """Train a class-conditional teacher of the digits into the folder `out`, and return its figures.

    The file `generator.safetensors` there is a teacher for `distill`. Raises as `distill` does.
    """
    check_logs(log)
    _alone()
    run = RunFolder.create(Path(out), {"verb": "pretrain", **to_mapping(settings)}, overwrite)
    return _pretrain(run, settings, device, log)


def resume_pretraining(out: str | Path, device: Device = "cpu", log: Sequence[str] = ()) -> dict[str, Any]:
    """Go on with an interrupted `pretrain_digits`, exactly as `distilling.resume`; `ValueError` for no such run."""
    check_logs(log)
    _alone()
    run = RunFolder.open(Path(out))
    return _pretrain(run, settings_of(run), device, log)


def settings_of(run: RunFolder) -> Pretraining:
    """The settings in a run's folder; `ValueError` if its configuration is not one of a pretraining."""
    values = run.configuration()
    if values.pop("verb", None) != "pretrain":
        raise ValueError(f"{run.path}: is not the run of a pretraining")
    return settings_from_mapping(Pretraining(), values)


def train_features(out: str | Path) -> dict[str, float]:
    """Train the digits' classifier on the training images, store it in the file `out`, and return its accuracies."""
    training, held_out = load_digits()
    classifier = train_digits_classifier(training)
    accuracy = {"training": _accuracy(classifier, training), "held_out": _accuracy(classifier, held_out)}
    write_network(Path(out), classifier, data="digits", accuracy=accuracy)
    return accuracy


def _alone() -> None:
    count = os.environ.get("WORLD_SIZE", "1")
    require(count == "1", "WORLD_SIZE", count, "1: pretraining runs in one process; start it without torchrun")


def _pretrain(run: RunFolder, settings: Pretraining, device: Device, log: Sequence[str]) -> dict[str, Any]:
    data, _ = load_digits()
    trainer = PretrainingTrainer(data.images, data.labels, settings, device)
    average = trainer.average
    teacher = Teacher(average, average.shape, average.classes, average.sigma_min, average.sigma_max, data="digits")
    sampler, reference = teacher_sampler(teacher), reference_for(teacher)

    def keep() -> None:
        write_network(run.network, average, data="digits", settings=to_mapping(settings))

    def at_milestone() -> Measuring:
        snapshot = replace(teacher, denoiser=copy.deepcopy(average))
        sampler, iteration = teacher_sampler(snapshot), trainer.iteration
        return lambda: milestone(run, iteration, sampler, teacher, reference, device, seeds=1)

    logs = open_logs(log, run)
    try:
        Loop(trainer, run, at_milestone, keep, milestones=4, logs=logs).train()  # each costs 35 evaluations a sample
    finally:
        for service in logs:
            service.close()
    return evaluate({"teacher": (sampler, EVALUATIONS)}, teacher, reference, device=device)["teacher"]


def _accuracy(classifier: DigitsClassifier, data: Labelled) -> float:
    with torch.no_grad():
        return float((classifier(data.images).argmax(1) == data.labels).double().mean())
