"""The study in PostgreSQL, whose transactions do not take turns as SQLite's do; where a server is named.

SIMDISTILL_POSTGRESQL is the URL of an empty database, as postgresql+psycopg://postgres@localhost/empty.
"""

import os
import threading

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from studies import a_study

from simdistill.study import ballot
from simdistill.study.ballot import Ballot
from simdistill.study.database import Database
from simdistill.study.owner import Owner
from simdistill.study.tables import Table

URL = os.environ.get("SIMDISTILL_POSTGRESQL", "")
pytestmark = pytest.mark.skipif(not URL, reason="SIMDISTILL_POSTGRESQL names no database")


@pytest.fixture
def study(tmp_path, monkeypatch):
    monkeypatch.setattr(ballot, "TOO_SOON", 0.0)
    folder = a_study(tmp_path / "s", pairs=4, repeats=1)
    database = Database(URL, folder.settings.identity)
    yield folder, database
    with database.engine.begin() as connection:
        Table.metadata.drop_all(connection)
        connection.execute(sa.text("DROP TABLE alembic_version"))


def test_the_migrations_make_the_tables(study):
    folder, database = study
    with database.engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), Table.metadata) == []
    Database(URL, folder.settings.identity)
    with pytest.raises(ValueError, match="another study"):
        Database(URL, "another")


def test_the_same_at_the_same_time_counts_once(study):
    voting, owner = Ballot(*study), Owner(*study)
    problems = []

    def take_part(token):
        try:
            voting.join(token)
            for choice in ("left", "right"):  # and then change every vote
                for place in voting.progress(token).places:
                    voting.show(token, place)
                    assert voting.vote(token, place, {"overall": choice})
        except Exception as error:
            problems.append(error)

    threads = [threading.Thread(target=take_part, args=(f"token {k // 3}",)) for k in range(24)]  # three a participant
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []
    assert owner.participants() == 8
    assert owner.votes()["choice"].value_counts().rows() == [("right", 40)]
    voting.forget("token 3")
    assert owner.votes().height == 35
