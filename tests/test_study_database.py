"""The study's database: migrations make what the tables say, other databases are refused, no name is kept."""

import sqlite3

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from studies import Asked, a_study

from simdistill.study.ballot import digest
from simdistill.study.database import Database
from simdistill.study.tables import Participant, Table


@pytest.fixture
def asked(tmp_path, monkeypatch):
    return Asked(tmp_path / "study", monkeypatch)


def rows(asked, query):
    with sqlite3.connect(asked.folder.path / "votes.sqlite3") as connection:
        return connection.execute(query).fetchall()


def test_the_migrations_make_the_tables(asked):
    with asked.database.engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), Table.metadata) == []
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2
        tables = set(sa.inspect(connection).get_table_names())
    assert tables == {"study", "participants", "presentations", "votes", "reviews", "alembic_version"}


def test_a_study_is_opened_again(asked):
    asked.answer_all("ann")
    again = Database(asked.folder.database, asked.folder.settings.identity)
    with again.session() as session:
        assert session.scalar(sa.select(sa.func.count()).select_from(Participant)) == 1


def test_other_databases_are_refused(asked, tmp_path):
    other = a_study(tmp_path / "other")
    with pytest.raises(ValueError, match="holds the votes of another study"):
        Database(asked.folder.database, other.settings.identity)
    for url, why in {
        "sqlite:////nowhere/at/all.db": "unable to open database file",
        "nonsense": "Could not parse",
        "postgresql+nosuch://localhost/x": "nosuch",
    }.items():
        with pytest.raises(ValueError, match=f"database: cannot be opened .*{why}"):
            Database(url, "x")
    (tmp_path / "no.db").write_bytes(b"no database, but long enough to be looked at" * 50)
    with pytest.raises(ValueError, match="file is not a database"):
        Database(f"sqlite:///{tmp_path / 'no.db'}", "x")
    rows(asked, "UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(ValueError, match="Can't locate revision identified by '9999'"):
        Database(asked.folder.database, asked.folder.settings.identity)


def test_only_a_digest_of_the_token_and_no_name_is_kept(asked):
    asked.answer_all("ann's token")
    columns = [name for _, name, *_ in rows(asked, "PRAGMA table_info(participants)")]
    assert columns == ["id", "digest", "consented"]
    assert rows(asked, "SELECT digest FROM participants") == [(digest("ann's token"),)]
    assert all(b"ann's token" not in file.read_bytes() for file in asked.folder.path.glob("votes.sqlite3*"))
