"""The owner's decisions about pairs, and which pairs are shown."""

from collections.abc import Mapping, Sequence

import sqlalchemy as sa
from sqlalchemy.orm import Session

from simdistill.study.folder import Pair, StudyFolder
from simdistill.study.tables import Review


def decided(session: Session) -> Mapping[int, bool]:
    """For each reviewed pair, by number: is it kept?"""
    return {review.pair: review.kept for review in session.scalars(sa.select(Review))}


def visible(session: Session, folder: StudyFolder) -> Sequence[Pair]:
    """The pairs to show: those not dropped (with review: those kept), and the attention checks made from them."""
    kept = decided(session)
    shown = {pair.number for pair in folder.pairs if kept.get(pair.number, not folder.settings.review)}
    return [pair for pair in folder.pairs if {pair.number, pair.of or pair.number} <= shown]
