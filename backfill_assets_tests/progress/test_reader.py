"""Runs, checks and materializations as Dagster records them, read together; a real engine, small assets."""

import json

import dagster as dg
import pytest

from backfill_assets.automation.backfills import cancel_backfill, ensure_backfill
from backfill_assets.orchestration import TAG_ATTEMPT, TAG_JOB, live_key
from backfill_assets.partitions import daily
from backfill_assets.progress.reader import Reader

DAY = "2024-01-01"
TAGS = {TAG_JOB: "job", TAG_ATTEMPT: "1", "dagster/partition": DAY}


@dg.asset(partitions_def=daily)
def ticks(context: dg.AssetExecutionContext) -> dg.MaterializeResult[None]:
    if context.run.tags.get("break") == "ticks":
        raise dg.Failure(description="the disk is full:\nmake room")
    return dg.MaterializeResult(metadata={"dagster/row_count": 5, "fetched_bytes": 7})


@dg.asset(partitions_def=daily, deps=[ticks])
def candles() -> None: ...


@dg.asset_check(asset=ticks, blocking=True, partitions_def=daily)
def sane(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(passed=context.run.tags.get("break") != "check", description="3 rows\nare bad")


@dg.asset_check(asset=ticks, partitions_def=daily)
def usual() -> dg.AssetCheckResult:
    return dg.AssetCheckResult(passed=False, severity=dg.AssetCheckSeverity.WARN)


DEFS = dg.Definitions(assets=[ticks, candles], asset_checks=[sane, usual], jobs=[dg.define_asset_job("all")])


def execute(instance: dg.DagsterInstance, select: list[str] | None = None, **tags: str) -> str:
    keys = [dg.AssetKey(name) for name in select] if select else None
    return (
        DEFS.resolve_job_def("all")
        .execute_in_process(
            partition_key=DAY,
            instance=instance,
            raise_on_error=False,
            tags={**TAGS, **tags},
            asset_selection=keys,
        )
        .run_id
    )


@pytest.fixture
def reader(instance: dg.DagsterInstance) -> Reader:
    return Reader(instance)


def states(reader: Reader, *run_ids: str) -> dict[str, str]:
    return {asset.asset: asset.state for asset in reader.events(run_ids).assets}


def test_a_good_day_is_read_with_its_rows_bytes_and_warnings(
    instance: dg.DagsterInstance, reader: Reader
) -> None:
    events = reader.events([execute(instance)])
    assert {asset.asset: asset.state for asset in events.assets} == {
        "ticks": "materialized",
        "candles": "materialized",
    }
    assert (events.rows, events.raw_bytes, events.failure) == (5, 7, None)
    [warning] = events.failed_checks
    assert (warning.check, warning.severity, warning.blocking) == ("ticks:usual", "WARN", False)


def test_a_failed_blocking_check_is_seen_with_what_it_stopped(
    instance: dg.DagsterInstance, reader: Reader
) -> None:
    events = reader.events([execute(instance, **{"break": "check"})])
    [blocking] = [found for found in events.failed_checks if found.blocking]
    assert (blocking.check, blocking.severity, blocking.description) == (
        "ticks:sane",
        "ERROR",
        "3 rows are bad",
    )
    assert {asset.asset: asset.state for asset in events.assets} == {
        "ticks": "materialized",
        "candles": "waiting",
    }


def test_a_later_run_that_left_the_failed_check_out_does_not_hide_it(
    instance: dg.DagsterInstance, reader: Reader
) -> None:
    first = execute(instance, **{"break": "check"})
    second = execute(instance, ["candles"])
    [*_, latest] = reader.runs("job")
    assert (latest.run_id, latest.state) == (second, "succeeded"), "Dagster calls it a success"
    events = reader.events([first, second])
    assert "ticks:sane" in {found.check for found in events.failed_checks}
    assert "ticks:sane" not in {
        found.check for found in reader.events([first, execute(instance)]).failed_checks
    }


def test_a_failed_step_says_why_in_one_line(instance: dg.DagsterInstance, reader: Reader) -> None:
    events = reader.events([execute(instance, **{"break": "ticks"})])
    assert events.failure == "the disk is full: make room"
    assert {asset.asset: asset.state for asset in events.assets}["ticks"] == "failed"


def test_only_the_jobs_own_runs_are_read_and_since_a_time_only_changed_ones(
    instance: dg.DagsterInstance, reader: Reader
) -> None:
    run_id = execute(instance)
    execute(instance, **{TAG_JOB: "another"})
    [fact] = reader.runs("job")
    assert (fact.run_id, fact.day, fact.attempt, fact.state) == (run_id, DAY, 1, "succeeded")
    assert fact.started is not None
    assert fact.ended is not None
    assert fact.started <= fact.ended
    assert reader.runs("job", fact.updated) == [fact], "what changes at the same moment is not missed"
    from datetime import timedelta

    assert reader.runs("job", fact.updated + timedelta(minutes=1)) == []


def test_live_progress_is_read_and_forgotten_and_foreign_text_is_left_out(
    instance: dg.DagsterInstance, reader: Reader
) -> None:
    good = {"done": 1, "total": 2, "rows": 3, "raw_bytes": 4, "states": {"kept": 1}, "feeds": []}
    texts = {live_key("one"): json.dumps(good), live_key("two"): '{"done": "many"}'}
    instance.daemon_cursor_storage.set_cursor_values(texts)
    assert {name: found.done for name, found in reader.live(["one", "two", "three"]).items()} == {"one": 1}
    reader.forget_live("one")
    assert reader.live(["one"]) == {}


def test_a_backfill_is_launched_once_and_cancelled(instance: dg.DagsterInstance, reader: Reader) -> None:
    assert reader.backfill("abc").state == "absent"
    for _ in range(2):
        ensure_backfill(instance, DEFS.resolve_asset_graph(), "abc", [DAY], {TAG_JOB: "abc"}, "a title")
    assert reader.backfill("abc").state == "active"
    assert len(instance.get_backfills()) == 1
    cancel_backfill(instance, "abc")
    assert reader.backfill("abc").state == "canceling"
    cancel_backfill(instance, "unknown")
