"""Real days through the whole pipeline, against somebody else's candles of the same trades.

The data is not part of the repository: ``BACKFILL_REAL_DATA`` names the folder that holds it.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from backfill_assets.standins.tardis import TardisStandin

REAL_DATA = os.environ.get("BACKFILL_REAL_DATA")
pytestmark = pytest.mark.skipif(not REAL_DATA, reason="BACKFILL_REAL_DATA is not set")
DAYS = ("2019-10-11", "2019-10-12", "2019-10-13")


@pytest.fixture(scope="module")
def real_standin():
    """The real files, served as the vendor would."""
    with TardisStandin(datasets_dir=Path(REAL_DATA or "") / "tardis" / "datasets" / "v1") as running:
        yield running


def test_three_real_days_give_the_reference_candles(make_pipeline, real_standin):
    pipeline = make_pipeline(real_standin, universe=[{"exchanges": ["binance"], "symbols": ["XRP-ETH"]}])
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


def test_the_ids_of_the_real_days_join_from_day_to_day(make_pipeline, real_standin):
    pipeline = make_pipeline(real_standin, universe=[{"exchanges": ["binance"], "symbols": ["XRP-ETH"]}])
    for day in DAYS:
        pipeline.run(day)
    middle = pipeline.judge(DAYS[1])
    assert [f.verdict.completeness_state for f in middle.feeds] == ["proven"]
    assert [f.verdict.completeness for f in middle.feeds] == [1.0]
    assert middle.sealed


@pytest.mark.parametrize(
    ("exchange", "symbol", "day", "rows"),
    [("coinbase", "BTC-USD", "2023-09-05", 5_882), ("binance-futures", "ETH-USDT", "2024-08-08", 14_076)],
)
def test_other_real_files_load_and_keep_every_row(make_pipeline, real_standin, exchange, symbol, day, rows):
    pipeline = make_pipeline(real_standin, universe=[{"exchanges": [exchange], "symbols": [symbol]}])
    pipeline.run(day)
    judged = pipeline.judge(day)
    assert [f.verdict.rows for f in judged.feeds] == [rows]
    assert datetime.fromisoformat(day).replace(tzinfo=UTC).date() == judged_date(pipeline, day)


def judged_date(pipeline, day):
    return pipeline.table("quality", day)["date"][0]
