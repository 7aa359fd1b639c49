"""Makes partial candles of the base timeframe, one minute each, from the trades of one file.

``candles`` merges the partial candles of the file's own day and of the seams beside it into days of candles;
``restatements`` compares those of two versions of a file. The rows come from the pass that decodes the file,
or in batches from the stored file, with the same candles. Memory is one batch and one state row per symbol
and minute.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from backfill_assets.contracts import Contract, Contracts
from backfill_assets.days import MICROSECONDS_PER_MINUTE, MICROSECONDS_PER_SECOND, end_us, start_us
from backfill_assets.feeds import Feed
from backfill_assets.lake import paths
from backfill_assets.lake.store import Store
from backfill_assets.lake.tables import DataFile, store_table
from backfill_assets.ticks.profile import Rows
from backfill_assets.ticks.schemas import PARTIAL_SCHEMA, PRICES, SUMS

if TYPE_CHECKING:
    from backfill_assets.ticks.partial_kernels import Floats, Ints

#: Increase it when the kernels' results or the partials' columns change.
PARTIALS_VERSION: Final = 3
BATCH_ROWS: Final = 1 << 16
#: A window that leaves no trade out.
ALWAYS: Final = (-(1 << 62), 1 << 62)
#: Initial room: a day of one symbol with its seams.
_LEAST_CANDLES: Final = 1 << 11
_NO_SIDE: Final = 255
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
    """Partial candles of one tick file, limited to those that make days of candles.

    Parameters
    ----------
    day
        The file's day; buckets reach ``seam_window_seconds`` beyond it on both sides.
    left_out
        Numbers of the rows that count elsewhere: they repeat a trade of this file or of the day before.

    Returns
    -------
    pyarrow.Table
        ``PARTIAL_SCHEMA``, sorted by symbol and open_time, without misplaced rows, rows without a canonical
        symbol and rows that ``minute_candles`` leaves out. Sums are null if the contract of a trade is not
        known.
    """
    window = seam_window(day, seam_window_seconds)
    table = minute_candles(
        ticks, numeric_ids=numeric_ids, contracts=contracts, left_out=left_out, window=window
    )
    return of_exchange(exchange, table)


def of_exchange(exchange: str, candles: pa.Table) -> pa.Table:
    """The candles in ``PARTIAL_SCHEMA``, in one chunk."""
    names = pa.array([exchange] * candles.num_rows, pa.string())
    return candles.add_column(0, "exchange", names).cast(PARTIAL_SCHEMA).combine_chunks()


def store_partials(store: Store, feed: Feed, day: str, candles: pa.Table) -> DataFile:
    """Store the partial candles of a feed's file; only this package reads them, and always whole."""
    return store_table(
        store,
        candles,
        lambda content: paths.partials_data(feed, day, content),
        use_dictionary=["exchange", "symbol"],
        write_statistics=False,
    )


def seam_window(day: str, seam_window_seconds: int) -> tuple[int, int]:
    """The whole minutes that a day's file counts for: the first microsecond, and the first one after them."""
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
    window: tuple[int, int] = ALWAYS,
) -> pa.Table:
    """Partial candles of every minute with trades in the file, on any day.

    Parameters
    ----------
    ticks
        Parquet file of trades as ``ticks.decode`` writes it.
    numeric_ids
        Whether every id is an integer and ids give the order; otherwise the row alone breaks ties of time.
    contracts
        By canonical symbol; symbols that are not named are spot.
    left_out
        Numbers of rows to leave out, ascending.
    every_symbol
        Whether every row counts, under its data set symbol instead of the canonical one.
    window
        First microsecond of the trades that count, and the first microsecond after them.

    Returns
    -------
    pyarrow.Table
        ``PARTIAL_SCHEMA`` without the exchange, sorted by symbol and open_time. Rows with a price or amount
        that is null or outside its sane range are left out.
    """
    excluded = np.empty(0, np.int64) if left_out is None else left_out
    made = MinuteCandles(by_id=numeric_ids, contracts=contracts, window=window)
    first = 0
    for batch in _batches(ticks, numeric_ids=numeric_ids, every_symbol=every_symbol):
        time_us = batch["timestamp"].cast(pa.int64()).to_numpy(zero_copy_only=False)
        codes = np.array([*map(made.code, batch["symbol"].dictionary.to_pylist()), -1], np.int32)
        codes = codes[pc.fill_null(batch["symbol"].indices, -1).to_numpy(zero_copy_only=False)]
        here = np.searchsorted(excluded, (first, first + batch.num_rows))
        codes[excluded[here[0] : here[1]] - first] = -1
        first += batch.num_rows
        price, amount = (
            pc.fill_null(batch[name], float("nan")).to_numpy(zero_copy_only=False)
            for name in ("price", "amount")
        )
        ids = batch["id"].cast(pa.int64()).to_numpy(zero_copy_only=False) if numeric_ids else time_us
        rows = Rows(time_us, time_us, codes, price, amount, _sides(batch["side"]), ids)
        made.add(rows, 0, batch.num_rows)
    return made.table()


