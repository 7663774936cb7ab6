"""The participant's side: join, see pairs in an individual random order, vote, change a vote, delete all answers."""

import hashlib
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session
from sqlalchemy.orm.exc import StaleDataError

from simdistill.study.database import Database, now
from simdistill.study.folder import Pair, StudyFolder
from simdistill.study.reviews import visible
from simdistill.study.settings import Choice, Side
from simdistill.study.tables import Participant, Presentation, Vote
from simdistill.support.checks import require

Stored = TypeVar("Stored")

NUMBERS = (10**6, 10**7)  # range of participant numbers: random, so that they do not reveal the order of joining
TOO_SOON = 0.3  # seconds after a pair is shown: probably the second half of a double click on the previous pair


class NoPairError(LookupError):
    """A participant's order has no pair at this place."""


class NotShownError(LookupError):
    """The sender has not joined the study, or has not been shown the pair yet."""


@dataclass(frozen=True)
class Shown:
    """A pair as a participant sees it: pair `number` of `of`, its images, their size, and the answers so far."""

    place: int
    number: int
    of: int
    prompt: str
    pictures: tuple[str, str]
    size: tuple[int, int]
    answers: Mapping[str, Choice]


@dataclass(frozen=True)
class Progress:
    """A participant's progress: the places of all pairs, and of those still `open` (without an answer)."""

    places: Sequence[int]
    open: Sequence[int]


class Ballot:
    """The participants' side of a study. A random token, known only to the participant, identifies them.

    The settings of `folder` decide what is asked about each visible pair; `rng` draws the orders.
    """

    def __init__(self, folder: StudyFolder, database: Database, rng: random.Random | None = None) -> None:
        self._folder, self._settings, self._sizes, self._database = folder, folder.settings, folder.sizes, database
        self._pairs = {pair.number: pair for pair in folder.pairs}
        self._rng = rng or random.SystemRandom()

    def offered(self) -> int:
        """Number of pairs shown to a new participant, with checks and repeats; 0 if the study is not open yet."""
        with self._database.session() as session:
            checks = [pair.check for pair in visible(session, self._folder)]
            return len(checks) + min(self._settings.repeats, checks.count(False))

    def join(self, token: str) -> None:
        """Join the study, with a random order of pairs and sides; does nothing if already joined or without pairs."""
        _settled(lambda: self._add(token))

    def progress(self, token: str) -> Progress | None:
        """The participant's progress; None for an unknown token."""
        with self._database.session() as session:
            participant = _participant(session, token)
            if participant is None:
                return None
            asked = self._asked(session, participant)
            return Progress(
                [one.place for one in asked],
                [one.place for one in asked if len(one.votes) < len(self._settings.asked)],
            )

    def show(self, token: str, place: int) -> Shown | None:
        """The pair at a place of the participant's order, now marked as shown; None if there is no visible pair."""
        with self._database.session() as session:
            participant = _participant(session, token)
            asked = [] if participant is None else self._asked(session, participant)
            for number, one in enumerate(asked, 1):
                if one.place == place:
                    one.shown = now()
                    pair = self._pairs[one.pair]
                    pictures = (pair.a, pair.b) if one.left == "a" else (pair.b, pair.a)
                    answers: dict[str, Choice] = {vote.question: vote.choice for vote in one.votes}
                    return Shown(place, number, len(asked), pair.prompt, pictures, self._sizes[one.pair], answers)
        return None

    def vote(self, token: str, place: int, answers: Mapping[str, str]) -> bool:
        """Store the answers about the pair at a place; they are on disk when this returns.

        Repeating the same answers changes nothing; different ones replace the old. Returns False and stores nothing if
        the pair was shown less than `TOO_SOON` ago or has been dropped since. Raises `NoPairError` if there is no pair
        at this place, `NotShownError` if it was not shown or the token is unknown, and `ValueError` unless every
        question, and no other, is answered.
        """
        choices = self._settings.choices
        require(
            set(answers) == set(self._settings.asked),
            "answers",
            sorted(answers),
            f"answers to {', '.join(self._settings.asked)}",
        )
        chosen: dict[str, Choice] = {name: choice for name in answers for choice in choices if choice == answers[name]}
        for question in answers:
            require(question in chosen, question, answers[question], f"one of {', '.join(choices)}")
        return _settled(lambda: self._store(token, place, chosen))

    def forget(self, token: str) -> None:
        """Delete the participant and all their answers."""
        with self._database.session() as session:
            session.execute(sa.delete(Participant).where(Participant.digest == digest(token)))
        self._database.empty_log()

    def shows(self, picture: str) -> bool:
        """Whether an image belongs to a visible pair."""
        with self._database.session() as session:
            return any(picture in (pair.a, pair.b) for pair in visible(session, self._folder))

    def _add(self, token: str) -> None:
        with self._database.session() as session:
            if _participant(session, token) is not None:
                return
            shown = visible(session, self._folder)
            if shown:
                order = arranged(shown, self._settings.repeats, self._rng)
                number = self._rng.randrange(*NUMBERS)
                session.add(Participant(id=number, digest=digest(token), consented=now(), presentations=order))

    def _store(self, token: str, place: int, answers: Mapping[str, Choice]) -> bool:
        with self._database.session() as session:
            participant = _participant(session, token)
            if participant is None:
                raise NotShownError("You have not joined yet. Read what the study is about, then begin.")
            one = next((one for one in participant.presentations if one.place == place), None)
            if one is None:
                raise NoPairError("There is no such pair.")
            if one not in self._asked(session, participant):
                return False
            if one.shown is None:
                raise NotShownError("You have not seen this pair yet. Look at it before you answer.")
            given = {vote.question: vote for vote in one.votes}
            if all(question in given and given[question].choice == answers[question] for question in answers):
                return True
            time = now()
            seconds = (time - one.shown).total_seconds()
            if seconds < TOO_SOON:
                return False
            one.votes = [Vote(question=name, choice=answers[name], at=time, seconds=seconds) for name in answers]
            return True

    def _asked(self, session: Session, participant: Participant) -> list[Presentation]:
        """The pairs that the participant is to see, in order."""
        shown = {pair.number for pair in visible(session, self._folder)}
        return [one for one in participant.presentations if one.pair in shown]


