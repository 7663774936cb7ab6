"""Training a run for longer than it was asked to."""

import sys
from dataclasses import replace
from typing import Any, TypeVar

from simdistill.runs.folder import RunFolder
from simdistill.support.checks import require
from simdistill.training.checkpoints import checkpoints

Settings = TypeVar("Settings", bound=Any)


def lengthened(run: RunFolder, settings: Settings, iterations: int) -> Settings:
    """The settings of `run` (a `Recipe`, a `Pretraining`) with this total number of iterations, noted in its folder.

    With constant learning rates, the weights end as if the run had been asked for so many from its start. A schedule of
    the rates over all iterations is stretched: they go on from where the longer schedule has them, which is said, since
    a run of that length from its start ends with other weights. Raises `ValueError` for fewer iterations than the run
    has done.
    """
    done = max((int(path.stem) for path in checkpoints(run.checkpoints) if path.stem.isdecimal()), default=0)
    require(iterations >= done, "--iterations", iterations, f"at least {done}, which {run.path} has reached")
    before = settings.iterations
    changed = replace(settings, iterations=iterations)
    if iterations == before:
        return changed
    note = f"iterations = {before} until iteration {done}"
    scheduled = settings.decay != "none" or 0 < settings.warmup < 1  # a share of the iterations, in a pretraining
    if done > 0 and scheduled:
        note += ", over which the schedule of the learning rate was planned"
        print(
            f"the learning rate's schedule, planned for {before} iterations, is stretched to {iterations} from "
            f"iteration {done} on; a run of {iterations} from its start would end with other weights",
            file=sys.stderr,
        )
    run.change("iterations", iterations, note)
    return changed
