"""`simdistill distill`: distil a teacher into a one-step generator."""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from simdistill.commands.auto import auto_options, is_auto
from simdistill.commands.common import TeacherOfRun, limit_threads, own_teacher, parameters, print_figures
from simdistill.commands.plan import print_plan
from simdistill.commands.settings import Distill, distill_options
from simdistill.commands.training import Resume, asks_to_resume, resume_options
from simdistill.config.auto import NAME
from simdistill.runs.folder import RunFolder, check_new_run
from simdistill.support.bar import progress_bar
from simdistill.support.checks import require
from simdistill.teachers.loading import load_teacher, named_run
from simdistill.workflows import distilling, models

ABOUT = """Distil a teacher into a one-step generator by Algorithm 2.

- The output folder has the weights, metrics, samples and a report.
- `simdistill distill --resume RUN` resumes an interrupted run; on a CPU, the
  weights end bit-identical to those of an uninterrupted one.
- `simdistill distill --resume RUN --iterations N` trains a run for longer."""


@dataclass(frozen=True)
class _ResumeDistillation(Resume):
    teacher: TeacherOfRun = None
    trust_code: bool = False
    """Import the code that the run's configuration names as package.module:Class(…)."""


def run(words: Sequence[str]) -> None:
    """`simdistill distill RECIPE …`, `simdistill distill --teacher X` or `simdistill distill --resume RUN`."""
    if asks_to_resume(words):
        asked = resume_options(_ResumeDistillation(), words, Distill, "distill", "RECIPE --config RUN/config.toml")
        teacher = own_teacher(asked.teacher, asked.resume) or models.teacher_of(RunFolder.open(asked.resume))
        limit_threads(parameters(teacher))
        measured = asked.measurements
        distilling.resume(asked.resume, teacher, asked.device, asked.log, measured, asked.trust_code, asked.iterations)
        return _report_run(asked.resume, asked.json)
    if is_auto(words):
        name, chosen = NAME, auto_options(words, "distill", ABOUT)
        options, teacher, drawn = chosen.options, chosen.teacher, chosen.drawn
    else:
        (name, options), teacher, drawn = distill_options(words, "distill", ABOUT), None, None
    if options.dry_run:
        return print_plan(name, options)
    recipe, out = options.settings, options.out_of(name)
    kinds = "FILE.pkl, FILE.safetensors, a diffusers FOLDER or package.module:function"
    check_new_run(out, options.overwrite)
    require(recipe.teacher != "", "--teacher", recipe.teacher, f"given for {name}: {kinds}")
    if teacher is None:
        with progress_bar("loading the teacher"):
            teacher = load_teacher(recipe.teacher, recipe.teacher_levels)
    limit_threads(parameters(teacher))
    measured = options.measurements
    distilling.distill(teacher, recipe, out, options.overwrite, options.device, options.log, measured, drawn)
    return _report_run(out, options.json)


def _report_run(out: Path, as_json: bool) -> None:
    if os.environ.get("RANK", "0") != "0":  # only the main process reports
        return
    run = RunFolder(out)
    if run.evaluation.exists():
        print_figures(run.read_evaluation(), out, as_json)
    elif as_json:
        print(json.dumps({}))
    else:
        teacher = str(run.configuration().get("teacher", ""))
        print(f"not evaluated; to do so: simdistill evaluate {named_run(out, teacher)}   report: {run.report}")
