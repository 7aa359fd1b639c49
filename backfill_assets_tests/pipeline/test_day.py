"""One day through Dagster: published rows, rows left out, and the effect of a rerun."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import dagster as dg
import pytest

from backfill_assets import orchestration
from backfill_assets.automation.due import awaiting_export
from backfill_assets.days import parse_day
from backfill_assets.definitions import defs
from backfill_assets.failures import BadInput
from backfill_assets.frames.data import open_data
from backfill_assets.lake import paths
from backfill_assets.lake.manifests import load_day_record
from backfill_assets.progress.model import BackfillRequest
from backfill_assets.progress.plan import make_plan
from backfill_assets.standins import faults
from backfill_assets.standins.faults import Fault
from backfill_assets_tests.pipeline.conftest import write_settings

DAY = "2024-01-02"
BTC = "binance/trades/BTCUSDT"


def failure_of(result: dg.ExecuteInProcessResult, asset: str) -> str:
    """The message of the asset's failed step."""
    [event] = [e for e in result.all_events if e.is_step_failure and e.step_key == asset.replace("/", "__")]
    data = event.step_failure_data
    return data.user_failure_data.description if data.user_failure_data else str(data.error)


def test_a_good_day_is_published_and_every_check_is_green(pipeline, checks_of):
    result = pipeline.run(DAY)
    assert result.success
    checks = checks_of(result)
    assert len(checks) == 24
    assert [name for name, check in checks.items() if not check.passed] == []
    judged = pipeline.settled(DAY)
    assert judged.scores.state == "published"
    assert pipeline.table("trades", DAY).height == sum(f.verdict.rows for f in judged.feeds) > 20_000
    assert pipeline.table("quality", DAY).height == 9
    assert pipeline.table("instruments", DAY).filter("expected").height == 9
    candles = pipeline.table("candles", DAY)
    assert set(candles["timeframe"]) == {"1m", "5m", "15m", "1h", "4h", "1d"}
    assert candles.filter(timeframe="1d").height == 9


def test_materializations_tell_rows_columns_and_where_to_look(pipeline):
    result = pipeline.run(DAY)
    found = {
        event.asset_key.to_user_string(): event.materialization.metadata
        for event in result.get_asset_materialization_events()
    }
    assert found["ohlcv"]["state"].value == "off: ohlcv.url is empty"
    assert found["reference"]["state"].value == "off: comparison names no source"
    graph = defs.get_repository_def().asset_graph
    pages = {name for name in found if "html" in graph.get(dg.AssetKey(name.split("/"))).kinds}
    tables = found.keys() - pages - {"ohlcv", "reference"}
    assert len(tables) > len(pages) > 0
    assert all(found[name]["dagster/row_count"].value > 0 for name in tables)
    assert all(Path(found[name]["page"].value).read_text().startswith("<!doctype html>") for name in pages)
    assert found["ticks"]["lake"].value == str(pipeline.folder / "lake")
    folder = pipeline.folder / "warehouse"
    assert found["bigquery/ticks"]["link_trades"].value == str(folder / "trades")
    assert found["bigquery/candles"]["link_candles"].value == str(folder / "candles")
    assert len(found["ticks"]["feeds"].records) == 9


def test_a_rerun_downloads_nothing_and_loads_nothing(pipeline):
    pipeline.run(DAY)
    before = {name: pipeline.partition_bytes(name) for name in ("trades", "candles", "coverage", "quality")}
    pipeline.standin.forget_requests()
    result = pipeline.run(DAY)
    assert result.success
    assert pipeline.downloads == []
    metadata = [e.materialization.metadata for e in result.get_asset_materialization_events()]
    assert sum(m["loads"].value for m in metadata if "loads" in m) == 0
    assert sum(m["skipped"].value for m in metadata if "skipped" in m) == 5
    assert {name: pipeline.partition_bytes(name) for name in before} == before


