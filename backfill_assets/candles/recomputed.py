"""Base candles of a stored file of trades, computed again by numpy for ``consistency``, without the kernels.

Files are read in batches. Each batch makes the candles of its own rows, and polars merges the candles of all
files at once, so memory holds one batch, and one row for each symbol and minute of a batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from backfill_assets.contracts import Contracts
from backfill_assets.days import MICROSECONDS_PER_MINUTE
from backfill_assets.feeds import SANE_AMOUNT, SANE_PRICE
from backfill_assets.ticks.repeats import Range
from backfill_assets.ticks.schemas import PRICES, SUMS

if TYPE_CHECKING:
    import polars as pl
    from numpy.typing import NDArray

    Ints = NDArray[np.int64]
    Floats = NDArray[np.float64]
    Bools = NDArray[np.bool_]

#: Rows of a batch: few enough for their columns to stay in a core's cache.
BATCH_ROWS: Final = 1 << 16
#: Rows that have ids and are equal in these columns are one trade.
_TRADE: Final = ("dataset_symbol", "id", "timestamp", "side", "price", "amount")


class OtherFile(NamedTuple):
    """Another file's ticks; a trade that is in both files counts there, not in the compared file."""

    ticks: Path
    #: First and last microsecond of the time in which both have rows.
    between: Range
    #: The data set symbols of both files, which name the same market.
    names: tuple[str, str]


@dataclass(frozen=True, slots=True)
class ComparedFile:
    """Ticks of one feed, the partials made from them, and everything else that these depend on."""

    ticks: Path
    #: ``PARTIAL_SCHEMA``.
    partials: pa.Table
    #: Whether every id is an integer and ids increase in order of trading.
    numeric_ids: bool
    contracts: Mapping[str, Contracts] = field(default_factory=dict)
    #: Whether rows may repeat a trade of the file.
    repeats: bool = False
    others: tuple[OtherFile, ...] = ()
    #: Data set symbols whose rows do not count.
    left_out: tuple[str, ...] = ()


def candles_again(files: Sequence[ComparedFile], first_us: int, beyond_us: int) -> pl.DataFrame:
    """Compute the base candles of each file's trades that count, in no order.

    Parameters
    ----------
    first_us, beyond_us
        The first microsecond of the trades that count, and the first one after them.

    Returns
    -------
    polars.DataFrame
        ``file`` (the place among the files), ``symbol``, ``open_time``, prices, ``trade_count``, first and
        last time of trades, and sums as ``PARTIAL_SCHEMA`` has them without their error terms; these are null
        where the contract of a trade is not known.
    """
    import polars as pl

    symbols: dict[str, int] = {}
    parts = [
        {**part, "file": np.full(len(part["open_time"]), number)}
        for number, file in enumerate(files)
        for part in _parts(file, first_us, beyond_us, symbols)
    ]
    times = dict.fromkeys(("open_time", "first_trade_time", "last_trade_time"), pl.Datetime("us", "UTC"))
    integers = dict.fromkeys(("trade_count", "open_id", "close_id"), pl.Int64)
    schema: dict[str, Any] = {"file": pl.Int32, "symbol": pl.Int64, **times, **integers}
    schema |= dict.fromkeys((*PRICES, *SUMS), pl.Float64)
    columns: dict[str, Any] = {
        name: np.concatenate([part[name] for part in parts]) if parts else [] for name in schema
    }
    return (
        pl.DataFrame(columns, schema)
        .group_by("file", "symbol", "open_time")
        .agg(
            pl.col("open").sort_by("first_trade_time", "open_id", maintain_order=True).first(),
            pl.col("high").max(),
            pl.col("low").min(),
            pl.col("close").sort_by("last_trade_time", "close_id", maintain_order=True).last(),
            pl.col("trade_count").sum(),
            pl.col("first_trade_time").min(),
            pl.col("last_trade_time").max(),
            *(pl.col(name).sum() for name in SUMS),
        )
        .with_columns(pl.when(~pl.col("volume").is_nan()).then(pl.col(name)).alias(name) for name in SUMS)
        .with_columns(
            pl.lit(pl.Series(list(symbols), dtype=pl.String)).gather(pl.col("symbol")).alias("symbol")
        )
    )


