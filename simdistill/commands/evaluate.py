"""`simdistill evaluate`: the metrics of a run."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional

from simdistill.commands.common import (
    Common,
    Inception,
    TeacherOfRun,
    chosen_features,
    limit_threads,
    own_teacher,
    parameters,
    print_figures,
)
from simdistill.config.options import first_word, parse_options
from simdistill.evaluation.quality import SAMPLES, SEEDS
from simdistill.method.metrics import OwnMetric
from simdistill.support.stopping import stop_requests
from simdistill.training.processes import joined
from simdistill.workflows import evaluating, models


@dataclass(frozen=True)
class _Evaluate(Common):
    run: Positional[Path] = Path()
    """Folder of the run."""
    samples: int = SAMPLES
    """Samples per evaluation seed."""
    seeds: int = SEEDS
    """Evaluation seeds, for mean and standard deviation."""
    reference: Path | None = None
    """Reference statistics: a .npz of `simdistill stats` or of EDM; the recipe's if not given."""
    inception: Inception = None
    features: str = ""
    """Other feature space: pixels, digits, fashion-mnist, faces, imagenet, or a classifier's .safetensors (of
    `simdistill features`)."""
    batch: int | None = None
    """Samples drawn at a time: fewer take less memory, and the metrics do not depend on it."""
    prompts: Path | None = None
    """Folder of `simdistill encode` with the prompts to draw, for a text-to-image run; the run's own if not given."""
    student_only: bool = False
    """Measure only the student, and only print: teachers take most of the time, because of their NFE."""
    metrics: tuple[OwnMetric, ...] = ()
    """Custom metrics besides the usual ones, as package.module:Class(…)."""
    teacher: TeacherOfRun = None


ABOUT = """Measure a run's teacher, student and undistilled start side by side.

  simdistill evaluate RUN
  simdistill evaluate RUN --samples 50000 --seeds 3 --reference ref.npz \\
      --inception inception-2015-12-05.pt
- Stopped, the same command goes on where it was.
- The run's evaluation.json, pictures and report are updated, unless they have
  more samples. Figures in another feature space are kept beside them, as
  evaluation-FEATURES.json.
- With a --teacher of other weights than the run's, the figures are only printed.
- The second command gives the FID of the literature; see docs/metrics.md.
- Under torchrun, several GPUs share the work.
- TorchScript (.pt) is a program: only read files whose author you trust.
"""


def run(words: Sequence[str]) -> None:
    """`simdistill evaluate RUN …`."""
    run, rest = first_word(words, "evaluate", "RUN")
    options = parse_options(_Evaluate(), [run, *rest], "evaluate RUN", ABOUT)
    features = chosen_features(options.inception, options.features)
    teacher = own_teacher(options.teacher, options.run) or models.teacher_of(models.open_run(options.run))
    left_out = [] if options.metrics else models.own_code_of(models.open_run(options.run)).get("metrics", [])
    if left_out:
        print(f"skipped: {', '.join(left_out)}; --metrics imports code that a run names", file=sys.stderr)
    if not features:  # another network to compute, and not a small one
        limit_threads(parameters(teacher))
    with stop_requests() as stop, joined(options.device) as (processes, device):
        figures = evaluating.evaluate_run(
            options.run,
            teacher,
            options.samples,
            options.seeds,
            device,
            str(options.reference or ""),
            features,
            options.batch,
            processes,
            options.student_only,
            str(options.prompts or ""),
            options.metrics,
            stop,
        )
        if processes.is_main:
            print_figures(figures, options.run, options.json)
