"""In every order, and after every number of runs, the tables end the same."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import polars as pl
import pytest

from backfill_assets.standins.trades import SIDES

pytestmark = pytest.mark.story

DAYS = ("2024-01-01", "2024-01-02", "2024-01-03")
TABLES = ("trades", "candles", "coverage", "quality", "instruments")


@pytest.fixture(scope="module")
def in_order(tmp_path_factory):
    """Every partition after days 1, 2, 3; the first test that needs it fills it."""
    return {}


def bytes_of(pipeline):
    return {table: pipeline.partition_bytes(table) for table in TABLES}


def run_in_order(make_pipeline, standin, in_order):
    if not in_order:
        pipeline = make_pipeline(standin, name="in-order")
        for day in DAYS:
            assert pipeline.run(day).success
        in_order.update(bytes_of(pipeline))
        assert set(in_order["candles"]) == set(DAYS)
    return in_order


def test_days_in_another_order_end_in_the_same_bytes(make_pipeline, standin, in_order):
    expected = run_in_order(make_pipeline, standin, in_order)
    pipeline = make_pipeline(standin, name="other-order")
    for day in (DAYS[2], DAYS[0], DAYS[1]):
        assert pipeline.run(day).success
    assert bytes_of(pipeline) == expected


def test_days_in_parallel_end_in_the_same_bytes(make_pipeline, standin, in_order):
    expected = run_in_order(make_pipeline, standin, in_order)
    pipeline = make_pipeline(standin, name="parallel")
    with ThreadPoolExecutor(3) as pool:
        results = list(pool.map(pipeline.run_apart, DAYS))
    assert all(result.success for result in results)
    assert bytes_of(pipeline) == expected


def test_a_day_run_three_times_at_once_ends_in_the_same_bytes(make_pipeline, standin):
    alone = make_pipeline(standin, name="alone")
    assert alone.run(DAYS[0]).success
    crowded = make_pipeline(standin, name="crowded")
    with ThreadPoolExecutor(3) as pool:
        results = list(pool.map(crowded.run_apart, [DAYS[0]] * 3))
    assert all(result.success for result in results)
    assert bytes_of(crowded) == bytes_of(alone)


def test_trades_that_straddle_midnight_give_the_candles_of_one_computation(make_pipeline, standin, market):
    """The middle day, from three files, compared with one pass of another engine over the whole stream."""
    pipeline = make_pipeline(standin)
    for day in DAYS:
        assert pipeline.run(day).success
    straddling = 0
    for exchange, symbol in (("binance", "BTC-USDT"), ("coinbase", "ETH-USDT"), ("kraken", "ADA-USDT")):
        trades = market.trades(exchange, symbol, DAYS[0], DAYS[2])
        arrived = (trades.local_timestamp_us // 86_400_000_000).astype(np.int64)
        traded = trades.timestamp_us // 86_400_000_000
        straddling += int((arrived != traded).sum())
        whole = (
            pl.DataFrame(
                {
                    "time": pl.Series(trades.timestamp_us).cast(pl.Datetime("us", "UTC")),
                    "id": trades.id,
                    "side": [SIDES[code] for code in trades.side],
                    "price": trades.price,
                    "amount": trades.amount,
                }
            )
            .with_row_index()
            .filter(pl.col("amount") > 0)
            .sort("time", "id", "index")
            .group_by(pl.col("time").dt.truncate("1m").alias("open_time"), maintain_order=True)
            .agg(
                pl.col("price").first().alias("open"),
                pl.col("price").max().alias("high"),
                pl.col("price").min().alias("low"),
                pl.col("price").last().alias("close"),
                pl.col("amount").sum().alias("volume"),
                pl.len().cast(pl.Int64).alias("trade_count"),
                pl.col("amount").filter(pl.col("side") == "buy").sum().alias("buy_volume"),
            )
            .filter(pl.col("open_time").dt.date() == pl.lit(DAYS[1]).str.to_date())
        )
        stored = pipeline.table("candles", DAYS[1]).filter(exchange=exchange, symbol=symbol, timeframe="1m")
        exact = ["open_time", "open", "high", "low", "close", "trade_count"]
        assert stored.select(exact).equals(whole.select(exact))
        for column in ("volume", "buy_volume"):
            np.testing.assert_allclose(stored[column], whole[column], rtol=1e-9)
    assert straddling >= 6, "the generated market must put trades on both sides of midnight"


def test_the_day_before_gains_its_last_candle_when_the_next_day_arrives(pipeline):
    assert pipeline.run(DAYS[0]).success
    before = pipeline.table("candles", DAYS[0]).filter(timeframe="1d")["trade_count"].sum()
    assert not pipeline.settled(DAYS[0]).is_sealed
    assert pipeline.run(DAYS[1]).success
    after = pipeline.table("candles", DAYS[0]).filter(timeframe="1d")["trade_count"].sum()
    assert after > before
    assert pipeline.run("2023-12-31").success
    assert pipeline.settled(DAYS[0]).is_sealed
    assert set(pipeline.table("quality", DAYS[0])["sealed"]) == {True}
