"""Whether a published day still has its data, as far as that shows without opening a file.

Plans, calendars and schedules ask this of many days, so existence and size are checked; ``verify`` checks
every byte, and so does a run that reads the file anyway. A bucket is asked for the files of a folder and a
year at once, BigQuery for all its tables (free) and for the rows of all their partitions (10 MB of a query).
Each answer counts for a while; without an answer, the documents count.
"""

from __future__ import annotations

import logging
import re
import threading
from collections import defaultdict
from collections.abc import Callable, Collection, Hashable, Mapping
from datetime import UTC, datetime, time, timedelta
from pathlib import Path
from typing import Final, Generic, TypeVar

from backfill_assets.days import is_day, parse_day, utc_now
from backfill_assets.failures import BackfillError
from backfill_assets.lake import paths
from backfill_assets.lake.listing import readable_instruments
from backfill_assets.lake.parallel import parallel_map
from backfill_assets.lake.store import Store
from backfill_assets.quality.settled import Day
from backfill_assets.settings import BigQueryWarehouse, DuckDBWarehouse, Settings, resolve
from backfill_assets.warehouse import ledger
from backfill_assets.warehouse.catalog import CANDLES, COVERAGE, INSTRUMENTS, QUALITY, TABLES, TICKS
from backfill_assets.warehouse.duckdb import has_database, has_size

#: When the schedule requests yesterday, and when it should be in the tables, both UTC.
ASKED_AT: Final = time(9)
LATE_AT: Final = time(10)
#: Tables of every day.
OF_EVERY_DAY: Final = (INSTRUMENTS, CANDLES, COVERAGE, QUALITY)

Key = TypeVar("Key", bound=Hashable)
Answer = TypeVar("Answer")

LOGGER: Final = logging.getLogger(__name__)
_KNOWN_FOR: Final = timedelta(minutes=1)
#: A query of BigQuery's metadata costs 10 MB each time.
_PARTITIONS_KNOWN_FOR: Final = timedelta(minutes=5)
#: The clocks of two machines may differ by this much.
_CLOCKS_DIFFER: Final = timedelta(minutes=1)
#: A feed's year has some 400 files.
_MOST_ANSWERS: Final = 4096
_NEVER: Final = datetime.min.replace(tzinfo=UTC)
#: The folder of a data file, and the year: ``ticks/binance/trades/BTCUSDT/2024-``.
_YEAR: Final = re.compile(r".*?/(?:date=)?\d{4}-(?=\d\d-\d\d[/.])")


def data_files(store: Store, found: Day) -> dict[str, int]:
    """The day's files of instruments, accepted ticks, candles and coverage: bytes by path in the lake."""
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
    """Return ``data_files`` that are not there at full size, and empty folders of candles and coverage."""
    if not files:
        return []
    if store.parallel_reads > 1:
        return _lost_objects(store, files)
    made = [paths.made_prefix(table.name, day) for table in (CANDLES, COVERAGE)]
    unnamed = [folder for folder in made if not any(path.startswith(folder) for path in files)]
    return [
        *(path for path, size in files.items() if store.size(path) != size),
        *(folder for folder in unnamed if not any(store.size(path) for path in store.list(folder))),
    ]


def _lost_objects(store: Store, files: Mapping[str, int]) -> list[str]:
    folders: dict[str, dict[str, int]] = defaultdict(dict)
    for path, size in files.items():
        if found := _YEAR.match(path):
            folders[found[0]][path] = size

    def lost(folder: str) -> list[str]:
        wanted = folders[folder]
        _, there = _OBJECTS.get((store, folder), _KNOWN_FOR)
        gone = [p for p, size in wanted.items() if there is not None and there.get(p) != size]
        # An object may be newer than the listing.
        return [path for path in gone if store.size(path) != wanted[path]]

    return [path for found in parallel_map(lost, folders, store.parallel_reads) for path in found]


def unpublished_tables(store: Store, settings: Settings, day: str, data_types: Collection[str]) -> list[str]:
    """Return the day's tables that are not out: not by the ledger, or no longer in the embedded warehouse."""
    ticks = [TICKS[t].name for t in sorted(data_types)]
    tables = [INSTRUMENTS.name, *ticks, CANDLES.name, COVERAGE.name, QUALITY.name]
    return [table for table in tables if not is_out(store, settings, table, day)]


