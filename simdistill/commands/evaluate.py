"""`simdistill evaluate`: the figures of a run."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional

from simdistill.commands.common import Common, own_teacher, parameters, print_figures, spare_threads
from simdistill.options import first_word, parse_options
from simdistill.runs import RunFolder
from simdistill.workflows import measuring


@dataclass(frozen=True)
class _Evaluate(Common):
    run: Positional[Path] = Path()
    """Folder of the run."""
    samples: int = 2000
    """Samples an evaluation seed."""
    seeds: int = 5
    """Evaluation seeds, over which mean and spread are taken."""
    teacher: str | None = None
    """The run's teacher, package.module:function, if it is code of your own."""


def run(words: Sequence[str]) -> None:
    """`simdistill evaluate RUN …`."""
    run, rest = first_word(words, "evaluate", "RUN")
    about = (
        "Measure a run's teacher, student and undistilled start side by side, and renew its evaluation.json, "
        "pictures and report, unless those rest on more samples."
    )
    options = parse_options(_Evaluate(), [run, *rest], "evaluate RUN", about)
    teacher = own_teacher(options.teacher) or measuring.teacher_of(RunFolder.open(options.run))
    spare_threads(parameters(teacher))
    figures = measuring.evaluate_run(options.run, teacher, options.samples, options.seeds, options.device)
    print_figures(figures, options.run, options.json)
