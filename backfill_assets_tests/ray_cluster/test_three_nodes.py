"""Twenty days on one Ray node, then on three, one of which is lost: the tables are those of one machine."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import psutil
import pytest

from backfill_assets.automation.run_process import RunProcess
from backfill_assets.lake.local import LocalStore
from backfill_assets.rehearsal.postgres import postgres_server
from backfill_assets.standins.market import Market
from backfill_assets.standins.tardis import TardisStandin
from backfill_assets.warehouse import ledger
from backfill_assets_tests.progress.conftest import needs_postgres
from backfill_assets_tests.progress.rig import EXCHANGES, REPOSITORY, SYMBOLS, Rig, running_rig
from backfill_assets_tests.ray_cluster.nodes import Cluster, ProcessorTime, cluster

pytest.importorskip("dagster_ray", reason="needs Ray: make ray installs it")
pytestmark = [pytest.mark.story, needs_postgres, pytest.mark.timeout(3_000)]

TABLES = ("trades", "candles", "coverage", "quality", "instruments")
#: First and last day on one node, on three nodes, and on three of which one is lost.
ALONE, TOGETHER, LOSING = ("01", "03"), ("04", "09"), ("10", "20")
#: Health checks of Ray find a silent node; monitoring asks every 5 s. A busy machine took 20 s.
SEEN_SECONDS = 30
JOB_SECONDS = 600


@pytest.fixture(scope="module")
def standin() -> Iterator[TardisStandin]:
    rows = {(exchange, symbol): 3_000 for exchange in EXCHANGES for symbol in SYMBOLS}
    with TardisStandin(Market(rows=rows), clock=lambda: datetime(2024, 2, 10, tzinfo=UTC)) as found:
        yield found


@pytest.fixture(scope="module")
def rig_and_nodes(
    standin: TardisStandin, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Rig, Cluster]]:
    home = tmp_path_factory.mktemp("home")
    with postgres_server() as database:
        of_runs = {
            **os.environ,
            "DAGSTER_HOME": str(home),
            "DAGSTER_POSTGRES_URL": database,
            "BACKFILL_DATA": str(home / "data"),
            "BACKFILL_STANDIN_URL": standin.url,
        }
        with cluster(of_runs) as nodes:
            nodes.start_head()
            ray = REPOSITORY / "deploy" / "ray" / "dagster.yaml"
            address = {"RAY_API_SERVER_ADDRESS": nodes.jobs_url}
            with running_rig(home, standin, database, dagster_yaml=ray, **address) as rig:
                yield rig, nodes


@pytest.fixture(scope="module")
def instance(rig_and_nodes: tuple[Rig, Cluster]) -> Iterator[dg.DagsterInstance]:
    """The records of the daemon, which this process also opens."""
    rig, _ = rig_and_nodes
    names = ("DAGSTER_HOME", "DAGSTER_POSTGRES_URL", "RAY_API_SERVER_ADDRESS")
    with pytest.MonkeyPatch.context() as patch:
        for name in names:
            patch.setenv(name, rig.environment[name])
        with dg.DagsterInstance.get() as found:
            yield found


def start(rig: Rig, days: tuple[str, str]) -> str:
    first, last = (f"2024-01-{day}" for day in days)
    job: str = rig.ask("/api/v1/backfill", {"start": first, "end": last})["job_id"]
    return job


def succeeded(rig: Rig, job: str) -> None:
    final = ("succeeded", "failed", "canceled")
    status = rig.wait(lambda: s if (s := rig.status(job)).state in final else None, JOB_SECONDS)
    assert status.state == "succeeded", status


def per_day(rig: Rig, nodes: Cluster, days: tuple[str, str]) -> tuple[float, float]:
    """Processor seconds of a day's run, and those of Ray beside it."""
    spent = ProcessorTime(nodes)
    succeeded(rig, start(rig, days))
    spent.close()
    count = int(days[1]) - int(days[0]) + 1
    of_runs, of_ray = spent.seconds()
    return of_runs / count, of_ray / count


@pytest.fixture(scope="module")
def costs(rig_and_nodes: tuple[Rig, Cluster]) -> tuple[tuple[float, float], tuple[float, float]]:
    rig, nodes = rig_and_nodes
    alone = per_day(rig, nodes, ALONE)
    nodes.start_worker()
    nodes.start_worker()
    return alone, per_day(rig, nodes, TOGETHER)


def test_a_day_costs_three_nodes_what_it_costs_one(costs, capsys) -> None:
    (alone, ray_alone), (together, ray_together) = costs
    efficiency = alone / together
    with capsys.disabled():
        print(
            f"\nprocessor seconds of a day: one node {alone:.1f} (Ray {ray_alone:.1f} more), "
            f"three nodes {together:.1f} (Ray {ray_together:.1f} more): efficiency {efficiency:.2f}"
        )
    # Three runs on two processors take caches from each other.
    assert efficiency > 0.6


