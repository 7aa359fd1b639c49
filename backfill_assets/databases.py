"""Addresses and engines of relational databases, and the database beside Dagster's records.

The OHLCV table and the leases of requests use this module; each defines its own tables. Dagster's own storage
is ``automation.instance_storage``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.engine import URL, Connection, Engine, make_url
from sqlalchemy.exc import ArgumentError
from sqlalchemy.pool import NullPool

from backfill_assets.failures import SettingsError
from backfill_assets.settings import ProcessEnvironment

_POSTGRES: Final = ("postgresql", "postgres", "postgresql+psycopg2")


def database_url(given: str, name: str, alternative: str = "") -> URL:
    """Read an address, with the installed driver.

    Parameters
    ----------
    name
        The setting or variable that holds it.
    alternative
        Accepted values besides an address, for the message.

    Raises
    ------
    SettingsError
        The database is not supported. The message never quotes the address, because it may hold a password.
    """
    remedy = (
        "write postgresql://USER:PASSWORD@HOST:5432/DATABASE or sqlite:////FOLDER/FILE.db"
        f"{f', or {alternative}' if alternative else ''}"
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
    msg = f"{name} names no supported database ('{url.drivername}'): {remedy}"
    raise SettingsError(msg)


def records_url(sqlite_file: str) -> URL | None:
    """Return the database of Dagster's records; None if Dagster keeps none.

    Parameters
    ----------
    sqlite_file
        Name of a file in ``DAGSTER_HOME``, used if the records are SQLite: another table in Dagster's own
        file would make its records wait.
    """
    environment = ProcessEnvironment()
    if environment.dagster_postgres_url:
        return database_url(environment.dagster_postgres_url.strip(), "DAGSTER_POSTGRES_URL")
    if not environment.dagster_home:
        return None
    return URL.create("sqlite", database=str(Path(environment.dagster_home).expanduser() / sqlite_file))


def engine_of(url: URL, lock_seconds: float, **postgres: Any) -> Engine:
    """Return an engine that keeps no connection, because a process may fork; it is not yet connected.

    Parameters
    ----------
    lock_seconds
        How long SQLite waits for another process's transaction.
    postgres
        Options of a connection to Postgres.
    """
    if url.get_backend_name() != "sqlite":
        return sa.create_engine(url, poolclass=NullPool, connect_args=postgres)
    Path(str(url.database)).expanduser().absolute().parent.mkdir(parents=True, exist_ok=True)
    engine = sa.create_engine(url, poolclass=NullPool, connect_args={"timeout": lock_seconds})

    # This follows SQLAlchemy's documentation of SQLite: the driver's own transactions are switched off, and
    # each transaction begins as a writer. A transaction that reads first and then writes would be refused
    # without waiting if another had written in between.
    @sa.event.listens_for(engine, "connect")
    def no_implicit_begin(connection: Any, _: object) -> None:
        connection.isolation_level = None

    @sa.event.listens_for(engine, "begin")
    def begin_as_writer(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    return engine
