"""Statuses derived from Dagster's records and the stored days: of any backfill, in any process.

A real engine runs small assets, on SQLite's files; short calls store the days.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._core.execution.backfill import BulkActionStatus
from sqlalchemy.exc import OperationalError

from backfill_assets.automation.backfills import add_backfill
from backfill_assets.days import utc_now
from backfill_assets.failures import TransientFailure
from backfill_assets.lake.store import Store
from backfill_assets.orchestration import live_key
from backfill_assets.progress import day_cache, records, statuses
from backfill_assets.progress.commands import status_text
from backfill_assets.progress.model import BackfillRequest, Eta, StoredDay
from backfill_assets.progress.service import Backfills
from backfill_assets.progress.stored_days import summarized_day
from backfill_assets.settings import Settings
from backfill_assets_tests.progress.planned_lake import Lake
from backfill_assets_tests.progress.small_assets import DEFS, end_backfill, execute

DAYS = ["2024-01-01", "2024-01-02", "2024-01-03"]


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(tmp_path / "lake", serve={"refresh_seconds": 1e-9})


class CountingReads:
    """Reads the stored days, and counts the reads."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.asked: list[str] = []
        self.threads: set[str] = set()
        self.fails = False

    def __call__(self, store: Store, day: str) -> StoredDay:
        self.asked.append(day)
        self.threads.add(threading.current_thread().name)
        if self.fails:
            msg = "the bucket does not answer"
            raise TransientFailure(msg)
        return summarized_day(store, self.settings, day)


@pytest.fixture
def reads(lake: Lake) -> CountingReads:
    return CountingReads(lake.settings)


@pytest.fixture
def another(
    instance: dg.DagsterInstance, lake: Lake, reads: CountingReads
) -> Iterator[Callable[[], Backfills]]:
    """Makes a service without any knowledge, like that of a process that has just begun."""
    made: list[Backfills] = []

    def make() -> Backfills:
        made.append(Backfills(instance, DEFS.resolve_asset_graph, lambda: lake.settings, read_day=reads))
        return made[-1]

    yield make
    for service in made:
        service.close()


@pytest.fixture
def service(another: Callable[[], Backfills]) -> Backfills:
    return another()


def asked(**more: Any) -> BackfillRequest:
    return BackfillRequest.model_validate({"start": DAYS[0], "end": DAYS[-1], **more})


def launch(instance: dg.DagsterInstance, backfill_id: str, *, tags: dict[str, str] | None = None) -> str:
    """A backfill of the first and the last day, of one asset, as Dagster's UI launches it."""
    days, graph = [DAYS[0], DAYS[2]], DEFS.resolve_asset_graph()
    assert add_backfill(
        instance, graph, backfill_id, days, tags or {}, "days", assets=[dg.AssetKey("candles")]
    )
    return backfill_id


def by_day(service: Backfills, job_id: str) -> dict[str, str]:
    return {day.day: day.state for day in service.status(job_id).days}


def wait_for_old_days() -> None:
    """Wait until the old days have been read again."""
    for thread in threading.enumerate():
        if thread.name == day_cache.OLD_DAYS:
            thread.join()


# --- any origin ---------------------------------------------------------------------------------------------


def test_a_backfill_of_dagsters_ui_is_a_job_of_its_days(
    instance: dg.DagsterInstance, service: Backfills, lake: Lake
) -> None:
    launch(instance, "abcdefgh")
    lake.run(DAYS[0])
    run_id = execute(instance, "abcdefgh", DAYS[0], ("candles",))
    status = service.status("abcdefgh")
    assert (status.request.start, status.request.end) == (date(2024, 1, 1), date(2024, 1, 3))
    assert (status.requester, status.total_days, status.skipped_days) == ("", 2, 0)
    assert (status.state, status.percent) == ("running", 50)
    first, last = status.days
    assert (first.day, first.state, first.run_id) == (DAYS[0], "published", run_id)
    assert [(asset.asset, asset.state) for asset in first.assets] == [("candles", "materialized")]
    assert (last.day, last.state) == (DAYS[2], "waiting")
    assert [job.job_id for job in service.recent()] == ["abcdefgh"]
    assert [job.job_id for job in service.unfinished()] == ["abcdefgh"]
    at_work = {day.day: day.job_id for day in service.days(date(2024, 1, 1), date(2024, 1, 3))}
    assert at_work == {DAYS[0]: None, DAYS[1]: None, DAYS[2]: "abcdefgh"}


