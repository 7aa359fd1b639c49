"""Scores of a day through the pipeline: consistency, one overall number, bucket states, a weighed day."""

from __future__ import annotations

import json
from pathlib import Path

import dagster as dg
import polars as pl
import pytest
from click.testing import CliRunner

from backfill_assets.candles.build import build_candles
from backfill_assets.candles.comparison import across_venues, agrees
from backfill_assets.cli import main
from backfill_assets.days import start_us
from backfill_assets.failures import PermanentFailure
from backfill_assets.quality.baseline import load_baseline
from backfill_assets.quality.bucket_states import decode, states_of
from backfill_assets.quality.measures import load_measures
from backfill_assets.quality.reference import ReferenceDirectory
from backfill_assets.references.compare import compare_market
from backfill_assets.references.conventions import OF_FILES
from backfill_assets.settings import ComparisonSettings
from backfill_assets.standins import faults
from backfill_assets.standins.faults import Fault
from backfill_assets.tardis.columns import csv_header
from backfill_assets_tests.pipeline.conftest import write_settings
from backfill_assets_tests.pipeline.test_checks import BUCKET, change_measures, change_partials, set_where

DAY, NEXT = "2024-01-02", "2024-01-03"
BTC = "binance/trades/BTCUSDT"


def command(pipeline, *words):
    return CliRunner(env={"BACKFILL_ENV": str(pipeline.file)}).invoke(main, words)


def without_one_of_a_burst(lines):
    """A gap so short in time that the feed is still published."""
    times = [int(line.split(",")[2]) for line in lines]
    within = min(range(1000, len(lines) - 1), key=lambda i: times[i + 1] - times[i - 1])
    return lines[:within] + lines[within + 1 :]


def minutes(pipeline):
    """States of the minutes of BTC-USDT, as the lake keeps them."""
    return load_measures(pipeline.store, DAY).minutes[BTC].symbols["BTC-USDT"]


def day_columns(pipeline, day=DAY):
    names = ("day_consistency", "day_instruments", "day_warehouse", "day_overall", "day_overall_weighted_sum")
    rows = pipeline.table("quality", day).select(names).unique().to_dicts()
    assert len(rows) == 1
    return rows[0]


def test_what_was_compared_once_is_compared_again_only_when_it_is_another(make_pipeline, standin):
    entry = {"exchanges": ["binance"], "symbols": ["BTC-USDT"], "data_types": ["trades"]}
    pipeline = make_pipeline(standin, universe=[entry])
    assert pipeline.run(DAY).success
    store = pipeline.store

    def measured_again():
        """Measure again, as after a change of a neighbor's file."""
        change_measures(pipeline, lambda _: {"inputs": "others"})
        return build_candles(store, DAY, pipeline.settings).files[BTC]

    before = load_measures(store, DAY).files[BTC]
    ticks = next((pipeline.folder / "lake" / "ticks" / BTC / DAY).glob("*.parquet"))
    away = ticks.rename(ticks.with_suffix(".away"))
    assert measured_again() == before, "without its ticks nothing can be compared again"
    away.rename(ticks)
    change_partials(pipeline, set_where(BUCKET == 5, trade_count=pl.col("trade_count") + 1))
    after = measured_again()
    assert (len(before.mismatches), len(after.mismatches)) == (0, 1)
    assert after.partials != before.partials
    assert len(measured_again().mismatches) == 1, "what differed is never taken for granted"


def test_a_good_day_has_its_consistency_and_overall_scores_in_the_table_and_in_the_metadata(pipeline):
    result = pipeline.run(DAY)
    assert result.success
    quality = pipeline.table("quality", DAY)
    assert set(quality["consistency"]) == {1.0}
    assert quality["weight"].sum() == pytest.approx(1)
    day = day_columns(pipeline)
    assert (day["day_consistency"], day["day_instruments"], day["day_warehouse"]) == (1.0, 1.0, 1.0)
    ticks = min(quality["day_completeness"][0], quality["day_quality"][0])
    assert day["day_overall"] == pytest.approx(ticks**0.4)
    assert day["day_overall_weighted_sum"] == pytest.approx(0.4 * ticks + 0.6)
    metadata = {}
    for event in result.get_asset_materialization_events():
        if event.materialization.asset_key == dg.AssetKey(["bigquery", "quality"]):
            metadata = event.materialization.metadata
    assert metadata["overall_product"].value == day["day_overall"]
    assert metadata["overall_weighted_sum"].value == day["day_overall_weighted_sum"]
    record = load_measures(pipeline.store, DAY).files[BTC]
    assert record.buckets > 900
    assert record.rolled_up > 300


