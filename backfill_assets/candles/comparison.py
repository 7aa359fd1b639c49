"""Candles held against somebody else's: the exchange's own, and other venues' of the same pair.

K4 and K5. Others may be wrong, late or of another market, so both only warn.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from backfill_assets.candles.query import markets_of
from backfill_assets.failures import PermanentFailure
from backfill_assets.quality.reference import PRICES, ReferenceCandles
from backfill_assets.quality.settled import SettledDay
from backfill_assets.settings import BASE_TIMEFRAME, ComparisonSettings

if TYPE_CHECKING:
    import polars as pl

Rows = list[dict[str, Any]]


def reference_hash(reference: ReferenceCandles | None, settled: SettledDay) -> str:
    """Hash of what the reference says of the day's markets; empty without a reference."""
    if reference is None:
        return ""
    parts = []
    if trouble := reference.trouble():
        parts.append(trouble)
    for exchange, symbol in markets_of(settled):
        try:
            found = reference.minutes(exchange, symbol, settled.day)
        except PermanentFailure as failure:
            parts.append(str(failure))
        else:
            parts.append("" if found is None else found.write_csv())
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def against_reference(
    candles: pl.DataFrame, day: str, reference: ReferenceCandles, limits: ComparisonSettings
) -> Rows:
    """K4: for each market that the reference knows, how many of its traded minutes are the same.

    Open, high, low, close and count must be equal, volume within ``limits.reference_volume`` unless ours is
    unknown. A minute that only one side has is a difference; minutes that the reference filled are no minutes
    of it.
    """
    import polars as pl

    rows: Rows = []
    base = candles.filter(pl.col("timeframe") == BASE_TIMEFRAME)
    for exchange, symbol in base.select("exchange", "symbol").unique().sort("exchange", "symbol").iter_rows():
        theirs = reference.minutes(exchange, symbol, day)
        if theirs is None:
            continue
        ours = base.filter((pl.col("exchange") == exchange) & (pl.col("symbol") == symbol))
        both = ours.join(
            theirs.filter(pl.col("volume") > 0), on="open_time", how="full", suffix="_theirs", coalesce=True
        )
        same = pl.all_horizontal(
            *(pl.col(name) == pl.col(f"{name}_theirs") for name in PRICES),
            pl.col("volume").is_null()
            | (
                (pl.col("volume") - pl.col("volume_theirs")).abs()
                <= limits.reference_volume * pl.max_horizontal("volume", "volume_theirs")
            ),
            *(
                [pl.col("trade_count") == pl.col("trade_count_theirs")]
                if "trade_count_theirs" in both.columns
                else []
            ),
        )
        judged = both.select("open_time", same.fill_null(value=False).alias("same")).sort("open_time")
        rows.append(_row({"exchange": exchange, "symbol": symbol}, judged))
    return rows


def across_venues(candles: pl.DataFrame, tolerance: float) -> Rows:
    """K5: for each market with minutes in common with other venues, how many have the venues' price.

    A minute agrees if its vwap is at most ``tolerance`` from the median of all venues' of the same pair. One
    without a vwap is not compared.
    """
    import polars as pl

    minute = ["symbol", "open_time"]
    shared = (
        candles.filter(pl.col("timeframe") == BASE_TIMEFRAME, pl.col("vwap").is_not_null())
        .with_columns(
            pl.len().over(minute).alias("venues"), pl.col("vwap").median().over(minute).alias("usual")
        )
        .filter(pl.col("venues") > 1)
        .with_columns(((pl.col("vwap") / pl.col("usual") - 1).abs() <= tolerance).alias("same"))
        .sort("exchange", "symbol", "open_time")
    )
    return [
        _row({"exchange": exchange, "symbol": symbol}, group)
        for (exchange, symbol), group in shared.group_by(["exchange", "symbol"], maintain_order=True)
    ]


def _row(market: dict[str, Any], judged: pl.DataFrame) -> dict[str, Any]:
    equal = int(judged["same"].sum())
    differing = judged.filter(~judged["same"])
    return {
        **market,
        "minutes": judged.height,
        "equal": equal,
        "share": equal / judged.height if judged.height else 1.0,
        "first_difference": str(differing["open_time"][0]) if differing.height else "",
    }
