"""What votes are worth: against scipy, statsmodels and closed forms, and on simulated votes whose truth is known."""

import io
import json
from math import comb

import numpy as np
import polars as pl
import pytest
from PIL import Image
from sklearn.metrics import cohen_kappa_score
from statsmodels.stats.proportion import proportion_confint
from studies import Asked, a_study

from simdistill.cli import main
from simdistill.study.bars import COLOURS, bars
from simdistill.study.database import Database
from simdistill.study.estimates import Share, agreement, bootstrap, mixed
from simdistill.study.owner import COLUMNS, Owner
from simdistill.study.results import tell
from simdistill.study.settings import Settings
from simdistill.study.simulation import Truth, power, simulate

# --- Estimates --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("wins", "votes"), [(0, 5), (7, 10), (60, 100), (510, 510)])
def test_shares_are_those_of_statsmodels_and_of_coins(wins, votes):
    share = Share.of(wins, votes)
    assert share.rate == wins / votes
    assert share.wilson == pytest.approx(proportion_confint(wins, votes, method="wilson"), abs=1e-12)
    outcomes = [comb(votes, k) for k in range(votes + 1)]
    exact = sum(one for one in outcomes if one <= outcomes[wins]) / 2**votes
    assert share.p == pytest.approx(exact, rel=1e-9)
    assert Share.of(0, 0) == Share(0, 0, None, None, None)


def test_the_bootstrap_is_of_participants_and_prompts():
    rng = np.random.default_rng(0)
    votes = np.ones((300, 40))
    alone = (rng.random((300, 40)) < 0.6).astype(float)  # every vote its own coin
    low, high = bootstrap(alone, votes)
    independent = 2 * 1.96 * (0.24 / 12000) ** 0.5
    assert independent < high - low < 2 * independent
    alike = np.repeat(rng.random((1, 40)) < 0.6, 300, axis=0).astype(float)  # all agree: as 40 coins, not as 12,000
    low, high = bootstrap(alike, votes)
    assert high - low == pytest.approx(2 * 1.96 * (alike.mean() * (1 - alike.mean()) / 40) ** 0.5, rel=0.1)
    assert bootstrap(alike.T, votes.T)[0] == pytest.approx(low, abs=0.03)
    assert bootstrap(alone, votes) == bootstrap(alone, votes)
    assert bootstrap(alone[:1], votes[:1]) is None


def a_model(rng, preference, people, prompts, position=0.4, deviations=(0.8, 0.6)):
    """Votes from the model itself."""
    u, v = rng.normal(0, deviations[0], (people, 1)), rng.normal(0, deviations[1], (1, prompts))
    left = rng.random((people, prompts)) < 0.5
    odds = np.log(preference / (1 - preference)) + u + v + np.where(left, position / 2, -position / 2)
    won = rng.random((people, prompts)) < 1 / (1 + np.exp(-odds))
    who, what = np.meshgrid(range(people), range(prompts), indexing="ij")
    return won.ravel(), left.ravel(), who.ravel(), what.ravel()


def test_the_mixed_model_finds_a_known_truth():
    rng = np.random.default_rng(1)
    found = mixed(*a_model(rng, 0.7, 120, 60))
    assert found.rate == pytest.approx(0.7, abs=0.06)
    assert found.interval[0] < 0.7 < found.interval[1]
    assert found.position == pytest.approx(0.4, abs=0.15)
    assert found.participants_deviation == pytest.approx(0.8, abs=0.2)
    assert found.prompts_deviation == pytest.approx(0.6, abs=0.2)


def test_the_mixed_models_intervals_hold_what_they_promise():
    rng = np.random.default_rng(2)
    inside = 0
    for _ in range(20):
        low, high = mixed(*a_model(rng, 0.6, 20, 12)).interval
        inside += low < 0.6 < high
    assert inside >= 16  # of 20 at 95 %: fewer once in 400


