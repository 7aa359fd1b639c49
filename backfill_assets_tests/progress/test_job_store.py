"""The jobs' tables on both databases: one job per request id, no change lost or undone, migrated once."""

from __future__ import annotations

import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import sqlalchemy as sa

from backfill_assets.failures import PermanentFailure
from backfill_assets.progress.database import VERSION_TABLE, open_jobs
from backfill_assets.progress.store import DayRow, JobRow, JobStore, RequestIdTaken

DAYS = [DayRow(f"2024-01-0{n}", 1, "waiting", "{}") for n in (1, 2, 3)]


def job(name: str = "aaaaaaaa", request_id: str | None = None, **changes: object) -> JobRow:
    row = JobRow(name, request_id, "{}", "me", 1, 1, "queued", 1, 1, 0.0, "{}")
    return replace(row, **changes)  # type: ignore[arg-type]


def test_a_job_and_its_days_are_read_as_they_were_stored(jobs: JobStore) -> None:
    jobs.insert(job(), DAYS)
    assert jobs.with_days("aaaaaaaa") == (job(), DAYS)
    assert jobs.with_days("bbbbbbbb") is None
    assert (jobs.revision("aaaaaaaa"), jobs.revision("bbbbbbbb")) == (1, None)


def test_of_many_that_bring_one_request_id_together_one_gets_the_job(jobs: JobStore) -> None:
    start = threading.Barrier(8)

    def insert(number: int) -> bool:
        start.wait()
        try:
            jobs.insert(job(f"job{number}", "same"), DAYS)
        except RequestIdTaken:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(insert, range(8))) == 1
    [stored] = jobs.recent(10)
    assert len((jobs.with_days(stored.job_id) or (None, []))[1]) == 3


def test_jobs_without_request_id_are_all_different(jobs: JobStore) -> None:
    jobs.insert(job("one"), DAYS)
    jobs.insert(job("two"), DAYS)
    assert len(jobs.recent(10)) == 2


def test_a_change_of_what_another_has_changed_is_refused_with_its_days(jobs: JobStore) -> None:
    jobs.insert(job(), DAYS)
    mine = jobs.change(job(percent=50.0), [replace(DAYS[0], state="running")])
    assert mine is not None
    assert mine.revision == 2
    assert jobs.change(job(percent=10.0), [replace(DAYS[0], state="waiting")]) is None
    stored, days = jobs.with_days("aaaaaaaa") or pytest.fail("gone")
    assert (stored.percent, days[0].state) == (50.0, "running")


def test_no_change_of_many_writers_is_lost(jobs: JobStore) -> None:
    jobs.insert(job(), DAYS)

    def add_one(_: int) -> None:
        while True:
            row = jobs.job("aaaaaaaa")
            assert row is not None
            if jobs.change(replace(row, percent=row.percent + 1)) is not None:
                return

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(add_one, range(20)))
    assert jobs.job("aaaaaaaa") == job(percent=20.0, revision=21)


def test_the_newest_jobs_come_first_and_states_are_told_apart(jobs: JobStore) -> None:
    for number, state in enumerate(("failed", "queued", "failed")):
        jobs.insert(job(f"job{number}", created_us=number, state=state), DAYS)
    assert [row.job_id for row in jobs.recent(2)] == ["job2", "job1"]
    assert [row.job_id for row in jobs.recent(9, ("failed",))] == ["job2", "job0"]
    assert jobs.counts() == {"failed": 2, "queued": 1}
    assert jobs.unfinished_days("2024-01-02", "2024-01-09", ("queued",)) == {
        "2024-01-02": ("job1", "waiting"),
        "2024-01-03": ("job1", "waiting"),
    }


def test_processes_that_start_together_migrate_once_and_leave_other_tables_alone(database: str) -> None:
    if database.startswith("postgresql"):
        # Dagster's own schema version lives in the same database.
        engine = sa.create_engine(database)
        with engine.begin() as connection:
            connection.execute(sa.text("CREATE TABLE alembic_version (version_num text)"))
            connection.execute(sa.text("INSERT INTO alembic_version VALUES ('of dagster')"))
    script = (
        "import sys; from backfill_assets.progress.database import open_jobs; open_jobs(sys.argv[1]).ping()"
    )
    started = [subprocess.Popen([sys.executable, "-c", script, database]) for _ in range(3)]
    assert [process.wait(timeout=120) for process in started] == [0, 0, 0]
    engine = sa.create_engine(database)
    with engine.connect() as connection:
        assert connection.execute(sa.text(f"SELECT version_num FROM {VERSION_TABLE}")).scalars().all() == [
            "0001"
        ]
        if database.startswith("postgresql"):
            found = connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalars().all()
            assert found == ["of dagster"]
    engine.dispose()


def test_the_migrations_make_exactly_the_tables_that_the_store_uses(database: str) -> None:
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    from backfill_assets.progress.store import METADATA

    open_jobs(database).close()
    engine = sa.create_engine(database)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE})
        assert compare_metadata(context, METADATA) == []
    engine.dispose()


def test_a_migration_that_was_killed_in_the_middle_leaves_nothing(database: str) -> None:
    script = """
import os, sys
import alembic.op
from backfill_assets.progress.database import open_jobs
real = alembic.op.create_table
def create_table(name, *columns, **options):
    if name.endswith("days"):
        os.kill(os.getpid(), 9)
    return real(name, *columns, **options)
alembic.op.create_table = create_table
open_jobs(sys.argv[1])
"""
    killed = subprocess.run([sys.executable, "-c", script, database], check=False, timeout=120)
    assert killed.returncode == -9
    store = open_jobs(database)
    store.insert(job(), DAYS)
    store.close()


def test_a_database_of_a_newer_version_is_refused_in_one_line(database: str) -> None:
    open_jobs(database).close()
    engine = sa.create_engine(database)
    with engine.begin() as connection:
        connection.execute(sa.text(f"UPDATE {VERSION_TABLE} SET version_num = '9999'"))
    engine.dispose()
    with pytest.raises(PermanentFailure, match="newest version of this package") as failure:
        open_jobs(database)
    assert "\n" not in str(failure.value)
    password = sa.make_url(database).password
    assert password is None or str(password) not in str(failure.value)
