"""How fast the API answers for the status of a job, with 100 jobs of 800 days in store.

A real server on loopback in a process of its own, 20 clients. `python benchmarks/status.py [SECONDS]`; the
address of an empty Postgres database in BENCH_POSTGRES_URL measures that one as well.
"""

from __future__ import annotations

import os
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

JOBS, DAYS, CLIENTS = 100, 800, 20


def fill(url: str) -> list[str]:
    """Store the jobs, each with days as full as those of nine assets, a failed check and two odd feeds."""
    from backfill_assets.progress.database import open_jobs
    from backfill_assets.progress.refresh import day_row, job_row

    from backfill_assets.progress import tracking
    from backfill_assets.progress.model import (
        AssetStatus,
        BackfillRequest,
        DayStatus,
        DayTruth,
        FailedCheck,
        FeedVerdict,
    )

    store = open_jobs(url)
    now = datetime.now(tz=UTC)
    days = [(date(2022, 1, 1) + timedelta(days=n)).isoformat() for n in range(DAYS)]
    names = ("instruments", "ticks", "candles", "report", "ohlcv", "bigquery/ticks", "bigquery/candles")
    full = DayStatus(
        day=days[0],
        state="degraded",
        run_id="0" * 36,
        started=now,
        ended=now,
        rows=10**7,
        raw_bytes=10**9,
        assets=tuple(AssetStatus(asset=name, state="materialized") for name in names),
        failed_checks=(
            FailedCheck(check="ticks:quality", severity="WARN", blocking=False, description="x" * 80),
        ),
        truth=DayTruth(
            outcome="degraded",
            sealed=True,
            feeds=60,
            verdicts={"publish": 58, "quarantine": 2},
            notable=tuple(
                FeedVerdict(
                    feed=f"binance/trades/S{n}",
                    outcome="quarantine",
                    accepted=False,
                    pending=True,
                    reasons=("120 ids are missing (at most 10 are excused)",),
                )
                for n in range(2)
            ),
        ),
    )
    ids = []
    for number in range(JOBS):
        job_id = f"job{number:05d}"
        job, _ = tracking.new_job(job_id, BackfillRequest(start=days[0], end=days[-1]), "bench", days, now)
        job = job.model_copy(update={"state": "succeeded", "percent": 100.0})
        store.insert(job_row(job), [day_row(full.model_copy(update={"day": day})) for day in days])
        ids.append(job_id)
    store.close()
    return ids


def serve(url: str, port: int) -> None:
    """The app over the stored jobs; no Dagster is asked for a status."""
    import dagster as dg
    import uvicorn
    from backfill_assets.progress.database import open_jobs

    from backfill_assets.definitions import defs
    from backfill_assets.progress.api import create_app
    from backfill_assets.progress.service import Backfills

    settings = SimpleNamespace(serve=SimpleNamespace(dagster_url="", max_days=DAYS))
    with dg.DagsterInstance.ephemeral() as instance:
        service = Backfills(open_jobs(url), instance, defs.resolve_asset_graph, lambda: settings)  # type: ignore[arg-type,return-value]
        uvicorn.run(create_app(service), port=port, log_level="warning")


def measure(base: str, path: str, seconds: float, clients: int, *, spread: bool) -> list[float]:
    took: list[float] = []
    over = time.monotonic() + seconds

    def ask(number: int) -> None:
        time.sleep(number / clients if spread else 0)
        while time.monotonic() < over:
            began = time.perf_counter()
            with urllib.request.urlopen(f"{base}{path.format(number)}", timeout=60) as answer:
                answer.read()
            took.append(time.perf_counter() - began)
            # A client that polls, as a page does.
            time.sleep(max(0.0, 1 - (time.perf_counter() - began)))

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return took


def bench(name: str, url: str, seconds: float) -> None:
    fill(url)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = subprocess.Popen([sys.executable, __file__, "--serve", url, str(port)])
    base = f"http://127.0.0.1:{port}"
    try:
        while True:
            try:
                urllib.request.urlopen(f"{base}/healthz", timeout=5).close()
                break
            except OSError:
                time.sleep(0.2)
        for label, path in (
            ("status of 800 days", "/api/v1/backfill/status/job{:05d}"),
            ("recent", "/api/v1/backfill/recent"),
        ):
            for clients, spread in ((1, True), (CLIENTS, True), (CLIENTS, False)):
                took = sorted(measure(base, path, seconds, clients, spread=spread))
                median, p95 = statistics.median(took), took[int(len(took) * 0.95)]
                together = "" if spread else ", all at once"
                what = f"{name:9} {label:19} {clients:2} clients{together:13}"
                times = f"median {median * 1000:5.0f} ms  p95 {p95 * 1000:5.0f} ms"
                print(f"{what}  {times}  ({len(took)} requests)")
    finally:
        server.terminate()
        server.wait()


def main() -> None:
    if sys.argv[1:2] == ["--serve"]:
        serve(sys.argv[2], int(sys.argv[3]))
        return
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 10.0
    with tempfile.TemporaryDirectory() as folder:
        bench("SQLite", f"sqlite:///{Path(folder) / 'jobs.db'}", seconds)
    if url := os.environ.get("BENCH_POSTGRES_URL"):
        bench("Postgres", url, seconds)


if __name__ == "__main__":
    main()
