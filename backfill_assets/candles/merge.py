"""Merges partials of several files into a day of candles, and base candles into every larger timeframe.

Pure functions of Arrow tables. Partials of a bucket are folded in the order of the files' days, base candles
in the order of time; the order in which days were run changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from backfill_assets.candles.schemas import CANDLE_SCHEMA
from backfill_assets.contracts import CONTRACTS, currencies_of
from backfill_assets.days import MICROSECONDS_PER_SECOND, end_us, start_us
from backfill_assets.settings import BASE_TIMEFRAME, TIMEFRAMES
from backfill_assets.ticks.schemas import PRICES, SUMS

if TYPE_CHECKING:
    from backfill_assets.ticks.partial_kernels import Floats, Ints

Market = tuple[str, str]
Flags = npt.NDArray[np.bool_]

_INTEGERS: Final = ("trade_count", "first_trade_time", "last_trade_time", "open_id", "close_id")
_FLOATS: Final = (*PRICES, *(name for total in SUMS for name in (total, f"{total}_error")))


def day_of_candles(
    day: str,
    partials: Sequence[pa.Table],
    timeframes: Sequence[str],
    currencies: Mapping[Market, tuple[str, str]] | None = None,
) -> pa.Table:
    """Return all candles whose ``open_time`` lies in the day.

    Parameters
    ----------
    partials
        Tables of ``PARTIAL_SCHEMA``, in the order of their files' days (and of the feeds within a day).
    timeframes
        Names from ``settings.TIMEFRAMES``; all divide a day.
    currencies
        Of volume and of quote volume, empty where unknown; by default those in the market's name.

    Returns
    -------
    pyarrow.Table
        ``CANDLE_SCHEMA``, sorted by exchange, symbol, timeframe (short to long) and open_time.
    """
    merged = pa.concat_tables(partials) if partials else None
    if merged is None or merged.num_rows == 0:
        return CANDLE_SCHEMA.empty_table()
    open_time = merged["open_time"].cast(pa.int64()).to_numpy()
    inside = (open_time >= start_us(day)) & (open_time < end_us(day))
    merged, open_time = merged.filter(pa.array(inside)), open_time[inside]
    if merged.num_rows == 0:
        return CANDLE_SCHEMA.empty_table()
    markets, market = _markets(merged)
    known = currencies or {}
    units = [known.get((exchange, name)) or currencies_of(name, ()) for exchange, name in markets]
    integers = np.column_stack([merged[c].cast(pa.int64()).to_numpy() for c in _INTEGERS])
    floats = np.column_stack([merged[c].to_numpy() for c in _FLOATS])
    unknown = merged["volume"].is_null().to_numpy()
    # lexsort is stable: rows of one bucket stay in the order of the files.
    order = np.lexsort((open_time, market))
    base = _fold(market[order], open_time[order], unknown[order], integers[order], floats[order])
    tables, keys = [], []
    for position, name in enumerate(sorted(timeframes, key=lambda t: TIMEFRAMES[t])):
        step_us = TIMEFRAMES[name] * MICROSECONDS_PER_SECOND
        rolled = base if name == BASE_TIMEFRAME else _fold(base[0], base[1] // step_us * step_us, *base[2:])
        tables.append(_candles(day, name, markets, units, *rolled))
        market, open_time, *_ = rolled
        keys.append(np.stack([open_time, np.full_like(open_time, position), market]))
    order = np.lexsort(np.concatenate(keys, axis=1))
    return pa.concat_tables(tables).take(pa.array(order)).combine_chunks()


def rolled_up(base: pa.Table, day: str, timeframe: str) -> pa.Table:
    """Return a day's base candles as candles of a larger timeframe; sums may differ in their last bits.

    Parameters
    ----------
    base
        ``CANDLE_SCHEMA``, all of the base timeframe.
    """
    rows = base.num_rows
    ids = pa.array(np.zeros(rows, np.int64))
    zeros = pa.array(np.zeros(rows))
    partial = {name: base[name] for name in base.column_names}
    partial |= {"open_id": ids, "close_id": ids}
    partial |= {f"{name}_error": zeros for name in SUMS}
    return day_of_candles(day, [pa.table(partial)], [timeframe], _currencies(base))


def _currencies(candles: pa.Table) -> dict[Market, tuple[str, str]]:
    """The currencies of each market according to its candles."""
    if not {"volume_unit", "quote_unit"} <= set(candles.column_names):
        return {}
    found: dict[Market, tuple[str, str]] = {}
    for row in candles.select(["exchange", "symbol", "volume_unit", "quote_unit"]).to_pylist():
        market = (row["exchange"], row["symbol"])
        units = (row["volume_unit"] or "", row["quote_unit"] or "")
        # The unit of null volumes is not a currency.
        found[market] = units if row["volume_unit"] != CONTRACTS else found.get(market, units)
    return found


def _markets(table: pa.Table) -> tuple[list[Market], Ints]:
    """The (exchange, symbol) pairs in alphabetical order, and each row's index into them."""
    pairs = list(zip(table["exchange"].to_pylist(), table["symbol"].to_pylist(), strict=True))
    markets = sorted(set(pairs))
    rank = {pair: i for i, pair in enumerate(markets)}
    return markets, np.array([rank[pair] for pair in pairs], np.int64)