def at_work_beside_the_head(instance: dg.DagsterInstance, nodes: Cluster) -> Any:
    """A run that has begun on a worker: (run, its process, the node)."""
    for run in instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED])):
        told = RunProcess.of(run)
        if told is None or told.is_gone():
            continue
        process = psutil.Process(told.pid)
        node = nodes.node_of(process)
        if node is not None and node != nodes.raylets[0]:
            return run, process, node
    return None


@pytest.fixture(scope="module")
def lost(rig_and_nodes, costs, instance) -> dict[str, Any]:
    """The results of a run whose node was lost, and whose process went on while its retry was at work."""
    rig, nodes = rig_and_nodes
    job = start(rig, LOSING)
    run, process, node = rig.wait(lambda: at_work_beside_the_head(instance, nodes))
    process.suspend()
    nodes.lose(node, spared=process)
    began = time.monotonic()

    def retry() -> dg.DagsterRun | None:
        made = instance.get_runs(dg.RunsFilter(tags={"dagster/parent_run_id": run.run_id}))
        return made[0] if made and made[0].status is dg.DagsterRunStatus.STARTED else None

    def of_run() -> dg.DagsterRunStatus:
        found = instance.get_run_by_id(run.run_id)
        assert found is not None
        return found.status

    rig.wait(lambda: of_run() is dg.DagsterRunStatus.FAILURE)
    seen = time.monotonic() - began
    again = rig.wait(retry)
    process.resume()
    psutil.wait_procs([process], timeout=120)
    succeeded(rig, job)
    return {"seen": seen, "run": run, "retry": again, "process": process}


def test_the_run_of_a_lost_node_is_seen_and_made_again(lost, instance, capsys) -> None:
    with capsys.disabled():
        print(f"\na lost node's run was seen after {lost['seen']:.0f} s")
    assert lost["seen"] < SEEN_SECONDS
    assert instance.get_run_by_id(lost["retry"].run_id).status is dg.DagsterRunStatus.SUCCESS
    events = instance.all_logs(lost["run"].run_id, of_type=dg.DagsterEventType.RUN_FAILURE)
    assert len(events) == 1


def test_the_process_of_the_lost_node_has_gone_on_to_its_end(lost, instance) -> None:
    assert not lost["process"].is_running()
    logs = instance.all_logs(lost["run"].run_id)
    failed = next(i for i, e in enumerate(logs) if e.dagster_event_type is dg.DagsterEventType.RUN_FAILURE)
    done = {e.dagster_event_type for e in logs[failed + 1 :]}
    assert dg.DagsterEventType.STEP_SUCCESS in done


def test_the_tables_are_byte_for_byte_those_of_one_machine(lost, rig_and_nodes, standin, tmp_path) -> None:
    rig, _ = rig_and_nodes
    alone = {**rig.environment, "DAGSTER_HOME": str(tmp_path), "BACKFILL_DATA": str(tmp_path / "data")}
    del alone["DAGSTER_POSTGRES_URL"]
    (tmp_path / "dagster.yaml").symlink_to(REPOSITORY / "dagster.yaml")
    days = ("--date", f"2024-01-{ALONE[0]}", "--end", f"2024-01-{LOSING[1]}")
    command = [sys.executable, "-m", "backfill_assets.cli", "run", *days]
    done = subprocess.run(command, env=alone, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr

    def tables(data: Path) -> dict[tuple[str, str], bytes]:
        return {
            (table, file.stem): file.read_bytes()
            for table in TABLES
            for file in (data / "warehouse" / table).glob("20*.parquet")
        }

    of_one, of_cluster = tables(tmp_path / "data"), tables(rig.home / "data")
    assert len(of_one) == len(TABLES) * 20
    assert of_cluster.keys() == of_one.keys()
    assert [key for key in of_one if of_cluster[key] != of_one[key]] == []
    store = LocalStore(rig.home / "data" / "lake")
    for table, day in of_one:
        left = ledger.entry(store, table, day)
        assert left is not None
        assert (left.state, left.open, left.loading) == ("done", (), ())


def test_each_run_asked_for_what_its_day_needs(lost, instance) -> None:
    asked = [
        event.message
        for run in instance.get_runs()
        for event in instance.all_logs(run.run_id, of_type=dg.DagsterEventType.ENGINE_EVENT)
        if "asks for" in event.message
    ]
    assert asked
    assert all("asks for 1 CPU and 1.6 GB of memory" in text for text in asked)


def test_all_of_it_listens_on_loopback_only(rig_and_nodes) -> None:
    _, nodes = rig_and_nodes
    listening = {
        connection.laddr.ip
        for process in nodes.processes()
        if process.is_running()
        for connection in process.net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN
    }
    assert listening <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}
    assert len(listening) > 0