def digest(token: str) -> str:
    """The hash of a token: all that the database stores of it."""
    return hashlib.sha256(token.encode()).hexdigest()


def arranged(pairs: Sequence[Pair], repeats: int, rng: random.Random) -> list[Presentation]:
    """The pairs in random order, on random sides; `repeats` pairs of the first half return in the second half.

    With more repeats than fit in the first half, all of them are shown once before any returns. Attention checks are
    shown once. A pair is never shown twice in a row, unless it is the only one.
    """
    once = [pair for pair in pairs if not pair.check]
    again = rng.sample(once, min(repeats, len(once)))
    twice = {pair.number for pair in again}
    others = [pair for pair in rng.sample(pairs, len(pairs)) if pair.number not in twice]
    before = max((len(pairs) + 1) // 2 - len(again), 0)
    first = [*again, *others[:before]]
    second = [*((pair, 0) for pair in others[before:]), *((pair, 1) for pair in again)]
    rng.shuffle(first)
    rng.shuffle(second)
    while len(second) > 1 and second[0][0] == first[-1]:
        rng.shuffle(second)
    sides: tuple[Side, Side] = ("a", "b")
    return [
        Presentation(place=place, pair=pair.number, repetition=repetition, left=rng.choice(sides))
        for place, (pair, repetition) in enumerate([*((pair, 0) for pair in first), *second], 1)
    ]


def _settled(store: Callable[[], Stored]) -> Stored:
    """The result of `store`, tried again if a retry of the same request got in first or the number was taken.

    SQLite runs transactions one at a time, so there no retry can get in between.
    """
    try:
        return store()
    except (IntegrityError, StaleDataError):
        return store()


def _participant(session: Session, token: str) -> Participant | None:
    return session.scalar(sa.select(Participant).where(Participant.digest == digest(token)))
