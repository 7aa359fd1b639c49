"""Compares candles with other venues of the pair, other markets and other hours.

These are K5 to K7; K4, candles of other sources, is compared after publishing (``references``). The other
side may be wrong or a different market, and hours may be volatile, so all of these checks only warn.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from backfill_assets.feeds import PERPETUAL
from backfill_assets.settings import BASE_TIMEFRAME, ComparisonSettings

if TYPE_CHECKING:
    import polars as pl

Rows = list[dict[str, Any]]
PRICES: Final = ("open", "high", "low", "close")
#: Traded hours that a day needs for their median to stand for the market's usual hour.
_LEAST_HOURS: Final = 12


def across_venues(candles: pl.DataFrame, tolerance: float) -> Rows:
    """K5: for each market with minutes in common with other venues, count those at the venues' price.

    A minute agrees if its vwap is at most ``tolerance`` from the median of all venues' vwaps of the same
    pair. A minute without a vwap is not compared.
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
        agreement_row({"exchange": exchange, "symbol": symbol}, group)
        for (exchange, symbol), group in shared.group_by(["exchange", "symbol"], maintain_order=True)
    ]


def across_symbols(candles: pl.DataFrame, tolerance: float, index: pl.DataFrame | None = None) -> Rows:
    """K6: count a market's minutes at the price that markets of other pairs or kinds imply.

    The vwap of a perpetual is compared with the median of the pair's spot markets at all venues, and with
    ``index``, the prices of its index by ``exchange``, ``symbol`` and ``open_time``. The vwap of a spot
    market is compared with the product of two others of its venue: ETH-USDT with ETH-BTC × BTC-USDT. A minute
    agrees if the two are at most ``tolerance`` apart; minutes that lack one of them are not compared.
    """
    import polars as pl

    pair = pl.col("symbol").str.strip_suffix(PERPETUAL)
    minutes = candles.filter(
        pl.col("timeframe") == BASE_TIMEFRAME, pl.col("vwap").is_not_null(), pair.str.count_matches("-") == 1
    ).select(
        "exchange",
        "symbol",
        "open_time",
        "vwap",
        pair=pair,
        base=pair.str.split("-").list.first(),
        quote=pair.str.split("-").list.last(),
    )
    spot = minutes.filter(pl.col("symbol") == pl.col("pair"))
    usual = spot.group_by("pair", "open_time").agg(pl.col("vwap").median().alias("implied"))
    perpetuals = minutes.filter(pl.col("symbol") != pl.col("pair"))
    beside = perpetuals.join(usual, on=["pair", "open_time"])
    against = [beside.with_columns(against="spot " + pl.col("pair"))]
    if index is not None:
        own = perpetuals.join(index, on=["exchange", "symbol", "open_time"])
        against.append(own.with_columns(implied="index_price", against=pl.lit("index")))
    legs = spot.join(
        spot.select("exchange", "open_time", "quote", "vwap", "pair", base="base"),
        left_on=["exchange", "open_time", "quote"],
        right_on=["exchange", "open_time", "base"],
        suffix="_next",
    ).select(
        "exchange",
        "open_time",
        pair=pl.col("base") + "-" + pl.col("quote_next"),
        implied=pl.col("vwap") * pl.col("vwap_next"),
        against=pl.col("pair") + " × " + pl.col("pair_next"),
    )
    against.append(spot.join(legs, on=["exchange", "open_time", "pair"]))
    columns = ["exchange", "symbol", "against", "open_time", "vwap", "implied"]
    judged = pl.concat([markets.select(columns) for markets in against])
    judged = judged.with_columns(((pl.col("vwap") / pl.col("implied") - 1).abs() <= tolerance).alias("same"))
    keys = columns[:3]
    return [
        agreement_row(dict(zip(keys, map(str, key), strict=True)), group)
        for key, group in judged.sort(*keys, "open_time").group_by(keys, maintain_order=True)
    ]


def odd_volumes(candles: pl.DataFrame, multiple: float) -> Rows:
    """K7: hours of a market with more than ``multiple`` times the volume of its median hour of the day.

    Only markets that traded in at least half of the day's hours are judged; unknown volumes are left out.
    """
    import polars as pl

    market = ["exchange", "symbol"]
    hours = (
        candles.filter(pl.col("timeframe") == BASE_TIMEFRAME, pl.col("volume").is_finite())
        .group_by(*market, pl.col("open_time").dt.truncate("1h"))
        .agg(pl.col("volume").sum())
        .with_columns(
            pl.len().over(market).alias("hours"), pl.col("volume").median().over(market).alias("median")
        )
        .filter(pl.col("hours") >= _LEAST_HOURS, pl.col("volume") > multiple * pl.col("median"))
        .sort(*market, "open_time")
    )
    return hours.select(
        *market, "open_time", "volume", "median", times=pl.col("volume") / pl.col("median")
    ).to_dicts()


def agrees(row: Mapping[str, Any], limits: ComparisonSettings) -> bool:
    """Whether enough minutes of a market agree, and no run of differing minutes is too long."""
    return bool(row["share"] >= limits.agreement and row.get("longest_run", 0) <= limits.differing_run)


def agreement_row(market: dict[str, Any], judged: pl.DataFrame) -> dict[str, Any]:
    """Count the minutes of a market that are the ``same``, after the market's own fields."""
    import polars as pl

    equal = int(judged["same"].sum())
    differing = judged.filter(~judged["same"])
    runs = judged.select(pl.col("same").rle()).unnest("same").filter(~pl.col("value"))["len"]
    return {
        **market,
        "minutes": judged.height,
        "equal": equal,
        "share": equal / judged.height if judged.height else 1.0,
        "first_difference": str(differing["open_time"][0]) if differing.height else "",
        "longest_run": int(str(runs.max() or 0)),
    }
