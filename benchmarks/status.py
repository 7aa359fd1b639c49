"""How fast the API answers for the status of a job, with 100 jobs of 800 days in Dagster's records.

A real server on loopback in a separate process, 20 clients. `python benchmarks/status.py [SECONDS]`; the
address of an empty Postgres database in BENCH_POSTGRES_URL measures that one as well. Filling takes minutes.
"""

from __future__ import annotations

import logging
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Sequence
from datetime import date, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import dagster as dg

sys.path.insert(0, str(Path(__file__).parents[1]))

JOBS, DAYS, CLIENTS = 100, 800, 20
REPOSITORY = Path(__file__).parents[1]
FIRST = date(2022, 1, 1)
NAMES = ("instruments", "ticks", "candles", "report", "ohlcv", "bigquery_ticks", "bigquery_candles")
CHECKS_PER_ASSET = 3


def days() -> list[str]:
    return [(FIRST + timedelta(days=n)).isoformat() for n in range(DAYS)]


def definitions() -> Any:
    """Assets and checks in the number of the real ones; one check warns."""
    from backfill_assets.partitions import daily

    def asset(name: str) -> Any:
        @dg.asset(name=name, partitions_def=daily)
        def made() -> None: ...

        return made

    def check(name: str, number: int) -> Any:
        @dg.asset_check(asset=name, name=f"check_{number}", partitions_def=daily)
        def made() -> dg.AssetCheckResult:
            passed = (name, number) != ("ticks", 0)
            return dg.AssetCheckResult(
                passed=passed, severity=dg.AssetCheckSeverity.WARN, description="x" * 80
            )

        return made

    checks = [check(name, number) for name in NAMES for number in range(CHECKS_PER_ASSET)]
    assets = [asset(name) for name in NAMES]
    return dg.Definitions(assets=assets, asset_checks=checks, jobs=[dg.define_asset_job("day")])


def fill(home: Path) -> None:
    """Store the days in the lake, run one of them, and copy its records for every day of every job."""
    from dagster._core.execution.backfill import BulkActionStatus

    from backfill_assets.automation.backfills import add_backfill
    from backfill_assets.progress.model import BackfillRequest
    from backfill_assets.progress.request_tags import request_tags
    from backfill_assets_tests.progress.planned_lake import ETH, Lake

    logging.disable(logging.INFO)
    lake = Lake(home / "lake")
    for day in days():
        lake.run(day, state="degraded", absent=(ETH,))
    defs = definitions()
    graph = defs.resolve_asset_graph()
    request = BackfillRequest.model_validate({"start": days()[0], "end": days()[-1], "all_days": True})
    with dg.DagsterInstance.get() as instance:
        day = days()[0]
        made = defs.resolve_job_def("day").execute_in_process(
            partition_key=day,
            instance=instance,
            tags={**request_tags(request, "bench", "template"), "dagster/backfill": "template"},
        )
        for number in range(JOBS):
            job_id = f"job{number:05d}"
            add_backfill(instance, graph, job_id, days(), request_tags(request, "bench", job_id), "bench")
            copy_runs(instance, made.run_id, day, job_id)
            backfill = instance.get_backfill(job_id)
            assert backfill is not None
            over = backfill.with_status(BulkActionStatus.COMPLETED_SUCCESS)
            instance.update_backfill(over.with_end_timestamp(time.time()))
        instance.delete_run(made.run_id)


def copy_runs(instance: Any, run_id: str, day: str, job_id: str) -> None:
    """The records of the run that a status reads, once for each day."""
    import sqlalchemy as sa
    from dagster._core.storage.event_log.schema import AssetCheckExecutionsTable
    from dagster._core.storage.runs.schema import KeyValueStoreTable, RunsTable, RunTagsTable

    from backfill_assets.orchestration import live_key

    def copies(connection: Any, table: Any) -> list[dict[str, Any]]:
        found = connection.execute(sa.select(table).where(table.c.run_id == run_id)).mappings()
        rows = [{name: value for name, value in row.items() if name != "id"} for row in found]
        return [
            {name: renamed(value, new, of_day) for name, value in row.items()}
            for new, of_day in runs
            for row in rows
        ]

    def renamed(value: Any, new: str, of_day: str) -> Any:
        if not isinstance(value, str):
            return value
        return value.replace(run_id, new).replace(day, of_day).replace("template", job_id)

    runs = [(str(uuid4()), of_day) for of_day in days()]
    total = (
        '{"done":60,"total":60,"rows":10000000,"raw_bytes":1000000000,"fetched_bytes":1000000000,"states":{}}'
    )
    with instance.run_storage.connect() as connection:
        for table in (RunsTable, RunTagsTable):
            connection.execute(table.insert(), copies(connection, table))
        connection.execute(
            KeyValueStoreTable.insert(), [{"key": live_key(new), "value": total} for new, _ in runs]
        )
    with instance.event_log_storage.index_connection() as connection:
        rows = copies(connection, AssetCheckExecutionsTable)
        for row in rows:
            if row["execution_status"] == "SUCCEEDED":
                row["evaluation_event"] = None
        connection.execute(AssetCheckExecutionsTable.insert(), rows)


