"""Backfills, runs and checks as Dagster records them, read together; a real engine and small assets."""

import json
from datetime import timedelta
from uuid import uuid4

import dagster as dg
import pytest
from dagster._core.events import EngineEventData
from dagster._core.test_utils import create_run_for_test
from dagster._utils.error import SerializableErrorInfo

from backfill_assets.automation.backfills import add_backfill, cancel_backfill
from backfill_assets.days import utc_now
from backfill_assets.orchestration import (
    STEP_RETRIES,
    TAG_ALL_DAYS,
    TAG_ATTEMPT,
    TAG_CANCELED,
    TAG_RANGE,
    TAG_REQUEST,
    live_key,
)
from backfill_assets.progress.facts import DayEvents, RunLog, day_events
from backfill_assets.progress.model import BackfillRequest
from backfill_assets.progress.reader import Reader
from backfill_assets.progress.request_tags import request_tags
from backfill_assets.progress.service import Backfills
from backfill_assets.settings import Settings
from backfill_assets_tests.progress.small_assets import DEFS, execute

DAY = "2024-01-01"
DAYS = [DAY, "2024-01-02", "2024-01-03"]


@pytest.fixture
def reader(instance: dg.DagsterInstance) -> Reader:
    return Reader(instance)


def add(instance: dg.DagsterInstance, backfill_id: str = "job", days: list[str] | None = None) -> None:
    request = BackfillRequest.model_validate({"start": DAYS[0], "end": DAYS[-1], "reason": "a hole"})
    tags = request_tags(request, "me", backfill_id)
    add_backfill(
        instance, DEFS.resolve_asset_graph(), backfill_id, days or DAYS, tags, "days", description="a hole"
    )


def events(reader: Reader, *run_ids: str) -> DayEvents:
    [backfill] = reader.backfills(["job"])
    runs = {run.run_id: run for run in reader.runs(backfill)}
    logs = []
    for run_id in run_ids:
        logs.append(RunLog())
        reader.read_on(runs[run_id], logs[-1])
    return day_events(logs)


def test_a_backfill_is_read_with_its_request_and_the_days_that_it_runs_and_leaves_out(
    instance: dg.DagsterInstance, reader: Reader
) -> None:
    add(instance, days=DAYS[1:])
    [fact] = reader.backfills(["job", "another"])
    assert (fact.job_id, fact.attempt, fact.state) == ("job", 1, "active")
    assert (fact.days, fact.skipped) == (tuple(DAYS[1:]), (DAY,))
    assert (fact.request.reason, fact.requester, fact.request.all_days) == ("a hole", "me", False)
    assert fact.assets == ("candles", "ticks")


def test_a_log_is_read_with_its_warnings_and_read_on_from_where_it_was(
    instance: dg.DagsterInstance, reader: Reader
) -> None:
    add(instance)
    run_id = execute(instance, "job", DAY)
    found = events(reader, run_id)
    assert {asset.asset: asset.state for asset in found.assets} == {
        "ticks": "materialized",
        "candles": "materialized",
    }
    [warning] = found.failed_checks
    assert (warning.check, warning.severity, warning.blocking) == ("ticks:usual", "WARN", False)
    [run], log = reader.runs(reader.backfills(["job"])[0]), RunLog()
    reader.read_on(run, log)
    cursor, assets = log.cursor, dict(log.assets)
    reader.read_on(run, log)
    assert (log.cursor, log.assets, log.is_whole) == (cursor, assets, True)


def test_a_failed_blocking_check_is_seen_with_what_it_stopped(
    instance: dg.DagsterInstance, reader: Reader
) -> None:
    add(instance)
    found = events(reader, execute(instance, "job", DAY, **{"break": "check"}))
    [blocking] = [check for check in found.failed_checks if check.blocking]
    assert (blocking.check, blocking.severity, blocking.description) == (
        "ticks:sane",
        "ERROR",
        "3 rows are bad",
    )
    assert {asset.asset: asset.state for asset in found.assets} == {
        "ticks": "materialized",
        "candles": "waiting",
    }


def test_a_later_run_that_left_the_failed_check_out_does_not_hide_it(
    instance: dg.DagsterInstance, reader: Reader
) -> None:
    add(instance)
    first = execute(instance, "job", DAY, **{"break": "check"})
    second = execute(instance, "job", DAY, ("candles",))
    [*_, latest] = reader.runs(reader.backfills(["job"])[0])
    assert (latest.run_id, latest.state) == (second, "succeeded"), "Dagster calls it a success"
    assert "ticks:sane" in {found.check for found in events(reader, first, second).failed_checks}
    third = execute(instance, "job", DAY)
    assert "ticks:sane" not in {found.check for found in events(reader, first, third).failed_checks}


