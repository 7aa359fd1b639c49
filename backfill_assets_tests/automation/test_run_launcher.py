"""Runs as forks of one process: they publish, end when asked to, and are noticed when they were killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import psutil
import pytest
from dagster._core.definitions.reconstruct import ReconstructableRepository
from dagster._core.launcher import LaunchRunContext
from dagster._core.origin import JobPythonOrigin
from dagster._core.test_utils import create_run_for_test
from dagster._grpc.types import ExecuteRunArgs

from backfill_assets.automation import run_launcher, run_server
from backfill_assets.automation.lost_runs import lost
from backfill_assets.automation.run_launcher import ForkingRunLauncher
from backfill_assets.automation.run_process import RunProcess
from backfill_assets.days import utc_now
from backfill_assets.failures import TransientFailure
from backfill_assets.feeds import Feed
from backfill_assets.standins.faults import Fault
from backfill_assets.standins.market import Market
from backfill_assets.standins.tardis import TardisStandin
from backfill_assets_tests.stopped_processes import children_that_run

pytestmark = [pytest.mark.story, pytest.mark.timeout(300)]

REPOSITORY = Path(__file__).parents[2]
DAYS = ("2024-01-02", "2024-01-03")
LATER = ("2024-01-12", "2024-01-16", "2024-01-20")
#: Days whose runs wait for the vendor until they are ended.
HANGING = tuple(f"2024-01-{day}" for day in range(24, 31))
SECONDS = 120
STARTING, STARTED = dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED
#: Libraries that a fork finds imported.
EARLY = {
    "aiohttp",
    "alembic",
    "duckdb",
    "isal",
    "numba",
    "numpy",
    "pandas",
    "pyarrow",
    "sqlalchemy",
    "tardis_dev",
}
#: Import modules, run a command of ``dagster api`` and print the libraries that this imported.
LATE_IMPORTS = """
import importlib, json, sys
from backfill_assets.automation import run_launcher, run_server
for module in run_server.IMPORTED:
    importlib.import_module(module)
