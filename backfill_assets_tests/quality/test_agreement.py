"""Data types of one book agree at the end of each minute; damages that one file hides show beside another."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Final

import pytest

from backfill_assets.feeds import Feed
from backfill_assets.quality.agreement import Agreement, agreements
from backfill_assets.quality.profiles import PATH, FeedProfile
from backfill_assets.quality.verdict import Verdict
from backfill_assets.quality.warnings import NAMED, agreement_warnings
from backfill_assets.settings import ThresholdSettings
from backfill_assets_tests.quality.book_days import (
    DAMAGES,
    FEED,
    THIN,
    Message,
    derived_profile,
    good_day,
    profile_of,
    verdict_of,
)
from backfill_assets_tests.quality.test_damaged_books import FOUND, MARKETS

TYPES: Final = {
    data_type: Feed("binance", data_type, "BTCUSDT")
    for data_type in ("quotes", "book_snapshot_5", "book_snapshot_25")
}


#: The market overwrites the damage before the minute ends, so only the path of the best level shows it.
HEALED: Final = {("one lost message", "liquid")}


@cache
def beside(messages: int) -> dict[Feed, FeedProfile]:
    """Profiles of the other data types of the undamaged day."""
    good = [*good_day(messages)]
    return {feed: derived_profile(good, data_type) for data_type, feed in TYPES.items()}


Compared = tuple[Verdict, tuple[Agreement, ...], FeedProfile]


def compared(messages: list[Message], others: dict[Feed, FeedProfile]) -> Compared:
    profile = profile_of(messages)
    found = agreements(FEED, profile, {**others, FEED: profile})
    return verdict_of(profile, agreements={"sha": found}), found, profile


@pytest.mark.parametrize("market", MARKETS)
def test_data_types_of_one_good_book_agree_in_every_minute(market: str) -> None:
    messages = MARKETS[market]
    verdict, found, profile = compared([*good_day(messages)], beside(messages))
    assert [(one.other.split("/")[1], one.levels) for one in found] == [
        ("quotes", 1), ("book_snapshot_5", 5), ("book_snapshot_25", 25),
    ]  # fmt: skip
    assert {(one.minutes, one.differing, one.first) for one in found} == {(1440, 0, None)}
    assert {(one.passing, one.first_passing) for one in found} == {(0, None)}
    assert len(verdict.warnings) == 1
    snapshots, others = TYPES["book_snapshot_25"], {**beside(messages), FEED: profile}
    back = agreements(snapshots, beside(messages)[snapshots], others)
    assert [(one.levels, one.minutes, one.differing) for one in back] == [
        (1, 1440, 0), (5, 1440, 0), (25, 1440, 0),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("damage", "market"),
    [
        (damage, market)
        for damage, ways in FOUND.items()
        for market, way in zip(MARKETS, ways, strict=True)
        if way == "unseen"
    ],
)
def test_what_one_file_hides_shows_beside_another(damage: str, market: str) -> None:
    messages = MARKETS[market]
    verdict, found, _ = compared(DAMAGES[damage]([*good_day(messages)]), beside(messages))
    is_healed = (damage, market) in HEALED
    told = (
        "the best level differs from binance/quotes/BTCUSDT for a while within 1 of 1440 minutes"
        if is_healed
        else "the best 25 levels differ from binance/book_snapshot_25/BTCUSDT"
    )
    assert any(sentence.startswith(told) for sentence in verdict.warnings), verdict.warnings
    assert {one.differing for one in found} == {0} or not is_healed


def test_paths_that_differ_all_day_though_books_agree_are_made_in_another_way() -> None:
    messages = MARKETS["thin"]
    good = [*good_day(messages)]
    quotes = TYPES["quotes"]
    delayed = derived_profile([replace(one, local=one.local + 1) for one in good], "quotes")
    _, found, _ = compared(good, {**beside(messages), quotes: delayed})
    [one] = [one for one in found if one.other == str(quotes)]
    assert (one.differing, one.passing) == (0, 0)
    paths = [one.numbers[0].digests(PATH) for one in (delayed, beside(messages)[quotes])]
    assert (paths[0] != paths[1]).sum() > 100


def test_what_is_the_exchanges_own_is_compared_with_nothing() -> None:
    profile = beside(THIN)[TYPES["quotes"]]
    own = Feed("binance", "book_ticker", "BTCUSDT")
    assert agreements(own, profile, beside(THIN)) == ()
    assert agreements(Feed("kraken", "quotes", "BTCUSDT"), profile, beside(THIN)) == ()


def test_a_profile_of_an_earlier_version_is_compared_with_nothing() -> None:
    profile = beside(THIN)[TYPES["quotes"]]
    earlier = profile.model_copy(update={"numbers": ()})
    assert agreements(TYPES["quotes"], earlier, beside(THIN)) == ()
    others = {TYPES["quotes"]: earlier}
    assert agreements(TYPES["book_snapshot_5"], beside(THIN)[TYPES["book_snapshot_5"]], others) == ()


def test_warnings_name_the_first_markets_with_their_first_minute_and_count_the_others() -> None:
    other = "x/quotes/X"
    ends = [
        Agreement(other=other, dataset_symbol=f"E{n}", levels=5, minutes=1_440, differing=30, first=61 + n)
        for n in range(NAMED + 2)
    ]
    within = Agreement(
        other=other, dataset_symbol="W", levels=1, minutes=1_440, differing=0, passing=2, first_passing=125
    )
    told = [*agreement_warnings([*ends, within], ThresholdSettings().rows, grouped=True)]
    assert told[0] == (
        "E0: the best 5 levels differ from x/quotes/X at the end of 30 of 1440 minutes, first at 01:01: "
        "one of both files is damaged"
    )
    assert told[-1] == (
        "W: the best level differs from x/quotes/X for a while within 2 of 1440 minutes, first at 02:05: "
        "one of both files is damaged"
    )
    assert len([one for one in told if one.startswith("E")]) == NAMED
    assert "2 more markets differ from other feeds of the same books" in told
