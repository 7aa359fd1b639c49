"""Data is owed while listed, outside the vendor's known outages; a verdict tells the excused time."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pytest

from backfill_assets.columns import arrow_schema
from backfill_assets.feeds import Feed
from backfill_assets.instruments.schemas import INSTRUMENT_COLUMNS
from backfill_assets.lake.listing import Outage, store_instruments
from backfill_assets.lake.local import LocalStore
from backfill_assets.lake.store import Store
from backfill_assets.quality.listings import Owed, listings_on
from backfill_assets.quality.profiles import FeedProfile
from backfill_assets.quality.settle import settle
from backfill_assets.quality.verdict import Context, Verdict, judge_feed
from backfill_assets.quality.window import Window, clipped, shown
from backfill_assets_tests.quality.quality_samples import (
    DAY,
    END,
    FEED,
    JOINED,
    SECOND,
    START,
    THRESHOLDS,
    context,
    gaps,
    profile,
    silence,
    symbol,
    without_ids,
)
from backfill_assets_tests.quality.settled_lake import expect, fetch, ids

HOUR: Final = 3600 * SECOND
NOON: Final = START + 12 * HOUR
OUT: Final = ((NOON, NOON + HOUR),)
GROUP: Final = Feed("binance", "trades", "SPOT")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return LocalStore(tmp_path / "lake")


def instruments(store: Store, *rows: tuple[str, int | None, int | None], outages: Any = ()) -> None:
    """Store the day's instruments (symbol, listed since, listed to) and incidents."""
    schema = pa.schema([column.with_nullable(True) for column in arrow_schema(INSTRUMENT_COLUMNS)])
    content = [
        {
            "instrument_id": name,
            "dataset_symbol": name,
            "type": "spot",
            "available_since": _moment(since),
            "available_to": _moment(to),
        }
        for name, since, to in rows
    ]
    table = pa.Table.from_pylist(content, schema=schema)
    known = tuple(Outage(start_us=first, end_us=last) for first, last in outages)
    store_instruments(store, "binance", DAY, table, "instruments", known)


def _moment(time_us: int | None) -> datetime | None:
    return None if time_us is None else datetime.fromtimestamp(time_us / SECOND, UTC)


def owed(store: Store, feed: Feed = FEED) -> Owed:
    return listings_on(store, [feed], DAY).owed[feed]


class TestWindow:
    @pytest.mark.parametrize(
        ("ranges", "expected"),
        [
            ([(5, 8), (1, 3)], ((1, 3), (5, 8))),
            ([(1, 5), (3, 8)], ((1, 8),)),
            ([(1, 3), (3, 5)], ((1, 5),)),
            ([(1, 9), (2, 3)], ((1, 9),)),
            ([(-5, 2), (8, 20)], ((0, 2), (8, 10))),
            ([(-5, 0), (10, 20), (4, 4)], ()),
        ],
    )
    def test_outages_are_clipped_ordered_and_made_one_where_they_meet(
        self, ranges: list[tuple[int, int]], expected: tuple[tuple[int, int], ...]
    ) -> None:
        assert clipped(ranges, 0, 10) == expected

    def test_its_length_is_without_them(self) -> None:
        assert Window(0, 10, ((2, 4), (8, 10))).length_us == 6
        assert Window(0, 10, ((0, 10),)).length_us == 0
        assert Window(10, 0).length_us == 0

    @pytest.mark.parametrize(
        ("start", "end", "owed"), [(0, 2, 2), (0, 3, 2), (2, 4, 0), (3, 9, 4), (5, 3, 0), (4, 8, 4)]
    )
    def test_of_a_range_only_what_is_outside_is_owed(self, start: int, end: int, owed: int) -> None:
        assert Window(0, 10, ((2, 4), (8, 10))).owed_us(start, end) == owed

    def test_they_are_shown_by_the_clock(self) -> None:
        assert shown(OUT) == "12:00:00 to 13:00:00"
        assert shown(((START, START + 90 * SECOND), *OUT)) == "00:00:00 to 00:01:30, 12:00:00 to 13:00:00"


