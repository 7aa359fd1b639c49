"""The coverage of a day as rows: turns judged markets into rows, and checks the rows together.

A row is one run of equal buckets, so a liquid market's day is a few rows. ``quality.bucket_states`` defines
the states; this module brings them to every timeframe and compares them with the candles.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import date
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from backfill_assets.candles.buckets import market_buckets
from backfill_assets.candles.query import markets_of
from backfill_assets.candles.schemas import COVERAGE_SCHEMA, coverage_schema
from backfill_assets.days import MICROSECONDS_PER_DAY, MICROSECONDS_PER_SECOND, start_us
from backfill_assets.quality.bucket_states import STATES, WITH_CANDLE, codes_of
from backfill_assets.quality.findings import Finding, look_at
from backfill_assets.quality.measures import FeedMinutes
from backfill_assets.quality.settled import SettledDay
from backfill_assets.settings import BASE_TIMEFRAME, TIMEFRAMES

if TYPE_CHECKING:
    import pandera.polars as pa_polars
    import polars as pl

Market = tuple[str, str]
MARKET_KEY = ("exchange", "symbol", "timeframe")


def coverage_rows(
    day: str,
    minutes: Mapping[str, FeedMinutes],
    candles: pl.DataFrame,
    closes: Mapping[Market, float],
    timeframes: Sequence[str],
    sealed: Collection[str],
) -> pa.Table:
    """Return the day's markets as rows of ``COVERAGE_SCHEMA``, ordered by market, timeframe and time.

    Parameters
    ----------
    minutes
        States by feed.
    candles
        The day's candles.
    closes
        The last price of each market on the day before.
    sealed
        Names of the feeds that nothing outside the day can change.
    """
    markets = market_buckets(minutes, timeframes, sealed)
    if not markets:
        return COVERAGE_SCHEMA.empty_table()
    of_day, nothing = _closes(candles), (np.empty(0, dtype=np.int64), np.empty(0))
    runs = [market.alike() for market in markets]
    lengths = [len(run.codes) for run in runs]
    step_us = np.repeat([TIMEFRAMES[m.timeframe] * MICROSECONDS_PER_SECOND for m in markets], lengths)
    codes, provisional, flagged, first, last = map(np.concatenate, zip(*runs, strict=True))
    first_us, last_us = (start_us(day) + positions * step_us for positions in (first, last))
    previous = np.empty(len(codes))
    at = 0
    for market, length in zip(markets, lengths, strict=True):
        key = (market.exchange, market.symbol)
        times, prices = of_day.get(key, nothing)
        known = np.concatenate(([closes.get(key, np.nan)], prices))
        previous[at : at + length] = known[np.searchsorted(times, first_us[at : at + length])]
        at += length
    which = pa.array(np.repeat(np.arange(len(markets)), lengths))
    columns = {
        "date": pa.repeat(pa.scalar(date.fromisoformat(day)), len(codes)),
        **{
            name: pa.array([getattr(market, name) for market in markets], pa.string()).take(which)
            for name in MARKET_KEY
        },
        "state": pa.array(STATES).take(pa.array(codes)),
        "provisional": pa.array(provisional),
        "flagged": pa.array(flagged, mask=~np.isin(codes, codes_of(WITH_CANDLE))),
        "first_open_time": pa.array(first_us),
        "last_open_time": pa.array(last_us),
        "buckets": pa.array(last - first + 1),
        "previous_close": pa.array(previous, mask=np.isnan(previous)),
    }
    return pa.table([columns[field.name].cast(field.type) for field in COVERAGE_SCHEMA], COVERAGE_SCHEMA)


def _closes(
    candles: pl.DataFrame,
) -> dict[Market, tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]]:
    """Open times in microseconds and closes of each market's base candles, in order of time."""
    import polars as pl

    base = candles.lazy().filter(pl.col("timeframe") == BASE_TIMEFRAME).sort("open_time")
    opened = pl.col("open_time").dt.epoch("us")
    markets = base.group_by("exchange", "symbol", maintain_order=True).agg(opened, "close").collect()
    return {
        (exchange, symbol): (times.to_numpy(), prices.to_numpy())
        for exchange, symbol, times, prices in zip(*markets, strict=True)
    }


def coverage_findings(
    rows: pl.DataFrame, candles: pl.DataFrame, settled: SettledDay, timeframes: Sequence[str]
) -> dict[str, Finding]:
    """Return the faults that the schemas find in the rows, in the sum of the day, and beside the candles."""
    whole = whole_day_frame(rows, settled.day, markets_of(settled), timeframes)
    traded = traded_frame(rows, candles)
    return {
        "coverage:schema": look_at(coverage_schema(), rows, (*MARKET_KEY, "first_open_time")),
        "coverage:whole_day": look_at(whole_day_schema(), whole, MARKET_KEY),
        "coverage:traded_buckets": look_at(traded_schema(), traded, (*MARKET_KEY, "open_time")),
    }


