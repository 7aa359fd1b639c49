"""The storage of Dagster's own records: SQLite in a folder, or Postgres if ``DAGSTER_POSTGRES_URL`` is set.

``dagster.yaml`` names ``InstanceStorage`` as its custom storage, so one file serves a laptop and a
deployment. The class only chooses; it returns Dagster's own storage, unchanged. Every Dagster process loads
this module before the rest of our code, so it imports little, and Postgres only if it is configured.

It is separate from the settings files because Dagster opens its instance before it knows a code location. The
base classes are Dagster's documented extension point for storages but live in private modules; the pinned
minor version and the tests guard against changes in them.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from dagster._core.storage.base_storage import DagsterStorage
from dagster._core.storage.sqlite_storage import DagsterSqliteStorage
from dagster._serdes import ConfigurableClass, ConfigurableClassData
from sqlalchemy import event, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError
from sqlalchemy.pool import NullPool

from backfill_assets.failures import SettingsError
from backfill_assets.files import locked
from backfill_assets.settings import ProcessEnvironment, set_where_unset

if TYPE_CHECKING:
    from dagster import DagsterInstance
    from dagster._config import UserConfigSchema

DRIVER: Final = "postgresql+psycopg2"
#: From SQLAlchemy 2.1 on, ``postgresql`` means psycopg 3, while dagster-postgres brings psycopg2; several
#: hosting platforms give out addresses with ``postgres``.
_SAME_DRIVER: Final = ("postgresql", "postgres", DRIVER)
#: An arbitrary key that no other client locks in Dagster's database.
_OPENING: Final = 2_024_010_109
#: A database restart or failover takes seconds to minutes; fetching a run's data takes as long.
SECONDS_OF_PATIENCE: Final = 600.0
_LONGEST_WAIT_SECONDS: Final = 5.0
#: Dagster's daemon reloads the code once a minute, and has none if the database was away at that moment. By
#: default it then cancels every backfill with its runs; with this variable, backfills wait for the code.
BACKFILLS_WAIT: Final = "DAGSTER_BACKFILL_RETRY_DEFINITION_CHANGED_ERROR"


def postgres_url(given: str) -> str:
    """Rewrite the address of Dagster's database for the installed driver.

    Raises
    ------
    SettingsError
        The address is not that of a Postgres database. The message never quotes it: it holds a password.
    """
    remedy = "write postgresql://USER:PASSWORD@HOST:5432/DATABASE, or unset it for SQLite"
    try:
        url = make_url(given.strip())
    except (ArgumentError, ValueError) as error:
        msg = f"DAGSTER_POSTGRES_URL cannot be read as a database address: {remedy}"
        raise SettingsError(msg) from error
    if url.drivername not in _SAME_DRIVER:
        msg = f"DAGSTER_POSTGRES_URL starts with '{url.drivername}://', which is not supported: {remedy}"
        raise SettingsError(msg)
    if not url.database:
        msg = f"DAGSTER_POSTGRES_URL names no database: {remedy}"
        raise SettingsError(msg)
    return url.set(drivername=DRIVER).render_as_string(hide_password=False)


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Let one process at a time open the folder.

    Dagster creates its SQLite tables without a lock: two services that open a fresh folder together leave
    two schema heads behind, and the next start fails.
    """
    with locked(folder / ".opening"):
        yield


@contextmanager
def _alone_at(url: str) -> Iterator[None]:
    """Let one process at a time open the database.

    Dagster retries when two processes create the tables together, but gives up after a second, which a loaded
    machine exceeds. The lock belongs to the transaction, so it works behind a connection pooler and ends with
    a killed client.
    """
    from dagster_postgres.utils import create_pg_connection, create_pg_engine

    with create_pg_connection(create_pg_engine(url, poolclass=NullPool)) as connection, connection.begin():
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _OPENING})
        yield


def wait_for_database(instance: DagsterInstance) -> None:
    """From now on, make this process's calls to Dagster's Postgres wait for the database instead of failing.

    Runs need this: each event is written over its own connection, and a run fails if an event is refused.
    """
    for storage in (instance.run_storage, instance.event_log_storage, instance.schedule_storage):
        engine = getattr(storage, "_engine", None)
        if engine is not None and engine.dialect.name == "postgresql":
            event.listen(engine, "do_connect", _connect_patiently)


def _connect_patiently(dialect: Any, _record: Any, arguments: Any, options: Any) -> Any:
    deadline, wait = time.monotonic() + SECONDS_OF_PATIENCE, 0.2
    while True:
        try:
            return dialect.connect(*arguments, **options)
        except dialect.loaded_dbapi.OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(wait)
            wait = min(_LONGEST_WAIT_SECONDS, wait * 1.5)


class InstanceStorage(DagsterStorage, ConfigurableClass):
    """The class named in ``dagster.yaml``; it is never instantiated and returns one of Dagster's storages.

    The only setting, ``base_dir``, is the folder of the SQLite files where ``DAGSTER_HOME`` is not set. A
    relative path starts at the working directory, where Dagster then also looks for ``dagster.yaml``.
    """

    @classmethod
    def config_type(cls) -> UserConfigSchema:
        """Describe the fields of ``storage.custom.config`` in ``dagster.yaml``."""
        return {"base_dir": str}

    @classmethod
    def from_config_value(  # type: ignore[override]  # a choice between two classes, neither of them this one
        cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]
    ) -> DagsterStorage:
        """Open Postgres if its address is set, otherwise SQLite.

        Raises
        ------
        SettingsError
            ``DAGSTER_POSTGRES_URL`` is not the address of a Postgres database.
        """
        set_where_unset(BACKFILLS_WAIT, "1")
        environment = ProcessEnvironment()
        address = environment.dagster_postgres_url
        if address:
            from dagster_postgres import DagsterPostgresStorage

            url = postgres_url(address)
            with _alone_at(url):
                return DagsterPostgresStorage(url, inst_data=inst_data)
        folder = Path(environment.dagster_home or config_value["base_dir"]).expanduser().absolute()
        with _alone_in(folder):
            return DagsterSqliteStorage.from_local(str(folder), inst_data=inst_data)
