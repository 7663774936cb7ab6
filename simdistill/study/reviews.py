"""What the owner decided about pairs, and which of them are shown."""

from collections.abc import Mapping, Sequence

import sqlalchemy as sa
from sqlalchemy.orm import Session

from simdistill.study.folder import Pair, StudyFolder
from simdistill.study.tables import Review


def decided(session: Session) -> Mapping[int, bool]:
    """Whether the pairs that were reviewed are kept, by their numbers."""
    return {review.pair: review.kept for review in session.scalars(sa.select(Review))}


def visible(session: Session, folder: StudyFolder) -> Sequence[Pair]:
    """The pairs that are shown: all that were not dropped, of a reviewed study those kept; and checks of these only."""
    kept = decided(session)
    shown = {pair.number for pair in folder.pairs if kept.get(pair.number, not folder.settings.review)}
    return [pair for pair in folder.pairs if {pair.number, pair.of or pair.number} <= shown]