def test_a_run_that_dagster_has_dropped_from_its_queue_says_why(
    instance: dg.DagsterInstance, reader: Reader
) -> None:
    add(instance)
    run = create_run_for_test(instance, tags={"dagster/backfill": "job", "dagster/partition": DAY})
    # Dagster's queue does this when it cannot launch a run.
    error = SerializableErrorInfo("Location x does\nnot exist", [], "DagsterCodeLocationNotFoundError")
    instance.report_engine_event("dropping it", run, EngineEventData.engine_error(error))
    instance.report_run_failed(run)
    assert events(reader, run.run_id).failure == "Location x does not exist"


def test_a_run_whose_process_is_gone_says_so(instance: dg.DagsterInstance, reader: Reader) -> None:
    add(instance)
    run = create_run_for_test(instance, tags={"dagster/backfill": "job", "dagster/partition": DAY})
    instance.report_run_failed(run, "its process 7 is gone")
    assert events(reader, run.run_id).failure == "its process 7 is gone"


def test_a_day_that_was_stopped_says_so_in_words(instance: dg.DagsterInstance, reader: Reader) -> None:
    add(instance)
    run_id = execute(instance, "job", DAY, **{"break": "stop"})
    assert events(reader, run_id).failure == "stopped before its end"


def test_a_failed_step_says_why_in_one_line(instance: dg.DagsterInstance, reader: Reader) -> None:
    add(instance)
    found = events(reader, execute(instance, "job", DAY, **{"break": "ticks"}))
    assert found.failure == "the disk is full: make room"
    assert {asset.asset: asset.state for asset in found.assets}["ticks"] == "failed"


def test_only_the_backfills_own_runs_are_read_and_since_a_time_only_changed_ones(
    stored: dg.DagsterInstance,
) -> None:
    reader = Reader(stored)
    add(stored)
    good, bad = execute(stored, "job", DAY), execute(stored, "job", DAYS[1], **{"break": "ticks"})
    execute(stored, "another", DAY)
    [backfill] = reader.backfills(["job"])
    found = {run.run_id: run for run in reader.runs(backfill)}
    assert {run_id: (run.day, run.state) for run_id, run in found.items()} == {
        good: (DAY, "succeeded"),
        bad: (DAYS[1], "failed"),
    }
    for run in found.values():
        assert run.started is not None
        assert run.ended is not None
        assert run.started <= run.ended
        changed = {again.run_id for again in reader.runs(backfill, run.updated)}
        assert run.run_id in changed, "what changes at the same moment is not missed"
    newest = max(run.updated for run in found.values())
    assert reader.runs(backfill, newest + timedelta(minutes=1)) == []


def test_the_runs_of_a_cancelled_backfill_are_read_with_the_time_when_they_were_made(
    instance: dg.DagsterInstance, reader: Reader
) -> None:
    add(instance)
    execute(instance, "job", DAY)
    cancel_backfill(instance, "job")
    [backfill] = reader.backfills(["job"])
    [run] = reader.runs(backfill)
    assert backfill.canceled is not None
    assert run.started is not None
    assert run.created < run.started < backfill.canceled


def test_the_days_of_runs_that_have_ended_lately_are_read_once_each(
    instance: dg.DagsterInstance, reader: Reader
) -> None:
    begin = utc_now() - timedelta(seconds=5)
    for day in (DAYS[1], DAY, DAY):
        execute(instance, "job", day)
    create_run_for_test(instance, status=dg.DagsterRunStatus.STARTED, tags={"dagster/partition": DAYS[2]})
    create_run_for_test(instance, status=dg.DagsterRunStatus.SUCCESS, tags={"dagster/partition": "north"})
    assert reader.days_run(begin) == [DAY, DAYS[1]]
    assert reader.days_run(begin + timedelta(hours=1)) == []