def test_a_missing_feed_degrades_the_day_and_a_later_rerun_heals_it(pipeline, checks_of):
    pipeline.with_fault(BTC, DAY, Fault(always=faults.not_found()))
    result = pipeline.run(DAY)
    assert result.success, "one bad feed must not stop the rest"
    check = checks_of(result)["ticks:completeness"]
    assert not check.passed
    assert check.severity == dg.AssetCheckSeverity.ERROR
    assert "8/9" not in check.description
    assert pipeline.settled(DAY).scores.state == "degraded"
    assert "BTCUSDT" not in set(pipeline.table("trades", DAY).filter(exchange="binance")["dataset_symbol"])
    quality = pipeline.table("quality", DAY).filter(exchange="binance", symbol="BTC-USDT")
    assert quality["verdict"].to_list() == ["missing"]
    assert quality["published"].to_list() == [False]

    pipeline.heal()
    pipeline.standin.forget_requests()
    assert pipeline.run(DAY).success
    assert len(pipeline.downloads) == 1, "only the missing feed is fetched"
    assert pipeline.settled(DAY).scores.state == "published"
    assert "BTCUSDT" in set(pipeline.table("trades", DAY)["dataset_symbol"])


def test_a_held_day_fails_publishes_nothing_and_still_gets_its_quality_rows(pipeline):
    of_binance = ("binance/trades/BTCUSDT", "binance/trades/ETHUSDT", "binance/trades/ADAUSDT")
    for feed in (*of_binance, "coinbase/trades/BTC-USDT", "coinbase/trades/ETH-USDT"):
        pipeline.with_fault(feed, DAY, Fault(always=faults.not_found()))
    result = pipeline.run(DAY)
    assert not result.success
    assert pipeline.settled(DAY).scores.state == "held"
    assert pipeline.table("trades", DAY).is_empty()
    assert pipeline.table("candles", DAY).is_empty()
    assert pipeline.table("instruments", DAY).is_empty()
    assert set(pipeline.table("quality", DAY)["day_state"]) == {"held"}
    assert sum(pipeline.table("quality", DAY)["verdict"] == "missing") == 5


@pytest.mark.parametrize(
    ("asset", "first"), [("candles", "ticks"), ("bigquery/candles", "ticks"), ("report", "run the day first")]
)
def test_an_asset_alone_on_a_day_that_was_never_run_says_what_comes_first(
    pipeline, checks_of, asset, first, monkeypatch
):
    monkeypatch.setattr(orchestration, "STEP_RETRY_SECONDS", 0.01)
    result = pipeline.run(DAY, select=[asset])
    assert not result.success
    assert first in failure_of(result, asset)
    assert checks_of(result) == {}


@pytest.mark.parametrize(
    "refusal",
    [faults.not_available(), faults.Refusal(403, 0, "your plan lacks it"), faults.Refusal(401, 0, "")],
    ids=lambda refusal: str(refusal.status),
)
def test_a_feed_that_was_never_stored_leaves_the_day_with_the_settings(make_pipeline, standin, refusal):
    entry = {"exchanges": ["binance"], "symbols": ["BTC-USDT", "ETH-USDT"], "data_types": ["trades"]}
    pipeline = make_pipeline(standin, universe=[entry])
    pipeline.with_fault(BTC, DAY, Fault(always=refusal))
    assert pipeline.run(DAY).success
    assert [str(f.feed) for f in pipeline.settled(DAY).feeds] == [BTC, "binance/trades/ETHUSDT"]
    write_settings(pipeline.folder, standin, universe=[{**entry, "symbols": ["ADA-USDT"]}])
    pipeline.standin.forget_requests()
    assert pipeline.run(DAY).success
    assert not [path for path in pipeline.downloads if "BTCUSDT" in path]
    kept = ["binance/trades/ADAUSDT", "binance/trades/ETHUSDT"]
    assert [str(f.feed) for f in pipeline.settled(DAY).feeds] == kept, "what was stored stays"
    assert pipeline.settled(DAY).scores.state == "published"


def test_four_missing_feeds_of_nine_do_not_hold_the_day(pipeline):
    of_binance = ("binance/trades/BTCUSDT", "binance/trades/ETHUSDT")
    for feed in (*of_binance, "kraken/trades/XBT-USDT", "kraken/trades/ETH-USDT"):
        pipeline.with_fault(feed, DAY, Fault(always=faults.not_found()))
    assert pipeline.run(DAY).success
    assert pipeline.settled(DAY).scores.state == "degraded"
    assert pipeline.table("trades", DAY).height > 0