def whole_day_frame(
    rows: pl.DataFrame, day: str, markets: Sequence[Market], timeframes: Sequence[str]
) -> pl.DataFrame:
    """Return one row per market and timeframe that the day must have, with its covered time and gaps.

    Columns ``covered_us`` (time that the runs cover together) and ``gaps`` (places where a run does not begin
    where the one before ended; both ends of the day count as such places). Unexpected rows are included.
    """
    import polars as pl

    key = list(MARKET_KEY)
    wanted = pl.DataFrame(
        [(e, s, t) for e, s in markets for t in timeframes],
        schema=dict.fromkeys(key, pl.String),
        orient="row",
    )
    seconds = pl.col("timeframe").replace_strict(TIMEFRAMES, default=None, return_dtype=pl.Int64)
    step_us = seconds * MICROSECONDS_PER_SECOND
    first, last = (pl.col(name).dt.epoch("us") for name in ("first_open_time", "last_open_time"))
    start = start_us(day)
    found = (
        rows.with_columns(first.alias("from_us"), (last + step_us).alias("to_us"))
        .sort(*key, "from_us")
        .group_by(key, maintain_order=True)
        .agg(
            (pl.col("to_us") - pl.col("from_us")).sum().alias("covered_us"),
            (
                (pl.col("from_us") != pl.col("to_us").shift(1, fill_value=start)).sum()
                + (pl.col("to_us").last() != start + MICROSECONDS_PER_DAY)
            )
            .cast(pl.Int64)
            .alias("gaps"),
        )
        .with_columns(pl.lit(value=True).alias("has_runs"))
    )
    expected = wanted.with_columns(pl.lit(value=True).alias("expected"))
    whole = expected.join(found, on=key, how="full", coalesce=True)
    return whole.with_columns(pl.col("expected", "has_runs").fill_null(value=False)).sort(key)


def whole_day_schema() -> pa_polars.DataFrameSchema:
    """Schema of ``whole_day_frame``: the expected markets, each with one day without gap or overlap."""
    import pandera.polars as pa

    return pa.DataFrameSchema(
        {
            "expected": pa.Column(bool, _equal_to(True, "the_day_has_this_market_and_timeframe")),
            "has_runs": pa.Column(bool, _equal_to(True, "the_market_has_runs")),
            "covered_us": pa.Column(
                int, _equal_to(MICROSECONDS_PER_DAY, "runs_add_up_to_one_day"), nullable=True
            ),
            "gaps": pa.Column(int, _equal_to(0, "each_run_begins_where_the_last_ended"), nullable=True),
        }
    )


def traded_frame(rows: pl.DataFrame, candles: pl.DataFrame) -> pl.DataFrame:
    """Buckets with trades in the coverage or in the candles: key, ``has_candle`` and ``is_traded``."""
    import polars as pl

    key = [*MARKET_KEY, "open_time"]
    traded = rows.filter(pl.col("state").is_in(WITH_CANDLE))
    seconds = pl.col("timeframe").replace_strict(TIMEFRAMES, default=None, return_dtype=pl.Int64)
    opened = (
        traded.with_columns(pl.int_ranges(0, "buckets").alias("n"))
        .explode("n")
        .with_columns(
            (pl.col("first_open_time") + pl.duration(seconds=pl.col("n") * seconds)).alias("open_time")
        )
        .select(*key, pl.lit(value=True).alias("is_traded"))
    )
    made = candles.select(*key, pl.lit(value=True).alias("has_candle"))
    both = opened.join(made, on=key, how="full", coalesce=True)
    return both.with_columns(pl.col("is_traded", "has_candle").fill_null(value=False)).sort(key)


def traded_schema() -> pa_polars.DataFrameSchema:
    """Schema of ``traded_frame``: a bucket is traded if and only if it has a candle."""
    import pandera.polars as pa

    return pa.DataFrameSchema(
        {
            "is_traded": pa.Column(bool, _equal_to(True, "a_candle_is_in_a_traded_bucket")),
            "has_candle": pa.Column(bool, _equal_to(True, "a_traded_bucket_has_a_candle")),
        }
    )


def _equal_to(value: bool | int, name: str) -> pa_polars.Check:
    """Compare for equality under a name (pandera's own check reports only its value); nulls pass."""
    import pandera.polars as pa
    import polars as pl

    return pa.Check(
        lambda data: data.lazyframe.select((pl.col(data.key) == value).fill_null(value=True)), name=name
    )
