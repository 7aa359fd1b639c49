"""The work of settling: once for each change, never by readers, and caught up after a killed run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from backfill_assets.columns import arrow_schema
from backfill_assets.days import shift
from backfill_assets.feeds import Feed
from backfill_assets.instruments.schemas import INSTRUMENT_COLUMNS
from backfill_assets.lake import paths
from backfill_assets.lake.listing import store_instruments
from backfill_assets.lake.local import LocalStore
from backfill_assets.quality.profiles import FeedProfile
from backfill_assets.quality.schemas import quality_rows
from backfill_assets.quality.settle import settle
from backfill_assets.quality.settled import load_day, load_settled
from backfill_assets.quality.verdict_schema import verdict_rows
from backfill_assets.settings import ThresholdSettings
from backfill_assets_tests.quality.quality_samples import DAY, FEED, SECOND, THRESHOLDS, gaps
from backfill_assets_tests.quality.settled_lake import (
    compare,
    contents,
    everything,
    expect,
    fetch,
    ids,
    settled_feed,
)
from backfill_assets_tests.quality.watched_stores import (
    CountingStore,
    DyingStore,
    Killed,
    ReadOnlyStore,
    Refused,
)

BEFORE, AFTER = shift(DAY, -1), shift(DAY, 1)
HOUR = 3600 * SECOND
ETH = Feed("binance", "trades", "ETHUSDT")


def bring(store: LocalStore, day: str, found: FeedProfile, feed: Feed = FEED) -> None:
    """Do the work of a run of the day before it settles the day."""
    fetch(store, day, found, feed)
    compare(store, day, feed)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A lake of two days: the second with instruments, a good feed and a bad one; neither day is settled."""
    folder = tmp_path / "lake"
    store = LocalStore(folder)
    expect(store, BEFORE, FEED)
    expect(store, DAY, FEED, ETH)
    bring(store, BEFORE, ids(BEFORE, 1, 1000))
    bring(store, DAY, ids(DAY, 1001, 2000))
    bring(store, DAY, ids(DAY, 1, 9000, dataset_symbol="ETHUSDT", **gaps((100, 300))), ETH)
    schema = pa.schema([column.with_nullable(True) for column in arrow_schema(INSTRUMENT_COLUMNS)])
    listed = [
        {"instrument_id": name, "dataset_symbol": name, "type": "spot"}
        for name in (FEED.dataset_symbol, ETH.dataset_symbol)
    ]
    store_instruments(store, "binance", DAY, pa.Table.from_pylist(listed, schema=schema), "instruments")
    return folder


def instruments_of(store: CountingStore) -> int:
    """How often the day's instruments were opened: once for each time that its feeds are judged."""
    prefix = paths.instruments_prefix("binance", DAY)
    return sum(times for path, times in store.opened.items() if path.startswith(prefix))


class TestOnce:
    def test_a_day_is_judged_once_and_no_manifest_is_read_twice_for_it(self, folder: Path) -> None:
        store = CountingStore(folder)
        settle(store, DAY, THRESHOLDS)
        assert instruments_of(store) == 1
        assert [store.reads[paths.ticks_manifest(feed, DAY)] for feed in (FEED, ETH)] == [1, 1]
        assert store.writes == {paths.settled_day(DAY): 1}

    def test_settling_again_judges_nothing_and_writes_nothing(self, folder: Path) -> None:
        for day in (BEFORE, DAY):
            settle(LocalStore(folder), day, THRESHOLDS)
        store, before = CountingStore(folder), everything(LocalStore(folder), [BEFORE, DAY])
        settle(store, DAY, THRESHOLDS)
        assert (store.writes, store.opened) == ({}, {})
        assert max(store.reads.values()) <= 2
        assert store.reads[paths.baseline()] == 1  # for its hash; judging reads it once more
        assert everything(store, [BEFORE, DAY]) == before
        settle(ReadOnlyStore(folder), DAY, THRESHOLDS)

    @pytest.mark.parametrize("change", ["rows", "thresholds"])
    def test_a_change_is_judged(self, change: str, folder: Path) -> None:
        settle(LocalStore(folder), DAY, THRESHOLDS)
        store = CountingStore(folder)
        if change == "rows":
            bring(store, DAY, ids(DAY, 1001, 2001))
            store.writes.clear()
        settle(store, DAY, ThresholdSettings(missing_ids=9) if change == "thresholds" else THRESHOLDS)
        assert instruments_of(store) == 1
        assert store.writes == {paths.settled_day(DAY): 1}

    def test_a_neighbour_that_was_fetched_and_not_settled_is_no_change(self, folder: Path) -> None:
        for day in (BEFORE, DAY):
            settle(LocalStore(folder), day, THRESHOLDS)
        store = CountingStore(folder)
        bring(store, BEFORE, ids(BEFORE, 1, 1000, **gaps((500, 800))))
        store.writes.clear()
        settle(store, DAY, THRESHOLDS)
        assert store.writes == {}