@pytest.mark.parametrize("table", ["trades", "candles", "coverage", "instruments"])
def test_a_held_day_stays_held_when_only_publishing_is_run_again(pipeline, table):
    for symbol in ("BTC-USDT", "ETH-USDT", "ADA-USDT"):
        for feed in (f"coinbase/trades/{symbol}", f"binance/trades/{symbol.replace('-', '')}"):
            pipeline.with_fault(feed, DAY, Fault(always=faults.not_found()))
    assert not pipeline.run(DAY).success
    asset = {"trades": "bigquery/ticks"}.get(table, f"bigquery/{table}")
    again = pipeline.run(DAY, select=[asset])
    assert not again.success
    assert pipeline.table(table, DAY).is_empty()


def test_a_feed_with_a_gap_is_quarantined_and_the_rest_is_published(pipeline, checks_of):
    pipeline.serve_changed(BTC, DAY, lambda lines: lines[:800] + lines[1800:])
    result = pipeline.run(DAY)
    assert result.success
    verdict = next(f.verdict for f in pipeline.settled(DAY).feeds if str(f.feed) == BTC)
    assert verdict.outcome == "quarantine"
    assert "1000 ids are missing" in verdict.reasons[0]
    assert not checks_of(result)["ticks:completeness"].passed
    assert "BTCUSDT" not in set(pipeline.table("trades", DAY)["dataset_symbol"])
    assert pipeline.table("candles", DAY).filter(exchange="binance", symbol="BTC-USDT").is_empty()
    assert pipeline.table("candles", DAY).filter(exchange="binance", symbol="ETH-USDT").height > 0


def test_a_missing_id_within_a_burst_is_published_and_named(pipeline, checks_of):
    def without_one_of_a_burst(lines):
        times = [int(line.split(",")[2]) for line in lines]
        within = min(range(1, len(lines) - 1), key=lambda i: times[i + 1] - times[i - 1])
        return lines[:within] + lines[within + 1 :]

    pipeline.serve_changed(BTC, DAY, without_one_of_a_burst)
    result = pipeline.run(DAY)
    assert result.success
    verdict = next(f.verdict for f in pipeline.settled(DAY).feeds if str(f.feed) == BTC)
    assert (verdict.outcome, verdict.completeness_state, verdict.missing_ids) == ("publish", "degraded", 1)
    check = checks_of(result)["ticks:completeness"]
    assert not check.passed
    assert check.severity == dg.AssetCheckSeverity.WARN
    assert "BTCUSDT" in set(pipeline.table("trades", DAY)["dataset_symbol"])


def test_a_refresh_with_worse_data_leaves_what_is_published(pipeline):
    pipeline.begin_after(DAY)
    before = pipeline.partition_bytes("trades"), pipeline.partition_bytes("candles")
    pipeline.serve_changed(BTC, DAY, lambda lines: lines[:500] + lines[2500:])
    assert pipeline.run(DAY, refresh=True, feeds=[BTC]).success
    feed = next(f for f in pipeline.settled(DAY).feeds if str(f.feed) == BTC)
    assert feed.candidate is not None
    assert feed.verdict.outcome == "publish", "the verdict shown is that of what counts"
    assert (pipeline.partition_bytes("trades"), pipeline.partition_bytes("candles")) == before
    assert pipeline.table("quality", DAY).filter("pending")["dataset_symbol"].to_list() == ["BTCUSDT"]


def test_a_refresh_with_other_good_data_replaces_what_is_published(pipeline):
    pipeline.begin_after(DAY)
    before = pipeline.table("candles", DAY).filter(exchange="binance", symbol="BTC-USDT", timeframe="1d")

    def dearer(lines):
        cells = lines[1500].split(",")
        cells[6] = str(float(cells[6]) * 1.001)
        return [*lines[:1500], ",".join(cells), *lines[1501:]]

    pipeline.serve_changed(BTC, DAY, dearer)
    assert pipeline.run(DAY, refresh=True, feeds=[BTC]).success
    after = pipeline.table("candles", DAY).filter(exchange="binance", symbol="BTC-USDT", timeframe="1d")
    assert after["quote_volume"].item() > before["quote_volume"].item()
    assert after["trade_count"].item() == before["trade_count"].item()