def test_quality_rows_written_before_the_other_tables_follow_when_the_last_is_published(pipeline):
    for select in (["instruments"], ["ticks"], ["candles"], ["bigquery/quality"]):
        assert pipeline.run(DAY, select=select).success
    day = day_columns(pipeline)
    assert (day["day_warehouse"], day["day_overall"]) == (0.0, 0.0)
    assert 0.85 < day["day_overall_weighted_sum"] < 0.9
    for name in ("instruments", "ticks", "candles"):
        assert pipeline.run(DAY, select=[f"bigquery/{name}"]).success
        assert day_columns(pipeline)["day_warehouse"] == 0.0
    assert pipeline.run(DAY, select=["bigquery/coverage"]).success
    assert day_columns(pipeline)["day_warehouse"] == 1.0


def test_a_held_day_has_an_empty_warehouse(pipeline):
    for feed in [f"binance/trades/{s}USDT" for s in ("BTC", "ETH", "ADA")] + [
        f"coinbase/trades/{s}-USDT" for s in ("BTC", "ETH")
    ]:
        pipeline.with_fault(feed, DAY, Fault(always=faults.not_found()))
    assert not pipeline.run(DAY).success
    day = day_columns(pipeline)
    assert (day["day_warehouse"], day["day_overall"]) == (0.0, 0.0)


def test_candles_that_lie_turn_the_check_red_and_the_day_inconsistent(pipeline, checks_of):
    pipeline.begin_after(DAY)
    high = pl.col("high") * 1.0001
    change_partials(pipeline, set_where(BUCKET == 0, high=high))

    checks = checks_of(pipeline.run(DAY, select=["candles"]))
    assert not checks["candles:match_ticks"].passed
    consistency = checks["candles:consistency"]
    assert not consistency.passed
    assert consistency.severity == dg.AssetCheckSeverity.ERROR
    assert consistency.description == (
        "consistency of the day: 0.888889 (threshold 0.95); 1 of 9 feeds fall short: "
        "binance/trades/BTCUSDT 0.0000"
    )
    assert pipeline.settled(DAY).scores.state == "degraded"
    assert pipeline.run(DAY, select=["bigquery/quality"]).success
    rows = pipeline.table("quality", DAY).filter(consistency=0.0)
    assert rows["dataset_symbol"].to_list() == ["BTCUSDT"]


def test_a_baseline_of_published_days_weighs_the_days_after_them(pipeline):
    pipeline.begin_after(DAY)
    said = command(pipeline, "baseline")
    assert (said.exit_code, said.stdout) == (0, "baseline 1: 1 day, 1 measured now\n")
    markets = load_baseline(pipeline.store).notional_usd[DAY]
    candles, quality = (pipeline.table(name, DAY) for name in ("candles", "quality"))
    candles = candles.filter(timeframe="1d")
    assert len(markets) == candles.height == 9
    btc = candles.filter(exchange="binance", symbol="BTC-USDT")["quote_volume"].item()
    assert markets["binance/BTC-USDT"] == btc
    counts = load_baseline(pipeline.store).rows[DAY]
    assert counts["kraken/trades/BTC-USDT"] == quality.filter(dataset_symbol="XBT-USDT")["rows"].item()
    assert len(counts) == 9
    assert command(pipeline, "baseline").stdout == "baseline 1: 1 day, 0 measured now\n"
    assert pipeline.run(NEXT).success
    weights = dict(pipeline.table("quality", NEXT).select("dataset_symbol", "weight").iter_rows())
    assert weights["BTCUSDT"] > weights["ADAUSDT"] > 0.5 / 9
    assert len(set(pipeline.table("quality", DAY)["weight"])) == 1, "no day is weighed by itself"


