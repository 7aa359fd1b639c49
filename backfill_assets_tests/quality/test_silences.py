"""Silences that all busy feeds of a venue share: found only if they are long and all feeds have them."""

from __future__ import annotations

import itertools
from typing import Any, Final

import pytest

from backfill_assets.feeds import Feed
from backfill_assets.lake.local import LocalStore
from backfill_assets.quality.profiles import FeedProfile
from backfill_assets.quality.settle import settle
from backfill_assets.quality.silences import JointSilence, joint_silences
from backfill_assets.settings import RowSettings
from backfill_assets_tests.quality import settled_lake
from backfill_assets_tests.quality.quality_samples import (
    DAY,
    END,
    SECOND,
    START,
    THRESHOLDS,
    profile,
    silence,
    symbol,
)

NOON: Final = START + 12 * 3600 * SECOND
FEEDS: Final = [Feed("binance", "trades", f"{coin}USDT") for coin in ("ADA", "BTC", "ETH", "SOL")]
LIMITS: Final = RowSettings()


#: A feed with the profile of its newest version.
Newest = tuple[Feed, FeedProfile]


def silent(feed: Feed, *spans: tuple[float, float], rows: int = 20_000, **changes: Any) -> Newest:
    """A feed that is silent from and to these seconds after noon."""
    silences = tuple(silence(b - a, at=NOON + round(a * SECOND)) for a, b in spans)
    found = symbol(
        1, rows, silences=silences, silence_count=len(silences), dataset_symbol=feed.dataset_symbol
    )
    return feed, profile(found, **changes)


def found_in(*newest: Newest, limits: RowSettings = LIMITS) -> dict[Feed, tuple[JointSilence, ...]]:
    venues = joint_silences(dict(newest), {feed: (START, END) for feed, _ in newest}, limits)
    of_feeds = {feed: venues[feed.exchange].of_feed(feed, limits) for feed, _ in newest}
    return {feed: silences for feed, silences in of_feeds.items() if silences}


def at(a: float, b: float, feeds: int = 3) -> JointSilence:
    return JointSilence(start_us=NOON + round(a * SECOND), end_us=NOON + round(b * SECOND), feeds=feeds)


@pytest.mark.parametrize(
    ("second", "third", "expected"),
    [
        ((0, 75), (0, 75), [at(0, 75)]),
        ((0, 60), (0, 100), []),
        ((0, 61), (0, 100), [at(0, 61)]),
        ((30, 300), (-50, 95), [at(30, 95)]),
        ((40, 300), (-50, 95), []),
        ((75, 150), (0, 75), []),
    ],
)
def test_what_all_feeds_share_counts(
    second: tuple[float, float], third: tuple[float, float], expected: list[JointSilence]
) -> None:
    found = found_in(silent(FEEDS[0], (0, 100)), silent(FEEDS[1], second), silent(FEEDS[2], third))
    assert found == (dict.fromkeys(FEEDS[:3], tuple(expected)) if expected else {})


def test_one_feed_that_goes_on_shows_that_the_venue_does() -> None:
    three = [silent(feed, (0, 100)) for feed in FEEDS[:3]]
    assert found_in(*three, silent(FEEDS[3])) == {}
    assert len(found_in(*three, silent(FEEDS[3], rows=8_639))) == 3


def test_two_feeds_are_too_few_and_three_venues_are_no_venue() -> None:
    assert found_in(*(silent(feed, (0, 100)) for feed in FEEDS[:2])) == {}
    elsewhere = [Feed(venue, "trades", "BTCUSDT") for venue in ("binance", "kraken", "coinbase")]
    assert found_in(*(silent(feed, (0, 100)) for feed in elsewhere)) == {}
    two = [silent(feed, (0, 100)) for feed in FEEDS[:2]]
    assert len(found_in(*two, limits=RowSettings(joint_silence_feeds=2))) == 2


def test_a_venue_that_falls_silent_before_midnight_is_silent() -> None:
    early = {"last_local_timestamp_us": END - 600 * SECOND}
    found = found_in(*(silent(feed, **early) for feed in FEEDS[:3]))
    assert [s.end_us for s in found[FEEDS[0]]] == [END]
    # A market that is no longer listed owes nothing.
    windows = dict.fromkeys(FEEDS[:3], (START, END - 600 * SECOND))
    venues = joint_silences(dict(silent(feed, **early) for feed in FEEDS[:3]), windows, LIMITS)
    assert venues["binance"].are_none


def test_one_busy_feed_shows_whether_the_capture_stood_still() -> None:
    day = {FEEDS[0]: (START, END)}
    for span, live in (((0, 60), True), ((0, 61), False)):
        venues = joint_silences(dict([silent(FEEDS[0], span)]), day, LIMITS)
        assert (venues["binance"].are_none, venues["binance"].of_feed(FEEDS[0], LIMITS)) == (live, ())
    assert joint_silences(dict([silent(FEEDS[0], (0, 61), rows=8_639)]), day, LIMITS) == {}


def test_many_silences_are_found_by_plain_looking(tmp_path: Any) -> None:
    spans = [[(n * 500 + shift, n * 500 + shift + 200) for n in range(20)] for shift in (0, 50, 90)]
    found = found_in(*(silent(feed, *own) for feed, own in zip(FEEDS, spans, strict=False)))
    assert found[FEEDS[0]] == tuple(at(n * 500 + 90, n * 500 + 200) for n in range(20))


@pytest.mark.parametrize("together", [True, False])
def test_the_verdict_of_each_of_the_feeds_warns(together: bool, tmp_path: Any) -> None:
    store = LocalStore(tmp_path / "lake")
    settled_lake.expect(store, DAY, *FEEDS[:3])
    for n, feed in enumerate(FEEDS[:3]):
        start = 0 if together else 1000 * n
        settled_lake.fetch(store, DAY, silent(feed, (start, start + 75))[1], feed)
    verdicts = [feed.verdict for feed in settle(store, DAY, THRESHOLDS).feeds]
    said = "all 3 busy feeds of the venue silent for 75.00 s from 12:00:00.000"
    assert [said in v.warnings for v in verdicts] == [together] * 3
    assert {v.outcome for v in verdicts} == {"publish"}
    assert len({v.context.joint_silences for v in verdicts}) == 1
    assert list(itertools.chain(*(v.reasons for v in verdicts))) == []