def test_without_random_effects_it_is_a_logistic_regression():
    import statsmodels.api as sm

    won, left, who, what = a_model(np.random.default_rng(3), 0.65, 40, 30, deviations=(0.0, 0.0))
    plain = sm.Logit(won.astype(float), np.column_stack([np.ones(len(won)), np.where(left, 0.5, -0.5)])).fit(disp=0)
    found = mixed(won, left, who, what)
    assert found.rate == pytest.approx(1 / (1 + np.exp(-plain.params[0])), abs=0.01)
    assert found.position == pytest.approx(plain.params[1], abs=0.05)
    assert mixed(np.ones(4, bool), left[:4], who[:4], what[[0, 1, 2, 3]]) is None


def test_agreement():
    assert agreement([["a", "a"], ["b", "b"], ["a", "a"]]) == pytest.approx(1.0)
    assert agreement([["a", "b"], ["b", "a"]]) == pytest.approx(-1.0)
    rng = np.random.default_rng(0)
    first = rng.choice(["a", "b", "tie"], 400)
    second = np.where(rng.random(400) < 0.5, first, rng.choice(["a", "b", "tie"], 400))
    # of two raters with equal margins Cohen's kappa is nearly Fleiss'
    assert agreement(np.column_stack([first, second]).tolist()) == pytest.approx(
        cohen_kappa_score(first, second), abs=0.01
    )
    assert agreement([["a", "a"]]) is None
    assert agreement([["a", "a"], ["a", "a"]]) is None


# --- Results ----------------------------------------------------------------------------------------------------------


def table(rows):
    """Votes as (participant, pair, winner, left), of prompts p1, p2, …; a winner in capitals is of a check."""
    return pl.DataFrame(
        [
            {
                "participant": participant,
                "place": place,
                "pair": pair,
                "prompt": f"p{pair}",
                "check": winner.isupper(),
                "repetition": repetition,
                "question": "overall",
                "left": left,
                "choice": "tie" if winner == "tie" else "left" if winner.lower() == left else "right",
                "winner": winner.lower(),
                "seconds": float(place),
                "at": None,
            }
            for place, (participant, pair, winner, left, repetition) in enumerate(rows, 1)
        ],
        schema=COLUMNS,
    )


VOTES = table(
    [
        (1, 1, "a", "a", 0),
        (1, 2, "a", "b", 0),
        (1, 3, "b", "b", 0),
        (1, 1, "b", "a", 1),
        (1, 9, "A", "b", 0),
        (2, 1, "a", "b", 0),
        (2, 2, "tie", "a", 0),
        (2, 3, "a", "a", 0),
        (2, 2, "tie", "a", 1),
        (2, 9, "B", "b", 0),
    ]
)


def test_every_vote_is_counted_where_it_belongs():
    results = tell(VOTES, Settings(tie=True))
    found = results["questions"]["overall"]
    assert (found["votes"], found["ties"]) == (6, 1)
    assert (found["preference"]["wins"], found["preference"]["votes"], found["preference"]["rate"]) == (4, 5, 0.8)
    assert (found["position"]["wins"], found["position"]["votes"]) == (3, 5)
    assert (found["consistency"]["wins"], found["consistency"]["votes"]) == (1, 2)
    assert found["majorities"]["participants"]["wins"] == 2
    assert (found["majorities"]["prompts"]["wins"], found["majorities"]["prompts"]["votes"]) == (2, 2)  # p3 is even
    assert [(row["prompt"], row["a"], row["b"], row["tie"]) for row in found["by_prompt"]] == [
        ("p1", 2, 0, 0),
        ("p2", 1, 0, 1),
        ("p3", 1, 1, 0),
    ]
    assert results["attention"] == {"checks": 2, "failed": 1, "participants": [2]}
    assert [(row["participant"], row["failed"], row["left"], row["seconds"]) for row in results["by_participant"]] == [
        (1, 0, 2, 2.0),
        (2, 1, 1, 7.0),
    ]
    assert found["agreement"] == pytest.approx(agreement([["a", "a"], ["a", "tie"], ["b", "a"]]))
    alone = tell(VOTES, Settings(tie=True), attentive=True)
    assert (alone["left_out"], alone["participants"], alone["questions"]["overall"]["preference"]["wins"]) == (
        [2],
        1,
        2,
    )
    assert json.loads(json.dumps(results))["questions"]["overall"]["bootstrap"] == list(found["bootstrap"])


