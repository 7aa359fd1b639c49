"""The database of the OHLCV table: the one that the settings name, and transactions on it.

Every transaction first takes a lock (on Postgres of this table, on SQLite of the file), so writers come one
after the other and each reads the rows of the one before.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.exc import DBAPIError, OperationalError, SQLAlchemyError

from backfill_assets.databases import database_url, engine_of, records_url
from backfill_assets.failures import PermanentFailure, SettingsError, TransientFailure
from backfill_assets.settings import OhlcvSettings, resolve

#: ``ohlcv.url`` with this value means the database in which Dagster keeps its records.
DAGSTER: Final = "dagster"
#: The file beside Dagster's own, if that is SQLite: candles must not make its records wait.
SQLITE_FILE: Final = "ohlcv.db"
#: Longest wait for another writer's transaction; a day takes seconds.
LOCK_SECONDS: Final = 120
#: Postgres ends a transaction whose client is silent this long: it was stopped, and others wait for it.
IDLE_SECONDS: Final = 60


@contextmanager
def transaction(engine: Engine, table: str) -> Iterator[Connection]:
    """Run one transaction, alone at the table; the end of the block commits all of it or nothing.

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
    """Return the database for messages: the file of SQLite, else the address without the password."""
    url = engine.url
    return str(url.database) if url.get_backend_name() == "sqlite" else url.render_as_string()


def open_engine(settings: OhlcvSettings) -> Engine | None:
    """Return the database that the settings name, not yet connected; None if ``ohlcv.url`` is empty.

    Raises
    ------
    SettingsError
        ``ohlcv.url`` names no supported database. The message never quotes it, because it may hold a
        password.
    """
    given = resolve(settings.url).strip()
    if not given:
        return None
    if given != DAGSTER:
        alternative = "'dagster' for the database of Dagster's storage"
        return engine_of(database_url(given, "ohlcv.url", alternative), LOCK_SECONDS)
    url = records_url(SQLITE_FILE)
    if url is None:
        msg = "ohlcv.url is 'dagster', but Dagster has no storage: set DAGSTER_HOME or DAGSTER_POSTGRES_URL"
        raise SettingsError(msg)
    return engine_of(url, LOCK_SECONDS)


@contextmanager
def _as_failures(place: str) -> Iterator[None]:
    try:
        yield
    except SQLAlchemyError as error:
        # SQLAlchemy's own text holds the statement with its thousands of parameters, and the database's
        # further lines contain a row.
        text = str(error.orig if isinstance(error, DBAPIError) else error).strip()
        reason = text.splitlines()[0] if text else type(error).__name__
        if isinstance(error, OperationalError):
            msg = f"{place}: {reason}: check that the database of ohlcv.url is up and writable"
            raise TransientFailure(msg) from error
        msg = f"{place}: {reason}: see ohlcv.url and ohlcv.table in the settings"
        raise PermanentFailure(msg) from error
