"""The same file under two symbols: the wrong place is blamed, and every other place is named."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Final

import pytest

from backfill_assets.feeds import Feed
from backfill_assets.quality.settle import settle
from backfill_assets.quality.verdict import Verdict
from backfill_assets.tardis.columns import csv_header
from backfill_assets_tests.quality import damaged_days as dd
from backfill_assets_tests.quality.damaged_days import AFTER, BEFORE, DAY, SAMPLES, Sample
from backfill_assets_tests.quality.filed_days import FiledDays, raw_file

BTC: Final = SAMPLES["A liquid"]
SOL: Final = SAMPLES["A thin"]


@pytest.fixture
def lake(tmp_path: Path) -> FiledDays:
    return FiledDays(tmp_path)


def other_of(sample: Sample) -> Sample:
    return next(s for s in SAMPLES.values() if s.exchange == sample.exchange and s != sample)


def verdicts(lake: FiledDays, sample: Sample, *days: str) -> list[Verdict]:
    for day in days:
        settle(lake.store, day, lake.settings.thresholds)
    return [lake.settled(sample.feed, day).verdict for day in days]


@pytest.mark.parametrize("day_after", [False, True])
@pytest.mark.parametrize("sample", SAMPLES.values(), ids=lambda s: s.name)
def test_the_file_of_the_day_before_is_blamed_where_it_does_not_belong_and_left_alone_where_it_does(
    sample: Sample, day_after: bool, lake: FiledDays
) -> None:
    rows = dd.good_rows(sample, BEFORE)
    for day in (BEFORE, DAY):
        lake.bring_rows(sample, day, rows)
    days = [BEFORE, DAY]
    if day_after:
        lake.bring_rows(sample, AFTER, dd.good_rows(sample, AFTER))
        days.append(AFTER)
    before, wrong, *after = verdicts(lake, sample, *days)
    assert (before.outcome, before.reasons) == ("publish", ())
    assert wrong.outcome == "quarantine"
    assert wrong.reasons[0] == f"{len(rows)} rows that arrived outside the file's day"
    assert [v.outcome for v in after] == ["publish"] * day_after


@pytest.mark.parametrize("day_after", [False, True])
@pytest.mark.parametrize("sample", SAMPLES.values(), ids=lambda s: s.name)
def test_another_symbol_s_bytes_are_blamed_where_the_rows_are_of_another_symbol(
    sample: Sample, day_after: bool, lake: FiledDays
) -> None:
    rightful = other_of(sample)
    rows = dd.good_rows(rightful, DAY)
    for found in (sample, rightful):
        lake.bring_rows(found, DAY, rows)
        if day_after:
            lake.bring_rows(found, AFTER, dd.good_rows(found, AFTER))
    wrong, right = (lake.settled(s.feed, DAY).verdict for s in (sample, rightful))
    assert (right.outcome, right.reasons) == ("publish", ())
    assert wrong.outcome == "quarantine"
    assert wrong.reasons[0] == f"the same file as {rightful.feed} of {DAY}"


def grouped(lake: FiledDays, name: str, day: str) -> Feed:
    """A file of many symbols, whose rows may have any symbol."""
    feed = Feed("binance", "trades", name)
    lake.bring(feed, day, raw_file(dd.good_rows(BTC, DAY)), {BTC.symbol: BTC.canonical}, BTC.grids)
    return feed


def test_where_nothing_tells_the_places_apart_both_are_blamed_and_every_duplicate_is_named(
    lake: FiledDays,
) -> None:
    feeds = [grouped(lake, name, DAY) for name in ("SPOT", "FUTURES", "PERPETUALS")]
    found = [lake.settled(feed, DAY).verdict for feed in feeds]
    assert [v.outcome for v in found] == ["quarantine"] * 3
    assert found[0].reasons == (
        f"the same file as binance/trades/FUTURES of {DAY} and binance/trades/PERPETUALS of {DAY}",
    )


def test_files_that_differ_in_one_row_are_no_duplicates(lake: FiledDays) -> None:
    feed = grouped(lake, "SPOT", DAY)
    almost = raw_file(dd.good_rows(BTC, DAY)[:-1])
    lake.bring(Feed("binance", "trades", "FUTURES"), DAY, almost, {BTC.symbol: BTC.canonical}, BTC.grids)
    assert lake.settled(feed, DAY).verdict.context.duplicates == {}


def test_files_without_rows_are_no_duplicates(lake: FiledDays) -> None:
    empty = gzip.compress(f"{csv_header('trades')}\n".encode(), 1, mtime=0)
    for sample in (BTC, SOL):
        for day in (BEFORE, DAY, AFTER):
            lake.bring(sample.feed, day, empty, {sample.symbol: sample.canonical})
    found = lake.settled(BTC.feed, DAY).verdict
    assert (found.outcome, found.context.duplicates) == ("no_evidence", {})


def test_the_same_rows_in_other_bytes_are_the_same_file(lake: FiledDays) -> None:
    rows = dd.good_rows(BTC, DAY)
    names = {BTC.symbol: BTC.canonical}
    packed = [gzip.compress(gzip.decompress(raw_file(rows)), level, mtime=0) for level in (1, 9)]
    assert packed[0] != packed[1]
    feeds = [Feed("binance", "trades", name) for name in ("SPOT", "FUTURES")]
    for feed, raw in zip(feeds, packed, strict=True):
        lake.bring(feed, DAY, raw, names, BTC.grids)
    assert [lake.settled(feed, DAY).verdict.outcome for feed in feeds] == ["quarantine"] * 2


def test_another_day_s_file_waits_beside_the_version_that_counts(lake: FiledDays) -> None:
    lake.bring_rows(BTC, BEFORE, dd.good_rows(BTC, BEFORE))
    lake.bring_rows(BTC, DAY, dd.good_rows(BTC, DAY))
    verdicts(lake, BTC, BEFORE, DAY)
    lake.bring_rows(BTC, DAY, dd.good_rows(BTC, BEFORE))
    before, day = (lake.settled(BTC.feed, d) for d in (BEFORE, DAY))
    assert before.verdict.outcome == "publish"
    assert (day.verdict.outcome, day.verdict.reasons) == ("publish", ())
    assert (day.accepted is not None, day.candidate is not None) == (True, True)


@pytest.mark.parametrize("order", [(BEFORE, DAY), (DAY, BEFORE)])
def test_who_is_blamed_does_not_depend_on_who_came_first(order: tuple[str, str], lake: FiledDays) -> None:
    rows = dd.good_rows(BTC, BEFORE)
    for day in order:
        lake.bring_rows(BTC, day, rows)
        settle(lake.store, day, lake.settings.thresholds)
    assert [lake.settled(BTC.feed, day).verdict.outcome for day in (BEFORE, DAY)] == ["publish", "quarantine"]


def test_a_wrong_file_is_forgotten_once_the_right_one_is_here(lake: FiledDays) -> None:
    lake.bring_rows(BTC, BEFORE, dd.good_rows(BTC, BEFORE))
    lake.bring_rows(BTC, DAY, dd.good_rows(BTC, BEFORE))
    assert [v.outcome for v in verdicts(lake, BTC, BEFORE, DAY)] == ["publish", "quarantine"]
    lake.bring_rows(BTC, DAY, dd.good_rows(BTC, DAY))
    before, day = verdicts(lake, BTC, BEFORE, DAY)
    assert [(v.outcome, v.reasons) for v in (before, day)] == [("publish", ())] * 2
