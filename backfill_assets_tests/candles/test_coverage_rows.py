"""Runs of a day as rows: they cover the whole day, and they are traded where there are candles."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any

import polars as pl
import pytest

from backfill_assets.candles.buckets import MarketBuckets
from backfill_assets.candles.coverage import traded_frame, traded_schema, whole_day_frame, whole_day_schema
from backfill_assets.candles.schemas import COVERAGE_SCHEMA, coverage_schema
from backfill_assets.quality.bucket_states import State, codes_of
from backfill_assets.quality.findings import failure_cases
from backfill_assets.settings import TIMEFRAMES

DAY = "2024-01-02"
MIDNIGHT = datetime(2024, 1, 2, tzinfo=UTC)
MARKET = ("binance", "BTC-USDT")


def run(
    first: int, buckets: int, state: str = "traded", timeframe: str = "4h", **values: Any
) -> dict[str, Any]:
    step = timedelta(seconds=TIMEFRAMES[timeframe])
    return {
        "date": date.fromisoformat(DAY),
        "exchange": MARKET[0],
        "symbol": MARKET[1],
        "timeframe": timeframe,
        "state": state,
        "provisional": False,
        "flagged": False if state.startswith("traded") else None,
        "first_open_time": MIDNIGHT + first * step,
        "last_open_time": MIDNIGHT + (first + buckets - 1) * step,
        "buckets": buckets,
        "previous_close": 5.0,
        **values,
    }


def frame(*runs: dict[str, Any]) -> pl.DataFrame:
    return pl.DataFrame(list(runs), schema=pl.DataFrame(COVERAGE_SCHEMA.empty_table()).schema)


def broken(runs: pl.DataFrame, timeframes: tuple[str, ...] = ("4h",)) -> set[str]:
    whole = whole_day_frame(runs, DAY, [MARKET], timeframes)
    return {case["check"] for case in failure_cases(whole_day_schema(), whole)}


JOINS, ADDS_UP = "each_run_begins_where_the_last_ended", "runs_add_up_to_one_day"


@pytest.mark.parametrize(
    ("runs", "rules"),
    [
        pytest.param([run(0, 6)], set(), id="one run"),
        pytest.param([run(2, 4), run(0, 2)], set(), id="in any order"),
        pytest.param([run(0, 2), run(2, 4)], set(), id="two runs of one state"),
        pytest.param([run(0, 5)], {JOINS, ADDS_UP}, id="too short"),
        pytest.param([run(0, 7)], {JOINS, ADDS_UP}, id="too long"),
        pytest.param([run(1, 5)], {JOINS, ADDS_UP}, id="begins late"),
        pytest.param([run(0, 2), run(3, 3)], {JOINS, ADDS_UP}, id="a gap"),
        pytest.param([run(0, 3), run(2, 4)], {JOINS, ADDS_UP}, id="an overlap"),
        pytest.param([run(0, 2), run(3, 4)], {JOINS}, id="a gap and one bucket too many"),
        pytest.param([], {"the_market_has_runs"}, id="no run"),
    ],
)
def test_the_runs_of_a_market_make_exactly_one_day(runs: list[dict[str, Any]], rules: set[str]) -> None:
    assert broken(frame(*runs)) == rules


def test_every_timeframe_of_the_settings_must_be_there_and_no_other() -> None:
    both = frame(run(0, 6), run(0, 24, timeframe="1h"))
    assert broken(both, ("4h", "1h")) == set()
    assert broken(both, ("4h", "1h", "1d")) == {"the_market_has_runs"}
    assert broken(both) == {"the_day_has_this_market_and_timeframe"}


@pytest.mark.parametrize(
    ("hours", "rules"),
    [
        ((4, 8), set()),
        ((4,), {"a_traded_bucket_has_a_candle"}),
        ((4, 8, 12), {"a_candle_is_in_a_traded_bucket"}),
        ((4, 9), {"a_candle_is_in_a_traded_bucket", "a_traded_bucket_has_a_candle"}),
    ],
)
def test_buckets_are_traded_exactly_where_there_is_a_candle(hours: tuple[int, ...], rules: set[str]) -> None:
    rows = frame(run(0, 1, "missing"), run(1, 1), run(2, 1, "traded_partial"), run(3, 3, "proven_empty"))
    candles = pl.DataFrame({"open_time": [MIDNIGHT + timedelta(hours=hour) for hour in hours]}).select(
        pl.lit(MARKET[0]).alias("exchange"),
        pl.lit(MARKET[1]).alias("symbol"),
        pl.lit("4h").alias("timeframe"),
        pl.col("open_time").cast(pl.Datetime("us", "UTC")),
    )
    found = failure_cases(traded_schema(), traded_frame(rows, candles))
    assert {case["check"] for case in found} == rules


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({}, None),
        ({"previous_close": None}, None),
        ({"state": "gone"}, "state"),
        ({"buckets": 5}, "first_and_last_are_as_far_apart_as_the_buckets"),
        ({"flagged": None}, "flagged_is_null_exactly_without_trades"),
        ({"previous_close": 0.0}, "greater_than(0)"),
        ({"timeframe": "7m"}, "timeframe"),
        ({"symbol": None}, "not_nullable"),
    ],
)
def test_a_row_says_what_its_columns_may_say(change: dict[str, Any], named: str | None) -> None:
    cases = failure_cases(coverage_schema(), frame({**run(0, 6), **change}))
    assert bool(cases) == (named is not None)
    assert named is None or any(named in f"{case['check']} {case['column']}" for case in cases)


def test_provisional_and_flagged_buckets_are_runs_of_their_own() -> None:
    states: list[State] = ["traded", "traded", "proven_empty", "traded", "traded", "traded"]
    market = MarketBuckets(*MARKET, "4h", codes_of(states), provisional=True, flagged=frozenset({2, 4}))
    assert [tuple(found) for found in market.runs()] == [
        ("traded", True, False, 0, 0),
        ("traded", False, False, 1, 1),
        ("proven_empty", False, None, 2, 2),
        ("traded", False, False, 3, 3),
        ("traded", False, True, 4, 4),
        ("traded", True, False, 5, 5),
    ]
    sealed = MarketBuckets(*MARKET, "1d", codes_of(["traded"]), provisional=False)
    assert [tuple(found) for found in sealed.runs()] == [("traded", False, False, 0, 0)]
