"""What a participant does: join, see the pairs in an order of their own, vote, change a vote, and be forgotten."""

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

NUMBERS = (10**6, 10**7)  # participants': random, so that none tells when somebody came, or is given twice
TOO_SOON = 0.3  # seconds after a pair is shown: the second half of a double click on the pair before


class NoPairError(LookupError):
    """A participant's order has nothing at a place."""


class NotShownError(LookupError):
    """Who answers does not take part, or the pair was not displayed to them yet."""


@dataclass(frozen=True)
class Shown:
    """A pair as a participant sees it: the `number`-th `of` so many, its pictures and their size, and answers given."""

    place: int
    number: int
    of: int
    prompt: str
    pictures: tuple[str, str]
    size: tuple[int, int]
    answers: Mapping[str, Choice]


@dataclass(frozen=True)
class Progress:
    """How far a participant is: the places of all pairs, and of those without an answer."""

    places: Sequence[int]
    open: Sequence[int]


class Ballot:
    """The participants' side of a study. A participant is known by a random token that only they have.

    What `folder` says is asked of the pairs that are to be shown; `rng` draws the orders.
    """

    def __init__(self, folder: StudyFolder, database: Database, rng: random.Random | None = None) -> None:
        self._folder, self._settings, self._sizes, self._database = folder, folder.settings, folder.sizes, database
        self._pairs = {pair.number: pair for pair in folder.pairs}
        self._rng = rng or random.SystemRandom()

    def offered(self) -> int:
        """How many pairs newcomers are shown, checks and second times counted; 0 if the study is not open yet."""
        with self._database.session() as session:
            checks = [pair.check for pair in visible(session, self._folder)]
            return len(checks) + min(self._settings.repeats, checks.count(False))

    def join(self, token: str) -> None:
        """Take part, with an order of pairs and sides of one's own, once there are any; who does already still does."""
        _settled(lambda: self._add(token))

    def progress(self, token: str) -> Progress | None:
        """How far the participant is; None if nobody has the token."""
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
        """The pair at a place of the participant's order, from now on displayed; None if there is none to be seen."""
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
        """Store the answers about the pair at a place; when it returns they are on the disk.

        The same again changes nothing, other answers take the place of those before. False, and nothing stored, if the
        pair has not been displayed for `TOO_SOON`, or was dropped since. Raises `NoPairError` if there is none at the
        place, `NotShownError` if it was not displayed or nobody has the token, and `ValueError` for answers to other
        questions than all that are asked.
        """
        choices = self._settings.choices
        require(
            set(answers) == set(self._settings.asked),
            "answers",
            sorted(answers),
            f"to all of {', '.join(self._settings.asked)}",
        )
        chosen: dict[str, Choice] = {name: choice for name in answers for choice in choices if choice == answers[name]}
        for question in answers:
            require(question in chosen, question, answers[question], f"one of {', '.join(choices)}")
        return _settled(lambda: self._store(token, place, chosen))

    def forget(self, token: str) -> None:
        """Delete the participant and all that they answered."""
        with self._database.session() as session:
            session.execute(sa.delete(Participant).where(Participant.digest == digest(token)))
        self._database.empty_log()

    def shows(self, picture: str) -> bool:
        """Whether a picture is of a pair that is shown."""
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
                raise NotShownError("You do not take part yet: read what the study is about, and begin.")
            one = next((one for one in participant.presentations if one.place == place), None)
            if one is None:
                raise NoPairError("There is no such pair.")
            if one not in self._asked(session, participant):
                return False
            if one.shown is None:
                raise NotShownError("This pair was not shown to you yet: look at it before you answer.")
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
        """What the participant is to see, in order."""
        shown = {pair.number for pair in visible(session, self._folder)}
        return [one for one in participant.presentations if one.pair in shown]


def digest(token: str) -> str:
    """What the database knows of a token."""
    return hashlib.sha256(token.encode()).hexdigest()


def arranged(pairs: Sequence[Pair], repeats: int, rng: random.Random) -> list[Presentation]:
    """The pairs in random order, sides by coin; so many of the first half come again among the second half.

    If there are more repeats than that, all of them come once before any comes again. Attention checks come once. No
    pair comes twice running, unless there is no other.
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
    """What `store` gives, at a second try if a retry of the same request did it meanwhile, or its number was taken.

    SQLite's transactions take turns, so that no retry comes between there.
    """
    try:
        return store()
    except (IntegrityError, StaleDataError):
        return store()


def _participant(session: Session, token: str) -> Participant | None:
    return session.scalar(sa.select(Participant).where(Participant.digest == digest(token)))
