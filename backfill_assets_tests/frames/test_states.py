"""States of the days of a range for one market, and how a reader is told."""

from __future__ import annotations

import warnings
from datetime import UTC, date, datetime

import pytest

from backfill_assets.days import day_range
from backfill_assets.frames.states import DataGap, DataGapWarning, DayState, market_states, tell_gaps

DAYS = ["2024-01-01", "2024-01-02", "2024-01-03"]


def row(day: str, symbol: str = "BTC-USDT", **changes):
    values = {
        "date": date.fromisoformat(day),
        "exchange": "binance",
        "symbol": symbol,
        "data_type": "trades",
        "dataset_symbol": symbol.replace("-", ""),
        "verdict": "publish",
        "published": True,
        "sealed": True,
        "pending": False,
        "reasons": None,
        "day_state": "published",
        "generated": False,
    }
    return values | changes


def state(*rows, final: bool = False, symbol: str = "BTC-USDT") -> str:
    [found] = market_states(rows, DAYS[:1], "trades", "binance", symbol, final=final)
    return found.state


def test_each_state_comes_from_its_rows():
    day = DAYS[0]
    assert state() == "missing"
    assert state(row(day)) == "published"
    assert state(row(day, day_state="degraded")) == "degraded"
    assert state(row(day, day_state="held", published=False)) == "held"
    assert state(row(day, published=False, reasons="ids are missing")) == "left_out"
    assert state(row(day, "ETH-USDT")) == "not_expected"
    assert state(row(day, data_type="quotes")) == "not_expected"
    assert state(row(day, exchange="kraken")) == "not_expected"
    assert state(row(day, sealed=False)) == "published"
    assert state(row(day, sealed=False), final=True) == "provisional"


def test_a_day_without_the_wanted_table_is_missing_and_its_rows_may_still_come():
    [found] = market_states(
        [row(DAYS[0])], DAYS[:1], "trades", "binance", "BTC-USDT", not_made=frozenset(DAYS[:1])
    )
    assert (found.state, found.condition) == ("missing", "pending")


def test_a_market_of_a_group_has_the_state_of_the_group():
    group = row(DAYS[0], "SPOT", dataset_symbol="SPOT", published=False, reasons="late")
    assert state(group) == "left_out"
    assert state(group, row(DAYS[0])) == "published", "a file of its own speaks for it"


def test_of_two_files_of_a_market_one_is_enough_for_rows_and_both_for_final_ones():
    first, second = row(DAYS[0]), row(DAYS[0], dataset_symbol="XBTUSDT", published=False, sealed=False)
    assert state(first, second) == "published"
    assert state(first, second, final=True) == "provisional"


def test_a_gap_raises_with_the_days_and_the_command_that_fills_it():
    days = market_states([row(DAYS[0])], DAYS, "trades", "binance", "BTC-USDT")
    with pytest.raises(DataGap) as caught:
        tell_gaps(days, "raise", "candles")
    said = str(caught.value)
    assert "2 of 3 days fall short (2 missing): 2024-01-02 missing; 2024-01-03 missing" in said
    assert "; run backfill-assets run --date 2024-01-02 --end 2024-01-03, or choose" in said
    assert caught.value.days == days


def test_a_gap_warns_and_gives_what_there_is_or_is_masked():
    rows = [row(DAYS[0]), row(DAYS[1], day_state="degraded")]
    days = market_states(rows, DAYS, "trades", "binance", "BTC-USDT")
    with pytest.warns(DataGapWarning, match="1 degraded, 1 missing"):
        assert tell_gaps(days, "warn", "candles") == {DAYS[0], DAYS[1]}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert tell_gaps(days, "mask", "candles") == {DAYS[0]}
        assert tell_gaps(days[:1], "warn", "candles") == {DAYS[0]}
        assert tell_gaps(days[:1], "raise", "candles") == {DAYS[0]}