def test_buckets_of_a_day_can_be_asked_for_and_filled_where_emptiness_is_proven(pipeline):
    pipeline.serve_changed(BTC, DAY, without_one_of_a_burst)
    assert pipeline.run(DAY).success
    states = states_of(decode(minutes(pipeline)))
    base = pipeline.table("candles", DAY).filter(exchange="binance", symbol="BTC-USDT", timeframe="1m")
    assert sum(s in ("traded", "traded_partial") for s in states) == base.height
    assert 1 <= states.count("traded_partial") <= 2
    assert states.count("proven_empty") > 100

    counts = command(pipeline, "coverage", "--date", DAY)
    assert counts.exit_code == 0
    assert len(counts.stdout.splitlines()) == 10
    runs = command(
        pipeline,
        "coverage",
        "--date",
        DAY,
        "--exchange",
        "binance",
        "--symbol",
        "BTC-USDT",
        "--timeframe",
        "4h",
    )
    assert "provisional" in runs.stdout.splitlines()[0]
    assert "traded_partial" in runs.stdout
    unknown = command(pipeline, "coverage", "--date", DAY, "--exchange", "bitmex")
    assert (unknown.exit_code, "has no market bitmex" in unknown.stderr) == (1, True)

    words = ("candles", "--date", DAY, "--exchange", "binance", "--symbol", "BTC-USDT", "--format", "csv")
    filled = pl.read_csv(command(pipeline, *words, "--fill").stdout.encode())
    assert filled.height == base.height + states.count("proven_empty")
    flat = filled.filter(pl.col("trade_count") == 0)
    assert flat.height == states.count("proven_empty")
    assert (flat["open"] == flat["close"]).all()
    before = filled.with_columns(pl.col("close").shift(1).alias("before")).filter(pl.col("trade_count") == 0)
    assert (before["open"] == before["before"]).all()


def test_a_gap_in_the_next_days_file_touches_the_last_minute_in_which_it_was_traded(pipeline):
    """The first rows of a file, split by arrival, were traded before its midnight."""

    def without_the_second_row(lines):
        assert int(lines[0].split(",")[2]) < int(lines[2].split(",")[2]) < start_us(NEXT)
        return [lines[0], *lines[2:]]

    pipeline.begin_after(DAY)
    before = states_of(decode(minutes(pipeline)))
    pipeline.serve_changed(BTC, NEXT, without_the_second_row)
    assert pipeline.run(NEXT).success
    after = states_of(decode(minutes(pipeline)))
    assert (before[-1], after[-1]) == ("traded", "traded_partial")
    assert "traded_partial" not in before


def test_a_missing_feed_is_missing_in_every_bucket_and_an_outage_says_why(make_pipeline, standin):
    pipeline = make_pipeline(standin)
    pipeline.with_fault(BTC, DAY, Fault(always=faults.not_found()))
    incident = {"from": f"{DAY}T10:00:00.000Z", "to": f"{DAY}T11:00:00.000Z", "details": "x"}
    standin.faults.incidents["binance"] = [{**incident, "status": "resolved"}]
    assert pipeline.run(DAY).success
    assert minutes(pipeline) == "m600g60m780"
    listing = next((pipeline.folder / "lake" / "instruments" / "binance" / DAY).glob("manifest.json"))
    assert len(json.loads(listing.read_text())["outages"]) == 1


