"""Markets compared with the markets that cross them, and hours with the other hours of the day."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import polars as pl
import pytest

from backfill_assets.candles.comparison import across_symbols, odd_volumes

NOON = datetime(2024, 1, 1, 12, tzinfo=UTC)
#: Exchange, symbol, and the vwap of each minute; None without one.
Market = tuple[str, str, Sequence[float | None]]


def candles(*markets: Market) -> pl.DataFrame:
    rows = [
        {"exchange": exchange, "symbol": symbol, "timeframe": "1m", "open_time": NOON + timedelta(minutes=n)}
        | {"vwap": vwap}
        for exchange, symbol, values in markets
        for n, vwap in enumerate(values)
    ]
    return pl.DataFrame(rows, schema_overrides={"vwap": pl.Float64})


def found(*markets: Market) -> list[tuple[str, str, int, int]]:
    rows = across_symbols(candles(*markets), 0.01)
    return [(row["symbol"], row["against"], row["minutes"], row["equal"]) for row in rows]


def test_a_pair_is_held_against_the_product_of_two_others_of_its_venue() -> None:
    legs: tuple[Market, ...] = (("binance", "BTC-USDT", [50_000.0] * 3), ("binance", "ETH-BTC", [0.05] * 3))
    crossed = found(*legs, ("binance", "ETH-USDT", [2_500.0, 2_520.0, 2_530.0]))
    assert crossed == [("ETH-USDT", "ETH-BTC × BTC-USDT", 3, 2)]
    assert found(*legs, ("kraken", "ETH-USDT", [2_500.0])) == []
    assert found(*legs) == []


def test_minutes_that_lack_a_leg_are_not_compared() -> None:
    crossed = found(
        ("binance", "BTC-USDT", [50_000.0, None, 50_000.0]),
        ("binance", "ETH-BTC", [0.05, 0.05, 0.05]),
        ("binance", "ETH-USDT", [2_500.0, 2_500.0]),
    )
    assert crossed == [("ETH-USDT", "ETH-BTC × BTC-USDT", 1, 1)]


def test_a_perpetual_is_held_against_the_spot_markets_of_the_pair_at_any_venue() -> None:
    spot: tuple[Market, ...] = tuple(
        (venue, "BTC-USDT", [price])
        for venue, price in (("binance", 100.0), ("kraken", 100.2), ("okex", 250.0))
    )
    near, far = ("bybit", "BTC-USDT-PERP", [101.1]), ("bybit", "BTC-USDT-PERP", [101.3])
    assert found(*spot, near) == [("BTC-USDT-PERP", "spot BTC-USDT", 1, 1)]
    assert found(*spot, far) == [("BTC-USDT-PERP", "spot BTC-USDT", 1, 0)]
    assert found(near, ("bybit", "BTC-28JUN24", [101.0]), ("bybit", "ETH-USDT", [101.0])) == []


def test_a_perpetual_is_held_against_its_index_at_its_own_venue() -> None:
    minutes = [("bybit", "BTC-USDT-PERP"), ("okex-swap", "BTC-USDT-PERP"), ("bybit", "ETH-USDT")]
    index = pl.DataFrame(
        [
            {"exchange": exchange, "symbol": symbol, "open_time": NOON + timedelta(minutes=n)}
            | {"index_price": 100.0}
            for exchange, symbol in minutes
            for n in range(2)
        ]
    )
    rows = across_symbols(
        candles(
            ("bybit", "BTC-USDT-PERP", [100.9, 101.1, 500.0]),
            ("binance-futures", "BTC-USDT-PERP", [500.0]),
            ("bybit", "ETH-USDT", [500.0]),
        ),
        0.01,
        index,
    )
    assert [(row["symbol"], row["against"], row["minutes"], row["equal"]) for row in rows] == [
        ("BTC-USDT-PERP", "index", 2, 1)
    ]


def hours(volumes: Sequence[float | None]) -> pl.DataFrame:
    rows = [
        {"exchange": "x", "symbol": "BTC-USDT", "timeframe": "1m", "volume": volume}
        | {"open_time": NOON.replace(hour=0) + timedelta(hours=n, minutes=7)}
        for n, volume in enumerate(volumes)
    ]
    return pl.DataFrame(rows, schema_overrides={"volume": pl.Float64})


@pytest.mark.parametrize(
    ("volumes", "times"),
    [
        ([1.0] * 23 + [50.0], []),
        ([1.0] * 23 + [51.0], [51.0]),
        ([1.0] * 11 + [1_000.0], [1_000.0]),
        ([1.0] * 10 + [1_000.0], []),
        ([None] * 23 + [1_000.0], []),
    ],
)
def test_an_hour_far_beyond_the_usual_one_is_odd(volumes: list[float | None], times: list[float]) -> None:
    assert [row["times"] for row in odd_volumes(hours(volumes), 50)] == times
