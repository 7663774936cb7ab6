"""One job of a comparison in a process of its own: train and measure a student, or measure the teacher.

Run as `python -m simdistill.comparison.cell student|teacher FOLDER` with the options below; it resumes where an earlier
process stopped, and ends as `simdistill distill --resume` does.
"""

import argparse
import json
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from threading import Thread
from typing import Any

import torch

from simdistill.comparison.jobs import DIVERGED, figures_of
from simdistill.evaluation.figures import described
from simdistill.evaluation.partial import Partial
from simdistill.evaluation.quality import SAMPLES, evaluate, reference_for
from simdistill.evaluation.sampling import student_sampler, teacher_sampler
from simdistill.runs.folder import RunFolder, damaged
from simdistill.runs.lock import wait_until_free
from simdistill.support.files import digest, write_atomically
from simdistill.support.stopping import QUEUED_AGAIN, Interrupted, signals_of_a_command
from simdistill.teachers.loading import load_teacher
from simdistill.teachers.teacher import Teacher
from simdistill.training.checkpoints import NoSoundCheckpoint
from simdistill.training.loop import Diverged
from simdistill.workflows.distilling import resume
from simdistill.workflows.evaluating import show
from simdistill.workflows.measuring import Measurements
from simdistill.workflows.models import load_generator, recipe_of

LEFT_OVER = 60.0  # seconds that the worker of a killed comparison may take to save and end


def main(words: Sequence[str] | None = None) -> int:
    """Do the job; if it fails, the last line on stderr is the reason.

    Exit codes are those of the command line, except for a diverged training: the command line's code for that is also
    the one of any uncaught exception.
    """
    parser = argparse.ArgumentParser(prog="python -m simdistill.comparison.cell")
    parser.add_argument("who", choices=["student", "teacher"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--teacher", required=True)
    parser.add_argument("--samples", type=int, required=True)
    parser.add_argument("--seeds", type=int, required=True)
    parser.add_argument("--milestones", type=int, required=True)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--parent", type=int, default=os.getppid(), help="the process that this one ends with")
    asked = parser.parse_args(words)
    Thread(target=_end_with, args=[asked.parent], daemon=True).start()
    measurements = Measurements(asked.milestones, seeds=1, samples=0, milestone_samples=SAMPLES)
    try:
        with signals_of_a_command():
            run = RunFolder.open(asked.folder)
            wait_until_free(run.path, LEFT_OVER)
            teacher = load_teacher(asked.teacher, recipe_of(run).teacher_levels)
            measure(asked.who, run, teacher, measurements, asked.samples, asked.seeds, asked.device)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except Diverged as error:
        print(error, file=sys.stderr)
        return DIVERGED
    except Interrupted as error:
        print(error, file=sys.stderr)
        return QUEUED_AGAIN
    return 0


def measure(
    who: str, run: RunFolder, teacher: Teacher, measurements: Measurements, samples: int, seeds: int, device: str
) -> None:
    """Train the student to the end, if it is a student's run, and store its metrics beside it."""
    recipe = recipe_of(run, trusted=True)  # the comparison that asks has just checked that it is the user's own
    teacher = teacher.prepared(recipe).held_out(recipe)
    if who == "student":
        try:
            resume(run.path, teacher, device, measured=measurements, trusted=True)
        except NoSoundCheckpoint:
            raise damaged(run.path, "none of its checkpoints is intact") from None
        student = load_generator(run.path, teacher)[0].to(device)
        sampler = student_sampler(student, teacher)
    else:
        teacher.check(device)
        sampler = teacher_sampler(teacher)
    reference = reference_for(teacher, device=device, stored=recipe.reference, features=recipe.features)
    weights = digest(run.network) if who == "student" else teacher.name
    asked = who, weights, reference.name, reference.extractor.name, samples, described(recipe.metrics)
    partial = Partial(run.partial, repr(asked))  # of a process that was stopped or killed
    partial.prepare()
    how: dict[str, Any] = {"device": device, "own": recipe.metrics, "partial": partial}
    found = evaluate({who: sampler}, teacher, reference, samples, seeds, **how)[who]
    show(run, who, sampler, teacher, reference, torch.device(device))
    about = {
        "reference": reference.name,
        "features": reference.extractor.name,
        "real": reference.real(recipe.metrics),
        "own_metrics": described(recipe.metrics),
    }
    write_atomically(figures_of(run), json.dumps({**found, **about}, indent=2).encode())
    partial.finish()


def _end_with(parent: int) -> None:
    """Save and stop when the comparison's process is gone: another one may be started in its place."""
    while os.getppid() == parent:
        time.sleep(1)
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main())
