"""The results of a study: by question, by prompt and by participant."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import polars as pl

from simdistill.study.estimates import LEVEL, Counts, Share, agreement, bootstrap, mixed
from simdistill.study.settings import Settings

Results = Mapping[str, Any]


def tell(
    votes: pl.DataFrame,
    settings: Settings,
    attentive: bool = False,
    simulated: bool = False,
    excluded: Sequence[int] = (),
) -> Results:
    """The results of side a against side b from a table of votes (see `Owner.votes`), as JSON values.

    Rates are side a's share of the non-tied votes; ties count only in `ties`. Attention checks and repeats count only
    in `attention` and `consistency`. A participant fails a check unless they prefer the real image in every question;
    `attentive` leaves out participants who failed one. `simulated` marks the votes of a rehearsal. Participants
    `excluded` by the owner are left out of everything.
    """
    votes = votes.filter(~pl.col("participant").is_in(list(excluded)))
    checks = (
        votes.filter(pl.col("check"))
        .group_by("participant", "pair")
        .agg((pl.col("winner") == "a").all().alias("passed"))
    )
    failed = checks.filter(~pl.col("passed"))
    failing = failed["participant"].unique().sort().to_list()
    if attentive:
        votes = votes.filter(~pl.col("participant").is_in(failing))
    counted = votes.filter(~pl.col("check") & (pl.col("repetition") == 0))
    return {
        "a": settings.a,
        "b": settings.b,
        "simulated": simulated,
        "level": LEVEL,
        "participants": votes["participant"].n_unique(),
        "excluded": list(excluded),
        "left_out": failing if attentive else [],
        "attention": {"checks": checks.height, "failed": failed.height, "participants": failing},
        "questions": {
            question: _question(
                counted.filter(pl.col("question") == question), votes.filter(pl.col("question") == question)
            )
            for question in settings.asked
        },
        "by_participant": _by_participant(counted, failed),
    }


def _question(counted: pl.DataFrame, votes: pl.DataFrame) -> dict[str, Any]:
    """The results of one question."""
    decided = counted.filter(pl.col("winner") != "tie")
    won, left = (decided["winner"] == "a").to_numpy(), (decided["left"] == "a").to_numpy()
    people, prompts = decided["participant"].to_numpy(), decided["prompt"].to_numpy()
    fitted = mixed(won, left, people, prompts)
    return {
        "votes": counted.height,
        "ties": counted.height - decided.height,
        "preference": asdict(Share.of(int(won.sum()), len(won))),
        "bootstrap": bootstrap(*_crossed(won, people, prompts)),
        "majorities": {
            "participants": _majorities(decided, "participant"),
            "prompts": _majorities(decided, "prompt"),
        },
        "mixed": None if fitted is None else asdict(fitted),
        "position": asdict(Share.of(int((won == left).sum()), len(won))),
        "agreement": _agreement(counted),
        "consistency": _consistency(votes),
        "by_prompt": _by_prompt(counted),
    }


def _crossed(won: Counts, people: Counts, prompts: Counts) -> tuple[Counts, Counts]:
    """Wins and votes `[participants, prompts]`."""
    (who, row), (what, column) = np.unique(people, return_inverse=True), np.unique(prompts, return_inverse=True)
    wins, votes = np.zeros((len(who), len(what))), np.zeros((len(who), len(what)))
    np.add.at(wins, (row, column), won)
    np.add.at(votes, (row, column), 1)
    return wins, votes


def _majorities(decided: pl.DataFrame, key: str) -> dict[str, Any]:
    """The number of participants (or prompts) with a majority for a; those with equal votes are left out."""
    margins = decided.group_by(key).agg(((pl.col("winner") == "a").sum() * 2 - pl.len().cast(pl.Int64)).alias("margin"))
    ahead, behind = margins.filter(pl.col("margin") > 0), margins.filter(pl.col("margin") < 0)
    return asdict(Share.of(ahead.height, ahead.height + behind.height))


def _agreement(counted: pl.DataFrame) -> float | None:
    """Fleiss' kappa among the participants who answered every pair."""
    pairs = counted["pair"].n_unique()
    whole = counted.group_by("participant").len().filter(pl.col("len") == pairs)["participant"]
    ordered = counted.filter(pl.col("participant").is_in(whole.implode())).sort("pair", "participant")
    return agreement([rows["winner"].to_list() for _, rows in ordered.group_by("pair", maintain_order=True)])


def _consistency(votes: pl.DataFrame) -> dict[str, Any]:
    """How often a repeated pair got the same answer again."""
    keys = ["participant", "pair", "question"]
    again = votes.filter(pl.col("repetition") == 1).select(*keys, pl.col("winner").alias("second"))
    both = votes.filter(pl.col("repetition") == 0).join(again, on=keys)
    return asdict(Share.of(both.filter(pl.col("winner") == pl.col("second")).height, both.height))


def _by_prompt(counted: pl.DataFrame) -> Sequence[dict[str, Any]]:
    groups = counted.sort("pair").group_by("prompt", maintain_order=True)
    return [{"prompt": str(prompt), **_split(rows)} for (prompt,), rows in groups]


def _by_participant(counted: pl.DataFrame, failed: pl.DataFrame) -> Sequence[dict[str, Any]]:
    groups = counted.sort("participant").group_by("participant", maintain_order=True)
    return [
        {
            "participant": number,
            **_split(rows),
            "left": rows.filter(pl.col("choice") == "left").height,
            "failed": failed.filter(pl.col("participant") == number).height,
            "seconds": rows["seconds"].median(),
        }
        for (number,), rows in groups
    ]


def _split(rows: pl.DataFrame) -> dict[str, Any]:
    """The votes for either side, and the ties."""
    a, b, tie = (rows.filter(pl.col("winner") == one).height for one in ("a", "b", "tie"))
    share = Share.of(a, a + b)
    return {"a": a, "b": b, "tie": tie, "rate": share.rate, "wilson": share.wilson}