def final_gap(*rows, day: str = DAYS[1]) -> str:
    """The message about one day of which only final data are wanted."""
    days = market_states(rows, [day], "trades", "binance", "BTC-USDT", final=True)
    with pytest.raises(DataGap) as caught:
        tell_gaps(days, "raise", "candles")
    said = str(caught.value)
    assert said.startswith(f"candles: 1 of 1 day falls short (1 provisional): {day} provisional (")
    assert said.endswith("choose 'warn' or 'mask' for on_gap (--on-gap), or leave out final")
    return said


def test_a_day_that_is_not_final_names_the_neighbor_day_that_was_not_run_and_its_command():
    before, day, after = (row(day) for day in DAYS)
    day["sealed"] = False
    said = final_gap(before, day)
    assert (
        "provisional (2024-01-03 was not run); run backfill-assets run --date 2024-01-03, or choose" in said
    )
    said = final_gap(day)
    assert "(2024-01-01 was not run; 2024-01-03 was not run)" in said
    assert "run backfill-assets run --date 2024-01-01 and backfill-assets run --date 2024-01-03, or" in said
    without = row(DAYS[0], "ETH-USDT")
    assert (
        "(2024-01-01 was run without BTC-USDT); run backfill-assets run --date 2024-01-01, or"
        in final_gap(without, day, after)
    )


def test_a_day_that_is_not_final_names_the_file_of_a_neighbor_day_that_does_not_count():
    before, day = row(DAYS[0]), row(DAYS[1], sealed=False)
    absent = row(DAYS[2], verdict="missing", published=False)
    waiting = row(DAYS[2], verdict="quarantine", published=False, pending=True)
    held = row(DAYS[0], day_state="held", published=False)
    said = final_gap(held, day, absent)
    assert "(2024-01-03 has no file of BTC-USDT); run backfill-assets run --date 2024-01-03, or" in said
    said = final_gap(before, day, waiting)
    assert "(the file of BTC-USDT on 2024-01-03 does not count); run backfill-assets quality --date" in said
    said = final_gap(before, day, row(DAYS[2]))
    assert "(its neighbor days are newer); run backfill-assets run --date 2024-01-02, or" in said


def test_yesterday_is_not_final_before_the_vendor_has_today(monkeypatch):
    noon = datetime(2024, 1, 3, 12, tzinfo=UTC)
    monkeypatch.setattr("backfill_assets.frames.states.utc_now", lambda: noon)
    before, day = row(DAYS[0]), row(DAYS[1], sealed=False)
    said = final_gap(before, day)
    assert "(the vendor publishes 2024-01-03 on 2024-01-04); choose 'warn'" in said
    assert " run " not in said


def test_a_backfill_of_the_gaps_also_runs_neighbor_days_among_them():
    rows = [row(DAYS[0]), row(DAYS[1], sealed=False)]
    days = market_states(rows, DAYS[1:], "trades", "binance", "BTC-USDT", final=True)
    with pytest.raises(DataGap) as caught:
        tell_gaps(days, "raise", "candles")
    assert str(caught.value).count("backfill-assets run --date 2024-01-03") == 1


def test_the_advice_of_a_gap_is_a_command_that_helps():
    def said(*days: DayState, served: str = "") -> str:
        with pytest.raises(DataGap) as caught:
            tell_gaps(days, "raise", "candles", served)
        return str(caught.value).rpartition("; ")[2]

    choose = "choose 'warn' or 'mask' for on_gap (--on-gap)"
    degraded = DayState(DAYS[0], "degraded")
    assert said(degraded) == f"see backfill-assets quality --date {DAYS[0]}, or {choose}"
    assert said(DayState("2099-01-01", "missing")) == choose, "a day that is still to come cannot be run"
    served = said(DayState(DAYS[0], "missing"), served="backfill-assets standins -- ")
    assert served == f"run backfill-assets standins -- backfill-assets run --date {DAYS[0]}, or {choose}"
    year = [DayState(day, "missing") for day in day_range("2023-01-01", "2023-12-31")]
    assert said(*year) == f"run backfill-assets backfill --start 2023-01-01 --end 2023-12-31, or {choose}"