def test_the_status_in_words_tells_the_time_left_once_and_only_while_there_is_one(
    instance: dg.DagsterInstance, service: Backfills
) -> None:
    launch(instance, "abcdefgh")
    stuck = service.status("abcdefgh")
    assert stuck.warnings, "no daemon runs it"
    assert "  left  " not in status_text(stuck)
    job = stuck.model_copy(update={"warnings": ()})
    assert "  left     known when two days have ended" in status_text(job).splitlines()
    soon = utc_now() + timedelta(minutes=3, seconds=5)
    job = job.model_copy(update={"eta": Eta(earliest=soon, latest=soon)})
    assert "  left     about 3 min" in status_text(job).splitlines()
    assert "  left  " not in status_text(job.model_copy(update={"state": "canceling"}))


def test_a_retry_of_it_is_the_next_attempt_and_runs_the_same_assets(
    instance: dg.DagsterInstance, service: Backfills
) -> None:
    launch(instance, "abcdefgh", tags={"team": "mine"})
    end_backfill(instance, "abcdefgh", BulkActionStatus.CANCELED)
    again = service.retry("abcdefgh")
    assert (again.job_id, again.state, again.attempt) == ("abcdefgh", "queued", 2)
    found = instance.get_backfill("abcdefgh-2")
    assert found is not None
    assert found.asset_selection == [dg.AssetKey("candles")]
    assert found.tags["team"] == "mine"
    assert [job.job_id for job in service.recent()] == ["abcdefgh"], "an attempt is no job"
    assert [day.attempt for day in service.status("abcdefgh").days] == [2, 2]


def test_what_dagsters_ui_runs_again_is_a_job_of_its_own(
    instance: dg.DagsterInstance, service: Backfills
) -> None:
    job, _ = service.create(asked(), "me")
    first = instance.get_backfill(job.job_id)
    assert first is not None
    launch(instance, "abcdefgh", tags={**first.tags, "dagster/parent_backfill_id": job.job_id})
    status = service.status("abcdefgh")
    assert [day.day for day in status.days] == [DAYS[0], DAYS[2]]
    assert [found.job_id for found in service.recent()] == ["abcdefgh", job.job_id]
    assert service.status(job.job_id).total_days == 3


def test_a_backfill_of_something_else_than_days_is_no_job(
    instance: dg.DagsterInstance, service: Backfills
) -> None:
    add_backfill(instance, DEFS.resolve_asset_graph(), "abcdefgh", [], {}, "nothing")
    assert service.recent() == []


def test_a_backfill_that_dagster_calls_completed_before_its_runs_have_ended_is_at_work(
    instance: dg.DagsterInstance, service: Backfills
) -> None:
    """``dagster job backfill`` creates its runs in this way."""
    launch(instance, "abcdefgh")
    for day in (DAYS[0], DAYS[2]):
        tags = {"dagster/backfill": "abcdefgh", "dagster/partition": day}
        instance.add_run(dg.DagsterRun(job_name="all", status=dg.DagsterRunStatus.NOT_STARTED, tags=tags))
    end_backfill(instance, "abcdefgh", BulkActionStatus.COMPLETED)
    assert [(job.job_id, job.state) for job in service.unfinished()] == [("abcdefgh", "running")]
    assert service.cancel("abcdefgh").state == "canceling"


# --- the stored days ----------------------------------------------------------------------------------------


def test_a_day_is_read_when_its_run_has_ended_and_again_when_a_neighbours_has(
    instance: dg.DagsterInstance, service: Backfills, reads: CountingReads, lake: Lake
) -> None:
    job, _ = service.create(asked(all_days=True))
    service.status(job.job_id)
    assert reads.asked == []
    for day in DAYS:
        lake.run(day)
        execute(instance, job.job_id, day)
        assert by_day(service, job.job_id)[day] == "published"
    assert reads.asked == [DAYS[0], DAYS[0], DAYS[1], DAYS[1], DAYS[2]]
    for _ in range(3):
        service.status(job.job_id)
    assert len(reads.asked) == 5, "nothing has changed"


