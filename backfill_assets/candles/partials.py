"""Trades of one file into partial candles of the base timeframe, for its own day and the seams beside it.

The file is read in row groups; memory is one batch and one state row per symbol and minute.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from backfill_assets.candles.schemas import PARTIAL_SCHEMA
from backfill_assets.days import MICROSECONDS_PER_MINUTE, MICROSECONDS_PER_SECOND, end_us, start_us

if TYPE_CHECKING:
    from backfill_assets.candles.kernels import Floats, Ints

BASE_TIMEFRAME: Final = "1m"
BASE_US: Final = MICROSECONDS_PER_MINUTE
BATCH_ROWS: Final = 500_000

_COLUMNS: Final = ["symbol", "timestamp", "id", "side", "price", "amount"]
_SUMS: Final = ("volume", "quote_volume", "buy_volume", "sell_volume")


@dataclass(frozen=True, slots=True)
class Contract:
    """What one unit of a feed's ``amount`` is: ``multiplier`` base units, or quote units if ``inverse``."""

    multiplier: float = 1.0
    inverse: bool = False


SPOT: Final = Contract()


@dataclass(frozen=True, slots=True)
class Batch:
    """Columns of up to ``BATCH_ROWS`` trades, as the accumulate kernel takes them."""

    time_us: Ints
    ids: Ints
    price: Floats
    amount: Floats
    side: Ints
    key: Ints


def partial_candles(
    ticks: Path,
    *,
    exchange: str,
    day: str,
    seam_window_seconds: int,
    numeric_ids: bool,
    contracts: Mapping[str, Contract] | None = None,
    exclude_ids: frozenset[int] = frozenset(),
) -> pa.Table:
    """Partial base candles of one ticks file.

    Parameters
    ----------
    ticks
        Parquet file of trades as ``ticks.decode`` writes it.
    day
        The file's day; buckets reach ``seam_window_seconds`` beyond it on both sides.
    numeric_ids
        Whether every id is an integer; otherwise ties of time are broken by row alone.
    contracts
        By canonical symbol; symbols that are not named are spot.
    exclude_ids
        Ids that an accepted neighbour's file holds already.

    Returns
    -------
    pyarrow.Table
        ``PARTIAL_SCHEMA``, sorted by symbol and open_time; invalid and misplaced rows are left out.
    """
    from backfill_assets.candles import kernels

    margin = -(-seam_window_seconds * MICROSECONDS_PER_SECOND // BASE_US)
    first_us = start_us(day) - margin * BASE_US
    buckets = (end_us(day) - start_us(day)) // BASE_US + 2 * margin
    symbols: dict[str, int] = {}
    integers = np.zeros((0, kernels.INTEGER_COLUMNS), np.int64)
    floats = np.zeros((0, kernels.FLOAT_COLUMNS))
    contracts = contracts or {}
    for batch in _batches(ticks, symbols, numeric_ids=numeric_ids, exclude_ids=exclude_ids):
        if len(symbols) * buckets > len(integers):
            grow = len(symbols) * buckets - len(integers)
            integers = np.vstack([integers, np.zeros((grow, kernels.INTEGER_COLUMNS), np.int64)])
            floats = np.vstack([floats, np.zeros((grow, kernels.FLOAT_COLUMNS))])
        units = [contracts.get(symbol, SPOT) for symbol in symbols]
        kernels.accumulate(
            batch.time_us,
            batch.ids,
            batch.price,
            batch.amount,
            batch.side,
            batch.key,
            np.array([u.multiplier for u in units]),
            np.array([u.inverse for u in units], np.bool_),
            first_us,
            BASE_US,
            buckets,
            integers,
            floats,
        )
    # Keys stand in the order of first appearance; the table is sorted by name so that its bytes are fixed.
    used = np.flatnonzero(integers[:, kernels.COUNT])
    names = np.array(list(symbols), dtype=object)
    rank = np.argsort(np.argsort(names)) if symbols else np.zeros(0, np.int64)
    used = used[np.lexsort((used % buckets, rank[used // buckets]))] if len(used) else used
    return _table(
        exchange,
        names[used // buckets],
        first_us + (used % buckets) * BASE_US,
        integers[used],
        floats[used],
    )


def _batches(
    ticks: Path, symbols: dict[str, int], *, numeric_ids: bool, exclude_ids: frozenset[int]
) -> Iterator[Batch]:
    """Read the file batch by batch; ``symbols`` grows by the canonical symbols met, in order."""
    from backfill_assets.candles import kernels

    sides = {"buy": kernels.SIDE_BUY, "sell": kernels.SIDE_SELL}
    excluded = np.fromiter(exclude_ids, np.int64, len(exclude_ids))
    with pq.ParquetFile(ticks, read_dictionary=["symbol", "side"]) as file:
        for record in file.iter_batches(batch_size=BATCH_ROWS, columns=_COLUMNS):
            if record.num_rows == 0:
                continue
            ids = np.full(record.num_rows, kernels.NO_ID, np.int64)
            if numeric_ids:
                ids = np.array(pc.cast(record["id"], pa.int64()).to_numpy(zero_copy_only=False))
            names = record["symbol"].dictionary.to_pylist()
            for name in names:
                symbols.setdefault(name, len(symbols))
            key = _codes(record["symbol"], [symbols[name] for name in names])
            if len(excluded):
                key = np.where(np.isin(ids, excluded), -1, key)
            yield Batch(
                time_us=record["timestamp"].cast(pa.int64()).to_numpy(zero_copy_only=False),
                ids=ids,
                price=pc.fill_null(record["price"], float("nan")).to_numpy(zero_copy_only=False),
                amount=pc.fill_null(record["amount"], float("nan")).to_numpy(zero_copy_only=False),
                side=_codes(
                    record["side"],
                    [sides.get(name, kernels.SIDE_UNKNOWN) for name in record["side"].dictionary.to_pylist()],
                ),
                key=key,
            )


def _codes(column: pa.DictionaryArray, codes: list[int]) -> Ints:
    """Translate a dictionary column into ``codes``; null becomes -1."""
    table = np.array([*codes, -1], np.int64)
    indices = pc.fill_null(column.indices, -1).to_numpy(zero_copy_only=False)
    return np.asarray(table[indices], np.int64)


def _table(exchange: str, symbols: object, open_time: Ints, integers: Ints, floats: Floats) -> pa.Table:
    from backfill_assets.candles import kernels

    rows = len(open_time)
    times = pa.timestamp("us", tz="UTC")
    columns: dict[str, pa.Array] = {
        "exchange": pa.array([exchange] * rows, pa.string()),
        "symbol": pa.array(symbols, pa.string()),
        "open_time": pa.array(open_time, times),
        "trade_count": pa.array(integers[:, kernels.COUNT]),
        "first_trade_time": pa.array(integers[:, kernels.FIRST], times),
        "last_trade_time": pa.array(integers[:, kernels.LAST], times),
        "open_id": pa.array(integers[:, kernels.OPEN_ID]),
        "close_id": pa.array(integers[:, kernels.CLOSE_ID]),
    }
    for i, name in enumerate(("open", "high", "low", "close")):
        columns[name] = pa.array(floats[:, i])
    for i, name in enumerate(_SUMS):
        columns[name] = pa.array(floats[:, kernels.VOLUME + 2 * i])
        columns[f"{name}_error"] = pa.array(floats[:, kernels.VOLUME + 2 * i + 1])
    return pa.table([columns[name] for name in PARTIAL_SCHEMA.names], schema=PARTIAL_SCHEMA)
