"""A component's test is red if one value of its result is damaged, and green without the damage."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import duckdb
import pytest

from backfill_assets_tests.daily_backfill import test_daily_backfill as daily
from backfill_assets_tests.daily_backfill.conftest import Backfilled

pytestmark = [pytest.mark.story, pytest.mark.timeout(900), pytest.mark.xdist_group("daily_backfill")]


@pytest.fixture
def damaged(backfilled: Backfilled, tmp_path: Path) -> Callable[[str, str], Backfilled]:
    """The day with one table replaced by a query over ``t``; the session's own table does not change."""

    def damage(table: str, query: str) -> Backfilled:
        house = copy.copy(backfilled.house)
        house.warehouse = tmp_path / "warehouse"
        shutil.copytree(backfilled.house.warehouse, house.warehouse, dirs_exist_ok=True)
        file = house.warehouse / table / f"{backfilled.day}.parquet"
        with duckdb.connect() as connection:
            connection.execute(f"CREATE TABLE t AS SELECT * FROM read_parquet('{file}')")
            connection.execute(f"COPY ({query}) TO '{file}' (FORMAT parquet)")
        return replace(backfilled, house=house)

    return damage


def test_a_lost_row_of_ticks_is_seen_by_the_download(damaged) -> None:
    found = damaged("trades", "SELECT * FROM t WHERE rowid <> 5")
    with pytest.raises(AssertionError):
        daily.test_download_brings_every_row_of_every_file_over_faults(found)


@pytest.mark.parametrize("changed", ["high * 1.0001", "low * 0.9999", "trade_count + 1"])
def test_one_wrong_candle_is_seen_by_the_candles(changed, damaged, backfilled: Backfilled, tmp_path) -> None:
    spot = [feed for feed in backfilled.house.feeds(backfilled.day) if daily.is_spot(backfilled, feed)]
    if not spot:
        pytest.skip("the day has no spot markets")
    found_feed, column = backfilled.found.settled.feed(spot[0]), changed.split()[0]
    market = (spot[0].exchange, found_feed.symbols[0][1])
    one = f"SELECT min(rowid) FROM t WHERE timeframe = '1m' AND (exchange, symbol) = {market}"
    wrong = f"CASE WHEN rowid = ({one}) THEN {changed} ELSE {column} END AS {column}"
    found = damaged("candles", f"SELECT * REPLACE ({wrong}) FROM t")
    (tmp_path / "csv").mkdir()
    with pytest.raises(AssertionError):
        daily.test_candles_are_those_of_the_vendors_trades(found, tmp_path / "csv")


def test_minutes_that_do_not_add_up_are_seen(damaged) -> None:
    found = damaged("candles", "SELECT * FROM t WHERE NOT (timeframe = '1m' AND rowid % 7 = 3)")
    with pytest.raises(AssertionError):
        daily.test_longer_candles_add_up_to_the_minutes(found)


def test_an_instrument_that_the_vendor_lists_and_the_table_lacks_is_seen(
    backfilled: Backfilled, monkeypatch
) -> None:
    source = backfilled.house.standin.source
    told = source.instruments

    def one_more(exchange: str) -> list[dict[str, object]] | None:
        answers = told(exchange)
        return None if answers is None else [*answers, {**answers[0], "datasetId": "NEW", "id": "new"}]

    daily.test_instruments_are_those_that_the_vendor_lists_on_the_day(backfilled)
    monkeypatch.setattr(source, "instruments", one_more)
    with pytest.raises(AssertionError):
        daily.test_instruments_are_those_that_the_vendor_lists_on_the_day(backfilled)


def test_rows_that_are_not_uploaded_are_seen(damaged, bigquery, tmp_path) -> None:
    found = damaged("coverage", "SELECT * FROM t UNION ALL SELECT * FROM t WHERE rowid = 1")
    (tmp_path / "upload").mkdir()
    with pytest.raises(AssertionError, match="coverage"):
        daily.test_bigquery_upload_puts_exactly_the_lakes_rows_there_once(
            found, bigquery, tmp_path / "upload"
        )


def test_a_day_of_three_times_the_rows_is_seen_by_the_validation(backfilled: Backfilled, monkeypatch) -> None:
    before = {feed: rows // 4 for feed, rows in daily.rows_before(backfilled).items()}
    monkeypatch.setattr(daily, "rows_before", lambda _: before)
    with pytest.raises(AssertionError):
        daily.test_validation_lets_every_feed_of_an_expected_volume_pass(backfilled, lambda *_: None)
