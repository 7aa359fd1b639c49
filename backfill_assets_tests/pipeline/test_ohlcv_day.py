"""The OHLCV table through Dagster: it gets published candles behind the gate, equal to the lake's."""

from __future__ import annotations

import sqlite3

import pytest
import yaml
from click.testing import CliRunner

from backfill_assets import orchestration
from backfill_assets.cli import main
from backfill_assets.report.model import day_report
from backfill_assets.standins import faults
from backfill_assets.standins.faults import Fault
from backfill_assets.warehouse.catalog import CANDLES, OHLCV
from backfill_assets.warehouse.ledger import entry
from backfill_assets.warehouse.ohlcv.warehouse import open_ohlcv
from backfill_assets.warehouse.publisher import Publisher

DAY, NEXT = "2024-01-02", "2024-01-03"
KEY = ["exchange", "symbol", "timeframe", "open_time"]
CHECK = "ohlcv:equals_lake"


@pytest.fixture
def pipeline(make_pipeline, standin, tmp_path):
    """A pipeline with the target on."""
    return make_pipeline(standin, ohlcv={"url": f"sqlite:///{tmp_path}/candles.db"})


def rows(pipeline, database="candles.db"):
    with sqlite3.connect(pipeline.folder.parent / database) as connection:
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
    assert [r.data["state"] for r in again["partitions"].records] == ["skipped"]
    assert rows(pipeline) == found


def test_the_next_days_run_brings_along_the_candles_that_it_changes(pipeline, checks_of):
    pipeline.run(DAY)
    result = pipeline.run(NEXT)
    assert checks_of(result)[CHECK].passed
    assert rows(pipeline) == published(pipeline, DAY, NEXT)
    again = pipeline.run(DAY)
    assert checks_of(again)[CHECK].passed
    assert [r.data["day"] for r in ohlcv_metadata(again)["partitions"].records] == [DAY], (
        "nothing has changed"
    )


def test_a_neighbour_that_another_database_has_is_not_taken_for_one_of_this(pipeline, checks_of):
    def use(database, **more):
        written = yaml.safe_load(pipeline.file.read_text())
        written["ohlcv"] = {"url": f"sqlite:///{pipeline.folder.parent}/{database}", **more}
        pipeline.file.write_text(yaml.safe_dump(written))

    for database in ("stale.db", "candles.db"):
        use(database)
        assert checks_of(pipeline.run(DAY))[CHECK].passed
        assert rows(pipeline, database) == published(pipeline, DAY)
    pipeline.run(NEXT)
    for database, days in (("stale.db", (DAY, NEXT)), ("empty.db", (NEXT,))):
        use(database)
        assert checks_of(pipeline.run(NEXT, select=["ohlcv"]))[CHECK].passed
        assert rows(pipeline, database) == published(pipeline, *days)


def test_days_of_an_earlier_layout_are_brought_along_as_well(pipeline):
    pipeline.run(DAY)
    with sqlite3.connect(pipeline.folder.parent / "candles.db") as connection:
        connection.executescript(
            "DROP TABLE ohlcv_days; CREATE TABLE ohlcv_days (day TEXT PRIMARY KEY, "
            "fingerprint TEXT NOT NULL, totals TEXT NOT NULL, updated_at BIGINT NOT NULL); "
            f"INSERT INTO ohlcv_days VALUES ('{DAY}', 'f', '[]', 1)"
        )
    pipeline.store.delete(f"publications/ohlcv/{DAY}.json")
    before = rows(pipeline)
    pipeline.run(NEXT)
    assert rows(pipeline) == published(pipeline, DAY, NEXT)
    assert not set(before) <= set(rows(pipeline)), "the day has changed"


def test_what_is_retracted_leaves_the_table(make_pipeline, standin, tmp_path):
    universe = [{"exchanges": ["binance"], "symbols": ["BTC-USDT"], "data_types": ["trades"]}]
    pipeline = make_pipeline(standin, universe=universe, ohlcv={"url": f"sqlite:///{tmp_path}/candles.db"})
    assert pipeline.run(DAY).success
    assert len(rows(pipeline)) > 1_000
    content = pipeline.table("quality", DAY).row(0, named=True)["content"][:12]
    words = ("retract", "--date", DAY, "--feed", "binance/trades/BTCUSDT", "--content", content)
    words = (*words, "--reason", "not ours to publish")
    assert CliRunner(env={"BACKFILL_ENV": str(pipeline.file)}).invoke(main, words).exit_code == 0
    pipeline.run(DAY)
    assert rows(pipeline) == []


def test_alone_on_a_day_that_was_never_run_it_says_what_comes_first(pipeline, checks_of, monkeypatch):
    monkeypatch.setattr(orchestration, "STEP_RETRY_SECONDS", 0.01)
    result = pipeline.run(DAY, select=["ohlcv"])
    assert not result.success
    [event] = [e for e in result.all_events if e.is_step_failure]
    assert "materialize its instruments and ticks first" in str(event.step_failure_data)
    assert checks_of(result) == {}


def test_its_ledger_is_none_of_the_warehouses(make_pipeline, standin, tmp_path):
    ohlcv = {"url": f"sqlite:///{tmp_path}/candles.db", "table": "candles", "timeframes": ["1h"]}
    pipeline = make_pipeline(standin, ohlcv=ohlcv)
    assert pipeline.run(DAY).success
    candles, own = (entry(pipeline.store, table.name, DAY).published for table in (CANDLES, OHLCV))
    assert candles.rows == pipeline.table("candles", DAY).height > own.rows
    report = day_report(pipeline.store, pipeline.settings, DAY)
    assert "ohlcv" not in {line.table for line in report.publications}


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
    "quote_volume, vwap, trade_count, volume_unit, quote_unit, updated_at FROM ohlcv LIMIT 1",
)


def test_a_table_that_somebody_changed_is_red_until_the_day_is_run_again(pipeline, checks_of):
    pipeline.run(DAY)
    good, settings = rows(pipeline), pipeline.settings
    for damage in DAMAGES:
        with sqlite3.connect(pipeline.folder.parent / "candles.db") as connection:
            connection.execute(damage)
        publisher = Publisher(pipeline.store, open_ohlcv(settings.ohlcv), settings)
        assert len(publisher.differences(OHLCV, DAY)) == 1
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
    assert any("ohlcv.url names an unsupported database" in str(f.user_failure_data) for f in failures)
    assert "secret" not in str(failures)
