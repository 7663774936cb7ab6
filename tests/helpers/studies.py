"""Small studies to be asked: pictures of noise, of which a participant is who has the token."""

import sqlite3

import numpy as np
from PIL import Image

from simdistill.study import ballot
from simdistill.study.ballot import Ballot, digest
from simdistill.study.database import Database
from simdistill.study.folder import Draft, StudyFolder
from simdistill.study.owner import Owner
from simdistill.study.settings import Settings


def noise(seed, size=(24, 16)):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8))


def drafts(count):
    return [Draft(f"prompt {k}", noise(k), noise(100 + k)) for k in range(count)]


def a_study(path, pairs=4, checks=0, **settings):
    return StudyFolder.create(path, Settings(**settings), drafts(pairs), checks)


class Asked:
    """A study with its database, where nobody has to wait before they answer."""

    def __init__(self, path, monkeypatch, pairs=4, checks=0, rng=None, url="", **settings):
        monkeypatch.setattr(ballot, "TOO_SOON", 0.0)
        self.folder = a_study(path, pairs, checks, **settings)
        self.url = url or self.folder.database
        self.database = Database(self.url, self.folder.settings.identity)
        self.ballot, self.owner = Ballot(self.folder, self.database, rng), Owner(self.folder, self.database)

    def rows(self, query):
        """What SQLite itself finds."""
        with sqlite3.connect(self.folder.path / "votes.sqlite3") as connection:
            return connection.execute(query).fetchall()

    def number(self, token):
        """The number of the participant who has that token."""
        ((found,),) = self.rows(f"SELECT id FROM participants WHERE digest = '{digest(token)}'")
        return found

    def answer(self, token, place, choice="left", question="overall"):
        self.ballot.show(token, place)
        return self.ballot.vote(token, place, {question: choice})

    def answer_all(self, token, choose=lambda shown: "left"):
        """Join and answer everything as `choose(shown)` says."""
        self.ballot.join(token)
        for place in self.ballot.progress(token).open:
            shown = self.ballot.show(token, place)
            assert self.ballot.vote(token, place, {"overall": choose(shown)})