def _parts(
    file: ComparedFile, first_us: int, beyond_us: int, symbols: dict[str, int]
) -> Iterator[dict[str, Any]]:
    """Return the columns of the candles of each batch of the file; new symbols get the next numbers."""
    left_out, first_row = _rows_left_out(file), 0
    names = ["symbol", "timestamp", "side", "price", "amount", *(["id"] if file.numeric_ids else [])]
    with pq.ParquetFile(file.ticks, read_dictionary=["symbol", "side"]) as ticks:
        for batch in ticks.iter_batches(batch_size=BATCH_ROWS, columns=names):
            here = slice(*np.searchsorted(left_out, (first_row, first_row + batch.num_rows)))
            trades = _trades(batch, file.contracts, left_out[here] - first_row, first_us, beyond_us)
            if len(trades.row):
                present = batch["symbol"].dictionary.to_pylist()
                numbers = np.array([symbols.setdefault(name, len(symbols)) for name in present])
                yield _part(trades, batch, numbers)
            first_row += batch.num_rows


def _rows_left_out(file: ComparedFile) -> Ints:
    """Return the numbers of the rows that do not count, ascending.

    These rows repeat a trade of the file, or count in another file by themselves or by their symbol.
    """
    import polars as pl

    def scan(path: Path) -> pl.LazyFrame:
        return pl.scan_parquet(path, glob=False, hive_partitioning=False)

    has_id = pl.col("id").is_not_null() & (pl.col("id") != "")
    found = []
    if file.repeats:
        trades = scan(file.ticks).filter(has_id).select("row", *_TRADE).sort("row").collect()
        found.append(trades.filter(~pl.struct(_TRADE).is_first_distinct())["row"])
    if file.left_out:
        is_out = pl.col("dataset_symbol").is_in(file.left_out)
        found.append(scan(file.ticks).filter(is_out).select("row").collect()["row"])
    for path, (first_us, last_us), names in file.others:
        is_of_both = pl.col("timestamp").dt.epoch("us").is_between(first_us, last_us)
        market = pl.col("dataset_symbol").cast(pl.String).replace(dict.fromkeys(names, names[0]))
        both = (scan(each).filter(has_id, is_of_both).with_columns(market) for each in (file.ticks, path))
        ours, theirs = both
        known = ours.join(theirs, on=list(_TRADE), how="semi", nulls_equal=True)
        found.append(known.select("row").collect()["row"])
    return np.unique(np.concatenate([np.empty(0, np.int64), *found]))


@dataclass(frozen=True, slots=True)
class _Trades:
    """Valid trades of a batch in the order of rows; with several symbols, sorted by symbol and minute.

    ``row`` is the position in the batch, ``symbol`` the position in the dictionary of its symbols.
    """

    row: Ints
    symbol: Ints
    time_us: Ints
    price: Floats
    base: Floats
    is_buy: Bools
    is_sell: Bools

    def taken(self, places: Ints | Bools) -> _Trades:
        return _Trades(*(getattr(self, column.name)[places] for column in fields(self)))

    @property
    def minute(self) -> Ints:
        return self.time_us // MICROSECONDS_PER_MINUTE


