"""The database that holds the OHLCV table: which one the settings mean, and transactions on it.

Every transaction first takes a lock (on Postgres of this table, on SQLite of the file), so that writers come
one after the other and each reads the rows of the one before.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.engine import URL, Connection, Engine, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, OperationalError, SQLAlchemyError
from sqlalchemy.pool import NullPool

from backfill_assets.failures import PermanentFailure, SettingsError, TransientFailure
from backfill_assets.settings import OhlcvSettings, ProcessEnvironment, resolve

#: ``ohlcv.url`` with this value means the database in which Dagster keeps its records.
DAGSTER: Final = "dagster"
#: The file beside Dagster's own, where that is SQLite: candles must not make its records wait.
SQLITE_FILE: Final = "ohlcv.db"
#: Longest wait for another writer's transaction; a day takes seconds.
LOCK_SECONDS: Final = 120
#: Postgres ends a transaction whose client sends nothing for so long: it was stopped, and others wait for it.
IDLE_SECONDS: Final = 60

_POSTGRES: Final = ("postgresql", "postgres", "postgresql+psycopg2")


@contextmanager
def transaction(engine: Engine, table: str) -> Iterator[Connection]:
    """One transaction, alone at the table; committed at the end of the block, or nothing of it.

    Raises
    ------
    TransientFailure
        The database cannot be reached, the connection was lost, or another writer takes too long.
    PermanentFailure
        The database refuses a statement.
    """
    with _as_failures(place(engine)), engine.begin() as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(sa.text(f"SET LOCAL lock_timeout = '{LOCK_SECONDS}s'"))
            connection.execute(sa.text(f"SET LOCAL idle_in_transaction_session_timeout = '{IDLE_SECONDS}s'"))
            connection.execute(
                sa.text("SELECT pg_advisory_xact_lock(hashtextextended(:name, 0))"),
                {"name": f"backfill_assets ohlcv {table}"},
            )
        yield connection


def place(engine: Engine) -> str:
    """The database for messages: the file of SQLite, else the address without the password."""
    url = engine.url
    return str(url.database) if url.get_backend_name() == "sqlite" else url.render_as_string()


def open_engine(settings: OhlcvSettings) -> Engine | None:
    """The database that the settings name, not yet connected to; None where ``ohlcv.url`` is empty.

    Raises
    ------
    SettingsError
        ``ohlcv.url`` names no database that is supported. The message never quotes it: it may hold a
        password.
    """
    given = resolve(settings.url).strip()
    if not given:
        return None
    url = _dagsters() if given == DAGSTER else _url(given, "ohlcv.url")
    if url.get_backend_name() == "sqlite":
        return _sqlite(url)
    # No pool: a run publishes one day and ends, and a process may fork.
    return sa.create_engine(url, poolclass=NullPool)


def _dagsters() -> URL:
    environment = ProcessEnvironment()
    if environment.dagster_postgres_url:
        return _url(environment.dagster_postgres_url.strip(), "DAGSTER_POSTGRES_URL")
    if environment.dagster_home is None:
        msg = "ohlcv.url is 'dagster', but Dagster has no storage: set DAGSTER_HOME or DAGSTER_POSTGRES_URL"
        raise SettingsError(msg)
    return URL.create("sqlite", database=str(Path(environment.dagster_home).expanduser() / SQLITE_FILE))


def _url(given: str, name: str) -> URL:
    remedy = (
        "write postgresql://USER:PASSWORD@HOST:5432/DATABASE or sqlite:////FOLDER/FILE.db, or 'dagster' for "
        "the database of Dagster's storage"
    )
    try:
        url = make_url(given)
    except (ArgumentError, ValueError) as error:
        msg = f"{name} cannot be read as a database address: {remedy}"
        raise SettingsError(msg) from error
    if url.drivername in _POSTGRES and url.database:
        # The driver that dagster-postgres brings.
        return url.set(drivername="postgresql+psycopg2")
    if url.drivername == "sqlite" and url.database and url.database != ":memory:":
        return url
    msg = f"{name} names no database that is supported ('{url.drivername}'): {remedy}"
    raise SettingsError(msg)


def _sqlite(url: URL) -> Engine:
    Path(str(url.database)).expanduser().absolute().parent.mkdir(parents=True, exist_ok=True)
    engine = sa.create_engine(url, poolclass=NullPool, connect_args={"timeout": LOCK_SECONDS})

    # As SQLAlchemy's documentation of SQLite has it: the driver's own idea of when a transaction begins is
    # switched off, and each begins as a writer. One that reads first and then writes would be refused if
    # another had written in between, without waiting.
    @sa.event.listens_for(engine, "connect")
    def no_implicit_begin(connection: Any, _: object) -> None:
        connection.isolation_level = None

    @sa.event.listens_for(engine, "begin")
    def begin_as_writer(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    return engine


@contextmanager
def _as_failures(place: str) -> Iterator[None]:
    try:
        yield
    except SQLAlchemyError as error:
        # SQLAlchemy's own text holds the statement with its thousands of parameters, and further lines of the
        # database's a row.
        text = str(error.orig if isinstance(error, DBAPIError) else error).strip()
        reason = text.splitlines()[0] if text else type(error).__name__
        if isinstance(error, OperationalError):
            msg = f"{place}: {reason}: check that the database of ohlcv.url is up and may be written"
            raise TransientFailure(msg) from error
        msg = f"{place}: {reason}: see ohlcv.url and ohlcv.table in the settings"
        raise PermanentFailure(msg) from error
