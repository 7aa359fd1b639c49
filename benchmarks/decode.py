"""Decoding beside what else one could use, in one interleaved run: CPU, wall and memory of the process tree.

    python benchmarks/decode.py --rows 5000000 --repeats 5
    python benchmarks/decode.py --rows 20000000 --repeats 1 --cases inflate,backfill_assets

Every case is a fresh process that reads the same file and writes Parquet (``inflate`` only inflates, and is
the unit). Each first does a small file, unmeasured, so imports and compilation are left out. Memory is the
proportional set size of the process and its children, sampled every 20 ms. The case of pandas runs where
``pip install pandas`` was done: the package itself does not need it.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import psutil
from decode_market import DAY, SYMBOL, write_trades

NAMES = ["exchange", "symbol", "timestamp", "local_timestamp", "id", "side", "price", "amount"]


def inflate(source: Path, target: Path) -> None:  # noqa: ARG001
    from isal import igzip

    buffer = bytearray(4 << 20)
    with igzip.open(source, "rb") as file:
        while file.readinto(buffer):
            pass


def backfill_assets(source: Path, target: Path) -> None:
    from backfill_assets.feeds import Feed
    from backfill_assets.ticks.decode import decode
    from backfill_assets.ticks.profile import ProfileParameters

    feed = Feed("binance", "trades", SYMBOL)
    decode(
        source,
        target,
        feed=feed,
        day=DAY,
        symbols={SYMBOL: "BTC-USDT"},
        parameters=ProfileParameters(),
        grids={SYMBOL: (0.01,)},
    )


def polars_streaming(source: Path, target: Path) -> None:
    import polars as pl

    schema = dict(
        zip(NAMES, [pl.String] * 2 + [pl.Int64] * 2 + [pl.String] * 2 + [pl.Float64] * 2, strict=True)
    )
    frame = pl.scan_csv(source, schema=schema)
    frame.sink_parquet(target, compression="zstd", compression_level=1)


def polars_eager(source: Path, target: Path) -> None:
    import polars as pl

    pl.read_csv(source).write_parquet(target, compression="zstd", compression_level=1)


def pandas_default(source: Path, target: Path) -> None:
    import pandas as pd

    pd.read_csv(source, float_precision="round_trip", dtype={"id": str}).to_parquet(
        target, compression="zstd"
    )


CASES: dict[str, Callable[[Path, Path], None]] = {
    case.__name__: case for case in (inflate, backfill_assets, polars_streaming, polars_eager, pandas_default)
}


def available(case: str) -> bool:
    """Whether the library of the case is installed."""
    return case != pandas_default.__name__ or importlib.util.find_spec("pandas") is not None


def measure(case: str, source: Path) -> dict[str, float]:
    """Run one case in a fresh process and watch its tree."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, __file__, "--one", case, str(source), str(Path(folder) / "out.parquet")]
        process = psutil.Popen(command, stdout=subprocess.PIPE)
        peak = 0.0
        while process.poll() is None:
            try:
                tree = [process, *process.children(recursive=True)]
                peak = max(peak, sum(p.memory_full_info().pss for p in tree) / 2**20)
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                pass
            time.sleep(0.02)
        output = process.stdout.read() if process.stdout else b""
        if process.returncode != 0:
            msg = f"{case} failed with exit code {process.returncode}"
            raise SystemExit(msg)
        return {**json.loads(output), "memory": peak}


def run_one(case: str, source: Path, target: Path) -> None:
    CASES[case](source.with_name("warm-up.csv.gz"), target)
    wall, cpu = time.perf_counter(), time.process_time()
    CASES[case](source, target)
    found = {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
    print(json.dumps({**found, "size": target.stat().st_size / 1e6 if target.exists() else 0.0}))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=5_000_000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--cases", default=",".join(case for case in CASES if available(case)))
    parser.add_argument(
        "--folder", type=Path, default=Path(tempfile.gettempdir()) / "backfill-assets-benchmarks"
    )
    parser.add_argument("--one", nargs=3)
    options = parser.parse_args()
    if options.one:
        run_one(options.one[0], Path(options.one[1]), Path(options.one[2]))
        return
    options.folder.mkdir(parents=True, exist_ok=True)
    source = options.folder / f"trades-{options.rows}.csv.gz"
    write_trades(source, options.rows)
    write_trades(options.folder / "warm-up.csv.gz", 1000)
    cases = options.cases.split(",")
    found: dict[str, list[dict[str, float]]] = {case: [] for case in cases}
    for repeat in range(options.repeats):
        for case in cases if repeat % 2 else cases[::-1]:
            found[case].append(measure(case, source))
    middle = {
        case: {key: statistics.median(one[key] for one in runs) for key in runs[0]}
        for case, runs in found.items()
    }
    unit = middle[cases[0]]
    size = source.stat().st_size / 1e6
    print(f"{options.rows:,} rows, {size:.0f} MB; medians of {options.repeats}; ratios to {cases[0]}")
    print("| case | CPU s | ratio | wall s | ratio | peak MB | Parquet MB |\n|---|---|---|---|---|---|---|")
    for case, m in middle.items():
        peak = max(one["memory"] for one in found[case])
        cpu, wall = m["cpu"] / unit["cpu"], m["wall"] / unit["wall"]
        cells = f"{m['cpu']:.2f} | {cpu:.1f} | {m['wall']:.2f} | {wall:.1f} | {peak:.0f} | {m['size']:.0f}"
        print(f"| {case} | {cells} |")


if __name__ == "__main__":
    main()
