"""Postgres goes away while days are at work: the outage is told, and all work goes on by itself."""

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
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from backfill_assets.feeds import Feed
from backfill_assets.progress.model import JobStatus
from backfill_assets.rehearsal.postgres import Server, restartable_server
from backfill_assets.settings import ServeSettings
from backfill_assets.standins.faults import Fault
from backfill_assets.standins.market import Market
from backfill_assets.standins.tardis import TardisStandin
from backfill_assets_tests.progress.conftest import empty_database, needs_postgres
from backfill_assets_tests.progress.rig import EXCHANGES, REPOSITORY, SYMBOLS, Rig, running_rig
from backfill_assets_tests.times import takes_minutes

pytestmark = [pytest.mark.story, needs_postgres, pytest.mark.timeout(600), takes_minutes]

DAYS = ["2024-01-01", "2024-01-02", "2024-01-03", "2024-01-04"]
FINAL = ("succeeded", "failed", "canceled")


@pytest.fixture
def server() -> Iterator[Server]:
    with restartable_server() as found:
        yield found


@pytest.fixture
def rig(server: Server, tmp_path: Path) -> Iterator[Rig]:
    rows = {(exchange, symbol): 3_000 for exchange in EXCHANGES for symbol in SYMBOLS}
    database = empty_database(server.url, f"rig_{os.urandom(4).hex()}")
    with TardisStandin(Market(rows=rows), clock=lambda: datetime(2024, 2, 10, tzinfo=UTC)) as standin:
        for day in DAYS:
            slow = Fault(delay_seconds=12)
            standin.faults.put_dataset(Feed("kraken", "trades", "ADA-USDT"), day, slow)
        with running_rig(tmp_path, standin, database) as found:
            yield found


def refused(rig: Rig, path: str, body: object = None, **headers: str) -> tuple[int, str | None]:
    """Status and ``Retry-After`` of the answer."""
    data = None if body is None else json.dumps(body).encode()
    headers = {"Content-Type": "application/json", **headers}
    request = urllib.request.Request(f"{rig.url}{path}", data, headers)
    try:
        with urllib.request.urlopen(request, timeout=120) as answer:
            return answer.status, answer.headers["Retry-After"]
    except urllib.error.HTTPError as error:
        return error.code, error.headers["Retry-After"]


def follow(rig: Rig, job_id: str, states: list[str], seen: int = 0) -> None:
    """Read the events of one connection to its end."""
    headers = {"Last-Event-ID": str(seen)} if seen else {}
    request = urllib.request.Request(f"{rig.url}/api/v1/backfill/{job_id}/events", headers=headers)
    with urllib.request.urlopen(request, timeout=120) as answer:
        for line in answer:
            name, _, value = line.decode().strip().partition(": ")
            if name == "data":
                states.append(json.loads(value)["state"])


def followed(rig: Rig, job_id: str, seen: int = 0) -> tuple[threading.Thread, list[str]]:
    states: list[str] = []
    thread = threading.Thread(target=follow, args=(rig, job_id, states, seen), daemon=True)
    thread.start()
    return thread, states


def runs(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    for name in ("DAGSTER_HOME", "DAGSTER_POSTGRES_URL"):
        monkeypatch.setenv(name, rig.environment[name])
    with dg.DagsterInstance.get() as instance:
        return sorted((run.tags["dagster/partition"], run.status.value) for run in instance.get_runs())


def ended(rig: Rig, job_id: str) -> JobStatus | None:
    """The job after its end; a request that began in the outage may be refused after it."""
    try:
        status = rig.status(job_id)
    except urllib.error.HTTPError:
        return None
    return status if status.state in FINAL else None


def waiting_command(rig: Rig) -> subprocess.Popen[bytes]:
    """A backfill of the command line, which waits for its end."""
    days = ("--start", "2024-01-05", "--end", "2024-01-05")
    command = [sys.executable, "-m", "backfill_assets.cli", "backfill", *days, "--wait"]
    with (rig.home / "command.log").open("wb") as log:
        return subprocess.Popen(
            command, cwd=REPOSITORY, env=rig.environment, stdout=log, stderr=subprocess.STDOUT
        )


def test_an_outage_is_said_and_streams_runs_and_job_go_on_by_themselves(
    rig: Rig, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = {"start": DAYS[0], "end": DAYS[-1]}
    job: dict[str, Any] = rig.ask("/api/v1/backfill", body)
    job_id = job["job_id"]
    before, states = followed(rig, job_id)
    command = waiting_command(rig)
    rig.wait(lambda: len(rig.ask("/api/v1/backfill/recent")["jobs"]) == 2)
    rig.wait(lambda: any(day.progress for day in rig.status(job_id).running))

    server.stop()
    time.sleep(ServeSettings().refresh_seconds)  # an answer is repeated for this long
    api = f"/api/v1/backfill/{job_id}"
    asked = [
        f"/api/v1/backfill/status/{job_id}",
        "/api/v1/backfill/recent",
        "/api/v1/days?from=2024-01-01&to=2024-01-04",
        "/api/v1/plan?start=2024-01-01&end=2024-01-04",
        f"{api}/events",
        "/readyz",
        "/metrics",
        "/",
        f"/jobs/{job_id}",
    ]
    bodies = {
        f"{api}/cancel": {},
        f"{api}/retry": {},
        "/api/v1/backfill": {"start": "2024-01-06", "end": "2024-01-06"},
        **dict.fromkeys(asked),
    }
    # All at once, because Dagster tries each connection for eleven seconds.
    with ThreadPoolExecutor(len(bodies)) as pool:
        told = dict(zip(bodies, pool.map(lambda path: refused(rig, path, bodies[path]), bodies), strict=True))
    assert {path: answer for path, answer in told.items() if answer != (503, "30")} == {}
    assert rig.ask("/healthz") == "ok\n"
    meanwhile, states_of_returned = followed(rig, job_id, seen=job["revision"])
    server.start()

    status: JobStatus = rig.wait(lambda: ended(rig, job_id))
    assert (status.state, status.days_by_state) == ("succeeded", {"published": 4}), status.failure
    assert command.wait(timeout=300) == 0, (rig.home / "command.log").read_text()
    # A run that was writing an event at that moment may fail, and is repeated by itself.
    succeeded = [day for day, end in runs(rig, monkeypatch) if end == "SUCCESS"]
    assert succeeded == [*DAYS, "2024-01-05"], "no run was lost"
    for thread, seen in ((before, states), (meanwhile, states_of_returned)):
        thread.join(timeout=60)
        assert seen[-1] == "succeeded"
