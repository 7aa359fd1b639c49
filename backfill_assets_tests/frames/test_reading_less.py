"""A market is read without the rows of other markets: how many files are opened, and how much of each."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from datetime import date
from pathlib import Path

import polars as pl
import pyarrow.parquet as pq
import pytest

import backfill_assets as ba
from backfill_assets.failures import PermanentFailure
from backfill_assets.lake.local import LocalStore
from backfill_assets.lake.tables import MARKET_GROUP_ROWS, market_layout, store_table
from backfill_assets.warehouse.catalog import CANDLES
from backfill_assets.warehouse.parquet import COPIED_ROWS, concatenate
from backfill_assets.warehouse.protocol import LoadFile
from backfill_assets_tests.frames.market_days import EXCHANGE, candles, day, publish_days, symbol

MARKETS, DAYS = 20, 3


@pytest.fixture(scope="module")
def published(tmp_path_factory) -> Path:
    return publish_days(tmp_path_factory.mktemp("market-days"), MARKETS, DAYS)


def test_one_market_is_read_from_a_group_or_two_of_each_day_and_the_states_from_a_file_of_each(published):
    """polars writes the files that it opens to standard error."""
    code = (
        "import sys, backfill_assets as ba\n"
        f"data = ba.open({str(published)!r})\n"
        f"frame = data.candles({EXCHANGE!r}, {symbol(MARKETS // 2)!r}, '1m', {day(0)!r}, {day(DAYS - 1)!r})\n"
        "print('states are known', file=sys.stderr, flush=True)\n"
        "rows = frame.to_polars()\n"
        "print(rows.height, rows['open_time'].is_sorted(), 'pandas' in sys.modules)\n"
    )
    environment = {**os.environ, "POLARS_VERBOSE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=60, env=environment
    )
    states, rows = (
        text.count("[ParquetFileReader]: project:") for text in done.stderr.split("states are known")
    )
    assert (states, rows) == (DAYS - 1, DAYS - 1)
    read = re.findall(r"reading (\d+) / (\d+) row groups", done.stderr)
    groups = -(-candles(MARKETS).height // MARKET_GROUP_ROWS)
    assert groups > 4
    assert [int(of) for _, of in read] == [groups] * (DAYS - 1)
    assert all(1 <= int(count) <= 2 for count, _ in read), read
    assert done.stdout.split() == [str(1440 * (DAYS - 1)), "True", "False"]


@pytest.mark.parametrize("by_market", [True, False], ids=["copied", "of an earlier release"])
def test_published_candles_have_small_groups_whichever_way_they_came(tmp_path, by_market):
    store, rows = LocalStore(tmp_path / "lake"), candles(30)
    assert rows.height > COPIED_ROWS
    table = rows.to_arrow().cast(CANDLES.schema)
    layout = market_layout(table.schema) if by_market else {}
    made = store_table(store, table, "{}.parquet".format, **layout)
    source = Path(store.uri_of(f"{made.content}.parquet"))
    concatenate(CANDLES, day(0), [LoadFile(None, source, rows.height)], tmp_path / "p.parquet")
    found = pq.read_metadata(tmp_path / "p.parquet")
    sizes = {found.row_group(n).num_rows for n in range(found.num_row_groups)}
    assert max(sizes) == MARKET_GROUP_ROWS
    assert found.num_row_groups == -(-rows.height // MARKET_GROUP_ROWS)
    assert pl.read_parquet(tmp_path / "p.parquet").equals(rows)


def test_a_lost_partition_of_a_published_day_is_told(tmp_path):
    file = publish_days(tmp_path, 1, 2)
    lost = tmp_path / "warehouse" / "candles" / f"{day(1)}.parquet"
    lost.unlink()
    frame = ba.open(file).candles(EXCHANGE, symbol(0), "1h", day(0), day(2))
    with pytest.raises(PermanentFailure, match=f"{lost} is gone: load it .* --start {day(1)}"):
        frame.to_polars()
    with pytest.raises(PermanentFailure, match="is gone"):
        frame.write(tmp_path / "candles.csv")
    assert not list(tmp_path.glob("*.csv*"))


def test_a_range_is_read_and_written_a_day_at_a_time(tmp_path):
    frame = ba.open(publish_days(tmp_path, 2, 3)).candles(EXCHANGE, None, "15m", day(0), day(3))
    assert [rows["date"].unique().to_list() for rows in frame.by_day()] == [
        [date.fromisoformat(day(n))] for n in range(3)
    ]
    assert frame.write(tmp_path / "candles.arrow") == 2 * 3 * 96
    written = pl.read_ipc(tmp_path / "candles.arrow")
    assert written.equals(frame.to_polars())
    assert written.equals(written.sort("date", "symbol", "open_time"))
