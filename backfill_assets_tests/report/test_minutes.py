"""What a minute is called, by the evidence there is."""

from __future__ import annotations

from typing import Any

from backfill_assets.days import MICROSECONDS_PER_MINUTE
from backfill_assets.quality.profiles import FeedProfile, Hole, SymbolProfile
from backfill_assets.quality.verdict import Context
from backfill_assets.report.minutes import MINUTES, Minutes, feed_minutes
from backfill_assets_tests.quality.quality_samples import (
    DAY,
    END,
    SECOND,
    START,
    THRESHOLDS,
    context,
    empty_profile,
    gap,
    profile,
    quotes,
    symbol,
    without_ids,
)

MINUTE = MICROSECONDS_PER_MINUTE


def traded_in(*minutes: int) -> tuple[int, ...]:
    return tuple(7 if i in minutes else 0 for i in range(MINUTES))


def hole(first: int, last: int, after: int, before: int) -> dict[str, Any]:
    """The part of a profile that tells of one run of missing ids between two minutes."""
    times = {"after_us": START + after * MINUTE, "before_us": START + before * MINUTE}
    length = last - first + 1
    return {
        "holes": (Hole(first_missing=first, last_missing=last, **times),),
        "hole_count": 1,
        "missing_ids": length,
        "longest_hole": length,
    }


def of(
    found: FeedProfile, given: Context, exchange: str = "binance", *, grouped: bool = False, **more: Any
) -> Minutes:
    minutes = feed_minutes(exchange, DAY, found, given, THRESHOLDS, grouped=grouped, **more)
    assert minutes is not None
    assert len(minutes.states) == MINUTES
    return minutes


def between(first: int, last: int, one: SymbolProfile) -> FeedProfile:
    """A file whose first and last row arrived in these minutes."""
    edges = {
        "first_local_timestamp_us": START + first * MINUTE,
        "last_local_timestamp_us": START + last * MINUTE,
    }
    return profile(one, **edges)


def test_a_minute_without_trades_is_proven_empty_where_ids_join_around_it() -> None:
    found = between(3, 900, symbol(minute_rows=traded_in(3, 900)))
    minutes = of(found, context((1000, SECOND), (10_001, SECOND)))
    assert minutes.states == "eee" + "t" + "e" * 896 + "t" + "e" * 539


def test_before_the_first_and_after_the_last_trade_nothing_is_proven_without_neighbours() -> None:
    found = between(3, 900, symbol(minute_rows=traded_in(3, 900)))
    assert of(found, context()).states == "uuu" + "t" + "e" * 896 + "t" + "u" * 539


def test_ids_that_do_not_join_to_a_neighbour_make_the_edge_missing() -> None:
    found = between(3, 900, symbol(minute_rows=traded_in(3, 900)))
    minutes = of(found, context((900, SECOND), (10_500, SECOND)))
    assert minutes.states == "mmm" + "t" + "e" * 896 + "t" + "m" * 539


def test_a_hole_makes_minutes_missing_and_those_with_trades_partial() -> None:
    lost = hole(2000, 2999, 10, 14)
    found = between(0, 1439, symbol(minute_rows=traded_in(0, 10, 12, 14, 1439), **lost))
    assert of(found, context()).states[9:16] == "epmpmpe"


def test_a_hole_of_class_b_that_the_venue_leaves_itself_is_none() -> None:
    lost = {**hole(2000, 2004, 10, 14), "missing_in_short_holes": 5}
    found = between(0, 1439, symbol(minute_rows=traded_in(0, 10, 14, 1439), **lost))
    assert of(found, context(), "binance-futures").states[9:16] == "utuuutu"


def test_beyond_the_last_listed_hole_nothing_is_proven() -> None:
    lost = hole(2000, 2000, 10, 11)
    found = between(0, 1439, symbol(minute_rows=traded_in(0, 1439), **{**lost, "hole_count": 2}))
    states = of(found, context()).states
    assert states[5] == "e"
    assert set(states[12:1439]) == {"u"}


def test_without_ids_only_a_silence_longer_than_excused_is_marked() -> None:
    rows = traded_in(0, 100, 104, 1439)
    at = START + 100 * MINUTE
    long = between(0, 1439, without_ids(minute_rows=rows, gaps=(gap(240, 1, at),)))
    assert of(long, context(), "kraken").states[99:106] == "utssstu"
    usual = between(0, 1439, without_ids(minute_rows=rows, gaps=(gap(240, 6, at),)))
    assert of(usual, context(), "kraken").states[99:106] == "utuuutu"


def test_outside_the_listing_nothing_is_said_about_trades() -> None:
    listed = context(window_start_us=START + 60 * MINUTE, window_end_us=END - 60 * MINUTE)
    states = of(between(70, 1300, symbol(minute_rows=traded_in(70, 1300))), listed).states
    assert (states[:60], states[-60:]) == ("o" * 60, "o" * 60)
    assert "o" not in states[60:-60]


def test_trades_that_lie_in_the_file_of_another_day_are_trades() -> None:
    found = between(3, 900, symbol(minute_rows=traded_in(3, 900)))
    minutes = of(found, context(), from_neighbours={1439: 2, 900: 9})
    assert (minutes.states[1439], minutes.trades[1439]) == ("t", 2)
    assert minutes.trades[900] == 7


def test_a_loss_of_one_symbol_stays_visible_beside_the_trades_of_another() -> None:
    lost = hole(2000, 2999, 10, 12)
    one = symbol(minute_rows=traded_in(0, 1439), **lost)
    whole = symbol(dataset_symbol="ETHUSDT", symbol="ETH-USDT", minute_rows=traded_in(11))
    assert of(profile(one, whole), context(), grouped=True).states[10:13] == "mpm"


def test_an_empty_file_proves_nothing_and_other_data_types_have_no_minutes() -> None:
    assert of(empty_profile(), context()).states == "u" * MINUTES
    assert feed_minutes("binance", DAY, quotes(), context(), THRESHOLDS, grouped=False) is None


def test_runs_of_minutes_are_told_with_their_state() -> None:
    minutes = Minutes("t" * 100 + "mm" + "t" * 1337 + "s", (0,) * MINUTES)
    assert [(a, b, state.code) for a, b, state in minutes.runs()] == [
        (0, 100, "t"),
        (100, 102, "m"),
        (102, 1439, "t"),
        (1439, 1440, "s"),
    ]
