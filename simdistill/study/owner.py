"""The owner's side of a study: review the pairs, and read the votes as a table."""

from collections.abc import Mapping, Sequence

import polars as pl
import sqlalchemy as sa
from sqlalchemy.orm import lazyload

from simdistill.study.database import Database, now
from simdistill.study.folder import Pair, StudyFolder
from simdistill.study.reviews import decided, visible
from simdistill.study.tables import Participant, Presentation, Review, Vote
from simdistill.support.checks import require

COLUMNS: dict[str, type[pl.DataType]] = {
    "participant": pl.Int64,
    "place": pl.Int64,
    "pair": pl.Int64,
    "prompt": pl.String,
    "check": pl.Boolean,
    "repetition": pl.Int64,
    "question": pl.String,
    "left": pl.String,
    "choice": pl.String,
    "winner": pl.String,
    "seconds": pl.Float64,
    "at": pl.Datetime,
}
"""Columns of the table of votes. `left` is the side shown on the left; `winner` is the chosen side, or tie."""


class Owner:
    """The owner's side of a study."""

    def __init__(self, folder: StudyFolder, database: Database) -> None:
        self._folder, self._database = folder, database
        self._pairs = {pair.number: pair for pair in folder.pairs}

    def reviews(self) -> Mapping[int, bool]:
        """For each reviewed pair, by number: is it kept?"""
        with self._database.session() as session:
            return decided(session)

    def shown(self) -> Sequence[Pair]:
        """The pairs shown to new participants, with attention checks; `ValueError` if there are none."""
        with self._database.session() as session:
            found = visible(session, self._folder)
        require(len(found) > 0, f"{self._folder.path}: pairs to show", 0, "at least 1: keep some on the owner's page")
        return found

    def review(self, pair: int, kept: bool) -> None:
        """Keep or drop a pair from now on; `ValueError` for an unknown number."""
        require(pair in self._pairs, "pair", pair, f"in 1 … {len(self._pairs)}")
        with self._database.session() as session:
            session.merge(Review(pair=pair, kept=kept, at=now()))

    def keep_rest(self) -> None:
        """Keep all pairs that were not reviewed yet."""
        with self._database.session() as session:
            known = decided(session)
            session.add_all(Review(pair=pair, kept=True, at=now()) for pair in self._pairs if pair not in known)

    def participants(self) -> int:
        """The number of participants."""
        with self._database.session() as session:
            return session.scalar(sa.select(sa.func.count()).select_from(Participant)) or 0

    def people(self) -> Mapping[int, bool]:
        """For each participant, by number: are they excluded from the results?"""
        with self._database.session() as session:
            found = session.scalars(
                sa.select(Participant).order_by(Participant.id).options(lazyload(Participant.presentations))
            )
            return {one.id: one.excluded for one in found}

    def excluded(self) -> Sequence[int]:
        """The numbers of the participants excluded from the results."""
        return [number for number, excluded in self.people().items() if excluded]

    def exclude(self, number: int, excluded: bool) -> None:
        """Exclude a participant from the results, or include them again; `ValueError` for an unknown number."""
        change = sa.update(Participant).where(Participant.id == number).values(excluded=excluded)
        self._change(number, change)

    def delete(self, number: int) -> None:
        """Delete a participant and all their answers; `ValueError` for an unknown number."""
        self._change(number, sa.delete(Participant).where(Participant.id == number))
        self._database.empty_log()

    def _change(self, number: int, change: sa.Update | sa.Delete) -> None:
        require(number in self.people(), "participant", number, "the number of a participant")
        with self._database.session() as session:
            session.execute(change)

    def votes(self) -> pl.DataFrame:
        """All votes, one per row with the `COLUMNS`; without dropped pairs and excluded participants."""
        dropped = [pair for pair, kept in self.reviews().items() if not kept]
        with self._database.session() as session:
            joined = session.execute(
                sa.select(Presentation, Vote)
                .join(Presentation.votes)
                .join(Participant, Participant.id == Presentation.participant_id)
                .where(Presentation.pair.not_in(dropped), Participant.excluded.is_(False))
                .order_by(Vote.participant_id, Vote.place, Vote.question)
                .options(lazyload(Presentation.votes))
            ).all()
            rows = [self._row(presentation, vote) for presentation, vote in joined]
        return pl.DataFrame(rows, schema=COLUMNS, orient="row")

    def _row(self, one: Presentation, vote: Vote) -> dict[str, object]:
        pair = self._pairs[one.pair]
        sides = {"left": one.left, "right": "b" if one.left == "a" else "a", "tie": "tie"}
        return {
            "participant": one.participant_id,
            "place": one.place,
            "pair": one.pair,
            "prompt": pair.prompt,
            "check": pair.check,
            "repetition": one.repetition,
            "question": vote.question,
            "left": one.left,
            "choice": vote.choice,
            "winner": sides[vote.choice],
            "seconds": vote.seconds,
            "at": vote.at,
        }
