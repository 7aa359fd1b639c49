"""Progress of a day's feeds: throttled, whole at the end, bounded, with the names of failures."""

from __future__ import annotations

import json
from typing import Any

import pytest

from backfill_assets.feeds import Feed
from backfill_assets.ticks.fetch import FeedOutcome
from backfill_assets.ticks.fetch_progress import FEEDS_NAMED, FetchProgress


class Watch:
    """A manual clock, and the written records."""

    def __init__(self) -> None:
        self.now = 0.0
        self.written: list[dict[str, Any]] = []
        self.progress = FetchProgress(lambda text: self.written.append(json.loads(text)), lambda: self.now)


@pytest.fixture
def watch() -> Watch:
    return Watch()


def outcome(number: int, state: str = "fetched") -> FeedOutcome:
    return FeedOutcome(
        Feed("binance", "trades", f"S{number}"), state, 10, 100, "" if state == "fetched" else "why"
    )


def test_the_first_and_the_last_feed_are_written_and_in_between_one_every_two_seconds(watch: Watch) -> None:
    for number in range(1, 21):
        watch.now = number * 0.5
        watch.progress(outcome(number), number, 20)
    assert [written["done"] for written in watch.written] == [1, 5, 9, 13, 17, 20]


def test_what_is_written_stands_for_itself_and_the_totals_at_the_end_name_no_feed(watch: Watch) -> None:
    for number, state in ((1, "fetched"), (2, "failed"), (3, "kept"), (4, "fetched")):
        watch.now += 10
        watch.progress(outcome(number, state), number, 4)
    *_, third, last = watch.written
    assert (third["done"], third["total"], third["rows"], third["raw_bytes"]) == (3, 4, 30, 300)
    assert third["states"] == {"failed": 1, "fetched": 1, "kept": 1}
    assert third["feeds"][0] == {
        "feed": "binance/trades/S2", "state": "failed", "rows": 10, "raw_bytes": 100, "reason": "why"
    }  # fmt: skip
    assert (last["done"], last["rows"], last["fetched_bytes"], last["feeds"]) == (4, 40, 200, [])
    assert third["written"] <= last["written"]


def test_of_thousands_of_feeds_the_latest_are_named_and_no_failure_is_pushed_out_by_them(
    watch: Watch,
) -> None:
    watch.progress(outcome(0, "absent"), 1, 5_001)
    for number in range(1, 5_000):
        watch.now += 0.001
        watch.progress(outcome(number), number + 1, 5_001)
    named = [feed["feed"] for feed in watch.written[-1]["feeds"]]
    assert len(named) == FEEDS_NAMED + 1
    assert named[0] == "binance/trades/S0"
    assert named[-1] == f"binance/trades/S{watch.written[-1]['done'] - 1}"
    assert watch.written[-1]["states"] == {"absent": 1, "fetched": watch.written[-1]["done"] - 1}
