"""The rows of the instruments table: instruments listed on a day, with the values valid on that day.

Pure functions of the vendor's answer and the day's universe; fetching, storing and judging are elsewhere. The
same answer always makes the same table, in the same order.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

import pyarrow as pa

from backfill_assets.columns import arrow_schema
from backfill_assets.contracts import TERMS, contract_changes
from backfill_assets.days import parse_day, time_us
from backfill_assets.feeds import ExpectedFeed
from backfill_assets.instruments.schemas import INSTRUMENT_COLUMNS
from backfill_assets.tardis.metadata import Instrument, InstrumentList, day_bounds, listed_on

#: Incremented when the same answer makes different rows or findings.
ROWS_VERSION: Final = 3
#: Rows stamped further than this outside the day of their file are misplaced; equals
#: ``thresholds.seam_window_seconds``.
MARGIN: Final = timedelta(hours=1)


def expected_names(exchange: str, expected: Sequence[ExpectedFeed]) -> set[str]:
    """The symbols of the exchange that the day's feeds name."""
    return {
        name
        for feed in expected
        if feed.feed.exchange == exchange
        for name in (feed.feed.dataset_symbol, *(value for value, _ in feed.symbols))
    }


def instrument_rows(exchange: str, day: str, instruments: InstrumentList, names: Collection[str]) -> pa.Table:
    """Make one row per instrument listed on the day, ordered by data set symbol and id.

    Values are those valid at the start of the day (or at the start of the vendor's data, if that is later):
    the vendor's ``changes`` are undone back to that time. ``active`` is derived from the day; the vendor's
    flag describes the day of the request.

    Parameters
    ----------
    names
        The result of ``expected_names``; fills the column ``expected``.
    """
    listed = [i for i in instruments.instruments if listed_on(i.available_since, i.available_to, day)]
    listed.sort(key=lambda i: (i.dataset_symbol, i.id))
    # Duplicates in the vendor's list are dropped: the table's key is exchange and data set symbol.
    once = {i.dataset_symbol: i for i in reversed(listed)}
    rows = [_row(exchange, day, once[name], instruments.source, names) for name in sorted(once)]
    shared = Counter(row["symbol"] for row in rows if row["type"] == "perpetual")
    for row in rows:
        if shared[row["symbol"]] > 1:
            row["symbol"] = row["dataset_symbol"]
    return pa.Table.from_pylist(rows, schema=arrow_schema(INSTRUMENT_COLUMNS))


def _row(
    exchange: str, day: str, instrument: Instrument, source: str, names: Collection[str]
) -> dict[str, Any]:
    start, end = day_bounds(day)
    valid = instrument.as_of(max(start, instrument.available_since))
    ended_as = instrument.as_of(end - timedelta(microseconds=1)).price_increment
    stored = {column.name for column in INSTRUMENT_COLUMNS}
    ended = [moment for moment in (valid.available_to, valid.expiry) if moment is not None]
    return {
        **{name: value for name, value in valid if name in stored},
        "date": parse_day(day),
        "exchange": exchange,
        # As in candles: a market without currencies is named by its data set symbol.
        "symbol": valid.market or valid.dataset_symbol,
        "dataset_symbol": valid.dataset_symbol,
        "instrument_id": valid.id,
        "price_increment_end": ended_as if ended_as != valid.price_increment else None,
        "contract_changes": _contract_changes(instrument, start - MARGIN, end + MARGIN),
        "active": all(moment >= end for moment in ended),
        "expected": valid.dataset_symbol in names or valid.id.upper() in names,
        "source": source,
    }


def _contract_changes(instrument: Instrument, first: datetime, beyond: datetime) -> str | None:
    """The terms of the contract over time, where they change between the two moments."""
    changed = {change.until for change in instrument.changes if first < change.until < beyond}
    stretches = [(time_us(moment), instrument.as_of(moment)) for moment in (first, *sorted(changed))]
    return contract_changes(
        [(since_us, {name: getattr(then, name) for name in TERMS}) for since_us, then in stretches]
    )
