"""Candles computed a second time, by another engine, and held against the first.

K1: trades to base candles. K2: base candles to every larger timeframe. Prices and counts must be equal,
float sums equal within ``SUM_TOLERANCE``; every bucket that is not is named. Written in polars on purpose:
sharing code with ``kernels`` would let one bug hide in both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from backfill_assets.candles.schemas import SUM_TOLERANCE
from backfill_assets.settings import BASE_TIMEFRAME, TIMEFRAMES
from backfill_assets.ticks.partials import SPOT, Contract, seam_window
from backfill_assets.ticks.schemas import PRICES, SUMS

if TYPE_CHECKING:
    import polars as pl
    import pyarrow as pa

_EXACT: Final = (*PRICES, "trade_count", "first_trade_time", "last_trade_time")
#: Mismatches returned at most; one is enough to stop a day.
LIMIT: Final = 50


def mismatches_with_ticks(
    ticks: Path,
    partials: pa.Table,
    *,
    day: str,
    seam_window_seconds: int,
    numeric_ids: bool,
    contracts: Mapping[str, Contract] | None = None,
    exclude_ids: frozenset[int] = frozenset(),
) -> list[dict[str, Any]]:
    """K1: base candles that differ from those computed again from the file's trades; empty if none."""
    import polars as pl

    first_us, beyond_us = seam_window(day, seam_window_seconds)
    contracts = contracts or {}
    multiplier = {symbol: c.multiplier for symbol, c in contracts.items()}
    inverse = [symbol for symbol, c in contracts.items() if c.inverse]
    units = pl.col("symbol").replace_strict(multiplier, default=SPOT.multiplier, return_dtype=pl.Float64)
    base = pl.col("amount") * units
    base = pl.when(pl.col("symbol").is_in(inverse)).then(base / pl.col("price")).otherwise(base)
    trade_id = pl.col("id").cast(pl.Int64) if numeric_ids else pl.lit(-1, pl.Int64)
    trades = (
        pl.scan_parquet(ticks)
        .filter(
            pl.col("symbol").is_not_null(),
            pl.col("price", "amount") > 0,
            pl.col("price", "amount").is_finite(),
            ~trade_id.is_in(sorted(exclude_ids)),
            pl.col("timestamp").dt.epoch("us").is_between(first_us, beyond_us, closed="left"),
        )
        .select(
            "symbol",
            "timestamp",
            "side",
            "price",
            base.alias("base"),
            trade_id.alias("trade_id"),
            pl.col("timestamp").dt.truncate("1m").alias("open_time"),
        )
    )
    again = (
        trades.sort("symbol", "open_time", "timestamp", "trade_id", maintain_order=True)
        .group_by("symbol", "open_time")
        .agg(
            pl.col("price").first().alias("open"),
            pl.col("price").max().alias("high"),
            pl.col("price").min().alias("low"),
            pl.col("price").last().alias("close"),
            pl.len().cast(pl.Int64).alias("trade_count"),
            pl.col("timestamp").min().alias("first_trade_time"),
            pl.col("timestamp").max().alias("last_trade_time"),
            pl.col("base").sum().alias("volume"),
            (pl.col("base") * pl.col("price")).sum().alias("quote_volume"),
            pl.col("base").filter(pl.col("side") == "buy").sum().alias("buy_volume"),
            pl.col("base").filter(pl.col("side") == "sell").sum().alias("sell_volume"),
        )
    )
    stored = pl.LazyFrame(partials).with_columns(
        (pl.col(name) + pl.col(f"{name}_error")).alias(name) for name in SUMS
    )
    return _differences(stored, again, ("symbol", "open_time"))


def mismatches_between_timeframes(candles: pl.DataFrame, timeframes: Sequence[str]) -> list[dict[str, Any]]:
    """K2: candles of larger timeframes that are not the roll-up of the base candles; empty if none."""
    import polars as pl

    key = ("exchange", "symbol", "open_time")
    base = candles.lazy().filter(pl.col("timeframe") == BASE_TIMEFRAME)
    found: list[dict[str, Any]] = []
    for name in timeframes:
        if name == BASE_TIMEFRAME:
            continue
        again = (
            base.sort("open_time")
            .with_columns(pl.col("open_time").dt.truncate(f"{TIMEFRAMES[name]}s"))
            .group_by(key, maintain_order=True)
            .agg(
                pl.col("open").first(),
                pl.col("high").max(),
                pl.col("low").min(),
                pl.col("close").last(),
                pl.col("trade_count").sum(),
                pl.col("first_trade_time").min(),
                pl.col("last_trade_time").max(),
                *(pl.col(column).sum() for column in SUMS),
            )
        )
        stored = candles.lazy().filter(pl.col("timeframe") == name)
        found += [{"timeframe": name, **row} for row in _differences(stored, again, key)]
    return found[:LIMIT]


def _differences(stored: pl.LazyFrame, again: pl.LazyFrame, key: Sequence[str]) -> list[dict[str, Any]]:
    """Rows by key that are on one side only or differ; each names the columns in question."""
    import polars as pl

    both = stored.select(*key, *_EXACT, *SUMS).join(
        again.select(*key, *_EXACT, *SUMS), on=list(key), how="full", suffix="_again", coalesce=True
    )
    differs = {name: ~pl.col(name).eq_missing(pl.col(f"{name}_again")) for name in _EXACT}
    for name in SUMS:
        apart = (pl.col(name) - pl.col(f"{name}_again")).abs()
        limit = SUM_TOLERANCE * pl.max_horizontal(pl.col(name).abs(), pl.col(f"{name}_again").abs())
        # NaN and infinity compare as equal to themselves, and are the sum of no trades.
        differs[name] = ((apart > limit) | ~apart.is_finite()).fill_null(value=True)
    named = both.with_columns(
        pl.concat_str(
            [pl.when(rule).then(pl.lit(name)) for name, rule in differs.items()],
            separator=" ",
            ignore_nulls=True,
        ).alias("differs")
    ).filter(pl.col("differs") != "")
    return named.sort(list(key)).head(LIMIT).select(*key, "differs").collect().to_dicts()
