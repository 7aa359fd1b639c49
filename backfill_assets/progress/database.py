"""Opening the jobs' database: the one that Dagster's storage uses, brought to the newest schema.

Postgres where ``DAGSTER_POSTGRES_URL`` is set, else a SQLite file beside Dagster's own in ``DAGSTER_HOME``.
Migrations are Alembic's, with a version table of their own, since Dagster's tables have theirs in the same
database; processes that start together take turns under a lock that ends with its holder.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.util.exc import CommandError

from backfill_assets.automation.instance_storage import postgres_url
from backfill_assets.failures import PermanentFailure, SettingsError
from backfill_assets.files import locked
from backfill_assets.progress.store import JobStore
from backfill_assets.settings import ProcessEnvironment

#: Of the SQLite file in DAGSTER_HOME.
FILE_NAME: Final = "backfill_assets.db"
VERSION_TABLE: Final = "backfill_assets_version"
MIGRATIONS: Final = Path(__file__).parent / "migrations"
#: Any number that nobody else locks in Dagster's database.
_MIGRATING: Final = 2_024_010_110
#: How long a writer waits for another one's transaction.
_SQLITE_BUSY_SECONDS: Final = 30
_SQLITE_BEGIN: Final = "backfill_assets_begin"
#: Connections kept open; a server's threads are some forty, most of them waiting for the lake.
_POOL: Final = 5
_POOL_OVERFLOW: Final = 20


def database_url() -> str:
    """SQLAlchemy's address of the jobs' database.

    Raises
    ------
    SettingsError
        ``DAGSTER_HOME`` is not set: Dagster's records, and the jobs, would be forgotten with the process.
    """
    environment = ProcessEnvironment()
    if not environment.dagster_home:
        msg = "DAGSTER_HOME is not set: set it to the folder that the Dagster daemon runs with"
        raise SettingsError(msg)
    if environment.dagster_postgres_url:
        return postgres_url(environment.dagster_postgres_url)
    folder = Path(environment.dagster_home).expanduser().absolute()
    return f"sqlite:///{folder / FILE_NAME}"


def open_jobs(url: str | None = None) -> JobStore:
    """The jobs' tables, migrated; by default in the database that Dagster's storage uses.

    Raises
    ------
    PermanentFailure
        The database cannot be opened, or a newer version of this package has migrated it.
    """
    address = sa.make_url(url or database_url())
    is_file = address.get_backend_name() == "sqlite"
    engine = _sqlite_engine(address) if is_file else _postgres_engine(address)
    try:
        with _alone(engine, address) as connection:
            _migrate(connection)
    except (sa.exc.SQLAlchemyError, CommandError, OSError) as error:
        engine.dispose()
        reason = " ".join(str(error).split())[:300]
        remedy = "make it reachable and writable, and run the newest version of this package that has used it"
        msg = f"the jobs' database {address.render_as_string()} cannot be opened: {reason}: {remedy}"
        raise PermanentFailure(msg) from error
    return JobStore(engine)


def _postgres_engine(address: sa.URL) -> sa.Engine:
    return sa.create_engine(address, pool_size=_POOL, max_overflow=_POOL_OVERFLOW, pool_pre_ping=True)


def _sqlite_engine(address: sa.URL) -> sa.Engine:
    engine = sa.create_engine(address, connect_args={"timeout": _SQLITE_BUSY_SECONDS})

    @sa.event.listens_for(engine, "connect")
    def _prepare(connection: Any, _record: object) -> None:
        # Readers and the writer do not lock each other out; a power cut may lose the last changes of
        # snapshots, which are made again from Dagster's records.
        connection.isolation_level = None
        cursor = connection.cursor()
        cursor.execute("PRAGMA journal_mode=WAL")
        cursor.execute("PRAGMA synchronous=NORMAL")
        cursor.execute("PRAGMA foreign_keys=ON")
        cursor.close()

    @sa.event.listens_for(engine, "begin")
    def _begin(connection: sa.Connection) -> None:
        # Python's driver would begin at the first INSERT only: no snapshot for reading, and each table of a
        # migration on its own.
        connection.exec_driver_sql(f"BEGIN {connection.get_execution_options().get(_SQLITE_BEGIN, '')}")

    return engine


@contextmanager
def _alone(engine: sa.Engine, address: sa.URL) -> Iterator[sa.Connection]:
    """A transaction that one process at a time is in; what it made is there for the next one."""
    if engine.dialect.name == "sqlite":
        with locked(Path(address.database or "").parent / ".migrating"):
            # At once: a transaction that has read may not write if a service wrote in between.
            immediate = engine.execution_options(**{_SQLITE_BEGIN: "IMMEDIATE"})
            with immediate.begin() as connection:
                yield connection
        return
    with engine.begin() as connection:
        # The transaction's own lock holds behind a connection pooler and ends with a killed client.
        connection.execute(sa.text("SELECT pg_advisory_xact_lock(:key)"), {"key": _MIGRATING})
        yield connection


def _migrate(connection: sa.Connection) -> None:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
