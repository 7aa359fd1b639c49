"""Lake and warehouse in folders whose names have a meaning for a library: patterns, quotes, percents."""

from __future__ import annotations

import duckdb
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from backfill_assets.cli import main

DAY = "2024-01-01"
ONE_FEED = {"exchanges": ["binance"], "symbols": ["BTC-USDT"], "data_types": ["trades"]}


@pytest.mark.parametrize("name", ["data [1]", "what? [a-z]*", 'it\'s "100%20" #1 & {x}, ü'])
def test_a_day_runs_in_a_folder_of_any_name(make_pipeline, standin, name):
    pipeline = make_pipeline(standin, name, universe=[ONE_FEED])
    assert pipeline.run(DAY).success
    with duckdb.connect(
        str(pipeline.folder / "warehouse" / "warehouse.duckdb"), read_only=True
    ) as connection:
        assert connection.execute("SELECT count(*) FROM candles").fetchone() == (
            pq.read_metadata(pipeline.folder / "warehouse" / "candles" / f"{DAY}.parquet").num_rows,
        )
    for words in (
        ("candles", "--date", DAY, "--exchange", "binance", "--symbol", "BTC-USDT", "--fill"),
        ("coverage", "--date", DAY),
        ("report", "--date", DAY),
        ("plan", "--start", DAY, "--end", DAY),
        ("verify", "--date", DAY),
    ):
        answer = CliRunner(env={"BACKFILL_ENV": str(pipeline.file), "DAGSTER_HOME": None}).invoke(main, words)
        assert answer.exit_code == 0, answer.output
    # The next day reads the day before, and a changed file is compared with its predecessor.
    pipeline.serve_changed("binance/trades/BTCUSDT", DAY, lambda lines: lines[:-1])
    assert pipeline.run(DAY, refresh=True).success
