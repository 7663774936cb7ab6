"""`simdistill study simulate`: rehearse with simulated votes, and estimate how many participants a study needs."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional

from simdistill.commands.common import DatabaseURL, Json
from simdistill.commands.study_results import print_results
from simdistill.config.options import first_word, parse_options
from simdistill.study.database import Database, votes_of
from simdistill.study.estimates import FEWEST
from simdistill.study.folder import Pair, StudyFolder
from simdistill.study.owner import Owner
from simdistill.study.results import tell
from simdistill.study.simulation import Truth, power, simulate
from simdistill.support.checks import require

PLANNED = (10, 20, 30, 50, 100)


@dataclass(frozen=True)
class _Simulate:
    study: Positional[Path] = Path()
    """Folder of the study."""
    participants: int = 30
    """Number of simulated participants; the paper asked about 30."""
    preference: float = Truth.preference
    """Probability that a typical participant prefers side a for a typical prompt."""
    participants_deviation: float = Truth.participants_deviation
    """Standard deviation of the participants' effects, in log-odds."""
    prompts_deviation: float = Truth.prompts_deviation
    """Standard deviation of the prompts' effects, in log-odds."""
    position: float = Truth.position
    """Position bias: advantage of the left image over the right one, in log-odds."""
    tie: float = Truth.tie
    """Probability of a tie; only for studies with --tie."""
    lapse: float = Truth.lapse
    """Probability of a random answer, from inattention."""
    seed: int = 0
    """Random seed."""
    database: DatabaseURL = ""
    power: bool = False
    """Instead, show the power: the share of studies that would find the preference,
    with 10, 20, 30, 50, 100 and --participants participants."""
    json: Json = False


ABOUT = """Rehearse a study: simulate participants, and show their results.

  simdistill study simulate studies/clothes --preference 0.6 --participants 30
  simdistill study simulate studies/clothes --preference 0.6 --power

- Simulated participants see the same pairs as people: no dropped ones and, in a
  reviewed study, only those kept.
- Their votes are stored in rehearsal.sqlite3 in the study's folder, never among
  people's votes. `study results --rehearsal` shows the results again.
"""


def run(words: Sequence[str]) -> None:
    """`simdistill study simulate STUDY …`."""
    path, rest = first_word(words, "study simulate", "STUDY")
    options = parse_options(_Simulate(), [path, *rest], "study simulate STUDY", ABOUT)
    study = StudyFolder.open(options.study)
    require(options.participants >= 1, "--participants", options.participants, "at least 1")
    require(options.seed >= 0, "--seed", options.seed, "0 or more")
    truth = Truth(
        options.preference,
        options.participants_deviation,
        options.prompts_deviation,
        options.position,
        options.tie,
        options.lapse,
    )
    require(study.settings.tie or not truth.tie, "--tie", truth.tie, f"0: {study.path} was made without --tie")
    shown = Owner(study, votes_of(study, options.database)).shown()
    if options.power:
        return _plan(shown, truth, sorted({*PLANNED, options.participants}), options.seed, options.json)
    for old in study.path.glob(f"{study.rehearsal_file.name}*"):
        old.unlink()
    database = Database(study.rehearsal, study.settings.identity)
    simulate(shown, study.settings, database, options.participants, truth, options.seed)
    results = tell(Owner(study, database).votes(), study.settings, simulated=True)
    return print(json.dumps(results)) if options.json else print_results(results)


def _plan(shown: Sequence[Pair], truth: Truth, numbers: Sequence[int], seed: int, as_json: bool) -> None:
    pairs = [*Counter(pair.prompt for pair in shown if not pair.check).values()]
    require(len(pairs) >= FEWEST, "prompts of the shown pairs", len(pairs), f"at least {FEWEST}")
    found = {number: power(truth, number, pairs, seed=seed) for number in numbers}
    counts = {"prompts": len(pairs), "pairs": sum(pairs)}
    if as_json:
        return print(json.dumps({**counts, "preference": truth.preference, "power": found}))
    preference = f"a preference of {100 * truth.preference:.0f} %"
    print(f"with {sum(pairs)} pairs of {len(pairs)} prompts, {preference} is found (its interval excludes 50 %) in")
    for number, share in found.items():
        print(f"  {100 * share:3.0f} % of studies with {number} participants")
    return None
