"""A gallery density by density: each distilled, drawn and evaluated; if repeated, only what is missing is made."""

import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from simdistill.config.recipes import Recipe
from simdistill.config.settings import to_mapping
from simdistill.evaluation.quality import REFERENCE_SEED, machine
from simdistill.evaluation.sampling import draw, student_sampler
from simdistill.gallery.drawing import animation, beside
from simdistill.gallery.figures import figures_of
from simdistill.gallery.frames import SAMPLES, frame_of, read_frames, write_frame
from simdistill.gallery.page import gallery_page
from simdistill.method.denoisers import GaussianMixture
from simdistill.method.generator import Generator
from simdistill.runs.folder import RunFolder, damaged, read_figures
from simdistill.runs.lock import locked
from simdistill.support.files import write_atomically
from simdistill.support.stopping import Interrupted
from simdistill.teachers.loading import load_teacher
from simdistill.teachers.teacher import Teacher
from simdistill.training.checkpoints import NoSoundCheckpoint
from simdistill.training.trainer import DistillationTrainer
from simdistill.workflows.distilling import resume
from simdistill.workflows.measuring import Measurements
from simdistill.workflows.models import Device, load_generator, starting_network

FRAMES = 40
"""Frames of an animation, besides the one at the start."""
PICTURES = ("animation.webp", "beside.png")


def make_gallery(
    densities: Sequence[str], recipe: Recipe, out: Path, device: Device, command: str
) -> dict[str, dict[str, Any]]:
    """Distil each density by `recipe` into a run's folder `out`/DENSITY; returns their metrics by name.

    Each folder gets `animation.webp`, `beside.png` and `figures.json`, and `out` a `gallery.html` of all finished
    densities. Those finished with the same settings are kept; a stopped training is resumed.

    Raises `ValueError` for a folder that is damaged or has other content, and `Interrupted` after a signal, once
    everything is saved and the page of the finished densities is written.
    """
    if out.exists() and not out.is_dir():
        raise ValueError(f"--out = {out}: is a file; give a folder")
    with locked(out):
        runs = {
            name: RunFolder.with_config(out / name, {"verb": "distill", **to_mapping(replace(recipe, teacher=name))})
            for name in densities
        }
        done: dict[str, dict[str, Any]] = {}
        try:
            for k, (name, run) in enumerate(runs.items()):
                done[name] = _kept(run)
                if not done[name]:
                    print(f"{name}, {k + 1} of {len(runs)}", file=sys.stderr, flush=True)
                    done[name] = _make(run, load_teacher(name), device)
        except Interrupted as stop:
            message = f"stopped by {stop.by}; everything is saved, and the same command resumes"
            raise Interrupted(message, stop.by) from None
        finally:
            shown = {name: figures for name, figures in done.items() if figures}
            if shown:
                write_atomically(out / "gallery.html", gallery_page(out, shown, command).encode())
    return done


def _kept(run: RunFolder) -> dict[str, Any]:
    """The metrics of a finished density, or none if it or its pictures are missing."""
    if not all((run.path / name).is_file() for name in PICTURES):
        return {}
    try:
        return read_figures(run.path / "figures.json")
    except (OSError, ValueError):
        return {}


def _make(run: RunFolder, teacher: Teacher, device: Device) -> dict[str, Any]:
    mixture = teacher.denoiser
    assert isinstance(mixture, GaussianMixture)
    frames = run.path / "frames"

    def observe(trainer: DistillationTrainer) -> None:
        if trainer.processes.is_main:
            write_frame(frames, frame_of(trainer, mixture))

    try:
        resume(run.path, teacher, device, measured=Measurements(FRAMES, seeds=0, samples=0, observe=observe))
    except NoSoundCheckpoint:
        raise damaged(run.path, "none of its checkpoints is intact") from None
    moments = read_frames(frames)
    if 0 not in (frame.iteration for frame in moments):  # a finished training gives its last one again, no other
        raise damaged(run.path, "frames of its animation are missing")
    student = load_generator(run.path)[0].to(device)
    start = Generator(starting_network(run, teacher).to(device), student.levels)
    truth = mixture.sample(SAMPLES, torch.Generator().manual_seed(REFERENCE_SEED))
    drawn = draw(student_sampler(student, teacher), range(SAMPLES), teacher.shape, device=device)
    write_atomically(run.path / "animation.webp", animation(moments, mixture))
    write_atomically(run.path / "beside.png", beside(drawn, truth, student.nfe))
    samplers = {"student": student_sampler(student, teacher), "undistilled": student_sampler(start, teacher)}
    seconds = [record["seconds"] for record in run.read_metrics() if "seconds" in record]
    figures = {
        "density": teacher.name,
        "iterations": run.configuration()["iterations"],
        "seed": run.configuration()["seed"],
        "seconds": max(seconds, default=0.0),
        "components": len(mixture.means),
        **figures_of(samplers, mixture, device),
        "machine": machine(),
    }
    write_atomically(
        run.path / "figures.json", json.dumps(figures, indent=2).encode()
    )  # last: it says that all is done
    return figures