def test_no_votes_are_no_error():
    results = tell(table([]), Settings(questions="two"))
    assert results["participants"] == 0
    assert results["questions"]["text"]["preference"]["rate"] is None
    assert bars(results).startswith(b"\x89PNG")


def test_the_bars_are_as_long_as_the_shares():
    votes = table([(k, 1, "a" if k < 6 else "b", "a", 0) for k in range(8)])
    image = np.asarray(Image.open(io.BytesIO(bars(tell(votes, Settings())))).convert("RGB")).astype(int)
    lengths = {}
    for side in ("a", "b"):
        wanted = [int(COLOURS[side][k : k + 2], 16) for k in (1, 3, 5)]
        lengths[side] = (np.abs(image - wanted).sum(2) < 10).sum(1).max()
    assert lengths["a"] / lengths["b"] == pytest.approx(3, rel=0.05)
    assert bars(tell(votes, Settings()), "pdf").startswith(b"%PDF")


# --- Simulated votes --------------------------------------------------------------------------------------------------


def test_simulated_votes_have_their_truth(tmp_path):
    study = a_study(tmp_path / "s", pairs=30, checks=2, repeats=4, tie=True)
    database = Database(study.rehearsal, study.settings.identity)
    truth = Truth(0.7, participants_deviation=0, prompts_deviation=0, position=1.0, tie=0.2, lapse=0.1)
    simulate(study, database, 100, truth, seed=1)
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
    nothing = power(Truth(0.5, 0.5, 0.5), 30, 20, studies=150)
    assert nothing < 0.07  # a cautious interval
    some, more, most = (power(Truth(0.6, 0.3, 0.3), n, 20, studies=100) for n in (5, 30, 200))
    assert some < more <= most
    assert most > 0.85
    with pytest.raises(ValueError, match="preference = 1: must be above 0 and below 1"):
        Truth(1)


# --- The commands -----------------------------------------------------------------------------------------------------


def test_rehearsal_and_results_by_command(tmp_path, monkeypatch, capsys):
    asked = Asked(tmp_path / "s", monkeypatch, pairs=6, checks=1, repeats=2)
    study = str(asked.folder.path)
    assert main(["study", "simulate", study, "--participants", "8", "--preference", "0.8", "--json"]) == 0
    simulated = json.loads(capsys.readouterr().out)
    assert simulated["questions"]["overall"]["votes"] == 48
    assert main(["study", "results", study, "--rehearsal", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == simulated
    assert main(["study", "simulate", study, "--participants", "8", "--preference", "0.8", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == simulated  # anew, and not more
    asked.answer_all("ann")
    words = ["--votes", str(tmp_path / "v.parquet"), "--picture", str(tmp_path / "bars.svg")]
    assert main(["study", "results", study, *words]) == 0
    shown = capsys.readouterr().out
    assert "student preferred to teacher: 1 participants" in shown
    assert pl.read_parquet(tmp_path / "v.parquet").equals(asked.owner.votes())
    assert b"<svg" in (tmp_path / "bars.svg").read_bytes()
    assert main(["study", "simulate", study, "--power", "--json"]) == 0
    planned = json.loads(capsys.readouterr().out)
    assert planned["prompts"] == 6
    assert list(planned["power"]) == ["10", "20", "30", "50", "100"]


def test_bad_requests(tmp_path, refused):
    study = a_study(tmp_path / "s").path
    assert "--votes = 'x.txt': must be a .csv or .parquet" in refused("study", "results", study, "--votes", "x.txt")
    assert "not a study's folder" in refused("study", "results", tmp_path)
    assert "participants = 0: must be at least 1" in refused("study", "simulate", study, "--participants", "0")
    assert "preference = 0.0: must be above 0" in refused("study", "simulate", study, "--preference", "0")
    assert "database: cannot be opened" in refused("study", "results", study, "--database", "nonsense")
    assert "--port = 0: must be in" in refused("study", "serve", study, "--port", "0")
