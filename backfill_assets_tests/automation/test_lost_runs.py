"""A run whose process is gone is ended as failed, and no other."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace

import dagster as dg
import pytest
from dagster._core.test_utils import create_run_for_test

from backfill_assets.automation.lost_runs import end_lost_runs, lost_runs
from backfill_assets.automation.run_process import RunProcess
from backfill_assets.days import utc_now

STARTED, STARTING = dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.STARTING


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


def run_of(instance: dg.DagsterInstance, status: dg.DagsterRunStatus, process: RunProcess) -> dg.DagsterRun:
    run = create_run_for_test(instance, status=status)
    instance.add_run_tags(run.run_id, replace(process, run=run.run_id).tags())
    return run


def ends(instance: dg.DagsterInstance, run: dg.DagsterRun) -> bool:
    ended = end_lost_runs(instance, utc_now())
    found = instance.get_run_by_id(run.run_id)
    assert found is not None
    assert found.status is (dg.DagsterRunStatus.FAILURE if ended else run.status)
    return ended == [run.run_id]


@pytest.mark.parametrize("status", [STARTED, STARTING])
def test_a_run_is_lost_when_its_process_is(
    status: dg.DagsterRunStatus, instance: dg.DagsterInstance, process: subprocess.Popen[bytes]
) -> None:
    told = RunProcess.at("", process.pid)
    run = run_of(instance, status, told)
    assert not ends(instance, run)
    process.kill()
    # Until its parent asks for its end it is a zombie.
    while not told.is_gone():
        time.sleep(0.01)
    assert ends(instance, run)
    assert not end_lost_runs(instance, utc_now()), "only once"


def test_nothing_is_known_of_other_machines(
    instance: dg.DagsterInstance, process: subprocess.Popen[bytes]
) -> None:
    elsewhere = replace(RunProcess.at("", process.pid), machine="elsewhere")
    process.kill()
    process.wait()
    assert not ends(instance, run_of(instance, STARTED, elsewhere))
    with_another_executor = create_run_for_test(instance, status=STARTED)
    assert not ends(instance, with_another_executor)


def test_another_process_with_the_same_number_is_not_the_runs(process: subprocess.Popen[bytes]) -> None:
    told = RunProcess.at("", process.pid)
    assert not told.is_gone()
    assert replace(told, since=told.since - 60).is_gone()


def test_a_process_that_has_ended_before_it_was_looked_at_is_gone(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
    assert RunProcess.at("", process.pid).is_gone()


def test_the_sensor_is_on_and_says_what_it_ended(
    instance: dg.DagsterInstance, process: subprocess.Popen[bytes]
) -> None:
    assert lost_runs.default_status is dg.DefaultSensorStatus.RUNNING
    with dg.build_sensor_context(instance) as context:
        assert lost_runs(context).skip_message == "no run is lost"
    run = run_of(instance, STARTED, RunProcess.at("", process.pid))
    process.kill()
    process.wait()
    with dg.build_sensor_context(instance) as context:
        assert lost_runs(context).skip_message == f"ended as failed: {run.run_id}"
