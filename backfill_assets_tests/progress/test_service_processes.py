"""The service, Dagster's daemon and its runs as real processes, on SQLite and on Postgres.

One rig per database runs one story: a range with a day that cannot be published, watched by many clients; its
service, daemon and runs killed in the middle; its retry; backfills that other processes have started; and a
range that is canceled.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import dagster as dg
import pytest
from dagster._core.scheduler.instigation import InstigatorStatus

from backfill_assets.definitions import defs
from backfill_assets.progress.model import JobStatus
from backfill_assets.progress.request_tags import attempt_id
from backfill_assets.standins.market import Market
from backfill_assets.standins.tardis import TardisStandin
from backfill_assets_tests.progress.conftest import empty_database, needs_postgres
from backfill_assets_tests.progress.rig import (
    EXCHANGES,
    REPOSITORY,
    SYMBOLS,
    Rig,
    running_rig,
    take_away_feeds,
)
from backfill_assets_tests.times import TIMES, takes_minutes

pytestmark = [pytest.mark.story, pytest.mark.timeout(500)]

GOOD, BAD = ["2024-01-01", "2024-01-03"], "2024-01-02"
FINAL = ("succeeded", "failed", "canceled")


RIGS = [
    pytest.param(f"{kind} {number}", marks=marks)
    for number in range(TIMES)
    for kind, marks in (("sqlite", takes_minutes), ("postgres", needs_postgres))
]


@pytest.fixture(scope="module", params=RIGS)
def rig(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    rows = {(exchange, symbol): 3_000 for exchange in EXCHANGES for symbol in SYMBOLS}
    postgres = ""
    if request.param.startswith("postgres"):
        postgres = empty_database(request.getfixturevalue("postgres"), f"rig_{os.urandom(4).hex()}")
    with (
        TardisStandin(Market(rows=rows), clock=lambda: datetime(2024, 2, 10, tzinfo=UTC)) as standin,
        running_rig(
            tmp_path_factory.mktemp("rig"), standin, postgres, () if postgres else ("--with-ui",)
        ) as found,
    ):
        yield found


@dataclass
class Watched:
    """Observations of one job by twenty pollers and a listener."""

    job_id: str
    percents: list[list[float]] = field(default_factory=list)
    events: list[tuple[int, dict[str, Any]]] = field(default_factory=list)
    status: JobStatus | None = None


def listen(rig: Rig, job_id: str, events: list[tuple[int, dict[str, Any]]]) -> None:
    """Read the job's events to the end, and reconnect after every break as a browser does."""
    while not events or events[-1][1]["state"] not in FINAL:
        last = str(events[-1][0]) if events else ""
        request = urllib.request.Request(
            f"{rig.url}/api/v1/backfill/{job_id}/events", headers={"Last-Event-ID": last}
        )
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                revision = 0
                for line in answer:
                    name, _, value = line.decode().strip().partition(": ")
                    if name == "id":
                        revision = int(value)
                    elif name == "data":
                        events.append((revision, json.loads(value)))
        except OSError:
            time.sleep(0.3)


def poll(rig: Rig, job_id: str, percents: list[float], over: threading.Event) -> None:
    while not over.is_set():
        try:
            percents.append(rig.status(job_id).percent)
        except OSError:
            time.sleep(0.3)
        over.wait(0.5)


@pytest.fixture(scope="module")
def watched(rig: Rig) -> Watched:
    """A range whose middle day has no files, watched to its end; all its processes are killed on the way."""
    take_away_feeds(rig.standin, BAD)
    body = {"start": GOOD[0], "end": GOOD[-1], "request_id": "story", "reason": "a test"}
    found = Watched(rig.ask("/api/v1/backfill", body)["job_id"])
    over = threading.Event()
    threads = [threading.Thread(target=listen, args=(rig, found.job_id, found.events), daemon=True)]
    for _ in range(20):
        found.percents.append([])
        threads.append(
            threading.Thread(target=poll, args=(rig, found.job_id, found.percents[-1], over), daemon=True)
        )
    for thread in threads:
        thread.start()
    # A run that Dagster is starting may have no process yet, and then it would lose nothing.
    rig.wait(lambda: any(day.progress for day in rig.status(found.job_id).running))
    # A machine that goes down ends all of these: runs at work, their code server, daemon and service.
    rig.kill("daemon")
    rig.kill("service")
    rig.start_daemon()
    rig.start_service()
    found.status = rig.wait_for(found.job_id, *FINAL)
    over.set()
    for thread in threads:
        thread.join(timeout=60)
    return found


def runs(rig: Rig, monkeypatch: pytest.MonkeyPatch, job_id: str) -> list[tuple[str, str]]:
    """Day and end of each run of the job, by Dagster's own records, in the order in which the runs began."""
    for name in ("DAGSTER_HOME", "DAGSTER_POSTGRES_URL"):
        if name in rig.environment:
            monkeypatch.setenv(name, rig.environment[name])
    with dg.DagsterInstance.get() as instance:
        found = instance.get_runs(dg.RunsFilter(tags={"backfill_assets/job": job_id}))
    return [(run.tags["dagster/partition"], run.status.value) for run in reversed(found)]


