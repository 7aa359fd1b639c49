"""Each minute of quotes and books has a state: from profiles alone, stored once with the day."""

from __future__ import annotations

from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any, Final

import pytest

from backfill_assets.days import end_us
from backfill_assets.feeds import ExpectedFeed, Feed
from backfill_assets.lake import documents, paths
from backfill_assets.lake.local import LocalStore
from backfill_assets.lake.manifests import DayRecord, expected_symbols
from backfill_assets.quality.book_minutes import BookMinutes, book_minutes, of_file
from backfill_assets.quality.book_states import BOOK_LETTERS
from backfill_assets.quality.bucket_states import LETTERS, MINUTES, letters_in, runs_of
from backfill_assets.quality.profiles import FeedProfile, Silence
from backfill_assets.quality.schemas import quality_values
from backfill_assets.quality.settle import settle
from backfill_assets.quality.settled import load_day
from backfill_assets.quality.verdict import Context
from backfill_assets_tests.quality.book_days import (
    DAMAGES,
    DAY,
    FEED,
    HOUR,
    LIQUID,
    START,
    THIN,
    derived_profile,
    good_day,
    profile_of,
)
from backfill_assets_tests.quality.quality_samples import THRESHOLDS
from backfill_assets_tests.quality.settled_lake import NOW, expect, fetch
from backfill_assets_tests.quality.watched_stores import CountingStore

STATES: Final = {letter: state for state, letter in BOOK_LETTERS.items()}
MARKET: Final = "BTC-USDT"


@cache
def damaged(damage: str = "", messages: int = LIQUID) -> FeedProfile:
    good = [*good_day(messages)]
    return profile_of(DAMAGES[damage](good) if damage else good)


@cache
def derived(data_type: str, damage: str = "") -> FeedProfile:
    good = [*good_day(LIQUID)]
    return derived_profile(DAMAGES[damage](good) if damage else good, data_type)


def feed_of(data_type: str) -> Feed:
    return Feed("binance", data_type, "BTCUSDT")


def minutes_of(
    feed: Feed, profile: FeedProfile | None, *others: tuple[str, FeedProfile], **told: Any
) -> BookMinutes:
    context = Context(window_start_us=START, window_end_us=end_us(DAY), **told)
    newest = {feed_of(data_type): beside for data_type, beside in others}
    return book_minutes(feed, [MARKET], DAY, profile, context, newest)[MARKET]


def counted(found: BookMinutes) -> Counter[str]:
    letters = letters_in(found.states)
    assert len(letters) == MINUTES
    return Counter(STATES[letter] for letter in letters)


def test_letters_of_books_and_of_trades_mean_one_thing() -> None:
    assert {*BOOK_LETTERS.values()} & {*LETTERS} == {"g", "m"}
    assert letters_in(runs_of("ccdvvv")) == "ccdvvv"


@pytest.mark.parametrize("letter", BOOK_LETTERS.values())
def test_every_state_of_one_symbol_is_that_of_a_group_in_which_all_have_it(letter: str) -> None:
    assert of_file([BookMinutes(states=f"{letter}1440")] * 2) == BookMinutes(states=f"{letter}1440")


def test_a_good_book_is_consistent_by_itself_and_proven_beside_the_quotes() -> None:
    alone = minutes_of(FEED, damaged())
    assert counted(alone).keys() == {"consistent", "proven"}
    assert counted(alone)["proven"] <= 3
    beside = minutes_of(FEED, damaged(), ("quotes", derived("quotes")))
    assert counted(beside) == {"proven": MINUTES}
    assert beside.valid_share is not None
    assert 0.99 < beside.valid_share < 1
    assert (beside.longest_unchanged_seconds or 0) > 10
    assert 0 < (beside.unchanged_at_end_seconds or 0) < 60


