"""Time, cost and binding limit of a large backfill on many workers: on paper.

    python benchmarks/scale.py
    python benchmarks/scale.py --days 31 --symbols 50 --workers 1,4 --requests-per-minute 500

The units are those of ``docs/performance.json`` (CPU of a day's feeds and of their rows), or are given. A
day is one run of one worker, so more workers than days do not help. Limits hold for all workers together,
except CPU and a worker's network; the one that takes longest binds. Rows and bytes of a feed's day are
assumptions: give those of your markets, which ``backfill-assets plan`` measures in a lake.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

MEASURED = Path(__file__).parents[1] / "docs" / "performance.json"
#: Data types of the year of 500 symbols.
DATA_TYPES = ("trades", "quotes", "book_snapshot_25")
#: Tables that have no data type of their own: instruments, candles, coverage and quality.
MADE_TABLES = 4
PRICES_OF = (
    "storage as Google Cloud lists it for us-central1 on 2026-09-20, a core with 4 GB at 0.0335 an hour"
)


@dataclass(frozen=True)
class DataType:
    """A feed's day of one data type.

    Attributes
    ----------
    rows
        Assumed.
    bytes_per_row
        Compressed, as downloaded. Assumed.
    cpu_seconds_per_million
        Of decoding, judging and storing; measured.
    """

    rows: float
    bytes_per_row: float
    cpu_seconds_per_million: float


@dataclass(frozen=True)
class Units:
    """Unit costs and limits.

    Attributes
    ----------
    cpu_seconds_per_run
        Of a day without rows, and per feed of it.
    lake_per_download
        Bytes of Parquet for a byte of csv.gz.
    worker_cores, worker_mbit, place_mbit
        Of a worker, and the bandwidth of all workers together towards the vendor.
    requests_per_minute
        The vendor's limit for one key, over all workers.
    requests_per_file
        Of a download: the file, and its share of metadata and of repeated requests.
    loads_per_table_and_day
        Google's limit, and loads of a partition in a backfill: its neighbors publish it again.
    core_per_hour, storage_per_gb_month, download_per_gb, load_per_tb
        Prices.
    """

    types: dict[str, DataType]
    cpu_seconds_per_run: float
    cpu_seconds_per_feed: float
    lake_per_download: float = 1.1
    worker_cores: float = 4
    worker_mbit: float = 1_000
    place_mbit: float = 10_000
    requests_per_minute: float = 1_000
    requests_per_file: float = 1.05
    loads_per_table_and_day: float = 1_400
    loads_of_a_partition: float = 3
    core_per_hour: float = 0.0335
    storage_per_gb_month: float = 0.02
    download_per_gb: float = 0.0
    load_per_tb: float = 0.0


@dataclass(frozen=True)
class Work:
    """The work of the backfill."""

    days: int
    symbols: int
    data_types: tuple[str, ...] = DATA_TYPES

    @property
    def files(self) -> int:
        """One per day, symbol and data type."""
        return self.days * self.symbols * len(self.data_types)


@dataclass(frozen=True)
class Answer:
    """Hours by limit, and money."""

    workers: int
    hours_of: dict[str, float]
    machines: float
    download: float
    load: float
    storage_month: float

    @property
    def binds(self) -> str:
        """The limit that needs the longest time."""
        return max(self.hours_of, key=lambda limit: self.hours_of[limit])

    @property
    def hours(self) -> float:
        """As that limit has it."""
        return self.hours_of[self.binds]


def estimate(work: Work, units: Units, workers: int) -> Answer:
    """Work out one row of the table."""
    busy = min(workers, work.days)
    per_symbol = [units.types[name] for name in work.data_types]
    feed_days = work.days * work.symbols
    rows_cpu = sum(of.rows / 1e6 * of.cpu_seconds_per_million for of in per_symbol)
    of_feeds = feed_days * rows_cpu + work.files * units.cpu_seconds_per_feed
    cpu = of_feeds + work.days * units.cpu_seconds_per_run
    downloaded = feed_days * sum(of.rows * of.bytes_per_row for of in per_symbol)
    # A day is one run, so the last round of days may leave workers idle.
    rounds = -(-work.days // busy)
    share = rounds / work.days
    loads = work.days * units.loads_of_a_partition
    hours_of = {
        "CPU": cpu * share / units.worker_cores / 3600,
        "worker's network": downloaded * 8 / 1e6 * share / units.worker_mbit / 3600,
        "network": downloaded * 8 / 1e6 / units.place_mbit / 3600,
        "vendor's rate": work.files * units.requests_per_file / units.requests_per_minute / 60,
        # Loads wait for the next day only after the limit of a day is used up.
        "BigQuery's loads": (-(-loads // units.loads_per_table_and_day) - 1) * 24.0,
    }
    hours = max(hours_of.values())
    stored = downloaded * units.lake_per_download
    return Answer(
        workers,
        hours_of,
        machines=hours * busy * units.worker_cores * units.core_per_hour,
        download=downloaded / 1e9 * units.download_per_gb,
        load=stored / 1e12 * units.load_per_tb,
        # Ticks are twice there: Parquet in the bucket, and the warehouse's own copy.
        storage_month=2 * stored / 1e9 * units.storage_per_gb_month,
    )


def measured_units(file: Path = MEASURED) -> Units:
    """Units from the figures of ``make bench``."""
    lines = json.loads(file.read_text(encoding="utf-8"))["lines"]

    def seconds(work: str, case: str) -> list[tuple[float, float]]:
        """How many of it, and the CPU seconds, the fewest first."""
        found = [
            (float(size[1].replace(",", "")), float(line["seconds"]))
            for line in lines
            if line["case"] == case and (size := re.search(work, line["work"]))
        ]
        if not found:
            sys.exit(f"{file}: there is no '{case}' of '{work}': run make bench")
        return sorted(found)

    def per_million(work: str, case: str) -> float:
        rows, took = seconds(work, case)[-1]
        return took / rows * 1e6

    (few, of_few), *_, (many, of_many) = seconds(
        r"^A day of ([\d,]+) feeds × 100 rows", "second day, same process"
    )
    per_feed = (of_many - of_few) / (many - few)
    ours = "backfill_assets"
    return Units(
        types={
            "trades": DataType(500_000, 8, per_million(r"^([\d,]+) trades to Parquet", "checked")),
            "quotes": DataType(5_000_000, 6, per_million(r"^([\d,]+) rows of quotes", ours)),
            "book_snapshot_25": DataType(700_000, 150, per_million(r"^([\d,]+) rows of book_snap", ours)),
            "incremental_book_L2": DataType(20_000_000, 5, per_million(r"^([\d,]+) rows of incr", ours)),
        },
        cpu_seconds_per_run=max(0.0, of_few - few * per_feed),
        cpu_seconds_per_feed=per_feed,
    )


def table(work: Work, units: Units, workers: Sequence[int], prices_of: str) -> str:
    """The answers as a page."""
    lines = [
        f"{work.days:,} days × {work.symbols:,} symbols × {len(work.data_types)} data types: "
        f"{work.files:,} files.",
        f"A worker has {units.worker_cores:g} cores. Prices in USD: {prices_of}.",
        "",
        "| A feed's day | Rows, assumed | Download, assumed | CPU |",
        "|---|---|---|---|",
        *(
            f"| {name} | {of.rows:,.0f} | {of.rows * of.bytes_per_row / 1e6:,.1f} MB "
            f"| {of.rows / 1e6 * of.cpu_seconds_per_million + units.cpu_seconds_per_feed:.2f} s |"
            for name, of in units.types.items()
            if name in work.data_types
        ),
        "",
        "| Workers | Hours | Binds | Next | Machines | Download | Load | Storage, a month |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for number in workers:
        found = estimate(work, units, number)
        order = sorted(found.hours_of, key=lambda limit: -found.hours_of[limit])
        following = f"{order[1]}, {found.hours_of[order[1]]:,.1f} h"
        money = " | ".join(
            f"{amount:,.0f}" for amount in (found.machines, found.download, found.load, found.storage_month)
        )
        lines.append(f"| {number:,} | {found.hours:,.1f} | {found.binds} | {following} | {money} |")
    return "\n".join(lines)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--days", type=int, default=365)
    parser.add_argument("--symbols", type=int, default=500)
    parser.add_argument("--data-types", default=",".join(DATA_TYPES))
    parser.add_argument("--workers", default="1,10,100")
    parser.add_argument("--measured", type=Path, default=MEASURED, help="figures of make bench")
    parser.add_argument(
        "--prices-of",
        default=PRICES_OF,
        help="place and date of the price list",
    )
    parser.add_argument(
        "--type",
        action="append",
        default=[],
        metavar="NAME=ROWS,BYTES,CPU",
        help="a data type: rows of a feed's day, compressed bytes of a row, CPU seconds of a million rows",
    )
    own = [field.name for field in fields(Units) if field.name != "types"]
    for name in own:
        parser.add_argument(f"--{name.replace('_', '-')}", type=float)
    given = parser.parse_args()
    units = measured_units(given.measured)
    units = replace(units, **{n: value for n in own if (value := getattr(given, n)) is not None})
    for text in given.type:
        name, _, numbers = text.partition("=")
        try:
            rows, size, cpu = map(float, numbers.split(","))
        except ValueError:
            parser.error(f"--type {text}: write NAME=ROWS,BYTES,CPU, for example trades=500000,8,0.4")
        units = replace(units, types={**units.types, name: DataType(rows, size, cpu)})
    types = tuple(given.data_types.split(","))
    if unknown := [name for name in types if name not in units.types]:
        parser.error(f"--data-types: there are no units: give --type {unknown[0]}=ROWS,BYTES,CPU")
    try:
        workers = [int(number) for number in given.workers.split(",")]
    except ValueError:
        workers = []
    numbers = [given.days, given.symbols, *workers, units.worker_cores, units.worker_mbit, units.place_mbit]
    limits = [units.requests_per_minute, units.loads_per_table_and_day]
    if not workers or min(*numbers, *limits) <= 0:
        parser.error("days, symbols, workers and limits must be numbers above 0, workers like 1,10,100")
    print(table(Work(given.days, given.symbols, types), units, workers, given.prices_of))


if __name__ == "__main__":
    main()