class TestWhatTheLakeSays:
    def test_a_feed_is_owed_from_its_listing_to_its_end_less_the_outages(self, store: Store) -> None:
        instruments(store, ("BTCUSDT", NOON - HOUR, NOON + 5 * HOUR), outages=[(NOON - 2 * HOUR, NOON)])
        window = owed(store).window
        assert window == Window(NOON - HOUR, NOON + 5 * HOUR, ((NOON - HOUR, NOON),), is_listed=True)

    def test_a_symbol_that_the_instruments_lack_is_not_listed_as_far_as_anybody_knows(
        self, store: Store
    ) -> None:
        instruments(store, ("ETHUSDT", START, None))
        assert owed(store).window == Window(START, END, is_listed=False)

    def test_without_instruments_the_whole_day_is_owed(self, store: Store) -> None:
        assert owed(store).window == Window(START, END, is_listed=True)

    def test_a_symbol_that_is_listed_twice_is_owed_from_the_first_to_the_last(self, store: Store) -> None:
        instruments(store, ("BTCUSDT", NOON, None), ("BTCUSDT", START, NOON - HOUR))
        assert owed(store).window == Window(START, END)

    def test_a_group_knows_the_symbols_that_were_not_listed_all_day(self, store: Store) -> None:
        instruments(store, ("BTCUSDT", START - 1, None), ("NEWUSDT", NOON, None), ("OLDUSDT", START, NOON))
        found = owed(store, GROUP)
        assert found.window == Window(START, END)
        assert found.symbol_windows == {"NEWUSDT": (NOON, END), "OLDUSDT": (START, NOON)}

    def test_the_verdict_keeps_it_and_can_be_computed_again(self, store: Store) -> None:
        instruments(store, ("BTCUSDT", START, None), outages=OUT)
        expect(store, DAY)
        found = ids(DAY, 1, 9000, **gaps((10, 12), seconds=11 * 3600 + 1800))
        content = fetch(store, DAY, found)
        verdict = settle(store, DAY, THRESHOLDS).feeds[0].verdict
        assert verdict.context.outages == OUT
        stored = Verdict.model_validate_json(verdict.model_dump_json())
        assert judge_feed(FEED, DAY, content, found, stored.context, THRESHOLDS) == verdict


def judged(found: FeedProfile, around: Context = JOINED, feed: Feed = FEED) -> Verdict:
    return judge_feed(feed, DAY, "sha", found, around, THRESHOLDS)


