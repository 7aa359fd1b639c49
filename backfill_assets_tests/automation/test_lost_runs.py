"""A run whose process is gone is ended as failed; no other run is."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.definitions.reconstruct import ReconstructableRepository
from dagster._core.remote_origin import (
    RegisteredCodeLocationOrigin,
    RemoteJobOrigin,
    RemoteRepositoryOrigin,
)
from dagster._core.test_utils import create_run_for_test

from backfill_assets.automation.lost_runs import end_lost_runs, end_runs_that_never_began, lost_runs
from backfill_assets.automation.run_process import RunProcess
from backfill_assets.days import utc_now
from backfill_assets_tests.automation import gated_days, telling_launcher

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
    # It is a zombie until its parent reaps it.
    while not told.is_gone():
        time.sleep(0.01)
    assert ends(instance, run)
    assert not end_lost_runs(instance, utc_now()), "only once"


def test_a_killed_run_keeps_no_slot_of_a_pool_from_the_next_run(
    tmp_path: Path, process: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    day = "2024-01-01"
    monkeypatch.setenv(gated_days.GATES, str(tmp_path))
    (tmp_path / day).touch()
    location = ReconstructableRepository.for_module(gated_days.__name__, "defs")
    pools = {"concurrency": {"pools": {"granularity": "op", "default_limit": 2}}}
    with dg.DagsterInstance.local_temp(str(tmp_path), overrides=pools) as instance:
        storage = instance.event_log_storage
        storage.initialize_concurrency_limit_to_default("tardis")
        alive, killed = (
            run_of(instance, STARTED, RunProcess.at("", pid)) for pid in (os.getpid(), process.pid)
        )
        for run in (alive, killed):
            assert storage.claim_concurrency_slot("tardis", run.run_id, "ticks").is_claimed
        process.kill()
        process.wait()
        job = location.get_reconstructable_job("day")
        assert dg.execute_job(job, instance, tags={"dagster/partition": day}).success
        assert storage.get_concurrency_info("tardis").active_run_ids == {alive.run_id}


def test_nothing_is_known_of_other_machines(
    instance: dg.DagsterInstance, process: subprocess.Popen[bytes]
) -> None:
    elsewhere = replace(RunProcess.at("", process.pid), machine="elsewhere")
    process.kill()
    process.wait()
    assert not ends(instance, run_of(instance, STARTED, elsewhere))
    with_another_executor = create_run_for_test(instance, status=STARTED)
    assert not ends(instance, with_another_executor)


@pytest.fixture
def health(tmp_path: Path) -> Path:
    """The file in which the launcher of ``with_telling_launcher`` finds the state of its runs."""
    return tmp_path / "health"


@pytest.fixture
def with_telling_launcher(tmp_path: Path, health: Path) -> Iterator[dg.DagsterInstance]:
    launcher = {
        "module": telling_launcher.__name__,
        "class": "TellingLauncher",
        "config": {"file": str(health)},
    }
    with dg.DagsterInstance.local_temp(str(tmp_path), overrides={"run_launcher": launcher}) as found:
        yield found


def of_the_daemon(instance: dg.DagsterInstance, status: dg.DagsterRunStatus) -> dg.DagsterRun:
    location = RegisteredCodeLocationOrigin("backfill_assets.definitions")
    origin = RemoteJobOrigin(RemoteRepositoryOrigin(location, "__repository__"), "day")
    return create_run_for_test(instance, job_name="day", status=status, remote_job_origin=origin)


def test_runs_of_a_launcher_that_tells_by_itself_are_left_to_it(
    with_telling_launcher: dg.DagsterInstance, process: subprocess.Popen[bytes]
) -> None:
    instance = with_telling_launcher
    launched = of_the_daemon(instance, STARTED)
    for run in (launched, of_a_command := create_run_for_test(instance, status=STARTED)):
        instance.add_run_tags(run.run_id, RunProcess.at(run.run_id, process.pid).tags())
    process.kill()
    process.wait()
    assert end_lost_runs(instance, utc_now()) == [of_a_command.run_id]


@pytest.mark.parametrize(
    ("word", "seconds", "is_ended"),
    [("FAILED", 60, True), ("NOT_FOUND", 60, True), ("FAILED", 10, False), ("RUNNING", 60, False)],
)
def test_a_run_that_its_launcher_knows_to_have_failed_before_it_began_is_ended(
    word: str, seconds: int, is_ended: bool, with_telling_launcher: dg.DagsterInstance, health: Path
) -> None:
    health.write_text(word, encoding="utf-8")
    run = of_the_daemon(with_telling_launcher, STARTING)
    later = utc_now() + timedelta(seconds=seconds)
    assert end_runs_that_never_began(with_telling_launcher, later) == [run.run_id] * is_ended
    found = with_telling_launcher.get_run_by_id(run.run_id)
    assert found is not None
    assert found.status is (dg.DagsterRunStatus.FAILURE if is_ended else STARTING)
    texts = [event.message for event in with_telling_launcher.all_logs(run.run_id)]
    assert any("it never began: no python there" in text for text in texts) is is_ended


def test_where_nobody_knows_how_runs_are_none_is_ended(with_telling_launcher: dg.DagsterInstance) -> None:
    of_the_daemon(with_telling_launcher, STARTING)
    assert end_runs_that_never_began(with_telling_launcher, utc_now() + timedelta(seconds=60)) == []


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