class TestComparisons:
    LIMITS = ComparisonSettings()

    @staticmethod
    def minutes(exchange: str = "binance", price: float = 100.0, count: int = 10) -> pl.DataFrame:
        times = pl.datetime_range(
            pl.datetime(2024, 1, 2),
            pl.datetime(2024, 1, 2) + pl.duration(minutes=count - 1),
            "1m",
            time_unit="us",
            time_zone="UTC",
            eager=True,
        )
        return pl.DataFrame({"open_time": times}).with_columns(
            pl.lit(exchange).alias("exchange"),
            pl.lit("BTC-USDT").alias("symbol"),
            pl.lit("1m").alias("timeframe"),
            *(pl.lit(price).alias(n) for n in ("open", "high", "low", "close", "vwap")),
            pl.lit(5.0).alias("volume"),
            pl.lit(3, pl.Int64).alias("trade_count"),
        )

    def compared(self, tmp_path: Path, theirs: pl.DataFrame, suffix: str = "csv") -> dict[str, object]:
        file = tmp_path / "binance" / "BTC-USDT" / f"{DAY}.{suffix}"
        file.parent.mkdir(parents=True, exist_ok=True)
        kept = theirs.drop("exchange", "symbol", "timeframe", "vwap")
        kept.write_csv(file) if suffix == "csv" else kept.write_parquet(file)
        own = ReferenceDirectory(tmp_path).minutes("binance", "BTC-USDT", DAY)
        assert own is not None
        return compare_market(self.minutes(), own, OF_FILES, self.LIMITS)

    @pytest.mark.parametrize("suffix", ["csv", "parquet"])
    def test_the_same_candles_agree_in_both_formats(self, tmp_path, suffix):
        row = self.compared(tmp_path, self.minutes(), suffix)
        assert (row["minutes"], row["equal"], row["share"], row["first_difference"]) == (10, 10, 1.0, "")

    @pytest.mark.parametrize(
        ("column", "value", "equal"),
        [
            ("high", 100.0000001, 9),
            ("volume", 5.00001, 9),
            ("volume", 5.000004, 10),
            ("trade_count", 4, 9),
        ],
    )
    def test_prices_and_counts_are_exact_and_volume_within_a_millionth(self, tmp_path, column, value, equal):
        first = pl.col("open_time") == pl.col("open_time").min()
        theirs = self.minutes().with_columns(
            pl.when(first).then(value).otherwise(pl.col(column)).alias(column)
        )
        assert self.compared(tmp_path, theirs)["equal"] == equal

    def test_a_minute_that_one_side_lacks_differs_and_a_filled_one_does_not_count(self, tmp_path):
        assert self.compared(tmp_path, self.minutes(count=9))["share"] == 0.9
        more = self.minutes(count=11)
        assert self.compared(tmp_path, more)["minutes"] == 11
        last = pl.col("open_time") == pl.col("open_time").max()
        flat = more.with_columns(pl.when(last).then(0.0).otherwise(pl.col("volume")).alias("volume"))
        assert self.compared(tmp_path, flat)["share"] == 1.0

    def test_times_may_be_numbers_and_a_file_of_something_else_is_refused(self, tmp_path):
        for divisor in (1, 1_000, 1_000_000):
            times = self.minutes().with_columns(pl.col("open_time").dt.epoch("us") // divisor)
            assert self.compared(tmp_path, times)["share"] == 1.0
        with pytest.raises(PermanentFailure, match="cannot be read as candles"):
            self.compared(tmp_path, self.minutes().drop("close"))
        assert ReferenceDirectory(tmp_path).minutes("kraken", "BTC-USDT", DAY) is None

    def test_a_venue_off_the_others_is_named_and_a_small_difference_is_none(self):
        near = [self.minutes("binance"), self.minutes("kraken", 100.9), self.minutes("coinbase", 99.1)]
        assert {r["share"] for r in across_venues(pl.concat(near), 0.01)} == {1.0}
        off = [*near[:2], self.minutes("coinbase", 98.0)]
        shares = {r["exchange"]: r["share"] for r in across_venues(pl.concat(off), 0.01)}
        assert shares == {"binance": 1.0, "kraken": 1.0, "coinbase": 0.0}
        assert across_venues(near[0], 0.01) == []

    @pytest.mark.parametrize(("wrong", "is_told"), [(0, False), (15, False), (16, True), (60, True)])
    def test_minutes_in_a_row_that_are_off_are_told_though_few_of_the_day_are(self, wrong, is_told):
        minutes = [self.minutes(exchange, count=1_440) for exchange in ("binance", "kraken", "coinbase")]
        is_off = pl.int_range(pl.len()).is_between(700, 700 + wrong, closed="left")
        minutes[2] = minutes[2].with_columns(pl.when(is_off).then(1_000.0).otherwise("vwap").alias("vwap"))
        rows = {row["exchange"]: row for row in across_venues(pl.concat(minutes), 0.01)}
        assert rows["coinbase"]["share"] > 0.95
        assert rows["coinbase"]["longest_run"] == wrong
        assert {name for name, row in rows.items() if not agrees(row, self.LIMITS)} == (
            {"coinbase"} if is_told else set()
        )


@pytest.mark.parametrize(("index_price", "share"), [(None, 1.0), ("7", 0.0)])
def test_a_perpetual_is_held_against_the_index_of_its_ticker_once_that_is_there(
    make_pipeline, standin, checks_of, index_price, share
):
    entry = {"exchanges": ["binance-futures"], "symbols": ["BTC-USDT"], "instrument_types": ["perpetual"]}
    pipeline = make_pipeline(standin, universe=[{**entry, "data_types": ["trades"]}])
    if index_price:
        column = csv_header("derivative_ticker").split(",").index("index_price")

        def changed(rows):
            return [
                ",".join(index_price if n == column else cell for n, cell in enumerate(row.split(",")))
                for row in rows
            ]

        pipeline.serve_changed("binance-futures/derivative_ticker/BTCUSDT", DAY, changed)
    assert pipeline.run(DAY).success
    before = load_measures(pipeline.store, DAY)
    assert before.symbols == ()

    write_settings(
        pipeline.folder, standin, universe=[{**entry, "data_types": ["trades", "derivative_ticker"]}]
    )
    result = pipeline.run(DAY)
    made = load_measures(pipeline.store, DAY)
    [row] = made.symbols
    assert (row["symbol"], row["against"], row["share"]) == ("BTC-USDT-PERP", "index", share)
    assert row["minutes"] > 100
    assert checks_of(result)["candles:symbols"].passed is (share == 1.0)
    assert (made.candles, made.coverage) == (before.candles, before.coverage)
