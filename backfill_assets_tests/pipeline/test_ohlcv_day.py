"""The OHLCV table through Dagster: published candles get there behind the gate, and stay the lake's."""

from __future__ import annotations

import sqlite3

import pytest

from backfill_assets.standins import faults
from backfill_assets.standins.faults import Fault
from backfill_assets.warehouse.ohlcv.day import OhlcvDay
from backfill_assets.warehouse.ohlcv.target import open_target
from backfill_assets.warehouse.publisher import Publisher

DAY, NEXT = "2024-01-02", "2024-01-03"
KEY = ["exchange", "symbol", "timeframe", "open_time"]
CHECK = "ohlcv:equals_lake"


@pytest.fixture
def pipeline(make_pipeline, standin, tmp_path):
    """A pipeline with the target on."""
    return make_pipeline(standin, ohlcv={"url": f"sqlite:///{tmp_path}/candles.db"})


def rows(pipeline):
    with sqlite3.connect(pipeline.folder.parent / "candles.db") as connection:
        columns = "exchange, symbol, timeframe, open_time, open, high, low, close, volume, trade_count"
        return connection.execute(f"SELECT {columns} FROM ohlcv ORDER BY 1, 2, 3, 4").fetchall()


def published(pipeline, *days):
    tables = [pipeline.table("candles", day).sort(KEY) for day in days]
    columns = [*KEY, "open", "high", "low", "close", "volume", "trade_count"]
    return sorted(
        row
        for table in tables
        for row in table.with_columns(table["open_time"].dt.epoch("us")).select(columns).rows()
    )


def ohlcv_metadata(result):
    [event] = [e for e in result.get_asset_materialization_events() if e.asset_key.path == ["ohlcv"]]
    return event.materialization.metadata


def test_published_candles_are_in_the_table_and_a_rerun_writes_none_of_them(pipeline, checks_of):
    result = pipeline.run(DAY)
    assert result.success
    assert checks_of(result)[CHECK].passed
    found = rows(pipeline)
    assert found == published(pipeline, DAY)
    assert len(found) == ohlcv_metadata(result)["dagster/row_count"].value > 1_000
    again = ohlcv_metadata(pipeline.run(DAY))
    assert [r.data["written"] for r in again["days"].records] == [0]
    assert rows(pipeline) == found


def test_the_next_days_run_brings_along_the_candles_that_it_changes(pipeline, checks_of):
    pipeline.run(DAY)
    result = pipeline.run(NEXT)
    assert checks_of(result)[CHECK].passed
    assert rows(pipeline) == published(pipeline, DAY, NEXT)
    again = pipeline.run(DAY)
    assert checks_of(again)[CHECK].passed
    assert [r.data["day"] for r in ohlcv_metadata(again)["days"].records] == [DAY], "nothing has changed"


def test_a_held_day_writes_nothing_whatever_asks(pipeline):
    held = [f"{e}/trades/{s}" for e in ("coinbase",) for s in ("BTC-USDT", "ETH-USDT", "ADA-USDT")]
    for feed in (*held, "binance/trades/BTCUSDT", "binance/trades/ETHUSDT"):
        pipeline.with_fault(feed, DAY, Fault(always=faults.not_found()))
    assert not pipeline.run(DAY).success
    assert not pipeline.run(DAY, select=["ohlcv"]).success
    assert not (pipeline.folder.parent / "candles.db").exists()
    pipeline.heal()
    assert pipeline.run(DAY).success
    assert rows(pipeline) == published(pipeline, DAY)


ONE = "exchange = 'kraken' AND symbol = 'ETH-USDT' AND timeframe = '1d'"
DAMAGES = (
    f"DELETE FROM ohlcv WHERE {ONE}",
    f"UPDATE ohlcv SET close = close + 0.01 WHERE {ONE}",
    "INSERT INTO ohlcv SELECT 'mtgox', symbol, timeframe, open_time, open, high, low, close, volume, "
    "quote_volume, vwap, trade_count, updated_at FROM ohlcv LIMIT 1",
)


def test_a_table_that_somebody_changed_is_red_until_the_day_is_run_again(pipeline, checks_of):
    pipeline.run(DAY)
    good, settings = rows(pipeline), pipeline.settings
    for damage in DAMAGES:
        with sqlite3.connect(pipeline.folder.parent / "candles.db") as connection:
            connection.execute(damage)
        publisher = Publisher(pipeline.store, pipeline.warehouse, settings)
        assert len(OhlcvDay(publisher, open_target(settings.ohlcv)).differences(DAY)) == 1
        assert checks_of(pipeline.run(DAY, select=["ohlcv"]))[CHECK].passed
        assert rows(pipeline) == good


def test_only_the_timeframes_of_the_settings_are_written(make_pipeline, standin, tmp_path, checks_of):
    ohlcv = {"url": f"sqlite:///{tmp_path}/candles.db", "timeframes": ["1h", "1d"]}
    pipeline = make_pipeline(standin, ohlcv=ohlcv)
    assert checks_of(pipeline.run(DAY))[CHECK].passed
    assert {row[2] for row in rows(pipeline)} == {"1h", "1d"}


def test_where_it_is_off_its_materialization_says_so(make_pipeline, standin, checks_of):
    result = make_pipeline(standin).run(DAY)
    assert result.success
    metadata = ohlcv_metadata(result)
    assert metadata["state"].value == "off: ohlcv.url is empty"
    assert "dagster/row_count" not in metadata
    assert checks_of(result)[CHECK].description == "off: ohlcv.url is empty"


def test_an_address_of_no_database_fails_the_node_and_not_the_days_publication(make_pipeline, standin):
    pipeline = make_pipeline(standin, ohlcv={"url": "mysql://me:secret@db/x"})
    result = pipeline.run(DAY)
    assert not result.success
    assert pipeline.table("candles", DAY).height > 0
    failures = [e.step_failure_data for e in result.all_events if e.is_step_failure]
    assert any("ohlcv.url names no database" in str(f.user_failure_data) for f in failures)
    assert "secret" not in str(failures)
