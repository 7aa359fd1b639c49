"""A day's overall score from lake and ledger: its scores, and which tables are confirmed.

No warehouse is opened, so publishing and the pages show the same from the same two sources.
``quality.scores`` combines the parts.
"""

from __future__ import annotations

from backfill_assets.lake.parallel import parallel_map
from backfill_assets.lake.store import Store
from backfill_assets.quality.scores import Overall, overall
from backfill_assets.quality.settled import Day
from backfill_assets.settings import OverallSettings
from backfill_assets.warehouse import ledger
from backfill_assets.warehouse.catalog import CANDLES, COVERAGE, INSTRUMENTS, TICKS
from backfill_assets.warehouse.tables import Table


def tick_tables(store: Store, found: Day) -> list[Table]:
    """Return the tables of the data types that the day should have, and those that still have rows of it.

    When the last feed of a data type is dropped, its rows must leave the table.
    """
    expected = {feed.feed.data_type for feed in found.feeds}
    others = [table for data_type, table in TICKS.items() if data_type not in expected]
    entries = parallel_map(lambda t: ledger.entry(store, t.name, found.day), others, store.parallel_reads)
    left = {table.name for table, entry in zip(others, entries, strict=True) if _may_have_rows(entry)}
    return [table for data_type, table in TICKS.items() if data_type in expected or table.name in left]


def _may_have_rows(entry: ledger.Entry | None) -> bool:
    if entry is None:
        return False
    return entry.state != "done" or entry.published is None or entry.published.rows > 0


def day_overall(store: Store, found: Day, weights: OverallSettings) -> Overall:
    """Return parts and sums of the day, from the current lake and ledger.

    A table is confirmed when it is published, because only totals that were read back make an entry done.
    """
    ticks = [table.name for table in tick_tables(store, found)]
    tables = [INSTRUMENTS.name, *ticks, CANDLES.name, COVERAGE.name]
    entries = parallel_map(lambda name: ledger.entry(store, name, found.day), tables, store.parallel_reads)
    confirmed = found.scores.state != "held" and all(e is not None and e.state == "done" for e in entries)
    return overall(found.scores, found.settled.instruments, 1.0 if confirmed else 0.0, weights)
