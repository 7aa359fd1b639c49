"""A day's overall score as lake and ledger say: which tables are proven, and which instruments are listed.

No warehouse is opened, so publishing and the pages tell the same from the same two sources. What the parts
mean together is ``quality.scores``.
"""

from __future__ import annotations

from backfill_assets.lake.gather import gather
from backfill_assets.lake.listing import read_instruments
from backfill_assets.lake.store import Store
from backfill_assets.quality.day import JudgedDay
from backfill_assets.quality.scores import Overall, instruments_share, overall
from backfill_assets.settings import OverallSettings
from backfill_assets.warehouse import ledger
from backfill_assets.warehouse.catalog import CANDLES, COVERAGE, INSTRUMENTS, TICKS
from backfill_assets.warehouse.tables import Table


def tick_tables(judged: JudgedDay) -> list[Table]:
    """The tables of the data types that the day is expected to have."""
    expected = {feed.feed.data_type for feed in judged.feeds}
    return [table for data_type, table in TICKS.items() if data_type in expected]


def day_overall(store: Store, judged: JudgedDay, weights: OverallSettings) -> Overall:
    """Parts and sums of the judged day, as lake and ledger are now.

    A table is proven when it is published, for only totals that were read back make an entry done.
    """
    ticks = [table.name for table in tick_tables(judged)]
    tables = [INSTRUMENTS.name, *ticks, CANDLES.name, COVERAGE.name]
    entries = gather(lambda name: ledger.entry(store, name, judged.day), tables, store.parallel_reads)
    proven = judged.scores.state != "held" and all(e is not None and e.state == "done" for e in entries)
    return overall(
        judged.scores,
        instruments_share([feed.feed for feed in judged.feeds], _listed(store, judged)),
        1.0 if proven else 0.0,
        weights,
    )


def _listed(store: Store, judged: JudgedDay) -> list[tuple[str, str]]:
    """(exchange, data set symbol) of every row of the day's instruments."""
    exchanges = sorted({feed.feed.exchange for feed in judged.feeds})
    tables = [(exchange, read_instruments(store, exchange, judged.day)) for exchange in exchanges]
    return [
        (exchange, symbol)
        for exchange, table in tables
        if table is not None
        for symbol in table["dataset_symbol"].to_pylist()
    ]