def serve(home: Path, port: int) -> None:
    """The app over the records and the lake."""
    import uvicorn

    from backfill_assets.progress.api import create_app
    from backfill_assets.progress.service import Backfills
    from backfill_assets_tests.progress.planned_lake import Lake

    settings = Lake(home / "lake").settings
    with dg.DagsterInstance.get() as instance:
        service = Backfills(instance, definitions().resolve_asset_graph, lambda: settings)
        uvicorn.run(create_app(service), port=port, log_level="warning")


def ask(url: str) -> float:
    """Seconds until the answer was read."""
    began = time.perf_counter()
    with urllib.request.urlopen(url, timeout=300) as answer:
        answer.read()
    return time.perf_counter() - began


def measure(base: str, path: str, seconds: float, clients: int, *, spread: bool) -> list[float]:
    took: list[float] = []
    over = time.monotonic() + seconds

    def poll(number: int) -> None:
        time.sleep(number / clients if spread else 0)
        while time.monotonic() < over:
            took.append(ask(f"{base}{path.format(JOBS - 1 - number)}"))
            # A client that polls, as a page does.
            time.sleep(max(0.0, 1 - took[-1]))

    threads = [threading.Thread(target=poll, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return took


def tell(what: str, took: Sequence[float]) -> None:
    ordered = sorted(took)
    median, p95 = statistics.median(ordered), ordered[int(len(ordered) * 0.95)]
    print(f"{what:58}  median {median * 1000:5.0f} ms  p95 {p95 * 1000:5.0f} ms  ({len(ordered)} requests)")


def bench(name: str, home: Path, seconds: float) -> None:
    (home / "dagster.yaml").symlink_to(REPOSITORY / "dagster.yaml")
    os.environ["DAGSTER_HOME"] = str(home)
    fill(home)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    status, recent = "/api/v1/backfill/status/job{:05d}", "/api/v1/backfill/recent"
    base = f"http://127.0.0.1:{port}"
    # Each kind first with a server that has not read anything yet.
    for label, path in (("recent", recent), ("status of 800 days", status)):
        server = subprocess.Popen([sys.executable, __file__, "--serve", str(home), str(port)])
        try:
            wait_for(base)
            first = [ask(f"{base}{path.format(JOBS - 1 - number)}") for number in range(CLIENTS)]
            print(f"{name:9} {label:19} the first {first[0]:.2f} s, the next {sum(first[1:]):.2f} s together")
            for clients, spread in ((1, True), (CLIENTS, True), (CLIENTS, False)):
                together = "" if spread else ", all at once"
                took = measure(base, path, seconds, clients, spread=spread)
                tell(f"{name:9} {label:19} {clients:2} clients{together:13}", took)
        finally:
            server.terminate()
            server.wait()


def wait_for(base: str) -> None:
    while True:
        try:
            ask(f"{base}/healthz")
        except OSError:
            time.sleep(0.2)
        else:
            return


def main() -> None:
    if sys.argv[1:2] == ["--serve"]:
        serve(Path(sys.argv[2]), int(sys.argv[3]))
        return
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 10.0
    postgres = os.environ.pop("BENCH_POSTGRES_URL", "")
    os.environ.pop("DAGSTER_POSTGRES_URL", None)
    for name, url in (("SQLite", ""), *([("Postgres", postgres)] if postgres else [])):
        with tempfile.TemporaryDirectory(prefix="backfill-status-") as folder:
            if url:
                os.environ["DAGSTER_POSTGRES_URL"] = url
            bench(name, Path(folder), seconds)


if __name__ == "__main__":
    main()