def test_a_file_that_cannot_be_read_is_kept_for_inspection(pipeline):
    def broken(lines):
        cells = lines[41].split(",")
        cells[6] = "12,3"
        return [*lines[:41], ",".join(cells), *lines[42:]]

    pipeline.serve_changed(BTC, DAY, broken)
    assert pipeline.run(DAY).success
    verdict = next(f.verdict for f in pipeline.settled(DAY).feeds if str(f.feed) == BTC)
    assert verdict.outcome == "missing"
    assert "line 43" in verdict.reasons[0]
    kept = list((pipeline.folder / "lake" / "rejected").rglob("*.csv.gz"))
    assert len(kept) == 1


def test_an_unknown_feed_to_refresh_is_refused_before_anything_is_fetched(pipeline):
    pipeline.begin_after(DAY)
    pipeline.standin.forget_requests()
    assert not pipeline.run(DAY, refresh=True, feeds=["binance/trades/BTCUSD"]).success
    assert pipeline.downloads == []


def test_a_day_that_is_not_exported_yet_fails_without_a_retry_and_is_remembered(pipeline):
    result = pipeline.run("2024-02-10")
    assert not result.success
    record = load_day_record(pipeline.store, "2024-02-10")
    assert record is not None
    assert record.awaiting_export == ("binance", "coinbase", "kraken")
    assert pipeline.downloads == []


def test_a_silent_feed_between_joining_ids_is_proven_empty_with_both_neighbours(make_pipeline, standin):
    symbols = ["SOL-USDT", "BTC-USDT"]
    quiet = make_pipeline(standin, universe=[{"exchanges": ["coinbase"], "symbols": symbols}])
    quiet.run("2024-01-05")
    sol = next(f for f in quiet.settled("2024-01-05").feeds if f.feed.dataset_symbol == "SOL-USDT")
    assert (sol.verdict.outcome, sol.accepted) == ("no_evidence", None)
    quiet.run("2024-01-04")
    quiet.run("2024-01-06")
    judged = quiet.settled("2024-01-05")
    sol = next(f for f in judged.feeds if f.feed.dataset_symbol == "SOL-USDT")
    assert (sol.verdict.outcome, sol.verdict.completeness) == ("publish", 1.0)
    assert judged.is_sealed


def test_every_data_type_goes_the_whole_way(make_pipeline, standin):
    types = ["trades", "quotes", "book_ticker", "book_snapshot_5", "book_snapshot_25", "incremental_book_L2"]
    both = make_pipeline(
        standin,
        universe=[
            {
                "exchanges": ["binance-futures"],
                "symbols": ["BTC-USDT"],
                "data_types": [*types, "derivative_ticker", "liquidations"],
                "instrument_types": ["perpetual"],
            },
            {"exchanges": ["deribit"], "symbols": ["OPTIONS"], "data_types": ["options_chain"]},
        ],
    )
    result = both.run(DAY)
    assert result.success
    for name in (*types, "derivative_ticker", "liquidations", "options_chain"):
        table = both.table(name, DAY)
        assert table.height > 0, name
        assert table["row"].to_list() == list(range(table.height))
        assert table["exchange"].n_unique() == 1


def test_a_grouped_file_becomes_candles_of_each_symbol(make_pipeline, standin):
    grouped, single = (
        make_pipeline(standin, name=symbol, universe=[{"exchanges": ["binance"], "symbols": [symbol]}])
        for symbol in ("SPOT", "BTC-USDT")
    )
    assert grouped.run(DAY).success
    assert single.run(DAY).success
    of_group = grouped.table("candles", DAY).filter(symbol="BTC-USDT")
    assert of_group.height > 0
    assert of_group.equals(single.table("candles", DAY))
    assert grouped.table("candles", DAY)["symbol"].n_unique() == 4

    data = open_data(str(grouped.file), "warehouse")
    assert data.candles("binance", "BTC-USDT", "1h", DAY).to_polars().height == 24
    with pytest.raises(
        BadInput, match="no instrument 'BTC-USTD' on a day of the range; did you mean BTC-USDT"
    ):
        data.candles("binance", "BTC-USTD", "1h", DAY)
    page = grouped.store.read(paths.day_report(DAY))
    assert page is not None
    assert b"The candles of a group's markets are in the tables" in page.data
    assert b"no valid trades" not in page.data


