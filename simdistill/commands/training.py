"""The options shared by the verbs that train, and those of resuming a run."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, TypeAlias, TypeVar

from tyro.conf import arg

from simdistill.commands.common import Common
from simdistill.config.options import parse_options, refuse_others
from simdistill.support.checks import require
from simdistill.workflows.measuring import Measurements

ABOUT_RESUMING = """\
Resume an interrupted run with its own settings, or train a finished one longer.

- On a CPU, an interrupted run ends bit-identical to an uninterrupted one.
- With --iterations and constant learning rates, it ends as if it had been asked
  for so many from its start. A decay of the rates is stretched: they rise again,
  and the run ends with other weights than such a one.
- Its other settings stay as they are."""

EvaluationSamples: TypeAlias = Annotated[
    int | None,
    arg(
        help="Samples per evaluation seed at the end, of all that is measured, with 5 seeds; 0 skips the "
        "evaluation. If not given, so many that measuring takes a tenth of the training's time, or ten seconds."
    ),
]
Log: TypeAlias = Annotated[tuple[str, ...], arg(help="Also log the metrics to: tensorboard, wandb, trackio.")]
MilestoneCount: TypeAlias = Annotated[
    int | None,
    arg(help="Milestones at which it is measured during the training; 0 for none; if not given, as above."),
]
MilestoneSamples: TypeAlias = Annotated[
    int | None, arg(help="Samples per evaluation seed at a milestone; if not given, as above.")
]


@dataclass(frozen=True)
class Training(Common):
    """The options of every verb that trains: where its metrics go, and how finely it is measured."""

    log: Log = ()
    evaluation_samples: EvaluationSamples = None
    milestones: MilestoneCount = None
    milestone_samples: MilestoneSamples = None

    @property
    def measurements(self) -> Measurements:
        """How finely the run is measured, as asked for."""
        samples, few = self.evaluation_samples, self.milestone_samples
        return Measurements(milestones=self.milestones, samples=samples, milestone_samples=few)


@dataclass(frozen=True)
class Resume(Training):
    """The options of every verb that resumes a run."""

    resume: Path = Path()
    """Folder of the run to resume."""
    iterations: int | None = None
    """Total number of training iterations, to train the run for longer; its own number if not given."""


def asks_to_resume(words: Sequence[str]) -> bool:
    """Whether --resume is given."""
    return any(word.split("=")[0] == "--resume" for word in words)


ResumeOptions = TypeVar("ResumeOptions", bound=Resume)


def resume_options(default: ResumeOptions, words: Sequence[str], fresh: type, verb: str, what: str) -> ResumeOptions:
    """The options after --resume; those of a `fresh` run that cannot change are refused by name.

    `what` follows the verb of a fresh run: its recipe.
    """
    refuse_others(words, fresh, type(default), f"simdistill {verb} {what} --out NEW_FOLDER")
    first = "" if words[0].startswith("-") else words[0]
    require(not first, what.split()[0], first, "left out with --resume, which has the run's own")
    return parse_options(default, words, verb, ABOUT_RESUMING)
