"""Statistics of the votes: rates with intervals, tests, random effects of participants and prompts, agreement."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import scipy.sparse
import scipy.stats
from numpy.typing import NDArray

Interval: TypeAlias = tuple[float, float]
Counts: TypeAlias = NDArray[Any]

LEVEL = 0.95  # confidence level of all intervals
REPLICATES = 2000  # bootstrap replicates
PRIOR = 2  # standard deviation of the fixed effects' prior, in log-odds
FEWEST = 2  # participants, prompts: the fewest whose differences can be estimated


@dataclass(frozen=True)
class Share:
    """`wins` of `votes`: the rate, its Wilson interval, and the p-value of the two-sided sign test."""

    wins: int
    votes: int
    rate: float | None
    wilson: Interval | None
    p: float | None

    @classmethod
    def of(cls, wins: int, votes: int) -> "Share":
        """The share of these counts; without votes, everything but the counts is None."""
        if votes == 0:
            return cls(0, 0, None, None, None)
        test = scipy.stats.binomtest(wins, votes, 0.5)
        interval = test.proportion_ci(LEVEL, "wilson")
        return cls(wins, votes, wins / votes, (float(interval.low), float(interval.high)), float(test.pvalue))


@dataclass(frozen=True)
class Mixed:
    """A logistic model with participants and prompts as random effects.

    `rate` is the preference of a typical participant for a typical prompt, without position bias; `position` is the
    advantage of the left image, in log-odds; the deviations are standard deviations of the random effects, in log-odds.
    """

    rate: float
    interval: Interval
    position: float
    position_interval: Interval
    participants_deviation: float
    prompts_deviation: float


def bootstrap(wins: Counts, votes: Counts, replicates: int = REPLICATES, seed: int = 0) -> Interval | None:
    """The percentile interval of the rate of `wins` in `votes`, both `[participants, prompts]`.

    Resamples participants and prompts with replacement (the pigeonhole bootstrap, Owen 2007), so that the interval
    generalises to other people and other prompts; it is conservative. None with fewer than 2 of either.
    """
    people, prompts = votes.shape
    if people < FEWEST or prompts < FEWEST or votes.sum() == 0:
        return None
    rng = np.random.default_rng(seed)
    p = rng.multinomial(people, np.full(people, 1 / people), replicates).astype(float)
    q = rng.multinomial(prompts, np.full(prompts, 1 / prompts), replicates).astype(float)
    drawn, won = ((p @ votes) * q).sum(1), ((p @ wins) * q).sum(1)
    rates = won[drawn > 0] / drawn[drawn > 0]
    low, high = np.quantile(rates, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def mixed(won: Counts, left: Counts, participants: Counts, prompts: Counts) -> Mixed | None:
    """Fit the model to votes, one per row: did the side win, was it on the left, which participant, which prompt?

    None if it cannot be fitted: fewer than 2 participants or prompts, or all votes for the same side.
    """
    people, texts = np.unique(participants, return_inverse=True), np.unique(prompts, return_inverse=True)
    if min(len(people[0]), len(texts[0])) < FEWEST or not 0 < won.sum() < len(won):
        return None
    from statsmodels.genmod.bayes_mixed_glm import BinomialBayesMixedGLM  # takes seconds

    fixed = np.column_stack([np.ones(len(won)), np.where(left, 0.5, -0.5)])
    random = scipy.sparse.hstack([_indicators(people[1]), _indicators(texts[1])]).tocsr()
    kinds = np.repeat([0, 1], [len(people[0]), len(texts[0])])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about the optimiser's last digits
        model: Any = BinomialBayesMixedGLM(won.astype(float), fixed, random, kinds, vcp_p=1, fe_p=PRIOR)
        starts = np.zeros(2 + 2 + random.shape[1])  # its default is random, which would change the last digits
        found: Any = model.fit_vb(mean=starts, sd=np.full_like(starts, 0.5))
    deviations = np.exp(found.vcp_mean)
    design = np.hstack([fixed, random.toarray()])
    centre = np.concatenate([found.fe_mean, found.vc_mean])
    width = scipy.stats.norm.ppf((1 + LEVEL) / 2) * _errors(design, centre, [PRIOR, PRIOR, *deviations[kinds]])[:2]
    low, high = found.fe_mean - width, found.fe_mean + width
    return Mixed(
        rate=float(_logistic(found.fe_mean[0])),
        interval=(float(_logistic(low[0])), float(_logistic(high[0]))),
        position=float(found.fe_mean[1]),
        position_interval=(float(low[1]), float(high[1])),
        participants_deviation=float(deviations[0]),
        prompts_deviation=float(deviations[1]),
    )


def _errors(design: Counts, effects: Counts, deviations: Sequence[float]) -> Counts:
    """Standard errors of the effects by Laplace's approximation, given the prior's standard deviations.

    Those of the variational posterior assume independent effects and are too small.
    """
    chance = _logistic(design @ effects)
    precision = design.T @ (design * (chance * (1 - chance))[:, None]) + np.diag(np.asarray(deviations) ** -2.0)
    return np.sqrt(np.diag(np.linalg.inv(precision)))


def agreement(answers: Sequence[Sequence[str]]) -> float | None:
    """Fleiss' kappa of raters who all answered the same pairs, `answers[pair][rater]`: 1 full agreement, 0 chance.

    None with fewer than 2 raters or pairs, or if all answers are the same.
    """
    given = {answer for row in answers for answer in row}
    if len(answers) < FEWEST or len(answers[0]) < FEWEST or len(given) < FEWEST:
        return None
    from statsmodels.stats.inter_rater import aggregate_raters, fleiss_kappa

    codes = {answer: code for code, answer in enumerate(sorted(given))}
    counts, _ = aggregate_raters(np.array([[codes[answer] for answer in row] for row in answers]))
    return float(fleiss_kappa(counts))


def _indicators(codes: Counts) -> Any:
    rows = np.arange(len(codes))
    return scipy.sparse.csr_matrix((np.ones(len(codes)), (rows, codes)))


def _logistic(x: Any) -> Any:
    return 1 / (1 + np.exp(-x))