def _trades(
    batch: pa.RecordBatch, contracts: Mapping[str, Contracts], out: Ints, first_us: int, beyond_us: int
) -> _Trades:
    time_us = batch["timestamp"].cast("int64").to_numpy(zero_copy_only=False)
    price, amount = (
        batch[name].fill_null(np.nan).to_numpy(zero_copy_only=False) for name in ("price", "amount")
    )
    symbol, side = (
        batch[name].indices.fill_null(-1).to_numpy(zero_copy_only=False) for name in ("symbol", "side")
    )
    symbols, sides = (batch[name].dictionary.to_pylist() for name in ("symbol", "side"))
    base = _base_volumes(amount, price, time_us, symbol, [contracts.get(name, ()) for name in symbols])
    is_buy, is_sell = (side == (sides.index(name) if name in sides else -2) for name in ("buy", "sell"))
    trades = _Trades(np.arange(batch.num_rows), symbol, time_us, price, base, is_buy, is_sell)
    valid = (symbol >= 0) & (time_us >= first_us) & (time_us < beyond_us)
    for values, (least, most) in ((price, SANE_PRICE), (amount, SANE_AMOUNT)):
        valid &= (values >= least) & (values <= most)
    valid[out] = False
    if not valid.all():
        trades = trades.taken(valid)
    return trades.taken(np.lexsort((trades.minute, trades.symbol))) if symbols[1:] else trades


def _base_volumes(
    amount: Floats, price: Floats, time_us: Ints, symbol: Ints, contracts: Sequence[Contracts]
) -> Floats:
    """Return amounts in base currency; NaN where the contract of a symbol is unknown."""
    base = amount
    for number, of_symbol in enumerate(contracts):
        for n, contract in enumerate(of_symbol):
            holds = symbol == number if n == 0 else (symbol == number) & (time_us >= contract.since_us)
            scaled = amount * (np.nan if contract.multiplier is None else contract.multiplier)
            if contract.inverse:
                with np.errstate(invalid="ignore"):  # infinite by infinite: such a row does not count
                    scaled = np.divide(scaled, price, out=np.full(len(price), np.nan), where=price > 0)
            base = np.where(holds, scaled, base)
    return base


def _part(trades: _Trades, batch: pa.RecordBatch, numbers: Ints) -> dict[str, Any]:
    """Return the columns of a batch's candles, one for each run of trades of one symbol and minute.

    ``numbers`` has the number of each symbol in the batch's dictionary.
    """
    minute, time_us, price = trades.minute, trades.time_us, trades.price
    begins = np.ones(len(minute), np.bool_)
    begins[1:] = (minute[1:] != minute[:-1]) | (trades.symbol[1:] != trades.symbol[:-1])
    starts = np.flatnonzero(begins)
    rows = np.diff(starts, append=len(minute))
    first, last = np.minimum.reduceat(time_us, starts), np.maximum.reduceat(time_us, starts)
    # Trades at the ends of their run, in the order that breaks ties: by id, then by row.
    ends = np.flatnonzero((time_us == np.repeat(first, rows)) | (time_us == np.repeat(last, rows)))
    run, ids = np.searchsorted(starts, ends, "right") - 1, np.full(len(ends), -1)
    if "id" in batch.schema.names:
        ids = batch["id"].take(pa.array(trades.row[ends])).cast("int64").to_numpy(zero_copy_only=False)
        order = np.lexsort((ids, run))
        ends, run, ids = ends[order], run[order], ids[order]
    opens, closes = (np.flatnonzero(time_us[ends] == times[run]) for times in (first, last))
    opens = opens[np.diff(run[opens], prepend=-1) != 0]
    closes = closes[np.diff(run[closes], append=-1) != 0]
    summed = (
        trades.base,
        trades.base * price,
        np.where(trades.is_buy, trades.base, 0.0),
        np.where(trades.is_sell, trades.base, 0.0),
    )
    return {
        "symbol": numbers[trades.symbol[starts]],
        "open_time": minute[starts] * MICROSECONDS_PER_MINUTE,
        "first_trade_time": first,
        "last_trade_time": last,
        "open": price[ends[opens]],
        "high": np.maximum.reduceat(price, starts),
        "low": np.minimum.reduceat(price, starts),
        "close": price[ends[closes]],
        "trade_count": rows,
        "open_id": ids[opens],
        "close_id": ids[closes],
        **{name: np.add.reduceat(values, starts) for name, values in zip(SUMS, summed, strict=True)},
    }
