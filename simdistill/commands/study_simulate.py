"""`simdistill study simulate`: votes for a rehearsal, and how many participants a study needs."""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional

from simdistill.commands.study_results import print_results
from simdistill.options import first_word, parse_options
from simdistill.study.database import Database
from simdistill.study.folder import StudyFolder
from simdistill.study.owner import Owner
from simdistill.study.results import tell
from simdistill.study.simulation import Truth, power, simulate

PLANNED = (10, 20, 30, 50, 100)


@dataclass(frozen=True)
class _Simulate:
    study: Positional[Path] = Path()
    """Folder of the study."""
    participants: int = 30
    """How many people to simulate; the paper asked about 30."""
    preference: float = Truth.preference
    """How often side a is preferred by a typical participant for a typical prompt."""
    participants_deviation: float = Truth.participants_deviation
    """How much participants differ, in log-odds."""
    prompts_deviation: float = Truth.prompts_deviation
    """How much prompts differ, in log-odds."""
    position: float = Truth.position
    """What standing left is worth, in log-odds."""
    tie: float = Truth.tie
    """How often people see no difference."""
    lapse: float = Truth.lapse
    """How often they do not look."""
    seed: int = 0
    """Of everything that is drawn."""
    power: bool = False
    """Instead, tell in how many studies of 10, 20, 30, 50 and 100 participants such a preference would be found."""
    json: bool = False
    """Print the results as JSON, and nothing else, on stdout."""


ABOUT = """Rehearse a study: simulated people answer it, and their results are told. Their votes are in a database of
their own, rehearsal.sqlite3 in the study's folder, never among those of people; `study results --rehearsal` tells them
again.

  simdistill study simulate studies/clothes --preference 0.6 --participants 30
  simdistill study simulate studies/clothes --preference 0.6 --power
"""


def run(words: Sequence[str]) -> None:
    """`simdistill study simulate STUDY …`."""
    path, rest = first_word(words, "study simulate", "STUDY")
    options = parse_options(_Simulate(), [path, *rest], "study simulate STUDY", ABOUT)
    study = StudyFolder.open(options.study)
    truth = Truth(
        options.preference,
        options.participants_deviation,
        options.prompts_deviation,
        options.position,
        options.tie,
        options.lapse,
    )
    if options.power:
        return _plan(study, truth, options.seed, options.json)
    for old in study.path.glob("rehearsal.sqlite3*"):
        old.unlink()
    database = Database(study.rehearsal, study.settings.identity)
    simulate(study, database, options.participants, truth, options.seed)
    results = tell(Owner(study, database).votes(), study.settings)
    if options.json:
        return print(json.dumps(results))
    print("simulated votes, of nobody:", file=sys.stderr)
    return print_results(results)


def _plan(study: StudyFolder, truth: Truth, seed: int, as_json: bool) -> None:
    prompts = len({pair.prompt for pair in study.pairs})
    found = {number: power(truth, number, prompts, seed=seed) for number in PLANNED}
    if as_json:
        return print(json.dumps({"prompts": prompts, "preference": truth.preference, "power": found}))
    print(f"with {prompts} prompts, a preference of {100 * truth.preference:.0f} % is told from none in")
    for number, share in found.items():
        print(f"  {100 * share:3.0f} % of studies with {number} participants")
    return None