def test_a_day_that_cannot_be_read_has_not_ended_and_says_why(
    instance: dg.DagsterInstance, service: Backfills, reads: CountingReads, lake: Lake
) -> None:
    job, _ = service.create(asked(end=DAYS[0]))
    lake.run(DAYS[0])
    execute(instance, job.job_id, DAYS[0])
    reads.fails = True
    status = service.status(job.job_id)
    assert (status.state, status.days_by_state) == ("running", {"running": 1})
    assert f"the outcome of {DAYS[0]} is not known yet: the bucket does not answer" in status.warnings
    reads.fails = False
    assert service.status(job.job_id).state == "succeeded"


def test_what_is_old_is_read_again_a_few_days_at_a_time_and_a_failure_forgets_nothing(
    instance: dg.DagsterInstance,
    service: Backfills,
    reads: CountingReads,
    lake: Lake,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    job, _ = service.create(asked(all_days=True))
    for day in DAYS:
        lake.run(day)
        execute(instance, job.job_id, day)
    first = service.status(job.job_id)
    monkeypatch.setattr(statuses, "_SECONDS_OF_ENDED", 0.0)
    monkeypatch.setattr(statuses, "_SECONDS_BETWEEN_ENDED", 0.0)
    monkeypatch.setattr(day_cache, "SECONDS_KEPT", 0.0)
    monkeypatch.setattr(day_cache, "MOST_OLD_DAYS", 2)
    lake.run(DAYS[1], state="held")
    reads.asked.clear()
    reads.threads.clear()
    seen = []
    for _ in range(3):
        seen.append(by_day(service, job.job_id)[DAYS[1]])
        wait_for_old_days()
    assert (len(reads.asked), seen[-1]) == (6, "held"), "another run has taken it back"
    assert reads.threads == {day_cache.OLD_DAYS}, "no request waits for days that are only old"
    reads.fails = True
    assert service.status(job.job_id).days_by_state == {"held": 1, "published": 2}
    assert first.days_by_state == {"published": 3}


# --- another process ----------------------------------------------------------------------------------------


def test_a_process_that_has_just_begun_tells_what_one_that_saw_it_all_tells(
    instance: dg.DagsterInstance, service: Backfills, another: Callable[[], Backfills], lake: Lake
) -> None:
    job, _ = service.create(asked(all_days=True, reason="a hole"), "me")
    for day, broken in zip(DAYS, ("", "check", "ticks"), strict=True):
        lake.run(day)
        run_id = execute(instance, job.job_id, day, **({"break": broken} if broken else {}))
        total = {
            "done": 2,
            "total": 2,
            "rows": 5,
            "raw_bytes": 9,
            "fetched_bytes": 8,
            "states": {"fetched": 2},
        }
        instance.daemon_cursor_storage.set_cursor_values({live_key(run_id): json.dumps(total)})
        service.status(job.job_id)
    seen = service.status(job.job_id)
    assert [day.state for day in seen.days] == ["published", "failed", "failed"]
    assert [(day.rows, day.raw_bytes) for day in seen.days] == [(5, 8)] * 3
    assert [len(day.failed_checks) for day in seen.days] == [1, 2, 0]
    assert seen.days[2].failure == "the disk is full: make room"
    assert seen.failure == f"2 of 3 days: {DAYS[1]} failed (check ticks:sane), {DAYS[2]} failed"
    told = another()
    [listed] = told.recent()
    fresh = told.status(job.job_id)
    for one in (listed, fresh, another().status(job.job_id)):
        assert one.revision <= seen.revision
    assert fresh.model_copy(update={"revision": seen.revision}) == seen
    assert listed.failure == seen.failure


def test_a_run_that_goes_on_after_a_killed_one_tells_the_rows_which_that_had_fetched(
    instance: dg.DagsterInstance, service: Backfills, lake: Lake
) -> None:
    job, _ = service.create(asked(all_days=True), "me")
    lake.run(DAYS[0])
    killed = execute(instance, job.job_id, DAYS[0], **{"break": "ticks", "dagster/will_retry": "true"})
    total = {"done": 2, "total": 2, "rows": 5, "raw_bytes": 9, "fetched_bytes": 8, "states": {"fetched": 2}}
    instance.daemon_cursor_storage.set_cursor_values({live_key(killed): json.dumps(total)})
    execute(instance, job.job_id, DAYS[0])
    day = service.status(job.job_id).days[0]
    assert (day.state, day.rows, day.raw_bytes) == ("published", 5, 8)


def test_of_many_that_bring_one_request_id_together_to_several_services_one_makes_the_job(
    stored: dg.DagsterInstance, lake: Lake
) -> None:
    services = [Backfills(stored, DEFS.resolve_asset_graph, lambda: lake.settings) for _ in range(2)]
    start = threading.Barrier(6)

    def create(number: int) -> tuple[str, bool]:
        start.wait()
        job, is_new = services[number % 2].create(asked(request_id="once"))
        return job.job_id, is_new

    with ThreadPoolExecutor(6) as pool:
        made = list(pool.map(create, range(6)))
    assert len({job_id for job_id, _ in made}) == 1
    assert sum(is_new for _, is_new in made) == 1
    assert len(stored.get_backfills()) == 1


# --- kept statuses ------------------------------------------------------------------------------------------


def ended_jobs(instance: dg.DagsterInstance, service: Backfills, lake: Lake) -> list[str]:
    """Ended jobs, one for each day."""
    jobs = []
    for day in DAYS:
        lake.run(day)
        jobs.append(service.create(asked(start=day, end=day, all_days=True))[0].job_id)
        execute(instance, jobs[-1], day)
    return jobs


def test_a_job_that_has_ended_costs_one_query_and_is_forgotten_before_there_are_too_many(
    instance: dg.DagsterInstance,
    service: Backfills,
    lake: Lake,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    jobs = ended_jobs(instance, service, lake)
    before = [service.status_json(job_id) for job_id in jobs]

    def never(*_: object, **__: object) -> None:
        pytest.fail("what has ended is not read again")

    with monkeypatch.context() as patch:
        for call in ("get_run_records", "get_run_partition_data", "get_cursor_values"):
            patch.setattr(instance.run_storage, call, never)
        patch.setattr(instance.event_log_storage, "get_records_for_run", never)
        assert [service.status_json(job_id) for job_id in jobs] == before
    monkeypatch.setattr(statuses, "_MOST_DAYS", 1)
    monkeypatch.setattr(statuses, "_SECONDS_OF_ANSWER", 0.0)
    assert [service.status_json(job_id) for job_id in jobs] == before
    kept = [known.records for known in service._statuses._known.values()]
    assert [found is not None for found in kept] == [False, False, True], "the others' summaries are kept"
    assert [job.job_id for job in service.recent()] == jobs[::-1]


def test_of_ended_jobs_that_are_asked_for_at_once_one_is_read_again(
    instance: dg.DagsterInstance, service: Backfills, lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = ended_jobs(instance, service, lake)
    before = [service.status_json(job_id) for job_id in jobs]
    monkeypatch.setattr(statuses, "_SECONDS_OF_ENDED", 0.0)
    monkeypatch.setattr(statuses, "_SECONDS_BETWEEN_ENDED", 3_600.0)
    read = []
    see = statuses.Statuses._see

    def count(self: statuses.Statuses, known: object, *rest: object, **more: object) -> None:
        read.append(known)
        see(self, known, *rest, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(statuses.Statuses, "_see", count)
    assert [service.status_json(job_id) for job_id in jobs] == before
    assert len(read) == 1
    monkeypatch.setattr(statuses, "_SECONDS_OF_ANSWER", 0.0)
    assert [service.status_json(job_id) for job_id in jobs] == before
    assert len(read) == 4, "after a minute each is read again, however many there are"


def test_of_more_ended_jobs_than_are_kept_the_last_answer_is_repeated_for_a_while(
    instance: dg.DagsterInstance, service: Backfills, lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = ended_jobs(instance, service, lake)
    monkeypatch.setattr(statuses, "_MOST_DAYS", 1)
    before = [service.status_json(job_id) for job_id in jobs]
    read: list[str] = []
    reads_runs = instance.run_storage.get_run_partition_data

    def count(runs_filter: dg.RunsFilter) -> object:
        read.append("runs")
        return reads_runs(runs_filter)

    monkeypatch.setattr(instance.run_storage, "get_run_partition_data", count)
    assert [service.status_json(job_id) for job_id in jobs] == before
    assert read == []
    assert service._statuses._known[jobs[0]].records is None, "the answer was all that was kept"
    monkeypatch.setattr(statuses, "_SECONDS_OF_ANSWER", 0.0)
    assert [service.status_json(job_id) for job_id in jobs[:2]] == before[:2]
    assert len(read) == 2, "an old answer is made again"


def test_the_last_answer_is_not_repeated_once_another_process_has_retried_the_job(
    instance: dg.DagsterInstance,
    service: Backfills,
    another: Callable[[], Backfills],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    jobs = []
    for day in DAYS[:2]:
        jobs.append(service.create(asked(start=day, end=day))[0].job_id)
        end_backfill(instance, jobs[-1], BulkActionStatus.COMPLETED)
    monkeypatch.setattr(statuses, "_MOST_DAYS", 0)
    assert [json.loads(service.status_json(job_id)[0])["state"] for job_id in jobs] == ["failed", "failed"]
    assert service._statuses._known[jobs[0]].records is None
    another().retry(jobs[0])
    assert json.loads(service.status_json(jobs[0])[0])["state"] == "queued"


def test_a_look_is_told_to_all_who_ask_within_the_time_and_a_change_of_ones_own_at_once(
    instance: dg.DagsterInstance, service: Backfills, lake: Lake
) -> None:
    lake.settings = lake.settings.model_copy(
        update={"serve": lake.settings.serve.model_copy(update={"refresh_seconds": 60.0})}
    )
    job, _ = service.create(asked())
    before = service.status_json(job.job_id)
    execute(instance, job.job_id, DAYS[0])
    assert service.status_json(job.job_id) == before
    assert service.cancel(job.job_id).state == "canceling"
    assert by_day(service, job.job_id)[DAYS[0]] == "missing"
    assert [found.state for found in service.recent()] == ["canceling"]


def test_the_logs_of_many_failed_runs_are_read_over_several_looks(
    instance: dg.DagsterInstance, service: Backfills, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(records, "_REASONS_TOLD", 1)
    monkeypatch.setattr(records, "_SECONDS_FOR_LOGS", 0.0)
    job, _ = service.create(asked())
    for day in DAYS:
        execute(instance, job.job_id, day, **{"break": "ticks"})
    seen = service.status(job.job_id)
    assert [day.failure is not None for day in seen.days] == [True, False, False]
    assert seen.days_by_state == {"failed": 3}, "how they ended is told at once"
    monkeypatch.setattr(records, "_SECONDS_FOR_LOGS", 60.0)
    assert [day.failure is not None for day in service.status(job.job_id).days] == [True, True, True]


def test_a_database_that_is_away_is_told_in_one_line(
    instance: dg.DagsterInstance, service: Backfills, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, _ = service.create(asked())

    def away(*_: object, **__: object) -> None:
        raise OperationalError("SELECT 1", {}, Exception("connection\nrefused"))

    with monkeypatch.context() as patch:
        patch.setattr(instance.run_storage, "get_backfills", away)
        for ask in (lambda: service.status(job.job_id), service.recent, service.unfinished):
            with pytest.raises(TransientFailure, match=r"Dagster's database does not answer: .*refused"):
                ask()
    assert service.status(job.job_id).state == "queued"


def test_the_end_of_a_job_is_when_its_last_run_ended_and_not_when_dagster_saw_it(
    instance: dg.DagsterInstance, service: Backfills, lake: Lake
) -> None:
    job, _ = service.create(asked(end=DAYS[0]))
    lake.run(DAYS[0])
    execute(instance, job.job_id, DAYS[0])
    seen = service.status(job.job_id)
    assert seen.finished == seen.days[0].ended == seen.updated
    end_backfill(instance, job.job_id, BulkActionStatus.COMPLETED_SUCCESS)
    assert service.status(job.job_id) == seen
    assert seen.revision == int(seen.updated.timestamp() * 1000)
    assert datetime.now(tz=UTC) > seen.updated