def test_the_embedded_warehouse_can_be_read_from_anywhere(pipeline, tmp_path: Path, monkeypatch):
    import duckdb

    pipeline.run(DAY)
    monkeypatch.chdir(tmp_path)
    with duckdb.connect(str(pipeline.folder / "warehouse" / "warehouse.duckdb"), read_only=True) as database:
        rows = database.sql("select count(*) from candles where date = '2024-01-02'").fetchall()
    assert rows == [(pipeline.table("candles", DAY).height,)]


def test_rows_of_a_feed_carry_both_names(pipeline):
    pipeline.begin_after(DAY)
    rows = pipeline.table("trades", DAY).filter(exchange="kraken").select("symbol", "dataset_symbol").rows()
    assert set(rows) == {("BTC-USDT", "XBT/USDT"), ("ETH-USDT", "ETH/USDT"), ("ADA-USDT", "ADA/USDT")}


def test_an_exchange_without_metadata_is_waited_for_while_the_others_are_published(pipeline, checks_of):
    pipeline.standin.faults.put("/v1/exchanges/binance", Fault(always=faults.server_error()))
    result = pipeline.run(DAY)
    assert result.success
    listed = checks_of(result)["instruments:expected_symbols"]
    assert (listed.passed, "/v1/exchanges/binance: HTTP 500" in (listed.description or "")) == (False, True)
    day = pipeline.settled(DAY)
    assert day.scores.state == "degraded"
    assert "/v1/exchanges/binance: HTTP 500" in day.scores.reasons[-1]
    assert set(pipeline.table("trades", DAY)["exchange"]) == {"coinbase", "kraken"}
    now = parse_day(DAY) + timedelta(days=1)
    assert awaiting_export(pipeline.store, now, pipeline.settings) == [DAY]

    pipeline.heal()
    healed = pipeline.run(DAY)
    assert (healed.success, checks_of(healed)["instruments:expected_symbols"].passed) == (True, True)
    assert pipeline.settled(DAY).scores.state == "published"
    assert set(pipeline.table("trades", DAY)["exchange"]) == {"binance", "coinbase", "kraken"}
    assert awaiting_export(pipeline.store, now, pipeline.settings) == []


def test_prices_and_amounts_beyond_all_measure_cost_their_rows(pipeline):
    def beyond(lines: list[str]) -> list[str]:
        def changed(line: str, price: str, amount: str) -> str:
            *head, _, _ = line.split(",")
            return ",".join([*head, price, amount])

        odd = [("1e308", "1e308"), ("1e308", "1"), ("1e-320", "1"), ("100", "1e308"), ("100", "-1e300")]
        return [*(changed(line, *pair) for line, pair in zip(lines, odd, strict=False)), *lines[5:]]

    pipeline.serve_changed(BTC, DAY, beyond)
    result = pipeline.run(DAY)
    assert result.success
    feed = next(f for f in pipeline.settled(DAY).feeds if str(f.feed) == BTC)
    assert feed.verdict.rows - feed.verdict.valid_rows == 5
    candles = pipeline.table("candles", DAY).filter(exchange="binance", symbol="BTC-USDT")
    assert candles["high"].max() < 1e15
    assert candles["low"].min() > 1e-18
    assert pipeline.table("trades", DAY).filter(exchange="binance")["price"].max() == 1e308


def test_the_reason_of_a_damaged_file_is_told_wherever_the_day_is(pipeline, monkeypatch):
    monkeypatch.setattr(orchestration, "STEP_RETRY_SECONDS", 0.01)
    pipeline.with_fault(BTC, DAY, Fault(cut_body_at=5_000))
    assert pipeline.run(DAY).success, "at the last try the day goes on without the feed"
    [reason] = next(f for f in pipeline.settled(DAY).feeds if str(f.feed) == BTC).verdict.reasons
    assert "damaged gzip after 5000 bytes" in reason
    [row] = pipeline.table("quality", DAY).filter(verdict="missing").to_dicts()
    assert row["reasons"] == reason
    page = next((pipeline.folder / "lake" / "reports").rglob(f"*{DAY}*.html")).read_text()
    assert "damaged gzip after 5000 bytes" in page
    start = parse_day(DAY)
    plan = make_plan(pipeline.store, pipeline.settings, BackfillRequest(start=start, end=start))
    assert any("damaged gzip after 5000 bytes" in note for note in plan.notes)

    pipeline.heal()
    assert pipeline.run(DAY).success
    assert pipeline.settled(DAY).scores.state == "published"