def test_a_held_day_makes_the_job_failed_and_says_why(rig: Rig, watched: Watched) -> None:
    status = watched.status
    assert status is not None
    assert (status.state, status.days_by_state) == ("failed", {"held": 1, "published": 2})
    assert status.failure == f"1 of 3 days: {BAD} held"
    by_day = {day.day: day for day in status.days}
    held = by_day[BAD]
    assert held.stored is not None
    assert (held.stored.outcome, held.stored.verdicts) == ("held", {"missing": 6, "publish": 3})
    assert len(held.stored.quarantined) == 6
    assert held.failure is not None
    for day in GOOD:
        stored = by_day[day].stored
        assert stored is not None
        assert (stored.outcome, stored.feeds) == ("published", 9)
        assert {asset.state for asset in by_day[day].assets} == {"materialized"}
        assert by_day[day].rows


def test_the_job_went_on_after_the_kill_and_nothing_was_counted_twice(
    rig: Rig, watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert watched.status is not None
    ended = runs(rig, monkeypatch, watched.job_id)
    for day in (*GOOD, BAD):
        *lost, last = (end for of_day, end in ended if of_day == day)
        # Runs that were cut off failed for lack of their process, and were run once more.
        assert set(lost) <= {"FAILURE"}
        assert last == ("FAILURE" if day == BAD else "SUCCESS")
    assert len(ended) > 3, "something was cut off"
    assert (watched.status.finished_days, watched.status.total_days) == (3, 3)
    assert watched.status.throughput.days == 3


def test_no_poller_saw_progress_go_back(rig: Rig, watched: Watched) -> None:
    assert len(watched.percents) == 20
    for seen in watched.percents:
        assert len(seen) >= 3
        assert seen == sorted(seen)
    assert max(max(seen) for seen in watched.percents) > 0


def test_the_listener_saw_each_revision_once_and_the_end(rig: Rig, watched: Watched) -> None:
    revisions = [revision for revision, _ in watched.events]
    assert revisions == sorted(set(revisions))
    assert watched.events[-1][1]["state"] == "failed"
    assert any(job["running"] and job["running"][0]["progress"] for _, job in watched.events), "feeds, live"


def test_the_same_request_is_the_same_job_though_the_service_is_another_process(
    rig: Rig, watched: Watched
) -> None:
    body = {"start": GOOD[0], "end": GOOD[-1], "request_id": "story", "reason": "a test"}
    assert rig.ask("/api/v1/backfill", body)["job_id"] == watched.job_id


def test_the_calendar_tells_the_same(rig: Rig, watched: Watched) -> None:
    days = rig.ask("/api/v1/days?from=2023-12-31&to=2024-01-03")["days"]
    assert [day["outcome"] for day in days] == ["missing", "published", "held", "published"]
    assert len(days[2]["quarantined"]) == 6


def test_a_retry_runs_the_held_day_only_and_heals_the_job(
    rig: Rig, watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = len(runs(rig, monkeypatch, watched.job_id))
    rig.standin.faults.clear()
    again = rig.ask(f"/api/v1/backfill/{watched.job_id}/retry", {})
    assert (again["attempt"], again["finished_days"]) == (2, 2)
    status = rig.wait_for(watched.job_id, *FINAL)
    assert (status.state, status.days_by_state) == ("succeeded", {"published": 3})
    assert [day.attempt for day in status.days] == [1, 2, 1]
    assert [day for day, _ in runs(rig, monkeypatch, watched.job_id)][before:] == [BAD]
    assert [day.stored.sealed for day in status.days if day.stored] == [False, True, False]


LAUNCH = """
mutation Launch($params: LaunchBackfillParams!) {
  launchPartitionBackfill(backfillParams: $params) { ... on LaunchBackfillSuccess { backfillId } }
}
"""


def dagster(rig: Rig, *command: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "dagster", *command, "-m", "backfill_assets.definitions"],
        cwd=REPOSITORY,
        env=rig.environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def elsewhere(rig: Rig, watched: Watched) -> dict[str, tuple[str, str]]:
    """Backfills of a day each that the service has not started: day and id by origin."""
    found = {}
    config = rig.home / "range.yaml"
    config.write_text('ops: {request_days: {config: {start: "2024-01-20", end: "2024-01-20"}}}')
    dagster(rig, "job", "execute", "-j", "range", "-c", str(config))
    [of_range] = [job for job in recent(rig) if job["request"]["start"] == "2024-01-20"]
    found["range"] = ("2024-01-20", of_range["job_id"])
    words = dagster(rig, "job", "backfill", "-j", "day", "--noprompt", "--partitions", "2024-01-22")
    found["command"] = ("2024-01-22", words.split("`")[1])
    if rig.options:
        keys = defs.resolve_asset_graph().materializable_asset_keys
        params = {
            "partitionNames": ["2024-01-24"],
            "assetSelection": [{"path": list(key.path)} for key in sorted(keys)],
        }
        answer = rig.ask("/dagster/graphql", {"query": LAUNCH, "variables": {"params": params}})
        found["ui"] = ("2024-01-24", answer["data"]["launchPartitionBackfill"]["backfillId"])
    return found


def recent(rig: Rig) -> list[dict[str, Any]]:
    jobs: list[dict[str, Any]] = rig.ask("/api/v1/backfill/recent")["jobs"]
    return jobs


def test_a_backfill_is_shown_like_any_other_whoever_started_it(
    rig: Rig, elsewhere: dict[str, tuple[str, str]]
) -> None:
    for day, job_id in elsewhere.values():
        status = rig.wait_for(job_id, *FINAL)
        assert (status.state, status.days_by_state, status.percent) == ("succeeded", {"published": 1}, 100)
        [found] = status.days
        assert (found.day, found.rows is not None, found.run_id is not None) == (day, True, True)
        assert found.stored is not None
        assert (found.stored.outcome, found.stored.feeds) == ("published", 9)
        assert {asset.state for asset in found.assets} == {"materialized"}
        [listed] = [job for job in recent(rig) if job["job_id"] == job_id]
        assert (listed["request"]["start"], listed["state"]) == (day, "succeeded")
        assert day in rig.ask(f"/page/jobs/{job_id}")
        [of_calendar] = rig.ask(f"/api/v1/days?from={day}&to={day}")["days"]
        assert of_calendar["outcome"] == "published"


def test_a_cancelled_job_stops_and_keeps_the_days_that_were_done(rig: Rig, watched: Watched) -> None:
    job_id = rig.ask("/api/v1/backfill", {"start": "2024-01-10", "end": "2024-01-17"})["job_id"]
    rig.wait(lambda: rig.status(job_id).days_by_state.get("running"))
    rig.ask(f"/api/v1/backfill/{job_id}/cancel", {})
    status = rig.wait_for(job_id, *FINAL)
    assert status.state == "canceled"
    assert status.days_by_state["canceled"] >= 3
    assert set(status.days_by_state) <= {"canceled", "published", "degraded"}, status.days


def test_the_service_is_ready_while_the_daemon_lives(rig: Rig, watched: Watched) -> None:
    assert rig.ask("/readyz") == "ready\n"


def test_dagsters_ui_is_served_by_the_same_process_and_linked(rig: Rig, watched: Watched) -> None:
    if not rig.options:
        pytest.skip("with SQLite only")
    assert rig.ask("/dagster/server_info")["dagster_version"] == dg.__version__
    query = {"query": "{ partitionBackfillsOrError { ... on PartitionBackfills { results { id } } } }"}
    found = rig.ask("/dagster/graphql", query)["data"]["partitionBackfillsOrError"]["results"]
    assert watched.job_id in {backfill["id"] for backfill in found}
    status = rig.status(watched.job_id)
    assert status.links.dagster == f"/dagster/runs/b/{attempt_id(watched.job_id, status.attempt)}"
    assert rig.ask("/dagster/runs").startswith("<!DOCTYPE html>")


LAUNCH_DAY = """
mutation Launch($params: ExecutionParams!) {
  launchPipelineExecution(executionParams: $params) { ... on LaunchRunSuccess { run { runId } } }
}
"""
SENSOR = """
query Sensor($selector: SensorSelector!) {
  sensorOrError(sensorSelector: $selector) { ... on Sensor { id sensorState { ticks(limit: 1) { status } } } }
}
"""
STOP = "mutation Stop($id: String!) { stopSensor(id: $id) { __typename } }"


def test_the_ui_and_the_daemon_mean_the_same_code_location(
    rig: Rig, watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A schedule started or stopped in the UI has that state in the daemon, which was started with ``-m``."""
    if not rig.options:
        pytest.skip("with SQLite only")

    def ask(query: str, **variables: Any) -> Any:
        return rig.ask("/dagster/graphql", {"query": query, "variables": variables})["data"]

    location = {
        "repositoryName": "__repository__",
        "repositoryLocationName": "backfill_assets.definitions",
    }
    day = [{"key": "dagster/partition", "value": "2024-01-26"}]
    params = {"selector": {**location, "pipelineName": "day"}, "mode": "default"}
    params |= {"executionMetadata": {"tags": day}}
    run_id = ask(LAUNCH_DAY, params=params)["launchPipelineExecution"]["run"]["runId"]
    of_daemon = {"selector": {**location, "sensorName": "lost_runs"}}
    rig.wait(lambda: ask(SENSOR, **of_daemon)["sensorOrError"]["sensorState"]["ticks"])
    assert ask(STOP, id=ask(SENSOR, **of_daemon)["sensorOrError"]["id"])
    monkeypatch.setenv("DAGSTER_HOME", rig.environment["DAGSTER_HOME"])
    with dg.DagsterInstance.get() as instance:
        [state] = [s for s in instance.all_instigator_state() if s.instigator_name == "lost_runs"]
        assert state.status is InstigatorStatus.STOPPED
        rig.wait(lambda: instance.get_run_by_id(run_id).is_finished)
        assert instance.get_run_by_id(run_id).status is dg.DagsterRunStatus.SUCCESS
