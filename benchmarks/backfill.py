"""A backfill of many symbols and days through the API: its time, the memory of the service, the answer times.

Dagster's daemon, the service, its runs and a stand-in for the vendor as processes on loopback; every
second a client asks for the status. `python benchmarks/backfill.py [--symbols 50] [--days 30] [--rows 1000]`;
`--postgres` keeps the records in a Postgres server started for it.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from contextlib import ExitStack
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import psutil
import yaml

from backfill_assets.rehearsal.postgres import postgres_server
from backfill_assets.standins.listings import Listing, Stream
from backfill_assets.standins.market import Market
from backfill_assets.standins.tardis import TardisStandin
from backfill_assets_tests.progress.rig import DAEMON, Rig, running_rig

FIRST = date(2024, 1, 1)
FINAL = ("succeeded", "failed", "canceled")


def stream(base: str, rows: int) -> Stream:
    """Trades of one coin at one venue."""
    listing = Listing(
        exchange="binance",
        native_id=f"{base}usdt".lower(),
        dataset_symbol=f"{base}USDT",
        column_symbol=f"{base}USDT",
        base=base,
        quote="USDT",
        type="spot",
        since="2020-01-01",
        price_decimals=4,
        amount_decimals=4,
    )
    return Stream((listing,), rows, id_base=1_000_000, millisecond_times=True)


def settings(folder: Path, bases: list[str]) -> Path:
    """The local environment with these symbols."""
    symbols = [f"{base}-USDT" for base in bases]
    content = {
        "tardis": {
            "datasets_endpoint": "${BACKFILL_STANDIN_URL}/v1/datasets",
            "api_endpoint": "${BACKFILL_STANDIN_URL}/v1",
            "api_key": "standin-key",
        },
        "universe": [{"exchanges": ["binance"], "symbols": symbols, "data_types": ["trades"]}],
        "lake": {"uri": "${BACKFILL_DATA}/lake"},
        "warehouse": {"kind": "duckdb", "folder": "${BACKFILL_DATA}/warehouse"},
    }
    file = folder / "wide.yaml"
    file.write_text(yaml.safe_dump(content))
    return file


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--symbols", type=int, default=50)
    parser.add_argument("--days", type=int, default=30)
    parser.add_argument("--rows", type=int, default=1000)
    parser.add_argument("--postgres", action="store_true")
    asked = parser.parse_args()
    bases = [f"C{number:02d}" for number in range(asked.symbols)]
    market = Market(rows={}, streams=[stream(base, asked.rows) for base in bases])
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="backfill-bench-")))
        postgres = stack.enter_context(postgres_server()) if asked.postgres else ""
        clock = datetime.combine(FIRST + timedelta(days=asked.days + 10), datetime.min.time(), UTC)
        standin = stack.enter_context(TardisStandin(market, clock=lambda: clock))
        file = settings(home, bases)
        rig = stack.enter_context(running_rig(home, standin, postgres, BACKFILL_ENV=str(file), daemon=DAEMON))
        service = psutil.Process(rig.running["service"].pid)
        last = FIRST + timedelta(days=asked.days - 1)
        began = time.monotonic()
        job = rig.ask("/api/v1/backfill", {"start": FIRST.isoformat(), "end": last.isoformat()})
        took, sizes, percents = [], [], []
        state = job["state"]
        while state not in FINAL:
            time.sleep(1)
            asked_at = time.perf_counter()
            answer = rig.ask(f"/api/v1/backfill/status/{job['job_id']}")
            took.append(time.perf_counter() - asked_at)
            memory = service.memory_full_info()
            sizes.append(memory.uss / 2**20)
            percents.append(answer["percent"])
            state = answer["state"]
        seconds = time.monotonic() - began
        took.sort()
        middle, p95 = (round(value * 1000) for value in (statistics.median(took), took[len(took) * 19 // 20]))
        kind = "Postgres" if postgres else "SQLite"
        print(f"{kind}, {asked.symbols} symbols, {asked.days} days: {state}, {answer['days_by_state']}")
        print(f"  {seconds:.0f} s, {seconds / asked.days:.1f} s a day")
        print(f"  progress never went back: {percents == sorted(percents)}")
        print(f"  {len(took)} statuses: median {middle} ms, p95 {p95} ms")
        print(f"  cancelled with runs at work: {cancelling(rig, job):.0f} s until all have ended")
        print(f"  service in MB by tenth of the run: {' '.join(f'{mb:.0f}' for mb in tenths(sizes))}")


def cancelling(rig: Rig, job: dict[str, Any]) -> float:
    """Seconds from the request to cancel until the job says that none of its runs is left."""
    days = {part: job["request"][part] for part in ("start", "end")}
    again = rig.ask("/api/v1/backfill", {**days, "all_days": True})["job_id"]
    rig.wait(lambda: rig.status(again).days_by_state.get("running", 0) > 1)
    began = time.monotonic()
    rig.ask(f"/api/v1/backfill/{again}/cancel", {})
    rig.wait_for(again, "canceled")
    return time.monotonic() - began


def tenths(sizes: list[float]) -> list[float]:
    """The largest of each tenth."""
    edges = [len(sizes) * n // 10 for n in range(11)]
    return [max(sizes[low:high]) for low, high in pairwise(edges) if high > low]


if __name__ == "__main__":
    main()
