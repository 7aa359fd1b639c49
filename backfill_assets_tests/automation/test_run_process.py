"""Runs of the command line whose processes end early: by a kill, or by a closed terminal."""

from __future__ import annotations

import gc
import json
import os
import signal
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._core.events import DagsterEvent
from dagster._core.remote_origin import RemoteJobOrigin, RemoteRepositoryOrigin
from dagster._core.test_utils import create_run_for_test
from dagster._core.workspace.load_target import ModuleTarget

from backfill_assets.automation.backfills import add_backfill, cancel_backfill, new_backfill_id
from backfill_assets.automation.lost_runs import (
    LAUNCH_SECONDS,
    end_lost_runs,
    lost,
    lost_runs,
    queue_forgotten_runs,
    tell_failures_again,
)
from backfill_assets.automation.run_process import TAG_PROCESS, RunProcess, run_executor
from backfill_assets.days import utc_now
from backfill_assets.definitions import defs
from backfill_assets.feeds import Feed
from backfill_assets.standins.faults import Fault
from backfill_assets.standins.market import Market
from backfill_assets.standins.tardis import TardisStandin

pytestmark = [pytest.mark.story, pytest.mark.timeout(1500)]

REPOSITORY = Path(__file__).parents[2]
DAGSTER = str(Path(sysconfig.get_path("scripts")) / "dagster")
OURS = ("BACKFILL_", "DAGSTER_", "TARDIS_", "GOOGLE_", "STORAGE_EMULATOR_HOST")
#: Three processes compile the kernels at the same time on a fresh checkout.
SECONDS = 240
STARTED, FAILURE = dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.FAILURE
#: A program that gives its command a terminal; the terminal closes with the program.
TERMINAL = ("-c", "import pty, sys; pty.spawn(sys.argv[1:])")
#: Ignores SIGHUP as ``nohup`` does, without the file that ``nohup`` writes into the folder.
NOHUP = ("sh", "-c", "trap '' HUP; exec \"$@\"", "sh")


