"""Drawing and text of minutes: whole, short, and the same to the eye and to the ear."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest

from backfill_assets.quality.bucket_states import MINUTES
from backfill_assets.report.heat_map import TEXT_RUNS, heat_map, text
from backfill_assets.report.minutes import MISSING, Minutes, uniform
from backfill_assets.report.page import day_page
from backfill_assets_tests.report.report_samples import day_of, feed_report

MEGABYTE = 1_000_000
COUNTS = tuple(i % 7 for i in range(MINUTES))


def drawn(paths: dict[str, str]) -> list[tuple[int, int, str]]:
    """First minute, the minute after the last, and kind of every run that the paths draw."""
    runs = []
    for kind, path in paths.items():
        at = 0
        for move, x, length in re.findall(r"([Mm])(\d+) [\d.]+|h(\d+)", path):
            if move:
                at = int(x) + (at if move == "m" else 0)
            else:
                runs.append((at, at + int(length), kind))
                at += int(length)
    return sorted(runs)


@pytest.mark.parametrize(
    "states", ["t" * 1440, "te" * 720, "m" * 7 + "tup" * 477 + "gg", "tt" * 719 + "mm", "vcsdxngm" * 180]
)
def test_the_paths_draw_every_minute_once_in_its_state(states) -> None:
    row = heat_map(feed_report(0, minutes=Minutes(states, COUNTS)))
    assert row is not None
    runs = drawn(row["paths"])
    assert "".join(kind[0] * (after - first) for first, after, kind in runs) == states
    assert all(a[1] == b[0] for a, b in pairwise(runs))


def test_a_feed_that_waits_is_drawn_in_two_and_told_in_both() -> None:
    waiting = Minutes("t" * 600 + "m" * 60 + "t" * 780, COUNTS)
    feed = feed_report(0, minutes=uniform(MISSING), waiting=waiting, marks=waiting.marks())
    row = heat_map(feed)
    assert row is not None
    assert drawn(row["paths"]) == [(0, 1440, "m")]
    assert (600, 660, "m") in drawn(row["waiting"])
    assert [(sign, words) for _, sign, words in row["signs"]] == [("×", "10:00–10:59 missing")]
    assert ("10:00–10:59", "in the pending file: 60 missing") in text(feed)


def test_words_tell_losses_one_by_one_and_what_is_in_order_together() -> None:
    minutes = Minutes("te" * 300 + "m" * 10 + "tu" * 415, COUNTS, (5,))
    assert text(feed_report(0, minutes=minutes, marks=minutes.marks())) == [
        ("00:00–09:59", "300 traded, 300 proven empty"),
        ("10:00–10:09", "10 missing"),
        ("10:10–23:59", "415 traded, 415 empty, unproven"),
        ("00:05", "unconfirmed spike is the high or low"),
    ]


def test_words_are_bounded_and_say_what_they_leave_out() -> None:
    told = text(feed_report(0, minutes=Minutes("tm" * 720, COUNTS)))
    assert len(told) == TEXT_RUNS + 1
    assert told[-1][1] == f"{1440 - TEXT_RUNS:,} more runs: see the feed's minutes below"


def test_what_is_not_counted_by_minute_is_told_so() -> None:
    feed = feed_report(0, minutes=None)
    assert heat_map(feed) is None
    assert text(feed) == [("the whole day", "not counted by minute")]


@pytest.mark.parametrize(("feeds", "frames"), [(60, {"5m": 5, "1h": 60}), (20, {"1m": 1, "5m": 5, "1h": 60})])
def test_a_page_of_many_busy_feeds_stays_below_three_megabytes(feeds, frames) -> None:
    page = day_page(day_of(tuple(feed_report(i, frames=frames) for i in range(feeds))))
    assert len(page.encode()) < 3 * MEGABYTE
