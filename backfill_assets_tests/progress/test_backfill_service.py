"""Promises of the service to all callers, over Dagster's real storage without a daemon."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import date
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dagster as dg
import pytest
from dagster._core.execution.backfill import BulkActionStatus
from dagster._core.test_utils import create_run_for_test

from backfill_assets.automation import backfills
from backfill_assets.automation.lost_runs import end_lost_runs
from backfill_assets.automation.run_process import RunProcess
from backfill_assets.days import utc_now
from backfill_assets.definitions import defs
from backfill_assets.progress.model import BackfillRequest
from backfill_assets.progress.page.view import needs_a_look
from backfill_assets.progress.request import InvalidRequest, requested_days
from backfill_assets.progress.service import Backfills, Conflict
from backfill_assets.progress.statuses import UnknownJob
from backfill_assets.progress.stored_days import summarized_day
from backfill_assets.settings import Settings
from backfill_assets_tests.progress.planned_lake import ETH, Lake
from backfill_assets_tests.progress.small_assets import DEFS, end_backfill, execute


def request(start: str = "2024-01-01", end: str = "2024-01-03", **more: Any) -> BackfillRequest:
    return BackfillRequest.model_validate({"start": start, "end": end, **more})


def backfill(rig: SimpleNamespace, backfill_id: str) -> Any:
    found = rig.instance.get_backfill(backfill_id)
    assert found is not None
    return found


def test_a_job_is_a_backfill_of_dagsters_with_its_id_days_and_tags(rig: SimpleNamespace) -> None:
    job, is_new = rig.service.create(request(request_id="r1", reason="a hole"), "me")
    assert is_new
    found = backfill(rig, job.job_id)
    assert sorted(found.asset_backfill_data.target_subset.partitions_subsets_by_asset_key) == sorted(
        rig.service._graph().materializable_asset_keys
    )
    assert found.tags["backfill_assets/job"] == job.job_id
    assert found.tags["backfill_assets/range"] == "2024-01-01..2024-01-03"
    assert found.tags["backfill_assets/request_id"] == "r1"
    assert "backfill_assets/refresh" not in found.tags
    assert found.tags["dagster/priority"] == "0"
    status = rig.service.status(job.job_id)
    assert [day.day for day in status.days] == ["2024-01-01", "2024-01-02", "2024-01-03"]
    assert (status.state, status.requester, status.request.reason) == ("queued", "me", "a hole")


def test_number_and_order_are_kept_and_a_retry_has_them_too(
    stored: dg.DagsterInstance, settings: Settings
) -> None:
    service = Backfills(stored, DEFS.resolve_asset_graph, lambda: settings)
    asked = request(at_once=2, order="newest")
    job, _ = service.create(asked)
    assert service.status(job.job_id).request == asked
    assert service.plan(asked).runs_at_once == 2
    end_backfill(stored, job.job_id, BulkActionStatus.COMPLETED_FAILED)
    service.retry(job.job_id)
    for backfill_id, priority in ((job.job_id, "0"), (f"{job.job_id}-2", "10")):
        found = stored.get_backfill(backfill_id)
        assert found is not None
        assert found.tags["backfill_assets/at_once_2"] == job.job_id, "one limit for all attempts"
        assert found.tags["dagster/priority"] == priority
        days = [run.partition_key for run in found.submitting_run_requests]
        assert days == ["2024-01-03", "2024-01-02", "2024-01-01"]
    with pytest.raises(InvalidRequest, match=r"at once: 9: .* add backfill_assets/at_once_9"):
        service.create(request(at_once=9))


def test_a_single_day_is_waited_for(rig: SimpleNamespace) -> None:
    job, _ = rig.service.create(request(end="2024-01-01"))
    assert backfill(rig, job.job_id).tags["dagster/priority"] == "10"


def test_a_choice_of_feeds_is_refreshed_by_tags(rig: SimpleNamespace) -> None:
    job, _ = rig.service.create(request(exchanges=["kraken", "binance"], symbols=["BTC-USDT"]))
    tags = backfill(rig, job.job_id).tags
    assert tags["backfill_assets/refresh"] == "true"
    assert tags["backfill_assets/exchanges"] == "kraken,binance"
    assert tags["backfill_assets/symbols"] == "BTC-USDT"
    assert "backfill_assets/data_types" not in tags


def test_a_request_id_of_another_request_is_a_conflict(rig: SimpleNamespace) -> None:
    rig.service.create(request(request_id="once"))
    with pytest.raises(Conflict, match="another request"):
        rig.service.create(request(end="2024-01-02", request_id="once"))


@pytest.mark.parametrize(
    ("changes", "pointer", "words"),
    [
        ({"end": "2023-12-31"}, "/start", "ends .2023-12-31. before it starts"),
        ({"start": "2010-01-01"}, "/start", "2010-01-01 cannot be run: days go from 2019-03-30"),
        ({"end": "2099-01-01"}, "/start", "2099-01-01 cannot be run"),
        ({"end": "2024-06-01"}, "/end", "153 days are more than serve.max_days .100.:"),
        ({"exchanges": ["kraken", "mtgox"]}, "/exchanges/1", "'mtgox' is not an exchange .* choose from bi"),
        ({"symbols": ["XXX-YYY"]}, "/symbols/0", "'XXX-YYY' is not a symbol"),
        ({"data_types": ["quotes"]}, "/data_types/0", "'quotes' is not a data type .* trades"),
    ],
)
def test_what_cannot_be_run_is_refused_with_where_and_why(
    changes: dict[str, Any], pointer: str, words: str, rig: SimpleNamespace
) -> None:
    with pytest.raises(InvalidRequest, match=words) as refusal:
        rig.service.create(request(**changes))
    assert [error.pointer for error in refusal.value.errors] == [pointer]
    assert rig.instance.get_backfills() == []
    assert rig.service.recent() == []


def test_the_longest_range_and_the_newest_day_are_taken(rig: SimpleNamespace) -> None:
    assert len(requested_days(request(end="2024-04-09"), rig.settings)) == 100
    one = request("2024-01-01", "2024-01-01", exchanges=["kraken"])
    assert requested_days(one, rig.settings) == ["2024-01-01"]


def test_every_wrong_part_is_named_at_once(rig: SimpleNamespace) -> None:
    with pytest.raises(InvalidRequest) as refusal:
        rig.service.create(request(end="2023-01-01", exchanges=["a", "b"]))
    assert len(refusal.value.errors) == 3


def test_a_maker_that_dies_leaves_nothing_or_the_whole_job_and_may_ask_again(
    rig: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(*_: object) -> None:
        raise KeyboardInterrupt

    asked = request(request_id="r", reason="a hole")
    for call, made in (("add_backfill", 0), ("get_run_records", 1)):
        with monkeypatch.context() as patch:
            patch.setattr(rig.instance.run_storage, call, die)
            with pytest.raises(KeyboardInterrupt):
                rig.service.create(asked, "me")
        assert len(rig.instance.get_backfills()) == made
    job, is_new = rig.service.create(asked, "me")
    assert (is_new, job.requester, job.request.reason) == (False, "me", "a hole")
    assert len(rig.instance.get_backfills()) == 1


def test_a_cancelled_job_is_cancelled_in_dagster_and_ends_when_that_has(rig: SimpleNamespace) -> None:
    job, _ = rig.service.create(request())
    assert rig.service.cancel(job.job_id).state == "canceling"
    assert rig.service.cancel(job.job_id).state == "canceling", "twice is the same"
    assert backfill(rig, job.job_id).status is BulkActionStatus.CANCELING
    end_backfill(rig.instance, job.job_id, BulkActionStatus.CANCELED)
    status = rig.service.status(job.job_id)
    assert (status.state, status.days_by_state) == ("canceled", {"canceled": 3})
    assert rig.service.unfinished() == []
    assert rig.service.cancel(job.job_id).state == "canceled"


def wait(look: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + 30
    while not (found := look()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return found


def test_a_cancellation_that_dagster_lost_is_asked_for_again(rig: SimpleNamespace) -> None:
    job, _ = rig.service.create(request())
    rig.service.cancel(job.job_id)
    end_backfill(rig.instance, job.job_id, BulkActionStatus.REQUESTED)
    wait(lambda: backfill(rig, job.job_id).status is BulkActionStatus.CANCELING)


def test_a_retry_is_a_backfill_of_the_bad_days_under_the_next_number(rig: SimpleNamespace) -> None:
    job, _ = rig.service.create(request())
    with pytest.raises(Conflict, match="is queued"):
        rig.service.retry(job.job_id)
    end_backfill(rig.instance, job.job_id, BulkActionStatus.COMPLETED_SUCCESS)
    failed = rig.service.job(job.job_id)
    assert (failed.state, failed.failure) == (
        "failed",
        "3 of 3 days: 2024-01-01 missing, 2024-01-02 missing, 2024-01-03 missing",
    ), "Dagster calls it a success, though nothing ran"
    again = rig.service.retry(job.job_id)
    assert (again.state, again.attempt, again.percent) == ("queued", 2, 0.0)
    found = backfill(rig, f"{job.job_id}-2")
    assert (found.tags["backfill_assets/job"], found.tags["backfill_assets/attempt"]) == (job.job_id, "2")
    with pytest.raises(Conflict, match="is queued"):
        rig.service.retry(job.job_id)


def service_of(instance: dg.DagsterInstance, lake: Lake) -> Backfills:
    return Backfills(
        instance,
        DEFS.resolve_asset_graph,
        lambda: lake.settings,
        read_day=lambda store, day: summarized_day(store, lake.settings, day),
    )


def test_a_job_without_bad_days_cannot_be_retried_or_cancelled(
    instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    lake = Lake(tmp_path / "lake", serve={"refresh_seconds": 1e-9})
    service = service_of(instance, lake)
    job, _ = service.create(request())
    for day in ("2024-01-01", "2024-01-02", "2024-01-03"):
        lake.run(day)
        execute(instance, job.job_id, day)
    seen = service.job(job.job_id)
    assert (seen.state, seen.percent, seen.days_by_state) == ("succeeded", 100, {"published": 3})
    with pytest.raises(Conflict, match="nothing to retry"):
        service.retry(job.job_id)
    with pytest.raises(Conflict, match="nothing to cancel"):
        service.cancel(job.job_id)


def test_a_retry_asks_again_for_files_that_the_vendor_may_have_by_now(
    instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    """A day without a file is degraded, and its job has succeeded; its report advises to run it again."""
    lake = Lake(tmp_path / "lake", serve={"refresh_seconds": 1e-9})
    service = service_of(instance, lake)
    job, _ = service.create(request())
    for day, changes in (
        ("2024-01-01", {}),
        ("2024-01-02", {"state": "degraded", "absent": (ETH,)}),
        ("2024-01-03", {"state": "degraded"}),
    ):
        lake.run(day, **changes)
        execute(instance, job.job_id, day)
    assert service.job(job.job_id).state == "succeeded"
    assert needs_a_look(service.status(job.job_id)), "the page of the job offers it"
    assert service.retry(job.job_id).attempt == 2
    again = service.status(job.job_id)
    assert [day.day for day in again.days if day.attempt == 2] == ["2024-01-02"]


@pytest.mark.parametrize("job_id", ["nosuchjb", "../x", "a" * 100, "a\x00b", ""])
def test_an_unknown_job_is_said_to_be_unknown(job_id: str, rig: SimpleNamespace) -> None:
    for ask in (
        rig.service.status,
        rig.service.job,
        rig.service.status_json,
        rig.service.cancel,
        rig.service.retry,
    ):
        with pytest.raises(UnknownJob):
            ask(job_id)


def test_the_calendar_names_every_day_and_the_job_at_work(rig: SimpleNamespace) -> None:
    job, _ = rig.service.create(request("2024-01-02", "2024-01-02"))
    days = rig.service.days(date(2024, 1, 1), date(2024, 1, 3))
    assert [(day.day, day.outcome, day.job_id, day.job_state) for day in days] == [
        ("2024-01-01", "missing", None, None),
        ("2024-01-02", "missing", job.job_id, "waiting"),
        ("2024-01-03", "missing", None, None),
    ]
    for last in (date(2023, 12, 31), date(2029, 1, 1)):
        with pytest.raises(InvalidRequest):
            rig.service.days(date(2024, 1, 1), last)


def test_a_missing_daemon_is_told_and_makes_the_service_unready(rig: SimpleNamespace) -> None:
    job, _ = rig.service.create(request())
    assert rig.service.job(job.job_id).warnings[0].startswith("no Dagster daemon has run yet")
    assert rig.service.troubles()[0].startswith("no Dagster daemon has run yet")


def test_services_over_one_database_tell_the_same_whatever_each_has_seen(rig: SimpleNamespace) -> None:
    def told(service: Backfills) -> list[Any]:
        seen = [service.status(job.job_id), *service.recent(), *service.unfinished()]
        # A revision grows by one if a change has no time of its own.
        return [one.model_copy(update={"revision": 0}) for one in seen]

    def another() -> Backfills:
        return Backfills(rig.instance, rig.service._graph, lambda: rig.settings)

    job, _ = rig.service.create(request())
    other = another()
    assert other.status_json(job.job_id) == rig.service.status_json(job.job_id)
    other.cancel(job.job_id)
    assert told(other) == told(rig.service) == told(another())
    end_backfill(rig.instance, job.job_id, BulkActionStatus.CANCELED)
    assert told(other) == told(another())
    other.close()


def add_run(rig: SimpleNamespace, backfill_id: str, day: str = "2024-01-01") -> str:
    tags = {"dagster/backfill": backfill_id, "dagster/partition": day}
    run = dg.DagsterRun(job_name="day", status=dg.DagsterRunStatus.NOT_STARTED, tags=tags)
    return str(rig.instance.add_run(run).run_id)


def test_the_runs_of_a_job_that_is_cancelled_are_ended_without_waiting_for_the_daemon(
    rig: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []

    def stop_run(_: dg.DagsterInstance, run_id: str) -> bool:
        told.append(run_id)
        return len(told) > 1

    monkeypatch.setattr(backfills, "stop_run", stop_run)
    job, _ = rig.service.create(request())
    other, _ = rig.service.create(request())
    mine = add_run(rig, job.job_id)
    add_run(rig, other.job_id)
    assert rig.service.job(job.job_id).state == "running"
    assert told == [], "nobody cancelled anything"
    rig.service.cancel(job.job_id)
    wait(lambda: len(told) > 1)
    late = add_run(rig, job.job_id, "2024-01-02")
    wait(lambda: late in told)
    assert told == [mine, mine, late], "its own, until it was told, and then no more"


def test_a_run_on_its_way_into_the_queue_is_left_alone(rig: SimpleNamespace) -> None:
    run_id = add_run(rig, "abcdefgh")
    assert not backfills.stop_run(rig.instance, run_id)
    assert rig.instance.get_run_by_id(run_id).status is dg.DagsterRunStatus.NOT_STARTED


@pytest.mark.story
def test_every_unfinished_job_is_looked_at_however_many_there_are(rig: SimpleNamespace) -> None:
    jobs = [rig.service.create(request(end="2024-01-01"))[0].job_id for _ in range(205)]
    oldest = jobs[0]
    assert [job.job_id for job in reversed(rig.service.unfinished())] == jobs
    rig.service.cancel(oldest)
    end_backfill(rig.instance, oldest, BulkActionStatus.CANCELED)
    assert rig.service.job(oldest).state == "canceled"
    assert {job.job_id for job in rig.service.unfinished()} == set(jobs[1:])
    assert rig.service.counts()["queued"] == 204


def at_work(instance: dg.DagsterInstance, pid: int) -> str:
    """A run that counts as started, in a process of this machine."""
    run_id = create_run_for_test(instance, status=dg.DagsterRunStatus.STARTED).run_id
    instance.add_run_tags(run_id, replace(RunProcess.this(run_id), pid=pid).tags())
    return run_id


def test_a_queue_that_is_full_is_said_and_who_fills_it(
    stored: dg.DagsterInstance, settings: Settings
) -> None:
    service = Backfills(stored, defs.resolve_asset_graph, lambda: settings)
    job, _ = service.create(request())

    def said() -> list[str]:
        return [words for words in service.job(job.job_id).warnings if "queue" in words]

    at_work(stored, os.getpid())
    assert said() == []
    for _ in range(3):
        at_work(stored, os.getpid())
    assert said() == ["Dagster's queue is full with 4 runs of others: no day begins until they end"]
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    for run in stored.get_runs():
        stored.add_run_tags(run.run_id, replace(RunProcess.this(run.run_id), pid=gone.pid).tags())
    [words] = said()
    assert words.startswith(
        "Dagster's queue is full, and the processes of 4 of its 4 runs are gone: the sensor"
    )
    assert len(end_lost_runs(stored, utc_now())) == 4
    assert said() == []
    service.close()
