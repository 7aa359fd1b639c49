"""Whether a day that was published still has its data, as far as that shows without opening a file.

Plans, calendars and schedules ask this of many days, so they look at existence and size; every byte is
looked at by ``verify``, and by a run where it reads the file anyway. A bucket and BigQuery are not asked, as
each object would be a request, and neither loses data by itself.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

from backfill_assets.lake import paths
from backfill_assets.lake.store import Store
from backfill_assets.quality.settled import Day
from backfill_assets.settings import DuckDBWarehouse, Settings, resolve
from backfill_assets.warehouse import ledger
from backfill_assets.warehouse.catalog import CANDLES, COVERAGE, INSTRUMENTS, QUALITY, TICKS
from backfill_assets.warehouse.duckdb import has_size


def tick_files(found: Day) -> dict[str, int]:
    """The tick files of the day that count: their bytes by path in the lake."""
    accepted = [(feed.feed, feed.accepted) for feed in found.feeds if feed.accepted is not None]
    return {paths.ticks_data(feed, found.day, version.content): version.bytes for feed, version in accepted}


def lost_files(store: Store, day: str, ticks: Mapping[str, int]) -> list[str]:
    """Tick files that are not there in full size, and folders of candles and coverage without a file."""
    if store.parallel_reads > 1 or not ticks:
        return []
    made = [paths.made_prefix(table.name, day) for table in (CANDLES, COVERAGE)]
    return [
        *(path for path, size in ticks.items() if store.size(path) != size),
        *(folder for folder in made if not any(store.list(folder))),
    ]


def unpublished_tables(store: Store, settings: Settings, day: str, data_types: Collection[str]) -> list[str]:
    """The day's tables that are not out: not by the ledger, or no longer in the embedded warehouse."""
    ticks = [TICKS[t].name for t in sorted(data_types)]
    tables = [INSTRUMENTS.name, *ticks, CANDLES.name, COVERAGE.name, QUALITY.name]
    return [table for table in tables if not is_out(store, settings, table, day)]


def is_out(store: Store, settings: Settings, table: str, day: str) -> bool:
    """Whether the table's partition is published, and there in full size."""
    entry = ledger.entry(store, table, day)
    if entry is None or entry.state != "done":
        return False
    warehouse = settings.warehouse
    if entry.published is None or not isinstance(warehouse, DuckDBWarehouse):
        return True
    folder = Path(resolve(warehouse.folder)).expanduser()
    return has_size(folder, table, day, entry.published.content)
