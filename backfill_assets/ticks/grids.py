"""The valid price steps of a day's feeds: the increments of the day's instruments, by feed.

They are read from the lake once per day. If the instruments have no increments (the exchange details lack
them), there is no entry, and prices are not compared with a grid.
"""

from __future__ import annotations

from collections.abc import Mapping

from backfill_assets.feeds import Feed
from backfill_assets.lake.listing import read_instruments
from backfill_assets.lake.parallel import parallel_map
from backfill_assets.lake.store import Store
from backfill_assets.tardis.metadata import dataset_symbol
from backfill_assets.ticks.prices import Grids

#: If an increment changed during the day, both values are valid all day: rows are not separated by time.
_INCREMENTS = ("price_increment", "price_increment_end")


def price_grids(store: Store, day: str, expected: Mapping[Feed, Mapping[str, str]]) -> dict[Feed, Grids]:
    """Return the price steps by the texts of each file's symbol column.

    Parameters
    ----------
    expected
        The day's feeds, each with the texts of its symbol column and their canonical symbols.
    """
    exchanges = sorted({feed.exchange for feed in expected})
    found = dict(
        zip(
            exchanges,
            parallel_map(lambda e: _steps(store, e, day), exchanges, store.parallel_reads),
            strict=True,
        )
    )

    def of_feed(feed: Feed, texts: Mapping[str, str]) -> Grids:
        steps = found[feed.exchange]
        names = {text: dataset_symbol(text) if feed.is_grouped else feed.dataset_symbol for text in texts}
        return {text: steps[name] for text, name in names.items() if name in steps}

    return {feed: of_feed(feed, texts) for feed, texts in expected.items()}


def _steps(store: Store, exchange: str, day: str) -> dict[str, tuple[float, ...]]:
    """Increments by data set symbol."""
    table = read_instruments(store, exchange, day)
    if table is None:
        return {}
    columns = [name for name in _INCREMENTS if name in table.column_names]
    rows = table.select(["dataset_symbol", *columns]).to_pylist()
    known = {row["dataset_symbol"]: [row[name] for name in columns] for row in rows}
    return {name: tuple(s for s in steps if s is not None) for name, steps in known.items() if any(steps)}
