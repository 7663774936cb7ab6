"""Simulated votes: to rehearse a study, and to plan how many participants it needs."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from math import inf, isfinite, log

import numpy as np

from simdistill.study.ballot import arranged
from simdistill.study.database import Database, now
from simdistill.study.estimates import Counts, bootstrap
from simdistill.study.folder import Pair
from simdistill.study.settings import Choice, Settings, Side
from simdistill.study.tables import Participant, Vote
from simdistill.support.checks import require

CERTAIN = 20.0  # log-odds of a real image against noise
PLANNED = 400  # bootstrap replicates per simulated study, for the power


@dataclass(frozen=True)
class Truth:
    """How simulated people choose: log-odds of side a = logit(preference) + participant + prompt ± position / 2.

    The participants' and prompts' effects are normal with these standard deviations; the sign is + if a is on the left.
    `tie` is the probability of a tie, `lapse` that of a random answer.
    """

    preference: float = 0.6
    participants_deviation: float = 0.5
    prompts_deviation: float = 0.5
    position: float = 0.0
    tie: float = 0.0
    lapse: float = 0.0

    def __post_init__(self) -> None:
        require(0 < self.preference < 1, "--preference", self.preference, "above 0 and below 1")
        require(isfinite(self.position), "--position", self.position, "a finite number")
        for name in ("participants_deviation", "prompts_deviation"):
            value = getattr(self, name)
            require(0 <= value < inf, f"--{name.replace('_', '-')}", value, "0 or more, and finite")
        for name in ("tie", "lapse"):
            require(0 <= getattr(self, name) <= 1, f"--{name}", getattr(self, name), "in 0 … 1")


def simulate(
    shown: Sequence[Pair], settings: Settings, database: Database, participants: int, truth: Truth, seed: int = 0
) -> None:
    """Add the votes of simulated participants, each of whom answers all the pairs that are `shown`."""
    require(participants >= 1, "--participants", participants, "at least 1")
    rng, draws = random.Random(seed), np.random.default_rng(seed)
    pairs = {pair.number: pair for pair in shown}
    prompts = {pair.prompt: draws.normal(0, truth.prompts_deviation) for pair in shown}
    with database.session() as session:
        for _ in range(participants):
            own = draws.normal(0, truth.participants_deviation)
            order = arranged(shown, settings.repeats, rng)
            time = now()
            for one in order:
                pair = pairs[one.pair]
                odds = CERTAIN if pair.check else _logit(truth.preference) + own + prompts[pair.prompt]
                tie = 0.0 if pair.check or not settings.tie else truth.tie
                one.shown = time
                seconds = float(draws.lognormal(1.5, 0.5))
                time += timedelta(seconds=seconds)
                one.votes = [
                    Vote(question=name, choice=_choice(truth, odds, one.left, tie, draws), at=time, seconds=seconds)
                    for name in settings.asked
                ]
            session.add(Participant(digest=f"{rng.getrandbits(256):064x}", consented=now(), presentations=order))


def power(truth: Truth, participants: int, pairs: Sequence[int], studies: int = 200, seed: int = 0) -> float:
    """The power: the share of simulated `studies` whose bootstrap interval excludes 1/2.

    `pairs` is the number of pairs of each prompt.
    """
    draws = np.random.default_rng(seed)
    found = 0
    for k in range(studies):
        interval = bootstrap(*_table(truth, participants, pairs, draws), replicates=PLANNED, seed=k)
        found += interval is not None and not interval[0] <= 0.5 <= interval[1]
    return found / studies


def _table(truth: Truth, participants: int, pairs: Sequence[int], draws: np.random.Generator) -> tuple[Counts, Counts]:
    """Wins and votes `[participants, prompts]` of one study."""
    people = draws.normal(0, truth.participants_deviation, (participants, 1))
    texts = np.repeat(draws.normal(0, truth.prompts_deviation, (1, len(pairs))), pairs, axis=1)
    sides = draws.choice([-0.5, 0.5], (participants, texts.shape[1]))
    odds = _logit(truth.preference) + people + texts + truth.position * sides
    chance = truth.lapse / 2 + (1 - truth.lapse) / (1 + np.exp(-odds))
    votes = (draws.random(chance.shape) >= truth.tie).astype(float)
    wins = votes * (draws.random(chance.shape) < chance)
    firsts = np.cumsum([0, *pairs[:-1]])
    return np.add.reduceat(wins, firsts, axis=1), np.add.reduceat(votes, firsts, axis=1)


def _choice(truth: Truth, odds: float, left: Side, tie: float, draws: np.random.Generator) -> Choice:
    """The answer to a pair whose side a has these log-odds."""
    if draws.random() < tie:
        return "tie"
    odds += truth.position * (0.5 if left == "a" else -0.5)
    chance = 0.5 if draws.random() < truth.lapse else 1 / (1 + np.exp(-odds))
    a_wins = draws.random() < chance
    return "left" if a_wins == (left == "a") else "right"


def _logit(chance: float) -> float:
    return log(chance / (1 - chance))
