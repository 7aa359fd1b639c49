"""Coverage and views of days from the whole pipeline, compared with the lake's own data."""

from __future__ import annotations

import os
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pytest

import backfill_assets as ba
from backfill_assets.candles.buckets import buckets
from backfill_assets.days import start_us
from backfill_assets.settings import TIMEFRAMES
from backfill_assets.standins import faults
from backfill_assets.standins.faults import Fault
from backfill_assets.standins.market import Market
from backfill_assets.standins.tardis import TardisStandin
from backfill_assets.warehouse import ledger

DAYS = ("2024-01-01", "2024-01-02", "2024-01-03")
DAY = DAYS[1]
#: Few trades a day: most minutes are empty.
ILLIQUID = [{"exchanges": ["binance"], "symbols": ["ADA-USDT"], "data_types": ["trades"]}]
REAL_DATA = os.environ.get("BACKFILL_REAL_DATA")
REAL_DAYS = ("2019-10-11", "2019-10-12", "2019-10-13")
TIMEFRAMES_USED = ("1m", "5m", "15m", "1h", "4h", "1d")


@pytest.fixture
def illiquid(make_pipeline: Any) -> Any:
    market = Market(rows={("binance", "ADA-USDT"): 300, ("kraken", "ADA-USDT"): 300})
    with TardisStandin(market, clock=lambda: datetime(2024, 2, 10, 12, tzinfo=UTC)) as standin:
        yield make_pipeline(standin, universe=ILLIQUID)


def ask(pipeline: Any, sql: str) -> pl.DataFrame:
    with duckdb.connect(
        str(pipeline.folder / "warehouse" / "warehouse.duckdb"), read_only=True
    ) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        return pl.DataFrame(connection.sql(sql).to_arrow_table())


def holds_what_fill_gives(pipeline: Any, day: str, exchange: str, symbol: str) -> dict[str, int]:
    """Compare the view with the command for every timeframe; returns flat candles by timeframe."""
    flat = {}
    for timeframe in TIMEFRAMES_USED:
        found = ba.open(pipeline.file, source="lake").candles(
            exchange, symbol, timeframe, day, fill=True, on_gap="warn"
        )
        ours = found.to_polars()
        view = ask(
            pipeline,
            f"SELECT * FROM candles_filled WHERE date = '{day}' AND exchange = '{exchange}' "
            f"AND symbol = '{symbol}' AND timeframe = '{timeframe}' ORDER BY open_time",
        )
        assert view.columns == ours.columns
        assert view.equals(ours), timeframe
        flat[timeframe] = ours.filter(trade_count=0).height
    return flat


def test_the_filled_view_is_what_fill_gives_and_the_states_are_those_of_the_lake(illiquid: Any) -> None:
    for day in DAYS:
        assert illiquid.run(day).success
    flat = holds_what_fill_gives(illiquid, DAY, "binance", "ADA-USDT")
    assert flat["1m"] > 1_000
    whole = ask(
        illiquid, f"SELECT count(*) AS n FROM candles_filled WHERE date = '{DAY}' AND timeframe = '1m'"
    )
    assert whole["n"].to_list() == [1440], "contiguous ids on both sides prove every minute"
    rows = ask(illiquid, f"SELECT * FROM coverage WHERE date = '{DAY}' ORDER BY timeframe, first_open_time")
    for timeframe in TIMEFRAMES_USED:
        runs = rows.filter(timeframe=timeframe)
        [market] = buckets(illiquid.store, DAY, timeframe)
        states = [s for s, n in runs.select("state", "buckets").iter_rows() for _ in range(n)]
        assert states == list(market.states)
        assert runs["buckets"].sum() == 86_400 // TIMEFRAMES[timeframe]
    # Neither the first day nor the last is sealed; between them no day is provisional.
    sealed = ask(illiquid, "SELECT date, max(provisional) AS p FROM coverage GROUP BY date ORDER BY date")
    assert sealed["p"].to_list() == [True, False, True]
    finals = ask(illiquid, "SELECT DISTINCT date FROM candles_final")
    assert finals["date"].to_list() == [date.fromisoformat(DAY)]
    days = ask(illiquid, "SELECT state, sealed, feeds, accepted, left_out, warehouse FROM days ORDER BY date")
    assert days.row(1) == ("published", True, 1, 1, None, 1.0)


def test_the_close_before_midnight_follows_a_day_that_is_run_later(illiquid: Any) -> None:
    # Trades of the day before that arrived after midnight are missing, so that day is unknown.
    illiquid.serve_changed(
        "binance/trades/ADAUSDT",
        DAYS[2],
        lambda lines: [line for line in lines if int(line.split(",")[2]) >= start_us(DAYS[2])],
    )
    assert illiquid.run(DAYS[2]).success
    first = f"SELECT * FROM coverage WHERE date = '{DAYS[2]}' AND timeframe = '1m' ORDER BY first_open_time"
    assert ask(illiquid, first)["previous_close"][0] is None
    assert illiquid.run(DAY).success
    [close] = ask(illiquid, f"SELECT close FROM candles WHERE date = '{DAY}' AND timeframe = '1d'")["close"]
    assert ask(illiquid, first)["previous_close"][0] == close
    holds_what_fill_gives(illiquid, DAYS[2], "binance", "ADA-USDT")


def test_a_held_day_has_no_coverage_and_keeps_that_of_its_candles(illiquid: Any) -> None:
    assert illiquid.run(DAY).success
    before = illiquid.partition_bytes("coverage")
    illiquid.with_fault("binance/trades/ADAUSDT", DAYS[0], Fault(always=faults.not_found()))
    result = illiquid.run(DAYS[0])
    assert not result.success
    assert illiquid.settled(DAYS[0]).scores.state == "held"
    assert set(illiquid.partition_bytes("coverage")) == set(before)
    assert ledger.entry(illiquid.store, "coverage", DAYS[0]) is None
    held = ask(illiquid, f"SELECT state, accepted, left_out FROM days WHERE date = '{DAYS[0]}'")
    assert held.row(0) == ("held", 0, "binance/trades/ADAUSDT (missing)")


@pytest.mark.skipif(not REAL_DATA, reason="BACKFILL_REAL_DATA is not set")
def test_a_real_illiquid_day_is_filled_as_the_command_does_it(make_pipeline: Any) -> None:
    files = Path(REAL_DATA or "") / "tardis" / "datasets" / "v1"
    with TardisStandin(datasets_dir=files) as standin:
        pipeline = make_pipeline(standin, universe=[{"exchanges": ["binance"], "symbols": ["XRP-ETH"]}])
        for day in REAL_DAYS:
            pipeline.run(day)
        flat = holds_what_fill_gives(pipeline, REAL_DAYS[1], "binance", "XRP-ETH")
    assert flat["1m"] > 300
    real = pipeline.table("candles", REAL_DAYS[1]).filter(timeframe="1m").height
    assert flat["1m"] + real == 1440
