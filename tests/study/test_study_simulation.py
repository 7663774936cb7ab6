"""Simulated votes have the truth that they were given, and power is the share of studies that find it."""

import numpy as np
import pytest
from studies import a_study

from simdistill.study import simulation
from simdistill.study.database import Database
from simdistill.study.owner import Owner
from simdistill.study.results import tell
from simdistill.study.simulation import Truth, power, simulate


@pytest.mark.slow
def test_simulated_votes_have_their_truth(tmp_path):
    study = a_study(tmp_path / "s", pairs=30, checks=2, repeats=4, tie=True)
    database = Database(study.rehearsal, study.settings.identity)
    truth = Truth(0.7, participants_deviation=0, prompts_deviation=0, position=1.0, tie=0.2, lapse=0.1)
    simulate(study.pairs, study.settings, database, 100, truth, seed=1)
    results = tell(Owner(study, database).votes(), study.settings)
    found = results["questions"]["overall"]
    assert (results["participants"], found["votes"]) == (100, 3000)
    assert found["ties"] / 3000 == pytest.approx(0.2, abs=0.03)
    logit = np.log(0.7 / 0.3)
    sure = np.mean([1 / (1 + np.exp(-(logit + side))) for side in (0.5, -0.5)])
    assert found["preference"]["rate"] == pytest.approx(0.9 * sure + 0.05, abs=0.035)
    lefts = np.mean([1 / (1 + np.exp(-(logit + 0.5))), 1 - 1 / (1 + np.exp(-(logit - 0.5)))])
    assert found["position"]["rate"] == pytest.approx(0.9 * lefts + 0.05, abs=0.035)
    assert results["attention"]["checks"] == 200
    assert 2 <= results["attention"]["failed"] <= 22  # a lapse in twenty fails
    assert found["consistency"]["votes"] == 400


def test_power_is_the_share_of_studies_that_find_it():
    nothing = power(Truth(0.5, 0.5, 0.5), 30, [1] * 20, studies=150)
    assert nothing < 0.07  # a cautious interval
    some, more, most = (power(Truth(0.6, 0.3, 0.3), n, [1] * 20, studies=100) for n in (5, 30, 200))
    assert some < more <= most
    assert most > 0.85
    once, often = (power(Truth(0.6, 0.5, 0.1), 10, [each] * 10, studies=100) for each in (1, 5))
    assert often > once + 0.1


def test_votes_are_told_by_prompt_however_many_pairs_it_has():
    pairs = (1, 4, 2)
    wins, votes = simulation._table(Truth(0.7, 0.0, 0.0), 5000, pairs, np.random.default_rng(0))
    assert (votes == pairs).all()
    assert wins.mean(0) / pairs == pytest.approx([0.7] * 3, abs=0.02)
    assert wins[:, 1].var() == pytest.approx(4 * 0.7 * 0.3, rel=0.1)  # of four tosses, and not one tossed four times
    with pytest.raises(ValueError, match="preference = 1: must be above 0 and below 1"):
        Truth(1)