before = set(sys.modules)
run_server._run(json.loads(sys.argv[1]))
print(json.dumps(sorted(set(sys.modules) - before)))
"""


class Launched:
    """An instance with the launcher of ``dagster.yaml``, and the runs of days that it launches."""

    def __init__(self, instance: dg.DagsterInstance, data: Path) -> None:
        self.instance, self.data = instance, data
        repository = ReconstructableRepository.for_module(
            "backfill_assets.definitions", "defs", str(REPOSITORY)
        )
        self.origin = repository.get_reconstructable_job("day").get_python_origin()

    @property
    def launcher(self) -> ForkingRunLauncher:
        assert isinstance(self.instance.run_launcher, ForkingRunLauncher)
        return self.instance.run_launcher

    def make(self, day: str, origin: JobPythonOrigin | None = None) -> dg.DagsterRun:
        return create_run_for_test(
            self.instance,
            job_name="day",
            tags={"dagster/partition": day},
            status=dg.DagsterRunStatus.STARTING,
            job_code_origin=origin or self.origin,
        )

    def launch(self, day: str, origin: JobPythonOrigin | None = None) -> str:
        run = self.make(day, origin)
        self.launcher.launch_run(LaunchRunContext(run, workspace=None))
        return run.run_id

    def status(self, run: str) -> dg.DagsterRunStatus:
        found = self.instance.get_run_by_id(run)
        assert found is not None
        return found.status

    def process(self, run: str) -> psutil.Process:
        found = self.instance.get_run_by_id(run)
        assert found is not None
        told = RunProcess.of(found)
        assert told is not None
        return psutil.Process(told.pid)

    def wait(self, look: Callable[[], Any]) -> Any:
        deadline = time.monotonic() + SECONDS
        while time.monotonic() < deadline:
            if found := look():
                return found
            time.sleep(0.1)
        return pytest.fail(f"not within {SECONDS} s")

    def wait_for(self, run: str, status: dg.DagsterRunStatus) -> None:
        self.wait(lambda: self.status(run) is status)

    def published(self) -> set[str]:
        return {file.stem for file in self.data.glob("warehouse/candles/20*.parquet")}


@pytest.fixture(scope="module")
def launched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Launched]:
    """One instance for all tests, because its first run starts the process that is forked."""
    folder = tmp_path_factory.mktemp("launched")
    home = folder / "home"
    home.mkdir()
    (home / "dagster.yaml").symlink_to(REPOSITORY / "dagster.yaml")
    symbols = ("BTC-USDT", "ETH-USDT", "ADA-USDT")
    rows = {(exchange, symbol): 100 for exchange in ("binance", "coinbase", "kraken") for symbol in symbols}
    with (
        TardisStandin(Market(rows=rows), clock=lambda: datetime(2024, 2, 10, tzinfo=UTC)) as standin,
        pytest.MonkeyPatch.context() as patch,
    ):
        for day in HANGING:
            standin.faults.put_dataset(Feed("kraken", "trades", "ADA-USDT"), day, Fault(delay_seconds=1400))
        patch.setenv("DAGSTER_HOME", str(home))
        patch.setenv("BACKFILL_DATA", str(folder / "data"))
        patch.setenv("BACKFILL_STANDIN_URL", standin.url)
        for name in ("DAGSTER_POSTGRES_URL", "BACKFILL_ENV"):
            patch.delenv(name, raising=False)
        patch.chdir(REPOSITORY)
        with dg.DagsterInstance.get() as instance:
            yield Launched(instance, folder / "data")


def server_of(launched: Launched) -> psutil.Process:
    [found] = children_that_run("run_server")
    return found


def test_runs_are_forks_that_publish_their_days(launched: Launched) -> None:
    with ThreadPoolExecutor(2) as pool:
        runs = list(pool.map(launched.launch, DAYS))
    server = server_of(launched)
    assert {launched.process(run).ppid() for run in runs} == {server.pid}
    for run in runs:
        launched.wait_for(run, dg.DagsterRunStatus.SUCCESS)
    assert launched.published() >= set(DAYS)
    launched.wait(lambda: not server.children())
    # A lock that another thread has would stay locked in the fork forever.
    assert server.num_threads() == 1


def test_a_run_is_terminated_from_any_process_and_says_so(launched: Launched) -> None:
    run = launched.launch(HANGING[0])
    launched.wait_for(run, dg.DagsterRunStatus.STARTED)
    process = launched.process(run)
    with dg.DagsterInstance.get() as elsewhere:
        assert elsewhere.run_launcher.terminate(run)
    launched.wait_for(run, dg.DagsterRunStatus.CANCELED)
    launched.wait(lambda: not process.is_running())
    assert not launched.launcher.terminate(run)


def test_a_run_of_another_machine_cannot_be_terminated_here(launched: Launched) -> None:
    run = launched.make(DAYS[0])
    launched.instance.add_run_tags(run.run_id, RunProcess(run.run_id, "elsewhere", os.getpid(), 1.0).tags())
    assert not launched.launcher.terminate(run.run_id)
    said = [entry.message for entry in launched.instance.all_logs(run.run_id)]
    assert any("its process was" in text and "on elsewhere" in text for text in said)


def test_a_killed_run_is_lost_although_it_has_not_begun(launched: Launched) -> None:
    run = launched.launch(HANGING[1])
    launched.process(run).kill()
    launched.wait(lambda: run in lost(launched.instance, utc_now()))


def test_runs_go_on_without_the_process_that_made_them_and_the_next_run_makes_another(
    launched: Launched,
) -> None:
    first = launched.launch(LATER[0])
    server_of(launched).kill()
    second = launched.launch(LATER[1])
    for run in (first, second):
        launched.wait_for(run, dg.DagsterRunStatus.SUCCESS)
    server = server_of(launched)
    hanging = launched.launch(HANGING[2])
    launched.wait_for(hanging, dg.DagsterRunStatus.STARTED)
    launched.launcher.dispose()
    assert not server.is_running()
    process = launched.process(hanging)
    assert process.is_running()
    assert launched.launcher.terminate(hanging)
    launched.wait_for(hanging, dg.DagsterRunStatus.CANCELED)
    launched.wait(lambda: not process.is_running() or process.status() == psutil.STATUS_ZOMBIE)


def test_an_interrupt_of_the_terminal_ends_runs_and_not_the_process_that_makes_them(
    launched: Launched,
) -> None:
    run = launched.launch(HANGING[3])
    launched.wait_for(run, dg.DagsterRunStatus.STARTED)
    server = server_of(launched)
    server.send_signal(signal.SIGINT)
    launched.process(run).send_signal(signal.SIGINT)
    launched.wait_for(run, dg.DagsterRunStatus.FAILURE)
    assert server.is_running()


def test_runs_of_another_python_start_from_nothing(launched: Launched, tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    repository = launched.origin.repository_origin._replace(executable_path=str(python))
    run = launched.launch(LATER[2], launched.origin._replace(repository_origin=repository))
    assert launched.process(run).ppid() == os.getpid()
    launched.wait_for(run, dg.DagsterRunStatus.SUCCESS)


def test_a_fork_imports_no_library(launched: Launched) -> None:
    run = launched.make(DAYS[0])
    arguments = ExecuteRunArgs(launched.origin, run.run_id, launched.instance.get_ref())
    words = json.dumps(list(arguments.get_command_args()[-2:]))
    found = subprocess.run(
        [sys.executable, "-c", LATE_IMPORTS, words], capture_output=True, check=True, text=True
    )
    assert launched.status(run.run_id) is dg.DagsterRunStatus.SUCCESS, found.stderr[-2000:]
    late = Counter(name.partition(".")[0] for name in json.loads(found.stdout.splitlines()[-1]))
    assert {name: late[name] for name in EARLY if late[name] > 5} == {}


def test_a_stopped_process_keeps_no_launch_waiting(
    launched: Launched, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_launcher, "ANSWER_SECONDS", 30.0)
    monkeypatch.setattr(run_launcher, "END_SECONDS", 0.1)
    with dg.DagsterInstance.get() as elsewhere:
        before = psutil.Process().children()
        launcher, days = elsewhere.run_launcher, iter(HANGING[4:])
        launcher.launch_run(LaunchRunContext(launched.make(next(days)), workspace=None))
        [server] = [p for p in psutil.Process().children() if p not in before]
        server.suspend()
        assert isinstance(launcher, ForkingRunLauncher)
        assert launcher._server is not None
        launcher._server._socket.settimeout(1)
        launcher.launch_run(LaunchRunContext(launched.make(next(days)), workspace=None))
        assert not server.is_running()
    for run in launched.instance.get_runs(dg.RunsFilter(statuses=[STARTING, STARTED])):
        launched.launcher.terminate(run.run_id)


def test_a_run_of_which_nobody_can_be_told_where_it_is_ends(
    launched: Launched, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        monkeypatch.undo()
        raise OSError("the database is away")

    run = launched.make(HANGING[6])
    monkeypatch.setattr(launched.instance, "add_run_tags", refuse)
    with pytest.raises(OSError, match="the database is away"):
        launched.launcher.launch_run(LaunchRunContext(run, workspace=None))
    launched.wait(lambda: not server_of(launched).children())


def test_a_process_that_cannot_start_is_said(launched: Launched, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_launcher, "SERVER", (sys.executable, "-c", "raise SystemExit('no numba')"))
    run = launched.make(DAYS[0])
    with (
        dg.DagsterInstance.get() as elsewhere,
        pytest.raises(TransientFailure, match="the run server cannot start; its log says why"),
    ):
        elsewhere.run_launcher.launch_run(LaunchRunContext(run, workspace=None))


def test_what_is_imported_follows_the_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("BACKFILL_ENV", "local")
    assert run_server._of_settings() == []
    for name, value in (("BUCKET", "gs://bucket/lake"), ("PROJECT", "a-project"), ("DATASET", "data")):
        monkeypatch.setenv(f"BACKFILL_{name}", value)
    monkeypatch.setenv("BACKFILL_ENV", "production")
    assert {"backfill_assets.lake.gcs", "backfill_assets.warehouse.bigquery"} <= set(
        run_server._of_settings()
    )
    monkeypatch.setenv("BACKFILL_ENV", str(tmp_path / "there-is-none.yaml"))
    assert run_server._of_settings() == []