def test_the_failed_checks_of_many_runs_are_read_at_once_and_are_those_of_their_logs(
    stored: dg.DagsterInstance,
) -> None:
    reader = Reader(stored)
    add(stored)
    runs = [execute(stored, "job", DAY), execute(stored, "job", DAYS[1], ("candles",))]
    runs.append(execute(stored, "job", DAYS[2], **{"break": "check"}))
    found = reader.failed_checks(runs, ["candles", "ticks"])
    assert found == {run_id: events(reader, run_id).failed_checks for run_id in runs}
    assert [len(found[run_id]) for run_id in runs] == [1, 0, 2]
    assert reader.failed_checks(runs, ["candles"]) == dict.fromkeys(runs, ())


def test_the_furthest_live_progress_of_all_tries_is_read_and_foreign_text_is_left_out(
    instance: dg.DagsterInstance, reader: Reader
) -> None:
    def text(done: int) -> str:
        return json.dumps({"done": done, "total": 4, "rows": 3, "raw_bytes": 4, "states": {"kept": done}})

    instance.daemon_cursor_storage.set_cursor_values(
        {
            live_key("one"): text(3),
            live_key("one", 1): text(2),
            live_key("two"): '{"done": "many"}',
            live_key("three"): text(1),
            live_key("three", STEP_RETRIES): text(4),
        }
    )
    found = reader.live(["one", "two", "three", "four"])
    assert {name: progress.done for name, progress in found.items()} == {"one": 3, "three": 4}


def test_what_a_newer_version_wrote_with_one_field_more_is_read(
    instance: dg.DagsterInstance, reader: Reader
) -> None:
    feed = {"feed": "binance/trades/BTCUSDT", "state": "fetched", "eta": 3}
    fields = {"done": 1, "total": 2, "rows": 10, "raw_bytes": 5, "states": {"fetched": 1}, "feeds": [feed]}
    text = json.dumps({**fields, "of_a_newer_version": [1]})
    instance.daemon_cursor_storage.set_cursor_values({live_key("r"): text})
    assert reader.live(["r"])["r"].feeds[0].feed == "binance/trades/BTCUSDT"


@pytest.mark.parametrize(
    "changed",
    [
        {TAG_RANGE: "2024-01-01..2024-01-03;weekly"},
        {TAG_RANGE: ""},
        {TAG_RANGE: "2024-01-03..2024-01-01"},
        {TAG_REQUEST: "with a space"},
        {TAG_CANCELED: "yesterday"},
        {TAG_CANCELED: "2024-01-01T00:00:00"},
        {TAG_ATTEMPT: "2.1"},
        {TAG_ALL_DAYS: "weekly"},
        {"backfill_assets/exchanges": "," * 5_000, "backfill_assets/refresh": "true"},
        {"backfill_assets/of_a_newer_version": "x"},
    ],
)
def test_tags_of_another_version_hide_no_job(
    changed: dict[str, str], instance: dg.DagsterInstance, settings: Settings
) -> None:
    request = BackfillRequest.model_validate({"start": DAYS[0], "end": DAYS[-1]})
    tags = {**request_tags(request, "me", "job"), **changed}
    add_backfill(instance, DEFS.resolve_asset_graph(), "job", DAYS, tags, "days")
    add(instance, "other")
    service = Backfills(instance, DEFS.resolve_asset_graph, lambda: settings)
    assert {job.job_id for job in service.recent()} == {"job", "other"}
    assert {job.job_id for job in service.unfinished()} == {"job", "other"}
    assert [day.day for day in service.status("job").days] == DAYS
    service.close()


def test_a_run_of_something_else_than_a_day_is_no_run_of_the_job(
    instance: dg.DagsterInstance, reader: Reader
) -> None:
    add(instance)
    tags = {"dagster/backfill": "job", "dagster/partition": "eu|2024"}
    instance.add_run(dg.DagsterRun(job_name="other", run_id=str(uuid4()), tags=tags))
    assert reader.runs(reader.backfills(["job"])[0]) == []


def test_a_backfill_is_launched_once_and_cancelled(instance: dg.DagsterInstance, reader: Reader) -> None:
    assert reader.backfills(["job"]) == []
    for is_new in (True, False):
        made = add_backfill(instance, DEFS.resolve_asset_graph(), "job", [DAY], {}, "a title")
        assert made is is_new
    assert [fact.state for fact in reader.unfinished()] == ["active"]
    cancel_backfill(instance, "job")
    [fact] = reader.backfills(["job"])
    assert fact.state == "canceling"
    cancel_backfill(instance, "job")
    cancel_backfill(instance, "unknown")
    assert reader.backfills(["job"]) == [fact], "twice is the same"