class TestVerdict:
    #: The samples' gaps begin at 01:00.
    EARLY: Final = JOINED.model_copy(update={"outages": ((START + HOUR, START + 2 * HOUR),)})

    def test_a_few_ids_lost_in_a_long_outage_are_published_and_explained(self) -> None:
        lossy = profile(symbol(**gaps((5000, 5004), seconds=3600)))
        assert judged(lossy).reasons == ("3600 s lie in gaps of the ids (at most 10)",)
        verdict = judged(lossy, self.EARLY)
        assert (verdict.outcome, verdict.completeness_state, verdict.missing_ids) == (
            "publish",
            "degraded",
            5,
        )
        assert verdict.warnings == ("5 ids are missing by the known outage 01:00:00 to 02:00:00",)

    def test_the_time_beyond_it_counts_and_the_reason_names_it(self) -> None:
        verdict = judged(profile(symbol(**gaps((5000, 5004), seconds=3611))), self.EARLY)
        assert verdict.reasons == (
            "11 s lie in gaps of the ids (at most 10), 5 of them by the known outage 01:00:00 to 02:00:00",
        )
        assert verdict.warnings == ()

    def test_many_ids_stay_a_loss_and_are_explained(self) -> None:
        verdict = judged(profile(symbol(**gaps((5000, 5099), seconds=60))), self.EARLY)
        assert verdict.reasons == (
            "100 ids are missing (at most 10 are excused), "
            "100 of them by the known outage 01:00:00 to 02:00:00",
        )

    def test_trades_inside_make_nothing_of_it(self) -> None:
        around = JOINED.model_copy(update={"outages": OUT})
        assert judged(profile(), around).model_copy(update={"context": JOINED}) == judged(profile())

    def test_silence_inside_is_told_and_costs_nothing(self) -> None:
        quiet = profile(without_ids(silences=(silence(3600, 0.1, NOON),), silence_count=1))
        verdict = judged(quiet, context(outages=OUT))
        assert verdict.completeness == 0.99
        assert verdict.warnings[1:] == (
            "3600 s of silence in the known outage 12:00:00 to 13:00:00 do not count",
        )
        assert judged(quiet).completeness == pytest.approx(1 - 3595 / 86_400)

    def test_a_symbol_of_a_group_is_judged_in_its_own_window(self) -> None:
        whole = without_ids(rows=90_000, dataset_symbol="OLD", symbol="OLD-USDT")
        late = without_ids(rows=90_000, dataset_symbol="NEW", symbol="NEW-USDT", first_trade_us=NOON + SECOND)
        group = Feed("bybit", "trades", "SPOT")
        clipped_context = context(symbol_windows={"NEW": (NOON, END)})
        assert judged(profile(whole, late), clipped_context, group).completeness == 0.99
        assert judged(profile(whole, late), context(), group).completeness == pytest.approx(0.5, abs=1e-3)

    def test_a_symbol_that_nobody_knows_is_judged_from_its_first_to_its_last_trade(self) -> None:
        late = symbol(1001, 90_000, first_trade_us=NOON, minute_rows=(0,) * 720 + (125,) * 720)
        unknown = late.model_copy(update={"symbol": None})
        known = judged(profile(late), context(), GROUP)
        assert (known.completeness, known.completeness_state) == (
            pytest.approx(0.5, abs=1e-3),
            "inner_proven",
        )
        verdict = judged(profile(unknown), context(), GROUP)
        assert (verdict.completeness, verdict.completeness_state) == (1.0, "estimated")

    def test_a_group_that_lacks_a_symbol_of_both_its_neighbours_says_so(self) -> None:
        around = Context(
            window_start_us=START,
            window_end_us=END,
            previous={"BTCUSDT": (1000,), "GONE": (400, 500)},
            following={"BTCUSDT": (10_001,), "GONE": (600,)},
        )
        verdict = judged(profile(), around, GROUP)
        assert (verdict.outcome, verdict.completeness) == ("publish", 1.0)
        assert verdict.warnings == ("no row of GONE, and 99 ids are missing between the days around it",)
        silent = around.model_copy(update={"following": {"BTCUSDT": (10_001,), "GONE": (501,)}})
        assert judged(profile(), silent, GROUP).warnings == ()

    def test_a_group_says_so_where_a_symbol_is_not_there_that_is_busy_on_a_day_beside(self) -> None:
        """No law covers the venue's ids, or there are no ids."""
        names = ("BTCUSDT", *(f"GONE{n:02}" for n in range(22)))
        around = context(busy_around=names[:2])
        assert judged(profile(), around, Feed("bybit", "trades", "SPOT")).warnings[-1:] == (
            "no row of GONE00, of which a day beside has 100 rows or more",
        )
        more = judged(profile(), context(busy_around=names), Feed("bybit", "trades", "SPOT")).warnings
        assert more[-1] == "no row of 2 more such symbols"
        assert [w for w in more if w.startswith("no row of GONE")][-1].startswith("no row of GONE19,")

    def test_a_group_is_proven_only_if_each_of_its_symbols_is(self) -> None:
        around = context(1000, 10_001)
        other = symbol(dataset_symbol="B")
        assert judged(profile(symbol(), other), around, GROUP).completeness_state == "inner_proven"
        both = around.model_copy(
            update={
                "previous": {**around.previous, "B": (1000,)},
                "following": {**around.following, "B": (10_001,)},
            }
        )
        assert judged(profile(symbol(), other), both, GROUP).completeness_state == "proven"