def _fold(
    market: Ints, open_time: Ints, unknown: Flags, integers: Ints, floats: Floats
) -> tuple[Ints, Ints, Flags, Ints, Floats]:
    """Merge adjacent rows of the same market and bucket, in order; a sum with an unknown part is unknown."""
    from backfill_assets.ticks import partial_kernels as kernels
    from backfill_assets.ticks.jit import prove_indices

    new = np.ones(len(market), np.bool_)
    new[1:] = (market[1:] != market[:-1]) | (open_time[1:] != open_time[:-1])
    starts = np.flatnonzero(new)
    group = np.cumsum(new) - 1
    out_integers = np.zeros((len(starts), kernels.INTEGER_COLUMNS), np.int64)
    out_floats = np.zeros((len(starts), kernels.FLOAT_COLUMNS))
    prove_indices(group, len(starts), "buckets")
    kernels.fold(  # type: ignore[no-untyped-call]
        group, np.ascontiguousarray(integers), np.ascontiguousarray(floats), out_integers, out_floats
    )
    out_unknown = np.logical_or.reduceat(unknown, starts)
    return market[starts], open_time[starts], out_unknown, out_integers, out_floats


def _candles(
    day: str,
    timeframe: str,
    markets: list[Market],
    units: list[tuple[str, str]],
    market: Ints,
    open_time: Ints,
    unknown: Flags,
    integers: Ints,
    floats: Floats,
) -> pa.Table:
    from backfill_assets.ticks import partial_kernels as kernels

    rows = len(market)
    times = pa.timestamp("us", tz="UTC")

    def total(column: int) -> Floats:
        return np.asarray(floats[:, column] + floats[:, column + 1])

    volume, quote_volume = total(kernels.VOLUME), total(kernels.QUOTE)
    volume_units, quote_units = (np.array(names, dtype=object)[market] for names in zip(*units, strict=True))
    columns = {
        "date": pa.array(np.full(rows, np.datetime64(day, "D")), pa.date32()),
        "exchange": pa.array([markets[m][0] for m in market], pa.string()),
        "symbol": pa.array([markets[m][1] for m in market], pa.string()),
        "timeframe": pa.array([timeframe] * rows, pa.string()),
        "open_time": pa.array(open_time, times),
        "open": pa.array(floats[:, kernels.OPEN]),
        "high": pa.array(floats[:, kernels.HIGH]),
        "low": pa.array(floats[:, kernels.LOW]),
        "close": pa.array(floats[:, kernels.CLOSE]),
        "volume": pa.array(volume, mask=unknown),
        "quote_volume": pa.array(quote_volume, mask=unknown),
        "vwap": pa.array(quote_volume / volume, mask=unknown),
        "trade_count": pa.array(integers[:, kernels.COUNT]),
        "buy_volume": pa.array(total(kernels.BUY), mask=unknown),
        "sell_volume": pa.array(total(kernels.SELL), mask=unknown),
        "first_trade_time": pa.array(integers[:, kernels.FIRST], times),
        "last_trade_time": pa.array(integers[:, kernels.LAST], times),
        "volume_unit": _names(np.where(unknown, CONTRACTS, volume_units)),
        "quote_unit": _names(quote_units),
    }
    return pa.table([columns[name] for name in CANDLE_SCHEMA.names], schema=CANDLE_SCHEMA)


def _names(names: npt.NDArray[np.object_]) -> pa.Array:
    """Return the names of currencies; an empty name becomes null."""
    return pa.array(names, pa.string(), mask=names == "")
