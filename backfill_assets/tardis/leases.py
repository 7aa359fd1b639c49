"""Leases of requests in the database of Dagster's records: one limit over all processes and machines.

A process leases a block of requests, which it may send within a few seconds. The sum of all requests leased
in the last minute stays within the limit. A lease of a killed process expires by itself. Times are those of
the database's clock, and a process measures its lease from before its request, so clocks need not agree.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Row
from sqlalchemy.exc import SQLAlchemyError

from backfill_assets.databases import engine_of, records_url
from backfill_assets.failures import SettingsError

#: Errors of a database that is away, is busy, or accepts no new table.
REFUSALS: Final = (SQLAlchemyError, OSError)
#: The file beside Dagster's own, if that is SQLite.
SQLITE_FILE: Final = "tardis_pace.db"
#: A request of a lease is sent within this many seconds.
LEASE_SECONDS: Final = 5.0
#: A request counts for a minute, and for the time that it may take from here to the vendor.
COUNTED_SECONDS: Final = 62.0
#: Longest wait of the database for another process, or of this process for the database; a transaction takes
#: milliseconds.
LOCK_SECONDS: Final = 3
#: A waiting process asks again no sooner, so that blocks do not crumble into single requests.
_SHORTEST_WAIT_SECONDS: Final = 0.25

_TABLE: Final = sa.Table(
    "backfill_assets_tardis_leases",
    sa.MetaData(),
    sa.Column("lease", sa.Text(), primary_key=True),
    sa.Column("source", sa.Text(), nullable=False, comment="Host of the requests."),
    sa.Column("process", sa.Text(), nullable=False, comment="Random name of the process."),
    sa.Column("until", sa.Double(), nullable=False, comment="Seconds since the epoch of the last request."),
    sa.Column("requests", sa.Integer(), nullable=False, comment="Requests that were leased, or sent."),
)


@dataclass(frozen=True, slots=True)
class Sent:
    """Requests that a process has sent since its last renewal: of its lease, and without one."""

    lease: str = ""
    of_lease: int = 0
    without_lease: int = 0


@dataclass(frozen=True, slots=True)
class Lease:
    """An answer of the database.

    Attributes
    ----------
    requests
        Number of requests that may be sent within ``LEASE_SECONDS``; 0 if all are taken.
    wait_seconds
        Seconds until the next try, if all are taken.
    processes
        Number of processes that have sent requests in the last minute, including this one.
    """

    name: str
    requests: int
    wait_seconds: float
    processes: int


class Leases:
    """The leases at one source, in the database of Dagster's records.

    Raises
    ------
    SettingsError
        ``DAGSTER_POSTGRES_URL`` is not the address of a database.
    """

    def __init__(self, source: str) -> None:
        url = records_url(SQLITE_FILE)
        if url is None:
            msg = "there are no records: neither DAGSTER_HOME nor DAGSTER_POSTGRES_URL is set"
            raise SettingsError(msg)
        self._engine = engine_of(url, LOCK_SECONDS, connect_timeout=LOCK_SECONDS)
        self._source = source

    def renew(self, process: str, limit: int, asked: int, sent: Sent) -> Lease:
        """Return the unused part of the former lease, and take another.

        Parameters
        ----------
        limit
            Requests per minute of all processes.
        asked
            Requests wanted now; fewer may be granted.

        Raises
        ------
        SQLAlchemyError
            The database cannot be reached, is busy or accepts no new table.
        """
        with self._engine.begin() as connection:
            self._lock(connection)
            _TABLE.create(connection, checkfirst=True)
            now = _clock(connection)
            self._tidy(connection, now)
            self._settle(connection, now, process, sent)
            rows = connection.execute(
                sa.select(_TABLE).where(_TABLE.c.source == self._source).order_by(_TABLE.c.until)
            ).all()
            given = max(0, min(asked, limit - sum(row.requests for row in rows)))
            name = self._insert(connection, process, now + LEASE_SECONDS, given)
        wait = 0.0 if given else max(_SHORTEST_WAIT_SECONDS, _free_at(rows, limit) - now)
        return Lease(name, given, wait, len({process, *(row.process for row in rows)}))

    def _lock(self, connection: Connection) -> None:
        """Let one process count at a time, and only briefly; SQLite locks its file at the beginning."""
        if connection.dialect.name == "postgresql":
            for limit in ("statement_timeout", "idle_in_transaction_session_timeout"):
                connection.execute(sa.text(f"SET LOCAL {limit} = '{LOCK_SECONDS}s'"))
            key = sa.func.hashtextextended("backfill_assets tardis leases", 0)
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(key)))

    def _tidy(self, connection: Connection, now: float) -> None:
        """Delete expired leases; a clock that stepped back must not make leases last longer."""
        ours = _TABLE.c.source == self._source
        connection.execute(sa.delete(_TABLE).where(ours, _TABLE.c.until < now - COUNTED_SECONDS))
        latest = now + LEASE_SECONDS
        connection.execute(sa.update(_TABLE).where(ours, _TABLE.c.until > latest).values(until=latest))

    def _settle(self, connection: Connection, now: float, process: str, sent: Sent) -> None:
        """Let the former lease count with the requests that were sent of it."""
        former = _TABLE.c.lease == sent.lease
        if sent.of_lease:
            until = sa.case((_TABLE.c.until < now, _TABLE.c.until), else_=now)
            connection.execute(sa.update(_TABLE).where(former).values(until=until, requests=sent.of_lease))
        elif sent.lease:
            connection.execute(sa.delete(_TABLE).where(former))
        self._insert(connection, process, now, sent.without_lease)

    def _insert(self, connection: Connection, process: str, until: float, requests: int) -> str:
        if not requests:
            return ""
        name = uuid.uuid4().hex
        row = {"lease": name, "source": self._source, "process": process}
        connection.execute(sa.insert(_TABLE).values(**row, until=until, requests=requests))
        return name


def _clock(connection: Connection) -> float:
    """The database's time; a SQLite file is used on its own machine."""
    if connection.dialect.name != "postgresql":
        return time.time()
    return float(connection.execute(sa.text("SELECT extract(epoch FROM clock_timestamp())")).scalar_one())


def _free_at(rows: Sequence[Row[Any]], limit: int) -> float:
    """Return when the first request is free again; the rows are in order of their end."""
    counted = sum(row.requests for row in rows)
    for row in rows:
        counted -= row.requests
        if counted < limit:
            return float(row.until) + COUNTED_SECONDS
    return 0.0
