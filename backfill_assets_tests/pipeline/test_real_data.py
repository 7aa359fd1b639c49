"""Real days through the whole pipeline, compared with another project's candles of the same trades.

The data is not part of the repository: ``BACKFILL_REAL_DATA`` names its folder.
"""

from __future__ import annotations

import os
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from backfill_assets.lake.manifests import load_manifest
from backfill_assets.quality.completeness import by_estimate
from backfill_assets.quality.profiles import profile_of
from backfill_assets.quality.verdict import arrival_edges
from backfill_assets.rule_set import RULES_VERSION
from backfill_assets.settings import ThresholdSettings
from backfill_assets.standins.tardis import TardisStandin

REAL_DATA = os.environ.get("BACKFILL_REAL_DATA")
pytestmark = pytest.mark.skipif(not REAL_DATA, reason="BACKFILL_REAL_DATA is not set")
DAYS = ("2019-10-11", "2019-10-12", "2019-10-13")


@pytest.fixture(scope="module")
def real_standin():
    """The real files, served in the vendor's way."""
    with TardisStandin(datasets_dir=Path(REAL_DATA or "") / "tardis" / "datasets" / "v1") as running:
        yield running


@pytest.fixture
def captured(make_pipeline, real_standin, tmp_path):
    """Makes a pipeline of one market; a capture that begins or ends within the day still counts."""
    rules = tmp_path / "rules.yaml"
    rules.write_text(f"version: {RULES_VERSION}\nedge_minutes: 1441\npublish_completeness: 0\n")

    def make(exchange, symbol):
        universe = [{"exchanges": [exchange], "symbols": [symbol]}]
        return make_pipeline(real_standin, universe=universe, thresholds={"rules": str(rules)})

    return make


def test_the_day_whose_capture_ends_at_eleven_waits(make_pipeline, real_standin):
    pipeline = make_pipeline(real_standin, universe=[{"exchanges": ["binance"], "symbols": ["XRP-ETH"]}])
    for day in DAYS:
        assert pipeline.run(day).success == (day != DAYS[-1])
    (feed,) = pipeline.settled(DAYS[-1]).feeds
    assert (feed.accepted, feed.verdict.outcome) == (None, "quarantine")
    assert "44274 s before midnight count as lost until the ids" in feed.verdict.reasons[0]
    assert [len(pipeline.table("trades", day)) > 0 for day in DAYS] == [True, True, False]


def test_three_real_days_give_the_reference_candles(captured):
    pipeline = captured("binance", "XRP-ETH")
    for day in DAYS:
        pipeline.run(day)
    candles = pl.concat([pipeline.table("candles", day) for day in DAYS])
    for timeframe, rows in (("1m", 2_469), ("5m", 706)):
        file = Path(REAL_DATA or "") / "reference" / f"binance_XRPETH_{timeframe}_2019-10-11_2019-10-13.csv"
        reference = pl.read_csv(file, try_parse_dates=True)
        ours = candles.filter(timeframe=timeframe).sort("open_time")
        assert ours.height == reference.height == rows
        assert ours["open_time"].to_list() == reference["date"].to_list()
        for column in ("open", "high", "low", "close"):
            assert ours[column].equals(reference[column].alias(column)), column
        np.testing.assert_allclose(ours["volume"], reference["volume"], rtol=1e-9)


def test_the_ids_of_the_real_days_join_from_day_to_day(captured):
    pipeline = captured("binance", "XRP-ETH")
    for day in DAYS:
        pipeline.run(day)
    middle = pipeline.settled(DAYS[1])
    assert [f.verdict.completeness_state for f in middle.feeds] == ["proven"]
    assert [f.verdict.completeness for f in middle.feeds] == [1.0]
    assert middle.is_sealed