class TestReaders:
    def test_a_settled_day_is_read_from_a_store_that_refuses_to_write(self, folder: Path) -> None:
        settle(LocalStore(folder), DAY, THRESHOLDS)
        store = ReadOnlyStore(folder)
        with pytest.raises(Refused):
            store.replace("x.json", b"", None)
        settled, day = load_settled(store, DAY), load_day(store, DAY)
        assert settled is not None
        assert day is not None
        assert day.settled == settled
        assert quality_rows(day).num_rows == len(verdict_rows(day)) == 2

    def test_one_document_and_that_of_the_candles_are_read(self, folder: Path) -> None:
        settle(LocalStore(folder), DAY, THRESHOLDS)
        store = CountingStore(folder)
        load_day(store, DAY)
        assert store.reads == {paths.settled_day(DAY): 1, paths.measures(DAY): 1}
        assert (store.opened, store.writes) == ({}, {})

    def test_other_thresholds_change_nothing_until_the_day_is_run(self, folder: Path) -> None:
        store = LocalStore(folder)
        settle(store, DAY, THRESHOLDS)
        strict = ThresholdSettings(hold_below=0.9)
        before = load_day(store, DAY)
        assert before is not None
        assert before.scores.state == "degraded"
        settle(store, DAY, strict)
        after = load_day(store, DAY)
        assert after is not None
        assert after.scores.state == "held"
        assert after.settled.rules != before.settled.rules


BUSY: Any = {"minute_rows": (60,) * 1440}

#: By neighbor: the files of both days; the first one lets the neighbor's count.
PROOFS = {
    AFTER: (ids(DAY, 1, 1000), ids(AFTER, 1001, 100_000, head_us=HOUR, **BUSY)),
    BEFORE: (ids(DAY, 100_001, 110_000), ids(BEFORE, 1, 100_000, tail_us=HOUR, **BUSY)),
}


@pytest.mark.parametrize("neighbour", PROOFS)
def test_a_run_makes_up_for_one_that_was_killed_before_it_settled_a_neighbour(
    neighbour: str, tmp_path: Path
) -> None:
    own, other = PROOFS[neighbour]
    ends = []
    for name in ("killed", "whole"):
        store = LocalStore(tmp_path / name)
        for day in (neighbour, DAY):
            expect(store, day)
        bring(store, neighbour, other)
        settle(store, neighbour, THRESHOLDS)
        bring(store, DAY, own)
        if name == "killed":
            alone = settled_feed(store, neighbour)
            with pytest.raises(Killed):
                settle(DyingStore(tmp_path / name, paths.settled_day(neighbour)), DAY, THRESHOLDS)
            assert settled_feed(store, neighbour) == alone
        settle(store, DAY, THRESHOLDS)
        ends.append(everything(store, [DAY, neighbour]))
    assert ends[0] == ends[1]
    seen = settled_feed(store, neighbour).verdict.context
    assert (seen.previous if neighbour == AFTER else seen.following) != {}


def test_the_killed_run_may_have_been_any_before(tmp_path: Path) -> None:
    """The day's own document is whole then, and no fetch adds a version."""
    store = LocalStore(tmp_path)
    for day in (DAY, AFTER):
        expect(store, day)
    bring(store, AFTER, PROOFS[AFTER][1])
    settle(store, AFTER, THRESHOLDS)
    assert contents(store, AFTER)[0] is None
    bring(store, DAY, PROOFS[AFTER][0])
    with pytest.raises(Killed):
        settle(DyingStore(tmp_path, paths.settled_day(AFTER)), DAY, THRESHOLDS)
    watched = CountingStore(tmp_path)
    settle(watched, DAY, THRESHOLDS)
    assert watched.writes[paths.settled_day(AFTER)] == 1
    assert contents(store, AFTER)[0] is not None