def test_quotes_and_snapshots_have_the_same_states() -> None:
    for data_type in ("quotes", "book_snapshot_5"):
        own = derived(data_type)
        # The best level stands still for a whole minute a few times a day.
        silent = counted(minutes_of(feed_of(data_type), own))["silent"]
        assert silent <= 5
        rest = {"silent": silent} if silent else {}
        assert counted(minutes_of(feed_of(data_type), own)) == {"consistent": MINUTES - silent, **rest}
        beside = minutes_of(feed_of(data_type), own, ("incremental_book_L2", damaged()))
        assert counted(beside) == {"proven": MINUTES - silent, **rest}
        assert beside.valid_share == pytest.approx(minutes_of(FEED, damaged()).valid_share, abs=1e-3)


def test_both_of_two_that_contradict_have_diverged_in_these_minutes() -> None:
    cut = derived("quotes", "a cut end")
    book = minutes_of(FEED, damaged(), ("quotes", cut))
    quotes = minutes_of(feed_of("quotes"), cut, ("incremental_book_L2", damaged()))
    for found in (book, quotes):
        letters = letters_in(found.states)
        assert letters.count("d") == 300, counted(found)
        assert letters.find("d") == 19 * 60
    assert (quotes.unchanged_at_end_seconds or 0) > 5 * 3600


def test_minutes_that_differ_for_a_while_have_diverged_too() -> None:
    lost = minutes_of(FEED, damaged("one lost message"), ("quotes", derived("quotes")))
    assert counted(lost) == {"proven": MINUTES - 1, "diverged": 1}


def test_a_book_whose_deletes_were_lost_is_crossed_and_a_silent_one_silent() -> None:
    assert counted(minutes_of(FEED, damaged("lost deletes")))["crossed"] > 1_000
    silent = minutes_of(FEED, damaged("a silent capture"))
    assert letters_in(silent.states)[10 * 60 + 1 : 14 * 60 - 1] == "s" * 238
    assert (silent.longest_unchanged_seconds or 0) >= 4 * 3600


def test_silence_in_a_known_outage_is_the_outage() -> None:
    known = ((START + 10 * HOUR, START + 12 * HOUR - 1),)
    found = letters_in(minutes_of(FEED, damaged("a silent capture"), outages=known).states)
    assert (found[10 * 60 + 1], found[12 * 60 - 1], found[12 * 60]) == ("g", "g", "s")


def test_before_the_first_snapshot_no_book_is_known_and_without_a_file_all_is_missing() -> None:
    late = profile_of([m for m in good_day(THIN) if m.snapshot or m.local > START + 5 * HOUR][1:])
    assert letters_in(minutes_of(FEED, late).states).startswith("n" * 180)
    assert minutes_of(FEED, None).states == "m1440"
    assert minutes_of(FEED, None).valid_share is None


def test_trades_and_files_of_an_earlier_version_have_no_such_minutes() -> None:
    context = Context(window_start_us=START, window_end_us=end_us(DAY))
    assert book_minutes(feed_of("trades"), [MARKET], DAY, None, context, {}) == {}
    earlier = derived("quotes").model_copy(update={"tops": ()})
    assert book_minutes(feed_of("quotes"), [MARKET], DAY, earlier, context, {}) == {}


def test_letters_of_an_earlier_version_are_read() -> None:
    late = profile_of([m for m in good_day(THIN) if m.snapshot or m.local > START + 5 * HOUR][1:])
    [book] = late.books
    assert {"n", "v"} <= {*book.minutes}
    former = book.model_copy(update={"minutes": book.minutes.replace("n", "-").replace("v", "p")})
    earlier = late.model_copy(update={"books": (former,)})
    assert minutes_of(FEED, earlier) == minutes_of(FEED, late)


