"""Trades as Parquet files of the lake's form, and candles of them computed in plain Python."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from backfill_assets.columns import arrow_schema
from backfill_assets.contracts import Contracts
from backfill_assets.days import MICROSECONDS_PER_MINUTE, MICROSECONDS_PER_SECOND, end_us, start_us
from backfill_assets.settings import TIMEFRAMES
from backfill_assets.tardis.columns import tick_columns
from backfill_assets.ticks.partials import partial_candles

DAY: Final = "2024-01-02"
BEFORE, AFTER = "2024-01-01", "2024-01-03"
START: Final = start_us(DAY)
END: Final = end_us(DAY)
SECOND: Final = MICROSECONDS_PER_SECOND
MINUTE: Final = MICROSECONDS_PER_MINUTE
TICKS: Final = arrow_schema(tick_columns("trades"))


@dataclass(frozen=True)
class Trade:
    """One row of a file of trades; ``us`` is the exchange's time."""

    us: int
    price: float | None = 100.0
    amount: float | None = 1.0
    id: str | None = None
    side: str | None = "buy"
    symbol: str | None = "BTC-USDT"

    @property
    def is_valid(self) -> bool:
        """Whether the trade counts in candles."""
        return (
            self.symbol is not None
            and self.price is not None
            and self.amount is not None
            and self.price > 0
            and self.amount > 0
        )


def numbered(trades: Iterable[Trade], first: int = 1) -> list[Trade]:
    """The same trades with consecutive ids."""
    return [Trade(**{**vars(t), "id": str(n)}) for n, t in enumerate(trades, first)]


def write_ticks(path: Path, trades: Sequence[Trade], day: str = DAY, row_group_rows: int = 1 << 20) -> Path:
    """A file of the day with these rows in this order, as decoding would leave them."""
    days = start_us(day) // 86_400_000_000
    columns: dict[str, list[Any]] = {
        "date": [days] * len(trades),
        "exchange": ["binance"] * len(trades),
        "symbol": [t.symbol for t in trades],
        "dataset_symbol": [(t.symbol or "OTHER").replace("-", "") for t in trades],
        "timestamp": [t.us for t in trades],
        "local_timestamp": [t.us for t in trades],
        "id": [t.id for t in trades],
        "side": [t.side for t in trades],
        "price": [t.price for t in trades],
        "amount": [t.amount for t in trades],
        "row": list(range(len(trades))),
    }
    arrays = [
        pa.array(columns[f.name], pa.int32()).cast(f.type)
        if f.name == "date"
        else pa.array(columns[f.name], f.type)
        for f in TICKS
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(arrays, schema=TICKS), path, row_group_size=row_group_rows)
    return path


def partials_of(
    folder: Path,
    trades: Sequence[Trade],
    *,
    day: str = DAY,
    seam: int = 300,
    contracts: Mapping[str, Contracts] | None = None,
    left_out: Sequence[int] = (),
    numeric_ids: bool | None = None,
    name: str = "ticks.parquet",
) -> pa.Table:
    """Partial candles of a file with these rows; ids count if every row has one."""
    return partial_candles(
        write_ticks(folder / name, trades, day),
        exchange="binance",
        day=day,
        seam_window_seconds=seam,
        numeric_ids=bool(trades) and all(t.id is not None for t in trades)
        if numeric_ids is None
        else numeric_ids,
        contracts=contracts,
        left_out=np.array(left_out, np.int64),
    )


def plain_candles(
    trades: Sequence[Trade], day: str = DAY, timeframes: Sequence[str] = ("1m",)
) -> dict[tuple[str, str, int], dict[str, float]]:
    """By (timeframe, symbol, open time): candles by the conventions, with sums in exact arithmetic.

    Trades are given in the order of files and rows.
    """
    found: dict[tuple[str, str, int], list[tuple[int, int, int, Trade]]] = {}
    for row, trade in enumerate(trades):
        if trade.is_valid and start_us(day) <= trade.us < end_us(day):
            key = (trade.us, int(trade.id) if trade.id is not None else -1, row, trade)
            for timeframe in timeframes:
                step = TIMEFRAMES[timeframe] * SECOND
                found.setdefault((timeframe, str(trade.symbol), trade.us // step * step), []).append(key)
    candles = {}
    for bucket, keys in found.items():
        ordered = [trade for *_, trade in sorted(keys, key=lambda k: k[:3])]
        prices = [t.price for t in ordered if t.price is not None]
        exact = [(Fraction(t.amount or 0), Fraction(t.price or 0), t.side) for t in ordered]
        volume, quote = sum(a for a, _, _ in exact), sum(a * p for a, p, _ in exact)
        candles[bucket] = {
            "open": prices[0],
            "high": max(prices),
            "low": min(prices),
            "close": prices[-1],
            "volume": float(volume),
            "quote_volume": float(quote),
            "vwap": float(quote / volume),
            "trade_count": len(ordered),
            "buy_volume": float(sum(a for a, _, s in exact if s == "buy")),
            "sell_volume": float(sum(a for a, _, s in exact if s == "sell")),
            "first_trade_time": ordered[0].us,
            "last_trade_time": ordered[-1].us,
        }
    return candles


EXACT: Final = ("open", "high", "low", "close", "trade_count", "first_trade_time", "last_trade_time")
SUMS: Final = ("volume", "quote_volume", "vwap", "buy_volume", "sell_volume")


def as_numbers(candles: pa.Table) -> dict[tuple[str, str, int], dict[str, float]]:
    """A table of candles by (timeframe, symbol, open time), times as microseconds."""
    times = ("open_time", "first_trade_time", "last_trade_time")
    plain = candles
    for name in times:
        plain = plain.set_column(plain.column_names.index(name), name, plain[name].cast(pa.int64()))
    rows = plain.to_pylist()
    return {(r["timeframe"], r["symbol"], r["open_time"]): {c: r[c] for c in EXACT + SUMS} for r in rows}


def assert_same(ours: Mapping[Any, Mapping[str, float]], theirs: Mapping[Any, Mapping[str, float]]) -> None:
    """The same buckets; sums within 1e-9 relative, everything else exact."""
    assert ours.keys() == theirs.keys()
    for bucket, expected in theirs.items():
        found = ours[bucket]
        assert {c: found[c] for c in EXACT} == {c: expected[c] for c in EXACT}, bucket
        for name in SUMS:
            assert math.isclose(found[name], expected[name], rel_tol=1e-9, abs_tol=0), (bucket, name)
