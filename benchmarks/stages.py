"""The stages of one feed of trades, each beside inflating its file: CPU, ratio and peak memory.

    python benchmarks/stages.py --rows 5000000 --repeats 5

Every repeat is a fresh process that takes one file from csv.gz to compared candles, as a run does: ``decode``
writes Parquet, profile, control totals and one-minute candles, ``partials`` finds these and takes them,
``comparison`` computes them again from the Parquet file. ``remade`` is ``partials`` where the candles of the
pass cannot be taken, and no part of the sums. ``publish`` puts the file into the embedded warehouse and reads
the partition's totals back; ``duckdb_copy`` is DuckDB's ``COPY`` of the same file, without totals.

The process first does a small file, unmeasured, so imports and compilation are left out. Inflating is timed
in the same process, before and after. ``core`` is decode and partials, ``checked`` has the comparison too.
Memory is the largest resident set size of the process by the end of the stage.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from decode_market import DAY, SYMBOL, write_trades

STAGES = ("inflate", "decode", "partials", "comparison", "remade", "publish", "duckdb_copy")


def inflate(source: Path) -> None:
    from isal import igzip

    buffer = bytearray(1 << 20)  # faster than any larger one
    with igzip.open(source, "rb") as file:
        while file.readinto(buffer):
            pass


def publish(file: Path, warehouse: Path, rows: int) -> None:
    from backfill_assets.warehouse.catalog import TICKS
    from backfill_assets.warehouse.duckdb import DuckDBWarehouse
    from backfill_assets.warehouse.protocol import LoadFile

    made = DuckDBWarehouse(warehouse)
    made.ensure_table(TICKS["trades"])
    made.replace_partition(TICKS["trades"], DAY, [LoadFile(uri=None, path=file, rows=rows)], 1)
    if sum(group.rows for group in made.totals(TICKS["trades"], DAY)) != rows:
        msg = "the partition has other rows than the file"
        raise SystemExit(msg)


def duckdb_copy(file: Path, target: Path) -> None:
    import duckdb

    with duckdb.connect(config={"threads": 2}) as connection:
        connection.execute(f"COPY (FROM '{file}') TO '{target}' (FORMAT parquet, COMPRESSION zstd)")


def run(source: Path, folder: Path, measure: Callable[[str, Callable[[], Any]], Any]) -> None:
    """All stages of a file, with a lake in the folder."""
    from backfill_assets.candles.trade_files import AcceptedFile, make_partials, mismatches
    from backfill_assets.feeds import Feed
    from backfill_assets.id_laws import ID_LAWS
    from backfill_assets.lake import paths
    from backfill_assets.lake.local import LocalStore
    from backfill_assets.ticks.decode import decode
    from backfill_assets.ticks.fetch import candles_to_fill, store_candles
    from backfill_assets.ticks.profile import ProfileParameters
    from backfill_assets.ticks.stored import stored_file

    parameters = ProfileParameters()
    feed, store, target = Feed("binance", "trades", SYMBOL), LocalStore(folder / "lake"), folder / "t.parquet"

    def decoded() -> Any:
        candles = candles_to_fill(feed, DAY, parameters, ID_LAWS)
        found = decode(
            source,
            target,
            feed=feed,
            day=DAY,
            symbols={SYMBOL: "BTC-USDT"},
            parameters=parameters,
            grids={SYMBOL: (0.01,)},
            candles=candles,
        )
        stored_file(target, feed.data_type)
        return found, store_candles(store, feed, DAY, candles, found.profile, parameters)

    measure("inflate", lambda: inflate(source))
    found, candles = measure("decode", decoded)
    store.put_file(target, paths.ticks_data(feed, DAY, found.content))
    file = AcceptedFile(
        feed=feed,
        day=DAY,
        content=found.content,
        rows=found.rows,
        numeric_ids=True,
        repeats=False,
        overlaps=(),
        left_out=(),
        contracts={},
        seam_window_seconds=300,
        decoded=candles,
    )
    made = measure("partials", lambda: make_partials(store, file))
    (differing,) = measure("comparison", lambda: mismatches(store, [(file, made)]))
    measure("publish", lambda: publish(target, folder / "warehouse", found.rows))
    measure("duckdb_copy", lambda: duckdb_copy(target, folder / "copy.parquet"))
    measure("inflate", lambda: inflate(source))
    if measure("remade", lambda: make_partials(store, replace(file, decoded=None))) != made:
        msg = "the candles of the pass are not those of the file"
        raise SystemExit(msg)
    if differing:
        msg = f"candles differ from their ticks: {differing[:3]}"
        raise SystemExit(msg)


def run_one(source: Path) -> None:
    """Print CPU seconds and megabytes by stage, as JSON."""
    found: dict[str, list[tuple[float, float]]] = {}

    def measured(name: str, stage: Callable[[], Any]) -> Any:
        before = time.process_time()
        result = stage()
        cpu = time.process_time() - before
        found.setdefault(name, []).append((cpu, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024))
        return result

    with tempfile.TemporaryDirectory() as folder:
        run(source.with_name("warm-up.csv.gz"), Path(folder), lambda _, stage: stage())
    with tempfile.TemporaryDirectory() as folder:
        run(source, Path(folder), measured)
    means = {name: [statistics.mean(of) for of in zip(*each, strict=True)] for name, each in found.items()}
    print(json.dumps(means))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=5_000_000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument(
        "--folder", type=Path, default=Path(tempfile.gettempdir()) / "backfill-assets-benchmarks"
    )
    parser.add_argument("--one", type=Path)
    options = parser.parse_args()
    if options.one:
        run_one(options.one)
        return
    options.folder.mkdir(parents=True, exist_ok=True)
    source = options.folder / f"trades-{options.rows}.csv.gz"
    write_trades(source, options.rows)
    write_trades(options.folder / "warm-up.csv.gz", 1000)
    command = [sys.executable, __file__, "--one", str(source)]
    runs = [
        json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        for _ in range(options.repeats)
    ]
    rows = {name: (name,) for name in STAGES} | {"core": STAGES[1:3], "checked": STAGES[1:4]}
    print(f"{options.rows:,} rows, {source.stat().st_size / 1e6:.0f} MB; medians of {options.repeats}")
    print("| stage | CPU s | × inflate | peak MB |\n|---|---|---|---|")
    for name, parts in rows.items():
        cpu = [sum(run[part][0] for part in parts) for run in runs]
        ratio = statistics.median(c / run["inflate"][0] for c, run in zip(cpu, runs, strict=True))
        peak = max(run[parts[-1]][1] for run in runs)
        print(f"| {name} | {statistics.median(cpu):.2f} | {ratio:.1f} | {peak:.0f} |")


if __name__ == "__main__":
    main()