class MinuteCandles:
    """Partial candles of the rows of a file.

    Rows are added in their order; their division into batches does not change the candles.

    Parameters
    ----------
    by_id, contracts, window
        As for ``minute_candles``.
    """

    def __init__(
        self,
        *,
        by_id: bool,
        contracts: Mapping[str, Contracts] | None = None,
        window: tuple[int, int] = ALWAYS,
    ) -> None:
        from backfill_assets.ticks import jit, partial_kernels

        self._k: Any = partial_kernels
        self._prove_indices = jit.prove_indices
        self.by_id = by_id
        self._contracts = contracts or {}
        self._window = window
        self._symbols: dict[str, int] = {}
        self._codes: dict[str, int] = {}
        self._symbol_of = np.empty(0, np.int64)
        self._units: tuple[Any, ...] = ()
        self._count = 0
        self._keys = np.empty(0, np.int64)
        self._integers = np.empty((0, self._k.INTEGER_COLUMNS), np.int64)
        self._floats = np.empty((0, self._k.FLOAT_COLUMNS))
        self._grow()

    def code(self, symbol: str) -> int:
        """The code of a canonical symbol; a new symbol gets the next code."""
        if symbol not in self._codes:
            self._codes[symbol] = self.register(symbol)
        return self._codes[symbol]

    def register(self, symbol: str | None) -> int:
        """Give the next code to a symbol, which may have other codes; rows of None do not count."""
        number = -1 if symbol is None else self._symbols.setdefault(symbol, len(self._symbols))
        self._symbol_of = np.append(self._symbol_of, number)
        self._units = ()
        return len(self._symbol_of) - 1

    def add(self, rows: Rows, start: int, stop: int) -> None:
        """Add the trades from ``start`` to before ``stop``, without those with a negative code."""
        if not 0 <= start <= stop <= rows.count:
            msg = f"trades {start} to {stop} of {rows.count}"
            raise IndexError(msg)
        self._prove_indices(rows.codes[start:stop], len(self._symbol_of), "symbols of trades", least=-1)
        units = self._units = self._units or self._arranged()
        while True:
            self._count, start = self._k.accumulate(
                rows.times, rows.ids, rows.price, rows.amount, rows.side, rows.codes, start, stop,
                self._symbol_of, self.by_id, *self._window, *units, self._table, self._keys, self._count,
                self._integers, self._floats,
            )  # fmt: skip
            if start == stop:
                return
            self._grow()

    def _grow(self) -> None:
        size = max(2 * len(self._keys), _LEAST_CANDLES)
        self._keys.resize(size, refcheck=False)
        self._integers.resize((size, self._k.INTEGER_COLUMNS), refcheck=False)
        self._floats.resize((size, self._k.FLOAT_COLUMNS), refcheck=False)
        self._table = np.full(2 * size, -1, np.int32)
        self._k.index_keys(self._table, self._keys, self._count)

    def _arranged(self) -> tuple[Any, ...]:
        """The contracts of all symbols, one after the other, and the start of each symbol's contracts."""
        of_symbols = [self._contracts.get(symbol, _SPOT) for symbol in self._symbols]
        units = [contract for of_symbol in of_symbols for contract in of_symbol]
        return (
            np.cumsum([0, *map(len, of_symbols)]),
            np.array([unit.since_us for unit in units], np.int64),
            np.array([unit.multiplier for unit in units], np.float64),  # NaN for None
            np.array([unit.inverse for unit in units], np.bool_),
        )

    def table(self) -> pa.Table:
        """The candles of all rows added, as ``minute_candles`` returns them."""
        minute, symbol = np.divmod(self._keys[: self._count], self._k.MOST_SYMBOLS)
        names = np.array(list(self._symbols), dtype=object)[symbol]
        opened = minute * MICROSECONDS_PER_MINUTE
        return _table(names, opened, self._integers[: self._count], self._floats[: self._count])


def _batches(ticks: Path, *, numeric_ids: bool, every_symbol: bool) -> Iterator[pa.RecordBatch]:
    """The file's rows, batch by batch."""
    symbol = "dataset_symbol" if every_symbol else "symbol"
    columns = [symbol, "timestamp", "side", "price", "amount", *(["id"] if numeric_ids else [])]
    with pq.ParquetFile(ticks, read_dictionary=[symbol, "side"]) as file:
        for batch in file.iter_batches(batch_size=BATCH_ROWS, columns=columns):
            yield batch.rename_columns(["symbol" if n == symbol else n for n in batch.schema.names])


def _sides(column: pa.DictionaryArray) -> Any:
    """The kernels' code for the side of each row."""
    from backfill_assets.ticks import partial_kernels as kernels

    known = {"buy": kernels.SIDE_BUY, "sell": kernels.SIDE_SELL}
    numbers = np.array([*(known.get(v, _NO_SIDE) for v in column.dictionary.to_pylist()), _NO_SIDE], np.uint8)
    return numbers[pc.fill_null(column.indices, -1).to_numpy(zero_copy_only=False)]


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