@dataclass
class Shell:
    """The environment in which commands are started, and the records that they write."""

    instance: dg.DagsterInstance
    environment: dict[str, str]
    log: Path
    running: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start(self, *command: str) -> subprocess.Popen[bytes]:
        with self.log.open("ab") as log:
            started = subprocess.Popen(
                command,
                cwd=REPOSITORY,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.running.append(started)
        return started

    def run_of(self, day: str) -> dg.DagsterRun | None:
        found = self.instance.get_runs(dg.RunsFilter(tags={"dagster/partition": day}))
        return found[0] if found else None

    def status_of(self, day: str) -> dg.DagsterRunStatus | None:
        run = self.run_of(day)
        return run.status if run is not None else None

    def process_of(self, day: str) -> RunProcess | None:
        run = self.run_of(day)
        return RunProcess.of(run) if run is not None else None

    def wait(self, look: Callable[[], Any]) -> Any:
        deadline = time.monotonic() + SECONDS
        while time.monotonic() < deadline:
            if found := look():
                return found
            time.sleep(0.2)
        return pytest.fail(f"not within {SECONDS} s: {self.log.read_text()[-3000:]}")


@pytest.fixture
def standin() -> Iterator[TardisStandin]:
    """Delays the first file of each day by minutes, so that its run is at work until it is ended."""
    with TardisStandin(Market(), clock=lambda: datetime(2024, 2, 10, tzinfo=UTC)) as found:
        for day in ("2024-01-01", "2024-01-02", "2024-01-03"):
            found.faults.put_dataset(Feed("kraken", "trades", "ADA-USDT"), day, Fault(delay_seconds=1400))
        yield found


@pytest.fixture
def shell(standin: TardisStandin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shell]:
    home = tmp_path / "home"
    home.mkdir()
    (home / "dagster.yaml").symlink_to(REPOSITORY / "dagster.yaml")
    monkeypatch.setenv("DAGSTER_HOME", str(home))
    monkeypatch.delenv("DAGSTER_POSTGRES_URL", raising=False)
    environment = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
    environment |= {
        "DAGSTER_HOME": str(home),
        "BACKFILL_DATA": str(tmp_path / "data"),
        "BACKFILL_STANDIN_URL": standin.url,
    }
    with dg.DagsterInstance.get() as instance:
        made = Shell(instance, environment, tmp_path / "log")
        yield made
        for process in made.running:
            process.kill()
            process.wait()


#: SIGHUP arrives while an object is finalized, when Python drops every exception.
DROPPED = """
import os, signal, sys, time
from backfill_assets.automation.run_process import ending_with_the_terminal

class Told:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGHUP)
        time.sleep(0)
        print("not interrupted", flush=True)

signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))
with ending_with_the_terminal():
    Told()
    print("at work", flush=True)
    time.sleep(60)
"""


def test_a_closed_terminal_ends_a_run_though_the_first_interrupt_is_dropped() -> None:
    ended = subprocess.run((sys.executable, "-c", DROPPED), capture_output=True, text=True, timeout=50)
    assert (ended.returncode, ended.stdout) == (7, "at work\n")
    assert "Exception ignored in" in ended.stderr


def materialize(day: str) -> tuple[str, ...]:
    where = ("-m", "backfill_assets.definitions")
    return (DAGSTER, "asset", "materialize", *where, "--select", "*", "--partition", day)


COLLECTOR: list[tuple[int, int]] = []


def collector() -> tuple[int, int]:
    """Objects that the garbage collector leaves alone, and number of new objects that start a collection."""
    return gc.get_freeze_count(), gc.get_threshold()[0]


@dg.op
def look_at_the_collector() -> None:
    COLLECTOR.append(collector())


@dg.job(executor_def=run_executor)
def looking() -> None:
    look_at_the_collector()


def test_a_run_collects_cycles_seldom_and_its_process_as_before_when_it_has_ended() -> None:
    before = collector()
    with dg.DagsterInstance.ephemeral() as instance:
        assert dg.execute_job(dg.reconstructable(looking), instance=instance).success
    frozen, threshold = COLLECTOR.pop()
    assert frozen > before[0]
    assert threshold > before[1]
    assert collector() == (0, before[1])
    gc.freeze()  # everything that the tests of this process have imported


def test_a_killed_command_is_lost_at_once_and_a_closed_terminal_ends_a_run_by_itself(shell: Shell) -> None:
    killed, closed, kept = "2024-01-01", "2024-01-02", "2024-01-03"
    command = shell.start(*materialize(killed))
    terminal = shell.start(sys.executable, *TERMINAL, *materialize(closed))
    deaf = shell.start(sys.executable, *TERMINAL, *NOHUP, *materialize(kept))
    for day in (killed, closed, kept):
        shell.wait(lambda day=day: shell.process_of(day))
    assert lost(shell.instance, utc_now()) == {}, "all are at work"

    command.kill()
    command.wait()
    run = shell.run_of(killed)
    assert run is not None
    assert end_lost_runs(shell.instance, utc_now()) == [run.run_id]
    assert shell.status_of(killed) is FAILURE

    for process in (terminal, deaf):
        process.kill()
        process.wait()
    shell.wait(lambda: shell.status_of(closed) is FAILURE)
    assert shell.status_of(kept) is STARTED, "nohup holds"
    assert lost(shell.instance, utc_now()) == {}
    left = shell.process_of(kept)
    assert left is not None
    os.kill(left.pid, signal.SIGKILL)
    shell.wait(lambda: end_lost_runs(shell.instance, utc_now()))
    assert shell.status_of(kept) is FAILURE


def at_work(instance: dg.DagsterInstance, tags: dict[str, str]) -> str:
    return create_run_for_test(instance, status=STARTED, tags=tags).run_id


def test_what_a_run_inherits_or_another_machine_says_makes_no_run_lost() -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    with dg.DagsterInstance.ephemeral() as instance:
        machine = RunProcess.this("").machine
        repeated = at_work(instance, RunProcess("the run before", machine, gone.pid, 1.0).tags())
        elsewhere = at_work(instance, {})
        instance.add_run_tags(elsewhere, RunProcess(elsewhere, "another/1", gone.pid, 1.0).tags())
        strange = at_work(instance, {TAG_PROCESS: "another program's"})
        assert lost(instance, utc_now()) == {}
        for run_id in (repeated, elsewhere, strange):
            instance.add_run_tags(
                run_id, RunProcess(run_id, RunProcess.this("").machine, gone.pid, 1.0).tags()
            )
        assert set(lost(instance, utc_now())) == {repeated, elsewhere, strange}


def test_a_number_that_was_given_to_another_process_is_not_the_runs() -> None:
    mine = RunProcess.this("r")
    assert not mine.is_gone()
    assert RunProcess(mine.run, mine.machine, mine.pid, mine.since - 1).is_gone()


def made_for_the_queue(instance: dg.DagsterInstance, **tags: str) -> str:
    """Create a run as the daemon does before it queues it; returns its id."""
    [location] = ModuleTarget("backfill_assets.definitions", None, None, None).create_origins()
    origin = RemoteJobOrigin(RemoteRepositoryOrigin(location, "__repository__"), "day")
    return create_run_for_test(instance, job_name="day", remote_job_origin=origin, tags=tags).run_id


def test_a_run_that_was_made_and_never_queued_is_queued_at_the_second_look(shell: Shell) -> None:
    instance = shell.instance
    run_id = made_for_the_queue(instance)
    with dg.build_sensor_context(instance) as context:
        assert lost_runs(context).skip_message == "no run is lost"
        seen = context.cursor
    with dg.build_sensor_context(instance, cursor=seen) as context:
        assert lost_runs(context).skip_message == f"queued: {run_id}"
        seen = context.cursor
    assert instance.get_run_by_id(run_id).status is dg.DagsterRunStatus.QUEUED
    with dg.build_sensor_context(instance, cursor=seen) as context:
        assert lost_runs(context).skip_message == "no run is lost"


def test_a_forgotten_run_of_a_cancelled_backfill_is_cancelled(shell: Shell) -> None:
    instance = shell.instance
    backfill = new_backfill_id()
    add_backfill(instance, defs.resolve_asset_graph(), backfill, ["2024-01-01"], {}, "a day")
    cancel_backfill(instance, backfill)
    run_id = made_for_the_queue(instance, **{"dagster/backfill": backfill})
    assert queue_forgotten_runs(instance, [run_id]) == ([], [])
    assert instance.get_run_by_id(run_id).status is dg.DagsterRunStatus.CANCELED


def test_a_run_whose_daemon_ended_while_it_launched_it_is_lost(shell: Shell) -> None:
    instance = shell.instance
    run_id = made_for_the_queue(instance)
    # The daemon does this when it takes the run off the queue.
    starting = DagsterEvent("PIPELINE_STARTING", job_name="day")
    instance.report_dagster_event(starting, run_id=run_id)
    assert lost(instance, utc_now() + timedelta(seconds=LAUNCH_SECONDS - 5)) == {}
    found = lost(instance, utc_now() + timedelta(seconds=LAUNCH_SECONDS + 5))
    assert found == {run_id: "the daemon ended while it launched it"}
    instance.add_run_tags(run_id, RunProcess(run_id, "elsewhere", 1, 1.0).tags())
    assert lost(instance, utc_now() + timedelta(hours=1)) == {}, "it runs elsewhere"


def test_a_failure_whose_retry_was_missed_is_told_again_at_the_second_look(shell: Shell) -> None:
    instance = shell.instance
    run_id = made_for_the_queue(instance)
    instance.report_run_failed(instance.get_run_by_id(run_id))
    assert instance.get_run_by_id(run_id).tags["dagster/will_retry"] == "true"

    def failures() -> list[int]:
        found = instance.fetch_run_status_changes(dg.DagsterEventType.RUN_FAILURE, limit=10)
        return [record.storage_id for record in found.records]

    now, before = utc_now(), failures()
    assert tell_failures_again(instance, [], now) == ([], [run_id]), "the daemon may be about to retry it"
    assert tell_failures_again(instance, [run_id], now + timedelta(hours=2)) == ([], [])
    assert tell_failures_again(instance, [run_id], now) == ([run_id], [])
    assert max(failures()) > max(before), "a daemon that has passed the failure by sees this one"
    for _ in range(2):
        tell_failures_again(instance, [run_id], now)
    assert tell_failures_again(instance, [run_id], now) == ([], []), "it cannot be retried"
    with dg.build_sensor_context(instance, cursor=json.dumps([run_id])) as context:
        assert lost_runs(context).skip_message == "no run is lost"


@pytest.mark.parametrize("tags", [{"dagster/will_retry": "false"}, {"dagster/auto_retry_run_id": "another"}])
def test_a_failure_that_is_not_retried_or_was_is_not_told_again(shell: Shell, tags: dict[str, str]) -> None:
    run_id = made_for_the_queue(shell.instance)
    shell.instance.report_run_failed(shell.instance.get_run_by_id(run_id))
    shell.instance.add_run_tags(run_id, tags)
    assert tell_failures_again(shell.instance, [run_id], utc_now()) == ([], [])


def test_a_run_that_its_command_did_not_begin_is_ended_as_failed(shell: Shell) -> None:
    run = create_run_for_test(shell.instance, tags={"dagster/partition": "2024-01-01"})
    assert queue_forgotten_runs(shell.instance, []) == ([], [run.run_id]), "it may be about to begin"
    assert queue_forgotten_runs(shell.instance, [run.run_id]) == ([], [])
    assert shell.status_of("2024-01-01") is FAILURE
