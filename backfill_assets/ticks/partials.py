"""Trades of one file into partial candles of the base timeframe, one minute each.

``candles`` merges those of the file's own day and the seams beside it into days of candles; ``restatements``
compares those of two versions of a file. The file is read in batches; memory is one batch and one state row
per symbol and minute.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from backfill_assets.contracts import Contract, Contracts
from backfill_assets.days import MICROSECONDS_PER_MINUTE, MICROSECONDS_PER_SECOND, end_us, start_us
from backfill_assets.ticks.schemas import PARTIAL_SCHEMA, PRICES, SUMS

if TYPE_CHECKING:
    from backfill_assets.ticks.partial_kernels import Floats, Ints

BATCH_ROWS: Final = 500_000
#: More symbols than any file has: a minute and the number of a symbol are one integer.
_MOST_SYMBOLS: Final = 1 << 20

_COLUMNS: Final = ("timestamp", "id", "side", "price", "amount")
_SPOT: Final = (Contract(),)


def partial_candles(
    ticks: Path,
    *,
    exchange: str,
    day: str,
    seam_window_seconds: int,
    numeric_ids: bool,
    contracts: Mapping[str, Contracts] | None = None,
    left_out: Ints | None = None,
) -> pa.Table:
    """Partial candles of one ticks file, as far as days of candles are made of them.

    Parameters
    ----------
    day
        The file's day; buckets reach ``seam_window_seconds`` beyond it on both sides.
    left_out
        Numbers of the rows that count elsewhere: they repeat a trade of this file or of the day before's.

    Returns
    -------
    pyarrow.Table
        ``PARTIAL_SCHEMA``, sorted by symbol and open_time; misplaced rows, those without a canonical symbol
        and those that ``minute_candles`` leaves out are in none. Sums are null where the contract of a trade
        is not known.
    """
    table = minute_candles(ticks, numeric_ids=numeric_ids, contracts=contracts, left_out=left_out)
    first_us, beyond_us = seam_window(day, seam_window_seconds)
    opened = table["open_time"].cast(pa.int64())
    table = table.filter(pc.and_(pc.greater_equal(opened, first_us), pc.less(opened, beyond_us)))
    names = pa.array([exchange] * table.num_rows, pa.string())
    return table.add_column(0, "exchange", names).cast(PARTIAL_SCHEMA).combine_chunks()


def seam_window(day: str, seam_window_seconds: int) -> tuple[int, int]:
    """The whole minutes that a day's file counts for: the first microsecond, and the first beyond."""
    margin_us = -(-seam_window_seconds * MICROSECONDS_PER_SECOND // MICROSECONDS_PER_MINUTE)
    margin_us *= MICROSECONDS_PER_MINUTE
    return start_us(day) - margin_us, end_us(day) + margin_us


def minute_candles(
    ticks: Path,
    *,
    numeric_ids: bool,
    contracts: Mapping[str, Contracts] | None = None,
    left_out: Ints | None = None,
    every_symbol: bool = False,
) -> pa.Table:
    """Partial candles of every minute with trades in the file, on any day.

    Parameters
    ----------
    ticks
        Parquet file of trades as ``ticks.decode`` writes it.
    numeric_ids
        Whether every id is an integer, and ids are an order; otherwise ties of time are broken by row alone.
    contracts
        By canonical symbol; symbols that are not named are spot.
    left_out
        Numbers of rows to leave out, ascending.
    every_symbol
        Whether every row counts, under its data set symbol instead of the canonical one.

    Returns
    -------
    pyarrow.Table
        ``PARTIAL_SCHEMA`` without the exchange, sorted by symbol and open_time. Rows whose price or amount is
        null or outside its sane range are in none.
    """
    from backfill_assets.ticks import partial_kernels as kernels
    from backfill_assets.ticks.jit import prove_indices

    contracts = contracts or {}
    excluded = np.empty(0, np.int64) if left_out is None else left_out
    first = 0
    symbols: dict[str, int] = {}
    #: State rows by minute and symbol.
    rows: dict[int, int] = {}
    integers = np.zeros((0, kernels.INTEGER_COLUMNS), np.int64)
    floats = np.zeros((0, kernels.FLOAT_COLUMNS))
    for batch in _batches(ticks, every_symbol=every_symbol):
        ids = np.full(batch.num_rows, kernels.NO_ID, np.int64)
        if numeric_ids:
            ids = np.array(batch["id"].cast(pa.int64()).to_numpy(zero_copy_only=False))
        symbol = _numbered(batch["symbol"], symbols)
        time_us = batch["timestamp"].cast(pa.int64()).to_numpy(zero_copy_only=False)
        key = time_us // MICROSECONDS_PER_MINUTE * _MOST_SYMBOLS + symbol
        out = symbol < 0
        here = np.searchsorted(excluded, (first, first + batch.num_rows))
        out[excluded[here[0] : here[1]] - first] = True
        first += batch.num_rows
        row = _numbered(pa.array(key, mask=out).dictionary_encode(), rows)
        if len(rows) > len(integers):
            # At least doubled, so that the rows of a large file are not copied with every batch.
            size = max(len(rows), 2 * len(integers))
            integers.resize((size, kernels.INTEGER_COLUMNS), refcheck=False)
            floats.resize((size, kernels.FLOAT_COLUMNS), refcheck=False)
        unit, units = _units(symbol, time_us, [contracts.get(name, _SPOT) for name in symbols])
        prove_indices(row, len(integers), "rows of candles", least=-1)
        prove_indices(unit, len(units), "contracts of trades", least=-1)
        kernels.accumulate(  # type: ignore[no-untyped-call]
            time_us,
            ids,
            pc.fill_null(batch["price"], float("nan")).to_numpy(zero_copy_only=False),
            pc.fill_null(batch["amount"], float("nan")).to_numpy(zero_copy_only=False),
            _numbered(batch["side"], {"buy": kernels.SIDE_BUY, "sell": kernels.SIDE_SELL}),
            unit,
            row,
            np.array([u.multiplier for u in units], np.float64),  # NaN for None
            np.array([u.inverse for u in units], np.bool_),
            integers,
            floats,
        )
    minute, symbol = np.divmod(np.fromiter(rows, np.int64, len(rows)), _MOST_SYMBOLS)
    names = np.array(list(symbols), dtype=object)[symbol]
    return _table(names, minute * MICROSECONDS_PER_MINUTE, integers[: len(rows)], floats[: len(rows)])


def _batches(ticks: Path, *, every_symbol: bool) -> Iterator[pa.RecordBatch]:
    """The file's rows, batch by batch."""
    names = ["dataset_symbol" if every_symbol else "symbol"]
    with pq.ParquetFile(ticks, read_dictionary=["symbol", "side"]) as file:
        for batch in file.iter_batches(batch_size=BATCH_ROWS, columns=[*names, *_COLUMNS]):
            if every_symbol:
                symbol = batch["dataset_symbol"].cast(pa.string())
                batch = batch.set_column(0, "symbol", symbol.dictionary_encode())
            yield batch


def _numbered(column: pa.DictionaryArray, numbers: dict[Any, int]) -> Ints:
    """The number of each value; a value without one gets the next, and null is -1."""
    table = [numbers.setdefault(value, len(numbers)) for value in column.dictionary.to_pylist()]
    indices = pc.fill_null(column.indices, -1).to_numpy(zero_copy_only=False)
    return np.asarray(np.array([*table, -1], np.int64)[indices], np.int64)


def _units(symbol: Ints, time_us: Ints, contracts: Sequence[Contracts]) -> tuple[Ints, list[Contract]]:
    """The contract of each trade as a place in the list: the symbols' first ones, then those that follow."""
    units, unit = [first for first, *_ in contracts], symbol
    for number, of_symbol in enumerate(contracts):
        for contract in of_symbol[1:]:
            unit = np.where((symbol == number) & (time_us >= contract.since_us), len(units), unit)
            units.append(contract)
    return unit, units


def _table(symbols: object, open_time: Ints, integers: Ints, floats: Floats) -> pa.Table:
    from backfill_assets.ticks import partial_kernels as kernels

    times = pa.timestamp("us", tz="UTC")
    columns: dict[str, pa.Array] = {
        "symbol": pa.array(symbols, pa.string()),
        "open_time": pa.array(open_time, times),
        "trade_count": pa.array(integers[:, kernels.COUNT]),
        "first_trade_time": pa.array(integers[:, kernels.FIRST], times),
        "last_trade_time": pa.array(integers[:, kernels.LAST], times),
        "open_id": pa.array(integers[:, kernels.OPEN_ID]),
        "close_id": pa.array(integers[:, kernels.CLOSE_ID]),
    }
    for i, name in enumerate(PRICES):
        columns[name] = pa.array(floats[:, i])
    unknown = np.isnan(floats[:, kernels.VOLUME])
    for i, name in enumerate(SUMS):
        columns[name] = pa.array(floats[:, kernels.VOLUME + 2 * i], mask=unknown)
        columns[f"{name}_error"] = pa.array(floats[:, kernels.VOLUME + 2 * i + 1], mask=unknown)
    schema = PARTIAL_SCHEMA.remove(PARTIAL_SCHEMA.get_field_index("exchange"))
    table = pa.table([columns[name] for name in schema.names], schema=schema)
    traded = table.filter(pc.greater(table["trade_count"], 0))
    return traded.sort_by([("symbol", "ascending"), ("open_time", "ascending")])
