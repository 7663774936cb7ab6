"""Intervals, tests and models of votes: against scipy's, statsmodels' and sklearn's answers and closed forms."""

from math import comb

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score
from statsmodels.stats.proportion import proportion_confint

from simdistill.study.estimates import Share, agreement, bootstrap, mixed


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


@pytest.mark.slow
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
