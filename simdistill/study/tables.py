"""The tables of a study: participants (only a hash of their token), what they were shown, and their answers."""

from datetime import datetime

from sqlalchemy import CheckConstraint, Double, ForeignKey, ForeignKeyConstraint, String, UniqueConstraint, false
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from simdistill.study.settings import Choice, Side


class Table(DeclarativeBase):
    """Base of all tables. Times are UTC, without a time zone."""


class Identity(Table):
    """The study that the database belongs to; one row."""

    __tablename__ = "study"

    identity: Mapped[str] = mapped_column(String(32), primary_key=True)


class Participant(Table):
    """A person who consented. The token itself is only in their browser: the database cannot be used to vote.

    The owner may exclude them from the results.
    """

    __tablename__ = "participants"

    id: Mapped[int] = mapped_column(primary_key=True)
    digest: Mapped[str] = mapped_column(String(64), unique=True)
    consented: Mapped[datetime]
    excluded: Mapped[bool] = mapped_column(default=False, server_default=false())
    presentations: Mapped[list["Presentation"]] = relationship(
        order_by="Presentation.place", lazy="selectin", cascade="all, delete-orphan", passive_deletes=True
    )


class Presentation(Table):
    """A pair at a `place` of a participant's order; `left` is the side shown on the left.

    A pair appears at most twice, the second time as repetition 1. `shown` is when it was last shown.
    """

    __tablename__ = "presentations"
    __table_args__ = (
        UniqueConstraint("participant_id", "pair", "repetition", name="one_a_repetition"),
        CheckConstraint("\"left\" IN ('a', 'b')", name="left_is_a_side"),
    )

    participant_id: Mapped[int] = mapped_column(ForeignKey("participants.id", ondelete="CASCADE"), primary_key=True)
    place: Mapped[int] = mapped_column(primary_key=True)
    pair: Mapped[int]
    repetition: Mapped[int]
    left: Mapped[Side] = mapped_column(String(1))
    shown: Mapped[datetime | None]
    votes: Mapped[list["Vote"]] = relationship(lazy="selectin", cascade="all, delete-orphan", passive_deletes=True)


class Vote(Table):
    """A participant's answer to a question about a presentation, `seconds` after it was shown."""

    __tablename__ = "votes"
    __table_args__ = (
        ForeignKeyConstraint(
            ["participant_id", "place"], ["presentations.participant_id", "presentations.place"], ondelete="CASCADE"
        ),
        CheckConstraint("choice IN ('left', 'right', 'tie')", name="choice_is_known"),
    )

    participant_id: Mapped[int] = mapped_column(primary_key=True)
    place: Mapped[int] = mapped_column(primary_key=True)
    question: Mapped[str] = mapped_column(String(16), primary_key=True)
    choice: Mapped[Choice] = mapped_column(String(5))
    at: Mapped[datetime]
    seconds: Mapped[float] = mapped_column(Double)


class Review(Table):
    """The owner's decision to keep or to drop a pair."""

    __tablename__ = "reviews"

    pair: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    kept: Mapped[bool]
    at: Mapped[datetime]
