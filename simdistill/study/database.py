"""The study's database: SQLite in the study's folder, or any that SQLAlchemy supports; migrated when opened."""

from collections.abc import Generator
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy.event import listen
from sqlalchemy.exc import ArgumentError, SQLAlchemyError
from sqlalchemy.orm import Session

from simdistill.study.folder import StudyFolder
from simdistill.study.tables import Identity
from simdistill.support.checks import require
from simdistill.support.libraries import short

WAIT = 300  # seconds to wait for a connection: on a busy machine, slow is better than refused
PRAGMAS = (
    "journal_mode = WAL",  # readers and the writer do not wait for each other
    "synchronous = FULL",  # committed means on disk, even after a power failure
    "foreign_keys = ON",
    "secure_delete = ON",  # what is deleted on request is overwritten
)


class Database:
    """The database at `url` of the study with this `identity`.

    Raises `ValueError` if it cannot be opened, belongs to another study, or was written by a later version of this
    package.
    """

    def __init__(self, url: str, identity: str) -> None:
        try:
            self.engine = _engine(url)
            with self.engine.begin() as connection:
                migrate(connection)
            self._claim(identity, url)
        except (SQLAlchemyError, CommandError, ImportError) as error:
            raise ValueError(f"--database = '{_shown(url)}': cannot be opened ({short(error)})") from error

    @contextmanager
    def session(self) -> Generator[Session]:
        """A transaction: committed to disk at the end of the block, rolled back if the block fails."""
        with Session(self.engine) as session, session.begin():
            yield session

    def empty_log(self) -> None:
        """Truncate SQLite's write-ahead log, where deleted data would stay until later writes replace it."""
        if self.engine.dialect.name == "sqlite":
            connection = self.engine.raw_connection()
            try:
                connection.cursor().execute("PRAGMA wal_checkpoint(TRUNCATE)").close()
            finally:
                connection.close()

    def _claim(self, identity: str, url: str) -> None:
        with self.session() as session:
            found = session.scalar(sa.select(Identity.identity))
            if found is None:
                session.add(Identity(identity=identity))
            elif found != identity:
                raise ValueError(
                    f"--database = '{_shown(url)}': holds the votes of another study; give this study its own"
                )


def votes_of(folder: StudyFolder, url: str = "") -> Database:
    """A study's existing database: at `url`, or its own; `ValueError` if `url` names a missing file."""
    file = url.removeprefix("sqlite:///")
    there = file == url or Path(file).is_file()
    require(there, "--database", url, "an existing database; `study serve --database` creates one")
    return Database(url or folder.database, folder.settings.identity)


def migrate(connection: sa.Connection, revision: str = "head") -> None:
    """Migrate the tables to a revision, by default the latest."""
    config = Config()
    config.set_main_option("script_location", "simdistill.study:migrations")
    config.attributes["connection"] = connection
    command.upgrade(config, revision)


def now() -> datetime:
    """The current time as the tables store it: UTC, without a time zone."""
    return datetime.now(timezone.utc).replace(tzinfo=None)


def _shown(url: str) -> str:
    """A URL without its password."""
    try:
        return sa.make_url(url).render_as_string()
    except SQLAlchemyError:
        return url


def _engine(url: str) -> sa.Engine:
    """Threads take turns on the one connection to SQLite, which allows one writer; other databases get a pool."""
    try:
        kind = sa.make_url(url).get_backend_name()
    except ArgumentError as error:
        form = "postgresql+psycopg://user@host/name or sqlite:////folder/votes.sqlite3"
        raise ValueError(f"--database = {url!r}: must be a URL such as {form}") from error
    if kind != "sqlite":
        return sa.create_engine(url, pool_pre_ping=True)
    connect = {"timeout": WAIT, "check_same_thread": False}
    engine = sa.create_engine(
        url, poolclass=sa.QueuePool, pool_size=1, max_overflow=0, pool_timeout=WAIT, connect_args=connect
    )
    listen(engine, "connect", _prepare)
    listen(engine, "begin", _begin)
    return engine


def _prepare(connection: Any, _: Any) -> None:
    connection.isolation_level = None  # transactions begin when `_begin` says so
    for pragma in PRAGMAS:
        connection.execute(f"PRAGMA {pragma}").close()


def _begin(connection: sa.Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")  # another process may write too: wait now rather than fail later