def partitions(settings: DuckDBWarehouse | BigQueryWarehouse) -> dict[str, set[str]]:
    """Return by day the tables of which the warehouse has a partition, regardless of the ledger."""
    if isinstance(settings, DuckDBWarehouse):
        folder = Path(resolve(settings.folder)).expanduser()
        there = [(file.parent.name, file.stem) for file in folder.glob("*/*.parquet")]
    else:
        from backfill_assets.warehouse.bigquery import partitions_of

        rows = partitions_of(settings)
        there = [(name, f"{day[:4]}-{day[4:6]}-{day[6:]}") for (name, day), count in rows.items() if count]
    names, found = {table.name for table in TABLES}, defaultdict[str, set[str]](set)
    for table, day in there:
        if table in names and is_day(day):
            found[day].add(table)
    return found


def published_lag(store: Store, day: str) -> timedelta | None:
    """Time from 09:00 UTC of the next day to the day's last publication; None if a table is not out."""
    entries = [ledger.entry(store, table.name, day) for table in OF_EVERY_DAY]
    published = [entry.published.published_at for entry in entries if entry and entry.published]
    if len(published) < len(OF_EVERY_DAY):
        return None
    return max(published) - datetime.combine(parse_day(day) + timedelta(days=1), ASKED_AT, UTC)


def is_out(store: Store, settings: Settings, table: str, day: str) -> bool:
    """Whether the table's partition is published, and exists at full size."""
    entry = ledger.entry(store, table, day)
    if entry is None or entry.state != "done":
        return False
    warehouse = settings.warehouse
    if entry.published is None:
        return True
    if not isinstance(warehouse, DuckDBWarehouse):
        return _is_in_bigquery(warehouse, table, day, entry.published)
    folder = Path(resolve(warehouse.folder)).expanduser()
    return has_size(folder, table, day, entry.published.content) and has_database(folder)


def _is_in_bigquery(warehouse: BigQueryWarehouse, table: str, day: str, published: ledger.Published) -> bool:
    """Whether the partition has as many rows as were published; an earlier answer cannot tell."""
    known_from = published.published_at + _CLOCKS_DIFFER
    asked, tables = _TABLES.get(warehouse, _KNOWN_FOR)
    if tables is not None and table not in tables:
        if asked < known_from:
            _, tables = _TABLES.get(warehouse, timedelta())
        if tables is not None and table not in tables:
            return False
    asked, partitions = _PARTITIONS.get(warehouse, _PARTITIONS_KNOWN_FOR)
    if partitions is None or asked < known_from:
        return True
    return partitions.get((table, day.replace("-", "")), 0) == published.rows


class _Answers(Generic[Key, Answer]):
    """Answers of a service, each kept for a while. Their number is bounded; threads may share them."""

    def __init__(self, ask: Callable[[Key], Answer]) -> None:
        self._ask = ask
        self._keeping = threading.Lock()
        self._asking: dict[Key, threading.Lock] = {}
        #: Time of the request, and the answer; None if there was none.
        self._seen: dict[Key, tuple[datetime, Answer | None]] = {}

    def get(self, key: Key, known_for: timedelta) -> tuple[datetime, Answer | None]:
        """Return the time of a request no older than this, and its answer; None if the service gave none."""
        with self._keeping:
            asking = self._asking.setdefault(key, threading.Lock())
        with asking:
            seen = self._seen.get(key, (_NEVER, None))
            now = utc_now()
            if now - seen[0] > known_for:
                seen = now, self._asked(key)
                with self._keeping:
                    # The oldest are first.
                    self._seen.pop(key, None)
                    self._seen[key] = seen
                    for oldest, (asked, _) in list(self._seen.items()):
                        if now - asked <= _PARTITIONS_KNOWN_FOR and len(self._seen) <= _MOST_ANSWERS:
                            break
                        del self._seen[oldest]
                        self._asking.pop(oldest, None)
            return seen

    def _asked(self, key: Key) -> Answer | None:
        try:
            return self._ask(key)
        except BackfillError as failure:
            LOGGER.warning("%s: stored and published data is assumed to be there", failure)
            return None


def _tables(warehouse: BigQueryWarehouse) -> frozenset[str]:
    from backfill_assets.warehouse.bigquery import tables_of

    return tables_of(warehouse)


def _partitions(warehouse: BigQueryWarehouse) -> Mapping[tuple[str, str], int]:
    from backfill_assets.warehouse.bigquery import partitions_of

    return partitions_of(warehouse)


_TABLES: Final = _Answers(_tables)
_PARTITIONS: Final = _Answers(_partitions)
_OBJECTS: Final[_Answers[tuple[Store, str], Mapping[str, int]]] = _Answers(lambda key: key[0].sizes(key[1]))
