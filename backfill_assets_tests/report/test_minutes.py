"""The minutes of a feed equal the coverage, and pending versions are told by the same rules."""

from __future__ import annotations

from typing import Any

import pytest

from backfill_assets.days import MICROSECONDS_PER_MINUTE
from backfill_assets.feeds import Feed
from backfill_assets.quality.book_minutes import BookMinutes
from backfill_assets.quality.book_states import BOOK_LETTERS
from backfill_assets.quality.bucket_states import LETTERS, MINUTES, codes_of, encode
from backfill_assets.quality.measures import FeedMinutes
from backfill_assets.quality.profiles import FeedProfile, Gap
from backfill_assets.report.minutes import (
    BY_CODE,
    MISSING,
    NO_BOOK,
    Minutes,
    minutes_of,
    of_books,
    of_states,
    of_version,
)
from backfill_assets_tests.quality.quality_samples import (
    DAY,
    FEED,
    START,
    THRESHOLDS,
    context,
    empty_profile,
    profile,
    quotes,
    symbol,
    without_ids,
)

MINUTE = MICROSECONDS_PER_MINUTE
KRAKEN = Feed("kraken", "trades", "BTC-USDT")


def traded_in(*minutes: int) -> tuple[int, ...]:
    return tuple(7 if i in minutes else 0 for i in range(MINUTES))


def gap(first: int, last: int, after: int, before: int) -> dict[str, Any]:
    """The part of a profile that tells of one run of missing ids between two minutes."""
    times = {"after_us": START + after * MINUTE, "before_us": START + before * MINUTE}
    length = last - first + 1
    return {
        "gaps": (Gap(first_missing=first, last_missing=last, **times),),
        "gap_count": 1,
        "missing_ids": length,
        "longest_gap": length,
    }


def kept(flagged: dict[str, tuple[int, ...]] | None = None, **symbols: str) -> FeedMinutes:
    """A feed's minutes as the day's document keeps them."""
    return FeedMinutes(symbols=symbols, flagged=flagged or {})


def file_of(found: FeedProfile, feed: Feed = FEED) -> Minutes | None:
    return of_version(feed, DAY, found, context(), THRESHOLDS)


def test_every_state_of_the_coverage_has_a_letter_and_only_traded_has_no_sign() -> None:
    assert set(BY_CODE) == {*LETTERS, *BOOK_LETTERS.values()}
    assert [state.name for state in BY_CODE.values() if not state.sign] == ["traded", "book"]


def test_minutes_are_those_of_the_document_with_the_trades_of_the_candles() -> None:
    runs = (
        ("proven_empty", 3),
        ("traded", 2),
        ("traded_partial", 1),
        ("outage", 10),
        ("missing", 4),
        ("empty_unproven", 1420),
    )
    text = encode(codes_of([state for state, length in runs for _ in range(length)]))
    minutes = of_states(kept(BTC=text), [0, 0, 0, 9, 0, 1, *[0] * 1434])
    assert minutes.states == "eee" + "tt" + "p" + "g" * 10 + "mmmm" + "u" * 1420
    assert minutes.trades[:7] == (0, 0, 0, 9, 0, 1, 0)


@pytest.mark.parametrize(
    ("one", "other", "both"),
    [
        ("traded", "missing", "p"),
        ("traded_partial", "proven_empty", "p"),
        ("traded", "empty_unproven", "t"),
        ("proven_empty", "missing", "m"),
        ("proven_empty", "outage", "g"),
        ("proven_empty", "empty_unproven", "u"),
        ("proven_empty", "proven_empty", "e"),
    ],
)
def test_symbols_of_one_file_are_laid_over_each_other_and_a_loss_stays_visible(one, other, both) -> None:
    feeds = kept(A=encode(codes_of([one] * MINUTES)), B=encode(codes_of([other] * MINUTES)))
    assert of_states(feeds, traded_in()).states == both * MINUTES


def test_a_symbol_without_an_update_does_not_hide_the_books_of_its_group() -> None:
    books = [BookMinutes(states=states) for states in ("n1440", "n10c1430", "c1000x5s435")]
    minutes = of_books(books)
    assert minutes is not None
    assert minutes.states == "c" * 1000 + "x" * 5 + "c" * 435
    assert minutes.count(NO_BOOK) == 0
    alone = of_books(books[:1])
    assert alone is not None
    assert alone.count(NO_BOOK) == MINUTES
    assert of_books([]) is None


def test_flagged_minutes_are_marked_whichever_symbol_they_are_of() -> None:
    text = encode(codes_of(["traded"] * MINUTES))
    minutes = of_states(kept({"B": (700,), "A": (700, 12)}, A=text, B=text), traded_in())
    assert minutes.flagged == (12, 700)
    assert [(m.first, m.sign) for m in minutes.marks()] == [(12, "▲"), (700, "▲")]
    assert of_states(kept(A=text), traded_in()).marks() == ()


def test_a_file_that_waits_shows_its_gap_by_the_rules_of_the_coverage() -> None:
    lost = gap(2000, 2999, 10, 14)
    minutes = file_of(profile(symbol(minute_rows=traded_in(0, 10, 12, 14, 1439), **lost)))
    assert minutes is not None
    assert minutes.states[9:16] == "epmpmpe"
    assert minutes.trades[10] == 7


def test_a_file_that_waits_without_ids_proves_nothing() -> None:
    minutes = file_of(profile(without_ids(minute_rows=traded_in(0, 100, 1439))), KRAKEN)
    assert minutes is not None
    assert set(minutes.states) == {"t", "u"}
    assert minutes.states.count("t") == 3


def test_what_is_not_counted_by_minute_has_no_minutes() -> None:
    assert file_of(quotes()) is None
    assert file_of(empty_profile()) is None


def test_runs_of_minutes_are_told_with_their_state_and_marks_begin_with_the_worst() -> None:
    minutes = Minutes("t" * 100 + "pp" + "t" * 1337 + "m", (0,) * MINUTES, (50,))
    assert [(a, b, state.code) for a, b, state in minutes.runs()] == [
        (0, 100, "t"),
        (100, 102, "p"),
        (102, 1439, "t"),
        (1439, 1440, "m"),
    ]
    assert minutes.runs(MISSING) == [(1439, 1440, MISSING)]
    assert "".join(mark.sign for mark in minutes.marks([(3, 9)])) == "×!~▲"


def test_a_time_range_touches_the_minutes_of_the_day_and_no_others() -> None:
    assert minutes_of(START + MINUTE, START + 2 * MINUTE, DAY) == (1, 3)
    assert minutes_of(START - MINUTE, START + 5000 * MINUTE, DAY) == (0, MINUTES)