def test_every_id_of_the_real_days_is_there_between_the_first_and_the_last(captured):
    pipeline = captured("binance", "XRP-ETH")
    found = []
    for day in DAYS:
        assert pipeline.run(day).success
        (feed,) = pipeline.settled(day).feeds
        found.append((feed.verdict.completeness_state, feed.verdict.missing_ids, feed.verdict.outcome))
    assert [(missing, outcome) for _, missing, outcome in found] == [(0, "publish")] * 3
    # The day before is unknown, so the first day is proven only between its first and its last trade.
    assert [state for state, *_ in found] == ["inner_proven", "head_proven", "head_proven"]
    after = [pipeline.settled(day).feeds[0].verdict for day in DAYS]
    assert [v.completeness_state for v in after] == ["inner_proven", "proven", "head_proven"]
    # The capture of the last day ends at 11:19:28, and the pipeline does not invent its other half.
    assert [v.completeness for v in after] == [1.0, 1.0, pytest.approx(0.4797, abs=1e-4)]


def test_the_real_days_are_complete_without_their_ids_too(captured):
    pipeline = captured("binance", "XRP-ETH")
    limits = ThresholdSettings()
    for day in DAYS:
        pipeline.run(day)
    for day in DAYS:
        (feed,) = pipeline.settled(day).feeds
        profile = profile_of_accepted(pipeline, day, feed)
        (symbol,) = profile.symbols
        edges = arrival_edges(profile, symbol, grouped=False)
        window = feed.verdict.context.window
        # The last day was captured until noon; the captured part is judged.
        window = replace(window, end_us=edges[1]) if day == DAYS[-1] else window
        alone = by_estimate(symbol.rows, symbol.silences, window, limits, edges, None)
        assert (alone.silence_us, alone.score, alone.uncalibrated) == (0, limits.uncalibrated_cap, True)
        # Thousands of silences take 5 s and more, and none takes 40 usual silences.
        assert symbol.silence_count > 800
        calibrated = by_estimate(symbol.rows, symbol.silences, window, limits, edges, 1.0)
        assert (calibrated.score, calibrated.state) == (1.0, "estimated")


def test_an_hour_without_ids_is_an_estimate_of_its_day(captured):
    pipeline = captured("coinbase", "BTC-USD")
    pipeline.run("2023-09-05")
    (feed,) = pipeline.settled("2023-09-05").feeds
    assert (feed.verdict.completeness_state, feed.verdict.evidence_class) == ("estimated", "C")
    assert feed.verdict.completeness == pytest.approx(1 / 24, abs=1e-3)
    assert feed.verdict.outcome == "publish"


def test_a_capture_clock_behind_on_every_row_is_one_warning_and_no_row_of_it_an_error(
    captured,
):
    pipeline = captured("binance-futures", "ETH-USDT")
    pipeline.run("2024-08-08")
    (feed,) = pipeline.settled("2024-08-08").feeds
    profile = profile_of_accepted(pipeline, "2024-08-08", feed)
    assert (profile.ahead_rows, profile.clock_residual_rows) == (14_076, 0)
    assert (feed.verdict.quality, feed.verdict.outcome, feed.verdict.reasons) == (1.0, "publish", ())
    clock = [w for w in feed.verdict.warnings if "clock" in w or "stamped" in w]
    assert clock == ["capture clock 1.27 s behind the exchange"]


@pytest.mark.parametrize(
    ("exchange", "symbol", "day", "rows"),
    [("coinbase", "BTC-USD", "2023-09-05", 5_882), ("binance-futures", "ETH-USDT", "2024-08-08", 14_076)],
)
def test_other_real_files_load_and_keep_every_row(captured, exchange, symbol, day, rows):
    pipeline = captured(exchange, symbol)
    pipeline.run(day)
    judged = pipeline.settled(day)
    assert [f.verdict.rows for f in judged.feeds] == [rows]
    assert datetime.fromisoformat(day).replace(tzinfo=UTC).date() == judged_date(pipeline, day)


def profile_of_accepted(pipeline, day, feed):
    manifest = load_manifest(pipeline.store, feed.feed, day)
    return profile_of(manifest.version(feed.accepted.content))


def judged_date(pipeline, day):
    return pipeline.table("quality", day)["date"][0]