def test_the_days_document_has_the_states_and_no_tick_file_is_opened_for_them(tmp_path: Path) -> None:
    store = CountingStore(tmp_path / "lake")
    feeds = [feed_of(data_type) for data_type in ("incremental_book_L2", "quotes")]
    expect(store, DAY, *feeds)
    for feed in feeds:
        # The generated market is locked more often than quotes may be.
        sound = {"crossed_rows": 0}
        own = damaged() if feed == FEED else derived(feed.data_type).model_copy(update=sound)
        fetch(store, DAY, own, feed=feed)
    settle(store, DAY, THRESHOLDS)
    # The lake has no file of rows to open.
    assert not [*(tmp_path / "lake" / "ticks").rglob("*.parquet")]
    assert sorted(store.opened.values()) == [1, 1]
    found = load_day(store, DAY)
    assert found is not None
    counts = [counted(f.books[MARKET]) for f in found.feeds]
    assert all(count["proven"] + count["silent"] == MINUTES for count in counts)
    assert all(count["silent"] <= 5 for count in counts)
    rows = quality_values(found)
    assert [row["book_minutes"] for row in rows] == [f.books[MARKET].states for f in found.feeds]
    assert all(0.99 < float(str(row["valid_book_share"])) < 1 for row in rows)


def test_a_row_of_a_group_has_the_first_state_of_each_minute_and_the_numbers_of_the_worst_symbol(
    tmp_path: Path,
) -> None:
    store = LocalStore(tmp_path / "lake")
    group = Feed("binance", "quotes", "PERPETUALS")
    names = (("BTCUSDT", "BTC-USDT-PERP"), ("ETHUSDT", "ETH-USDT-PERP"), ("XRPUSDT", "XRP-USDT-PERP"))
    expected = expected_symbols([ExpectedFeed(group, names)])
    record = DayRecord(day=DAY, expected=expected, recorded_at=NOW)
    documents.update(store, paths.day_record(DAY), DayRecord, lambda _: record)
    [top] = derived("quotes").tops
    # One symbol stands still from 08:00 on; another has no row all day.
    stopped = START + 8 * HOUR
    stale = {
        "dataset_symbol": "ETHUSDT",
        "symbol": "ETH-USDT-PERP",
        "valid_us": 6 * HOUR,
        "longest_unchanged": Silence(start_us=stopped, end_us=end_us(DAY), usual_us=0),
        "last_change_us": stopped,
    }
    thin = top.model_copy(update=stale)
    both = (top.model_copy(update={"symbol": "BTC-USDT-PERP"}), thin)
    fetch(store, DAY, derived("quotes").model_copy(update={"tops": both, "crossed_rows": 0}), feed=group)
    settle(store, DAY, THRESHOLDS)
    found = load_day(store, DAY)
    assert found is not None
    assert found.feeds[0].books["XRP-USDT-PERP"].states == "n1440"
    [row] = quality_values(found)
    states = found.feeds[0].books["BTC-USDT-PERP"].states
    assert (row["symbol"], row["book_minutes"]) == ("PERPETUALS", states)
    assert row["valid_book_share"] == 0.25
    assert (row["longest_unchanged_seconds"], row["unchanged_at_end_seconds"]) == (16 * 3600.0, 16 * 3600.0)


@pytest.mark.parametrize(
    ("one", "other", "both"),
    [
        ("n", "c", "c"),
        ("n", "s", "s"),
        ("s", "v", "v"),
        ("v", "c", "c"),
        ("g", "c", "g"),
        ("x", "g", "x"),
        ("d", "x", "d"),
    ],
)
def test_a_symbol_that_is_quiet_costs_a_group_nothing_and_a_fault_stays_visible(one, other, both) -> None:
    for books in ((one, other), (other, one)):
        found = of_file([BookMinutes(states=f"{letter}1440") for letter in books])
        assert found == BookMinutes(states=f"{both}1440")


def test_a_group_has_the_states_of_one_symbol_only_in_its_minutes() -> None:
    sound = BookMinutes(states="c1440", valid_share=0.9)
    damaged_later = BookMinutes(states="n600d60n780", longest_unchanged_seconds=5.0)
    assert of_file([sound, damaged_later, sound]) == BookMinutes(
        states="c600d60c780", valid_share=0.9, longest_unchanged_seconds=5.0
    )
    assert of_file([sound]) is sound
    assert of_file([]) is None
