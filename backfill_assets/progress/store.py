"""The jobs' tables: what Dagster does not keep of a backfill, in the database that Dagster uses.

A job is one row with its request and its last snapshot, and one row per day. A change is applied only to the
revision that it was made from, the job and its days in one transaction, so of several processes none undoes
another's and a reader never sees half of one. Times are integer microseconds, since SQLite has no time type
with a zone. What the snapshots mean is ``tracking``'s business; they are text here.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import sqlalchemy as sa

from backfill_assets.failures import PermanentFailure

METADATA: Final = sa.MetaData()

JOBS: Final = sa.Table(
    "backfill_assets_jobs",
    METADATA,
    sa.Column("job_id", sa.String(32), primary_key=True),
    # The order of creation, for jobs of the same microsecond.
    sa.Column("request_id", sa.String(100), unique=True, nullable=True),
    sa.Column("request", sa.Text, nullable=False),
    sa.Column("requester", sa.Text, nullable=False),
    sa.Column("created_us", sa.BigInteger, nullable=False, index=True),
    sa.Column("updated_us", sa.BigInteger, nullable=False),
    sa.Column("state", sa.String(16), nullable=False, index=True),
    sa.Column("attempt", sa.Integer, nullable=False),
    sa.Column("revision", sa.Integer, nullable=False),
    sa.Column("percent", sa.Float, nullable=False),
    sa.Column("snapshot", sa.Text, nullable=False),
)
DAYS: Final = sa.Table(
    "backfill_assets_job_days",
    METADATA,
    sa.Column("job_id", sa.String(32), sa.ForeignKey("backfill_assets_jobs.job_id"), primary_key=True),
    sa.Column("day", sa.String(10), primary_key=True),
    sa.Column("attempt", sa.Integer, nullable=False),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("snapshot", sa.Text, nullable=False),
)


class RequestIdTaken(PermanentFailure):
    """Another job has this request id."""


@dataclass(frozen=True, slots=True)
class JobRow:
    """One job as stored; ``request`` and ``snapshot`` are JSON."""

    job_id: str
    request_id: str | None
    request: str
    requester: str
    created_us: int
    updated_us: int
    state: str
    attempt: int
    revision: int
    percent: float
    snapshot: str


@dataclass(frozen=True, slots=True)
class DayRow:
    """One day of a job as stored; ``snapshot`` is JSON."""

    day: str
    attempt: int
    state: str
    snapshot: str


class JobStore:
    """The tables, over one engine; safe to share among threads."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine

    def close(self) -> None:
        """Give the connections back."""
        self._engine.dispose()

    def ping(self) -> None:
        """Ask the database something; raises what SQLAlchemy raises when it does not answer."""
        with self._engine.connect() as connection:
            connection.execute(sa.select(sa.func.count()).select_from(JOBS)).scalar_one()

    def insert(self, job: JobRow, days: Sequence[DayRow]) -> None:
        """Store a new job with its days.

        Raises
        ------
        RequestIdTaken
            There is a job with this request id; nothing was stored.
        """
        try:
            with self._engine.begin() as connection:
                connection.execute(JOBS.insert().values(_values(job)))
                connection.execute(DAYS.insert(), [_day_values(job.job_id, day) for day in days])
        except sa.exc.IntegrityError as error:
            if job.request_id is None or self.by_request_id(job.request_id) is None:
                raise
            msg = f"request_id {job.request_id!r} was used before"
            raise RequestIdTaken(msg) from error

    def job(self, job_id: str) -> JobRow | None:
        """The job, or None."""
        return self._one(JOBS.c.job_id == job_id)

    def by_request_id(self, request_id: str) -> JobRow | None:
        """The job that this request made, or None."""
        return self._one(JOBS.c.request_id == request_id)

    def recent(self, limit: int, states: Iterable[str] | None = None) -> list[JobRow]:
        """Jobs, newest first; of all states or of some."""
        query = JOBS.select().order_by(JOBS.c.created_us.desc(), JOBS.c.job_id).limit(limit)
        if states is not None:
            query = query.where(JOBS.c.state.in_(list(states)))
        with self._engine.connect() as connection:
            return [JobRow(**row) for row in connection.execute(query).mappings()]

    def revision(self, job_id: str) -> int | None:
        """The job's revision, or None where there is no such job; cheap enough to be asked often."""
        with self._engine.connect() as connection:
            found = connection.execute(sa.select(JOBS.c.revision).where(JOBS.c.job_id == job_id)).scalar()
        return None if found is None else int(found)

    def counts(self) -> dict[str, int]:
        """Jobs by state."""
        query = sa.select(JOBS.c.state, sa.func.count()).group_by(JOBS.c.state)
        with self._engine.connect() as connection:
            return {state: int(count) for state, count in connection.execute(query)}

    def with_days(self, job_id: str) -> tuple[JobRow, list[DayRow]] | None:
        """The job and its days in order, as of one moment."""
        with self._engine.connect() as connection:
            # Both from one snapshot of the database, or a day might be newer than its job.
            if connection.dialect.name == "postgresql":
                connection = connection.execution_options(isolation_level="REPEATABLE READ")
            with connection.begin():
                job = connection.execute(JOBS.select().where(JOBS.c.job_id == job_id)).mappings().first()
                if job is None:
                    return None
                columns = [DAYS.c.day, DAYS.c.attempt, DAYS.c.state, DAYS.c.snapshot]
                query = sa.select(*columns).where(DAYS.c.job_id == job_id).order_by(DAYS.c.day)
                return JobRow(**job), [DayRow(*row) for row in connection.execute(query)]

    def unfinished_days(self, first: str, last: str, states: Iterable[str]) -> dict[str, tuple[str, str]]:
        """By day of the range: the newest job in one of the states that has it, and the day's state there."""
        query = (
            sa.select(DAYS.c.day, DAYS.c.job_id, DAYS.c.state)
            .join(JOBS, JOBS.c.job_id == DAYS.c.job_id)
            .where(JOBS.c.state.in_(list(states)), DAYS.c.day >= first, DAYS.c.day <= last)
            .order_by(JOBS.c.created_us)
        )
        with self._engine.connect() as connection:
            return {day: (job_id, state) for day, job_id, state in connection.execute(query)}

    def change(self, job: JobRow, days: Sequence[DayRow] = ()) -> JobRow | None:
        """Store the job as the successor of the revision it carries, together with the days that changed.

        Returns
        -------
        JobRow | None
            The job with its new revision; None if another process was faster, and nothing was stored.
        """
        changed = replace(job, revision=job.revision + 1)
        with self._engine.begin() as connection:
            same = sa.and_(JOBS.c.job_id == job.job_id, JOBS.c.revision == job.revision)
            if connection.execute(JOBS.update().where(same).values(_values(changed))).rowcount != 1:
                return None
            for day in days:
                this = sa.and_(DAYS.c.job_id == job.job_id, DAYS.c.day == day.day)
                connection.execute(DAYS.update().where(this).values(_day_values(job.job_id, day)))
        return changed

    def _one(self, condition: sa.ColumnElement[bool]) -> JobRow | None:
        with self._engine.connect() as connection:
            row = connection.execute(JOBS.select().where(condition)).mappings().first()
        return None if row is None else JobRow(**row)


def _values(job: JobRow) -> Mapping[str, Any]:
    return {column.name: getattr(job, column.name) for column in JOBS.columns}


def _day_values(job_id: str, day: DayRow) -> Mapping[str, Any]:
    return {
        "job_id": job_id,
        "day": day.day,
        "attempt": day.attempt,
        "state": day.state,
        "snapshot": day.snapshot,
    }


def document(value: object) -> str:
    """Compact JSON."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)
