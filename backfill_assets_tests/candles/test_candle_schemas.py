"""The schema of a table of candles: one row breaks each rule, and each rule holds on a near miss."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any

import polars as pl
import pytest

from backfill_assets.candles.schemas import CANDLE_COLUMNS, CANDLE_SCHEMA, candle_schema, ohlc_schema
from backfill_assets.quality.findings import failure_cases
from backfill_assets.ticks.schemas import SUMS

NOON = datetime(2024, 1, 2, 12, tzinfo=UTC)
SECOND, MICROSECOND = timedelta(seconds=1), timedelta(microseconds=1)
GOOD: dict[str, Any] = {
    "date": date(2024, 1, 2),
    "exchange": "binance",
    "symbol": "BTC-USDT",
    "timeframe": "5m",
    "open_time": NOON,
    "open": 100.0,
    "high": 110.0,
    "low": 90.0,
    "close": 105.0,
    "volume": 8.0,
    "quote_volume": 800.0,
    "vwap": 100.0,
    "trade_count": 3,
    "buy_volume": 5.0,
    "sell_volume": 2.0,
    "first_trade_time": NOON + SECOND,
    "last_trade_time": NOON + 2 * SECOND,
}
FLAT: dict[str, Any] = {"open": 100.0, "high": 100.0, "low": 100.0, "close": 100.0}
MIDNIGHT = {"open_time": datetime(2024, 1, 2, tzinfo=UTC)}


def frame(*rows: dict[str, Any]) -> pl.DataFrame:
    """Candles like ``GOOD`` with the given changes."""
    import pyarrow as pa

    return pl.DataFrame(pa.Table.from_pylist([{**GOOD, **row} for row in rows], schema=CANDLE_SCHEMA))


def checks(schema: Any, found: pl.DataFrame) -> set[str]:
    """Names of the rules that the frame breaks."""
    return {str(case["check"]) for case in failure_cases(schema, found)}


def test_a_good_candle_satisfies_both_schemas() -> None:
    assert checks(candle_schema(), frame({})) == checks(ohlc_schema(), frame({})) == set()


def test_a_day_without_candles_satisfies_both_schemas() -> None:
    empty = frame().clear()
    assert checks(candle_schema(), empty) == checks(ohlc_schema(), empty) == set()


@pytest.mark.parametrize(
    ("rule", "broken"),
    [
        ("low_is_lowest", {"low": 100.1}),
        ("low_is_lowest", {"low": 100.0, "open": 101.0, "close": 99.99999999999}),
        ("high_is_highest", {"high": 104.9}),
        ("high_is_highest", {"high": 105.0, "open": 105.00000000001}),
        ("low_is_positive", {"low": 0.0}),
        ("low_is_positive", {"low": -1.0}),
        ("vwap_within_low_and_high", {**FLAT, "vwap": 100 * (1 + 2e-9)}),
        ("vwap_within_low_and_high", {**FLAT, "vwap": 100 * (1 - 2e-9)}),
        ("vwap_within_low_and_high", {"vwap": 89.9}),
        ("vwap_within_low_and_high", {"vwap": float("nan")}),
        ("volume_is_not_negative", {"volume": -1.0}),
        ("volume_is_not_negative", {"buy_volume": -1e-9}),
        ("volume_is_not_negative", {"sell_volume": -1e-9}),
        ("buys_and_sells_within_volume", {"buy_volume": 6.0, "sell_volume": 2.0 * (1 + 1e-7)}),
        ("buys_and_sells_within_volume", {"volume": 6.9}),
        ("has_trades", {"trade_count": 0}),
        ("has_trades", {"trade_count": -1}),
        ("trades_inside_their_order", {"last_trade_time": NOON + SECOND - MICROSECOND}),
        ("first_trade_not_before_open_time", {"first_trade_time": NOON - MICROSECOND}),
        ("values_are_finite", {"volume": float("inf")}),
        ("values_are_finite", {"quote_volume": float("nan")}),
        ("values_are_finite", {"high": float("inf")}),
    ],
)
def test_a_candle_that_breaks_a_rule_is_named_by_it(rule: str, broken: dict[str, Any]) -> None:
    found = frame({}, {**broken, "symbol": "ETH-USDT"})
    assert rule in checks(ohlc_schema(), found)
    assert {case["index"] for case in failure_cases(ohlc_schema(), found)} == {1}


@pytest.mark.parametrize(
    "near",
    [
        {**FLAT, "vwap": 100 * (1 + 1e-12)},
        {**FLAT, "vwap": 100 * (1 - 1e-12)},
        {"low": 100.0, "open": 100.0, "close": 100.0, "vwap": 100.0},
        {"low": 1e-12, "open": 1e-12},
        {"high": 105.0},
        {"buy_volume": 6.0, "sell_volume": 2.0 * (1 + 1e-12)},
        {"buy_volume": 0.0, "sell_volume": 0.0},
        {"trade_count": 1, "last_trade_time": NOON + SECOND},
        {"first_trade_time": NOON},
    ],
)
def test_what_only_just_holds_is_left_alone(near: dict[str, Any]) -> None:
    assert checks(ohlc_schema(), frame(near)) == set()


class TestTable:
    @pytest.mark.parametrize(
        ("timeframe", "open_time", "holds"),
        [
            ("1m", NOON + timedelta(minutes=7), True),
            ("1m", NOON + timedelta(minutes=7, seconds=1), False),
            ("1m", NOON + MICROSECOND, False),
            ("5m", NOON + timedelta(minutes=5), True),
            ("5m", NOON + timedelta(minutes=7), False),
            ("1h", NOON + timedelta(minutes=30), False),
            ("4h", NOON, True),
            ("4h", NOON + timedelta(hours=1), False),
            ("1d", NOON, False),
            ("1d", NOON.replace(hour=0), True),
            ("7m", NOON, False),
        ],
    )
    def test_buckets_are_aligned_to_their_timeframe(
        self, timeframe: str, open_time: datetime, holds: bool
    ) -> None:
        found = checks(candle_schema(), frame({"timeframe": timeframe, "open_time": open_time}))
        assert found == (set() if holds else {"open_time_is_aligned_to_the_timeframe"})

    @pytest.mark.parametrize(("day", "holds"), [(1, False), (2, True), (3, False)])
    def test_the_date_is_the_day_of_the_bucket(self, day: int, holds: bool) -> None:
        for row in ({}, MIDNIGHT, {"open_time": datetime(2024, 1, 2, 23, 55, tzinfo=UTC)}):
            found = checks(candle_schema(), frame({**row, "date": date(2024, 1, day)}))
            assert found == (set() if holds else {"date_is_the_day_of_open_time"})

    @pytest.mark.parametrize(
        "other",
        [
            {"exchange": "kraken"},
            {"symbol": "ETH-USDT"},
            {"timeframe": "1m"},
            {"open_time": NOON + 300 * SECOND},
        ],
    )
    def test_a_key_occurs_once(self, other: dict[str, Any]) -> None:
        assert checks(candle_schema(), frame({}, other)) == set()
        assert checks(candle_schema(), frame({}, other, {"open": 101.0}))

    @pytest.mark.parametrize("column", [c.name for c in CANDLE_COLUMNS])
    def test_every_column_is_there_typed_and_null_only_where_that_means_something(self, column: str) -> None:
        good = frame({})
        assert checks(candle_schema(), good.drop(column))
        assert checks(candle_schema(), good.rename({column: "other"}))
        nulls = checks(candle_schema(), good.with_columns(pl.lit(None, good.schema[column]).alias(column)))
        assert bool(nulls) is (column not in ("vwap", "volume_unit", "quote_unit", *SUMS))
        other = pl.lit(1.5) if good.schema[column] == pl.String else pl.lit("x")
        assert checks(candle_schema(), good.with_columns(other.alias(column)))

    def test_a_column_more_is_refused(self) -> None:
        assert checks(candle_schema(), frame({}).with_columns(pl.lit(1).alias("extra")))
