"""Whether a day that was published still has its data, as far as that shows without opening a file.

Plans, calendars and schedules ask this of many days, so they look at existence and size; every byte is
looked at by ``verify``, and by a run where it reads the file anyway. A bucket is not asked, as each object
would be a request, and of BigQuery only which tables it has: that takes one free request.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Collection, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from backfill_assets.days import utc_now
from backfill_assets.failures import BackfillError
from backfill_assets.lake import paths
from backfill_assets.lake.listing import readable_instruments
from backfill_assets.lake.store import Store
from backfill_assets.quality.settled import Day
from backfill_assets.settings import BigQueryWarehouse, DuckDBWarehouse, Settings, resolve
from backfill_assets.warehouse import ledger
from backfill_assets.warehouse.catalog import CANDLES, COVERAGE, INSTRUMENTS, QUALITY, TICKS
from backfill_assets.warehouse.duckdb import has_database, has_size

LOGGER: Final = logging.getLogger(__name__)
_KNOWN_FOR: Final = timedelta(minutes=1)
_NEVER: Final = datetime.min.replace(tzinfo=UTC)


def data_files(store: Store, found: Day) -> dict[str, int]:
    """The day's files of instruments, ticks that count, candles and coverage: bytes by path in the lake.

    Empty for a bucket.
    """
    if store.parallel_reads > 1:
        return {}
    accepted = [(feed.feed, feed.accepted) for feed in found.feeds if feed.accepted is not None]
    files = {paths.ticks_data(feed, found.day, version.content): version.bytes for feed, version in accepted}
    measures = found.measures
    for table, file in ((CANDLES, measures.candles), (COVERAGE, measures.coverage)) if measures else ():
        if file is not None:
            files[paths.made_data(table.name, found.day, file.content)] = file.bytes
    for exchange in found.settled.exchanges:
        if (listing := readable_instruments(store, exchange, found.day)) is not None:
            files[paths.instruments_data(exchange, found.day, listing.content)] = listing.bytes
    return files


def lost_files(store: Store, day: str, files: Mapping[str, int]) -> list[str]:
    """``data_files`` that are not there in full size, and folders of candles and coverage without a byte."""
    if store.parallel_reads > 1 or not files:
        return []
    made = [paths.made_prefix(table.name, day) for table in (CANDLES, COVERAGE)]
    unnamed = [folder for folder in made if not any(path.startswith(folder) for path in files)]
    return [
        *(path for path, size in files.items() if store.size(path) != size),
        *(folder for folder in unnamed if not any(store.size(path) for path in store.list(folder))),
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
    if entry.published is None:
        return True
    if not isinstance(warehouse, DuckDBWarehouse):
        return _TABLES.has(warehouse, table, entry.published.published_at)
    folder = Path(resolve(warehouse.folder)).expanduser()
    return has_size(folder, table, day, entry.published.content) and has_database(folder)


class _Tables:
    """The tables that data sets of BigQuery have, asked for at most once in a while."""

    def __init__(self) -> None:
        self._asking = threading.Lock()
        #: When the data set was asked, and its tables; None where it could not be.
        self._seen: dict[BigQueryWarehouse, tuple[datetime, frozenset[str] | None]] = {}

    def has(self, warehouse: BigQueryWarehouse, table: str, published_at: datetime) -> bool:
        """Whether the table is there; where nobody can tell, the ledger's word counts."""
        with self._asking:
            asked, names = self._seen.get(warehouse, (_NEVER, None))
            now = utc_now()
            is_made_since = names is not None and table not in names and asked < published_at
            if is_made_since or now - asked > _KNOWN_FOR:
                names = self._ask(warehouse)
                self._seen[warehouse] = (now, names)
        return names is None or table in names

    def _ask(self, warehouse: BigQueryWarehouse) -> frozenset[str] | None:
        from backfill_assets.warehouse.bigquery import tables_of

        try:
            return tables_of(warehouse)
        except BackfillError as failure:
            LOGGER.warning("%s: tables that were published are taken to be there", failure)
            return None


_TABLES: Final = _Tables()
