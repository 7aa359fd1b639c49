"""A run whose process is gone is ended as failed, and no other."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.events import EngineEventData
from dagster._core.storage.tags import GRPC_INFO_TAG
from dagster._core.test_utils import create_run_for_test

from backfill_assets.automation.lost_runs import START_SECONDS, end_lost_runs, is_alive, lost_runs
from backfill_assets.days import utc_now

STARTED, STARTING = dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.STARTING
LATER = timedelta(seconds=START_SECONDS + 60)


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as found:
        yield found


@pytest.fixture
def process() -> Iterator[subprocess.Popen[bytes]]:
    found = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    yield found
    found.kill()
    found.wait()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Path]:
    """A socket file that somebody listens at."""
    path = tmp_path / "code"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()
        yield path


def run_of(
    instance: dg.DagsterInstance, status: dg.DagsterRunStatus, served: dict[str, object], pid: int | None
) -> dg.DagsterRun:
    run = create_run_for_test(instance, status=status, tags={GRPC_INFO_TAG: json.dumps(served)})
    if pid is not None:
        # As Dagster's own process of a run does.
        instance.report_engine_event(
            f"Started process for run (pid: {pid}).", run, EngineEventData.in_process(pid)
        )
    return run


def ends(instance: dg.DagsterInstance, run: dg.DagsterRun) -> bool:
    ended = end_lost_runs(instance, utc_now() + LATER)
    found = instance.get_run_by_id(run.run_id)
    assert found is not None
    assert found.status is (dg.DagsterRunStatus.FAILURE if ended else run.status)
    return ended == [run.run_id]


@pytest.mark.parametrize("status", [STARTED, STARTING])
def test_a_run_is_lost_when_its_process_is(
    status: dg.DagsterRunStatus, instance: dg.DagsterInstance, process: subprocess.Popen[bytes], server: Path
) -> None:
    run = run_of(instance, status, {"socket": str(server)}, process.pid)
    assert not ends(instance, run)
    process.kill()
    # Until its parent asks for its end it is a zombie.
    while is_alive(process.pid, time.time()):
        time.sleep(0.01)
    assert ends(instance, run)
    assert not end_lost_runs(instance, utc_now()), "only once"


def test_a_run_that_was_about_to_start_is_lost_with_its_code_server(
    instance: dg.DagsterInstance, server: Path
) -> None:
    run = run_of(instance, STARTING, {"socket": str(server)}, None)
    assert not ends(instance, run)
    server.unlink()
    assert end_lost_runs(instance, utc_now()) == [], "its process may still be on its way"
    assert ends(instance, run)


def test_nothing_is_known_of_other_machines(
    instance: dg.DagsterInstance, process: subprocess.Popen[bytes]
) -> None:
    process.kill()
    process.wait()
    assert not ends(instance, run_of(instance, STARTED, {"host": "code", "port": 4000}, process.pid))
    assert not ends(instance, run_of(instance, STARTED, {}, process.pid))


def test_another_process_with_the_same_number_is_not_the_runs(process: subprocess.Popen[bytes]) -> None:
    now = time.time()
    assert is_alive(process.pid, now)
    assert not is_alive(process.pid, now - 60)


def test_the_sensor_is_on_and_says_what_it_ended(
    instance: dg.DagsterInstance, process: subprocess.Popen[bytes], server: Path
) -> None:
    assert lost_runs.default_status is dg.DefaultSensorStatus.RUNNING
    with dg.build_sensor_context(instance) as context:
        assert lost_runs(context).skip_message == "no run is lost"
    run = run_of(instance, STARTED, {"socket": str(server)}, process.pid)
    process.kill()
    process.wait()
    with dg.build_sensor_context(instance) as context:
        assert lost_runs(context).skip_message == f"ended as failed: {run.run_id}"
