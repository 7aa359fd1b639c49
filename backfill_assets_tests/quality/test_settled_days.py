"""Settled days in a real lake: which versions count; every order of runs gives the same result."""

from __future__ import annotations

import itertools
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from backfill_assets.columns import arrow_schema
from backfill_assets.contracts import Contract
from backfill_assets.days import shift, start_us
from backfill_assets.failures import PermanentFailure
from backfill_assets.feeds import Feed
from backfill_assets.instruments.schemas import INSTRUMENT_COLUMNS
from backfill_assets.lake import documents, paths
from backfill_assets.lake.listing import store_instruments
from backfill_assets.lake.local import LocalStore
from backfill_assets.lake.manifests import DayRecord
from backfill_assets.lake.store import Store
from backfill_assets.quality.profiles import FeedProfile
from backfill_assets.quality.settle import settle
from backfill_assets.quality.settled import Day, SettledDay, SettledFeed, load_day, load_settled
from backfill_assets.quality.verdict import rules_hash
from backfill_assets.quality.warnings import contract_warnings, terms_warnings
from backfill_assets.settings import ThresholdSettings
from backfill_assets_tests.quality.quality_samples import (
    DAY,
    FEED,
    SECOND,
    THRESHOLDS,
    empty_profile,
    gaps,
    quotes,
)
from backfill_assets_tests.quality.settled_lake import (
    NOW,
    absent,
    compare,
    contents,
    everything,
    expect,
    fetch,
    ids,
    settled_feed,
)

BEFORE, AFTER = shift(DAY, -1), shift(DAY, 1)
HOUR = 3600 * SECOND
ETH = Feed("binance", "trades", "ETHUSDT")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return LocalStore(tmp_path / "lake")


def run(store: Store, day: str, found: FeedProfile, **thresholds: Any) -> SettledDay:
    """Do the work of a run of the day that fetches this file of its one feed."""
    expect(store, day)
    fetch(store, day, found)
    compare(store, day)
    return settle(store, day, ThresholdSettings(**thresholds))


def loaded(store: Store, day: str = DAY) -> Day:
    """The day as readers see it."""
    found = load_day(store, day)
    assert found is not None
    return found


def test_a_good_candidate_becomes_accepted_with_its_verdict_beside_it(store: Store) -> None:
    settled = run(store, DAY, ids(DAY, 1, 9000))
    feed, found = settled.feeds[0], loaded(store)
    content = feed.verdict.content
    assert contents(store, DAY) == (content, None)
    assert found.scores.state == "published"
    assert [version.content for _, version in found.accepted_feeds("trades")] == [content]
    assert found.accepted_feeds("quotes") == []
    assert (feed.accepted_verdict, feed.candidate_verdict) == (feed.verdict, None)
    assert load_settled(store, DAY) == settled


def test_a_bad_candidate_stays_one_and_the_day_says_why(store: Store) -> None:
    feed = run(store, DAY, ids(DAY, 1, 9000, **gaps((100, 110)))).feeds[0]
    found = loaded(store)
    assert contents(store, DAY) == (None, feed.verdict.content)
    assert (found.scores.state, found.accepted_feeds("trades")) == ("held", [])
    assert feed.verdict.reasons == ("11 ids are missing (at most 10 are excused)",)
    assert (feed.accepted_verdict, feed.candidate_verdict) == (None, feed.verdict)


def test_settling_again_changes_no_byte(store: Store) -> None:
    run(store, DAY, ids(DAY, 1, 9000))
    before = everything(store, [DAY])
    assert settle(store, DAY, THRESHOLDS) == settle(store, DAY, THRESHOLDS)
    assert everything(store, [DAY]) == before


def test_a_bad_refresh_waits_beside_the_good_data_that_still_counts(store: Store) -> None:
    good = run(store, DAY, ids(DAY, 1, 9000)).feeds[0].verdict
    feed = run(store, DAY, ids(DAY, 1, 9000, **gaps((100, 110)))).feeds[0]
    accepted, candidate = contents(store, DAY)
    assert accepted == good.content
    assert candidate not in (None, accepted)
    assert feed.verdict == good
    assert loaded(store).scores.state == "published"
    assert feed.accepted_verdict == good
    assert feed.candidate_verdict is not None
    assert feed.candidate_verdict.outcome == "quarantine"


def test_a_good_refresh_takes_the_place_of_the_old_data(store: Store) -> None:
    old = run(store, DAY, ids(DAY, 1, 9000, **gaps((100, 105)))).feeds[0].verdict
    new = run(store, DAY, ids(DAY, 1, 9000)).feeds[0].verdict
    assert (old.completeness_state, new.completeness_state) == ("degraded", "inner_proven")
    assert contents(store, DAY) == (new.content, None)


#: Trades in every minute of the day, so that a silent hour at an edge counts as lost.
BUSY: Any = {"minute_rows": (6,) * 1440}


def test_a_neighbour_that_does_not_join_takes_nothing_back(store: Store) -> None:
    run(store, DAY, ids(DAY, 1012, 10_000))
    for last in (1000, 10**9):
        run(store, BEFORE, ids(BEFORE, 1, last))
        assert contents(store, DAY)[1] is None
    found = settled_feed(store, DAY).verdict
    assert (found.outcome, found.completeness_state, found.missing_ids) == ("publish", "inner_proven", 0)
    assert found.warnings == (
        "11 ids lie between its ids and those of the day before: midnight is not proven",
    )


def test_a_day_that_begins_late_waits_until_ids_of_the_day_before_join(store: Store) -> None:
    run(store, DAY, ids(DAY, 1012, 100_000, head_us=HOUR, **BUSY))
    reasons = settled_feed(store, DAY).verdict.reasons
    assert reasons == (
        "it is silent for longer than usual: 3567 s after midnight count as lost until the ids of the "
        "neighboring day's file join",
    )
    run(store, BEFORE, ids(BEFORE, 1, 1000))
    assert (contents(store, DAY)[0], settled_feed(store, DAY).verdict.reasons) == (None, reasons)
    run(store, BEFORE, ids(BEFORE, 1, 1011))
    assert contents(store, DAY)[0] is not None
    assert settled_feed(store, DAY).verdict.completeness_state == "head_proven"


def test_what_a_neighbour_has_proven_stays_proven_when_it_gets_another_file(store: Store) -> None:
    run(store, DAY, ids(DAY, 1001, 100_000, head_us=HOUR, **BUSY))
    for lost in range(8):
        run(store, BEFORE, ids(BEFORE, 1, 1000 - lost))
        assert contents(store, DAY)[0] is not None
    assert settled_feed(store, BEFORE).edges.closing_ids == {"BTCUSDT": (*range(993, 1001),)}


def test_neighbours_that_arrive_later_complete_the_proof(store: Store) -> None:
    run(store, DAY, ids(DAY, 1001, 2000))
    states = [settled_feed(store, DAY).verdict.completeness_state]
    run(store, BEFORE, ids(BEFORE, 1, 1000))
    states.append(settled_feed(store, DAY).verdict.completeness_state)
    run(store, AFTER, ids(AFTER, 2001, 3000))
    states.append(settled_feed(store, DAY).verdict.completeness_state)
    assert states == ["inner_proven", "head_proven", "proven"]


def test_a_file_that_does_not_count_shows_its_ids_all_the_same(store: Store) -> None:
    """Otherwise a verdict would depend on another verdict, and on the order of days."""
    run(store, BEFORE, ids(BEFORE, 1, 1011, **gaps((500, 520))))
    settled = run(store, DAY, ids(DAY, 1012, 100_000, head_us=HOUR, **BUSY))
    assert contents(store, BEFORE)[0] is None
    assert settled.feeds[0].verdict.context.previous == {"BTCUSDT": (1011,)}
    assert contents(store, DAY)[0] is not None


def test_an_empty_day_counts_from_when_the_ids_around_it_join(store: Store) -> None:
    run(store, DAY, empty_profile())
    assert settled_feed(store, DAY).verdict.outcome == "no_evidence"
    run(store, BEFORE, ids(BEFORE, 1, 1000))
    assert contents(store, DAY)[0] is None
    run(store, AFTER, ids(AFTER, 1001, 2000))
    assert contents(store, DAY)[0] is not None
    assert loaded(store).scores.completeness == 1.0
    run(store, AFTER, ids(AFTER, 1002, 2000))
    assert contents(store, DAY)[0] is not None


def test_a_change_is_followed_as_far_as_it_reaches(store: Store) -> None:
    """The first day lets the second count, and so the third is sealed."""
    days = [shift(DAY, n) for n in range(4)]
    for n, day in reversed([*enumerate(days)][1:]):
        changes = {"head_us": HOUR, **BUSY} if n == 1 else {}
        run(store, day, ids(day, n * 100_000 + 1, (n + 1) * 100_000, **changes))
    assert contents(store, days[1])[0] is None
    assert not loaded(store, days[2]).is_sealed
    run(store, days[0], ids(days[0], 1, 100_000))
    assert contents(store, days[1])[0] is not None
    assert [loaded(store, day).is_sealed for day in days] == [False, True, True, False]


def test_other_rules_are_followed_to_the_next_day_and_no_further(store: Store) -> None:
    days = [shift(DAY, n) for n in range(4)]
    for n, day in enumerate(days):
        run(store, day, ids(day, n * 1000 + 1, (n + 1) * 1000))
    stricter = ThresholdSettings(missing_ids=3)
    run(store, days[0], ids(days[0], 2, 1000), missing_ids=3)
    of_rules = [load_settled(store, day).rules == rules_hash(stricter) for day in days]  # type: ignore[union-attr]
    assert of_rules == [True, True, False, False]


@st.composite
def chains(draw: st.DrawFn) -> list[FeedProfile]:
    """Files of three days whose ids join, leave gaps, jump or overlap at midnight, some with other losses."""
    found: list[FeedProfile] = []
    last = 10_000
    for day in (BEFORE, DAY, AFTER):
        first = last + draw(st.sampled_from([1, 1, 1, 2, 11, 12, 0, -99, -100, -5000, 10**9]))
        last = first + draw(st.sampled_from([0, 9_000, 90_000]))
        lost = draw(st.sampled_from([0, 0, 0, 11])) if last > first + 100 else 0
        runs = gaps((first + 50, first + 49 + lost)) if lost else {}
        ends = {side: draw(st.sampled_from([SECOND, 2 * SECOND, HOUR])) for side in ("head_us", "tail_us")}
        is_empty = draw(st.sampled_from([False] * 6 + [True]))
        busy = BUSY if last - first == 90_000 else {}
        found.append(empty_profile() if is_empty else ids(day, first, last, **ends, **runs, **busy))
        last = found[-1].symbols[0].id_max or last if found[-1].symbols else first - 1
    return found


#: The second day's ids are those of the vendor plus a billion.
SHIFTED: Any = [ids(BEFORE, 1, 1000), ids(DAY, 10**9 + 1001, 10**9 + 2000), ids(AFTER, 2001, 3000)]
#: The second day is cut off, and the third shows it.
CUT: Any = [
    ids(BEFORE, 1, 1000),
    ids(DAY, 1001, 91_000, tail_us=HOUR, **BUSY),
    ids(AFTER, 95_001, 96_000),
]


@settings(
    max_examples=6,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
@example(chain=SHIFTED, missed=DAY)
@example(chain=CUT, missed=AFTER)
@example(chain=[ids(BEFORE, 1, 1000), empty_profile(), ids(AFTER, 1001, 2000)], missed=BEFORE)
@given(chain=chains(), missed=st.sampled_from([BEFORE, DAY, AFTER]))
def test_in_any_order_days_end_the_same_and_nothing_good_is_taken_back(
    chain: list[FeedProfile], missed: str
) -> None:
    """One day's file is a 404 at first, and is there when that day runs again as the last."""
    days = (BEFORE, DAY, AFTER)
    ends = []
    for order in itertools.permutations(days):
        with tempfile.TemporaryDirectory() as folder:
            store = LocalStore(Path(folder))
            counted: dict[str, str] = {}
            sealed: dict[str, str] = {}
            for n, day in enumerate((*order, missed)):
                expect(store, day)
                if day == missed and n < len(order):
                    absent(store, day)
                    settle(store, day, THRESHOLDS)
                else:
                    run(store, day, chain[days.index(day)])
                for seen in days:
                    accepted = contents(store, seen)[0]
                    assert accepted == counted.get(seen, accepted), f"{seen} was taken back by {day}"
                    if accepted is not None:
                        counted[seen] = accepted
                    around = "".join(contents(store, d)[0] or "" for d in (shift(seen, -1), shift(seen, 1)))
                    if settled_sealed(store, seen):
                        assert sealed.setdefault(seen, around) == around, f"{seen} was final before {day}"
                    else:
                        assert seen not in sealed
            ends.append({name: data for name, data in everything(store, days).items() if "settled" in name})
    assert all(end == ends[0] for end in ends)
    assert len(ends[0]) == 3


def settled_sealed(store: Store, day: str) -> bool:
    settled = load_settled(store, day)
    return settled is not None and settled.is_sealed


def test_one_bad_feed_neither_hides_nor_blocks_another(store: Store) -> None:
    expect(store, DAY, FEED, ETH)
    fetch(store, DAY, ids(DAY, 1, 9000))
    fetch(store, DAY, ids(DAY, 1, 9000, dataset_symbol="ETHUSDT", **gaps((100, 300))), ETH)
    settle(store, DAY, THRESHOLDS)
    found = loaded(store)
    assert [(f.feed, f.verdict.outcome) for f in found.feeds] == [(FEED, "publish"), (ETH, "quarantine")]
    assert (found.scores.state, found.scores.accepted_share) == ("degraded", 0.5)
    assert [f.feed for f, _ in found.accepted_feeds("trades")] == [FEED]


def test_feeds_that_are_not_there_say_why(store: Store) -> None:
    expect(store, DAY, FEED, ETH)
    absent(store, DAY, ETH)
    settle(store, DAY, THRESHOLDS)
    found = loaded(store)
    assert [(f.verdict.outcome, f.verdict.reasons) for f in found.feeds] == [
        ("missing", ("not fetched yet",)),
        ("missing", ("no such data set",)),
    ]
    assert found.scores.state == "held"


def test_a_day_without_a_record_is_not_settled_and_leaves_no_trace(store: Store, tmp_path: Path) -> None:
    with pytest.raises(PermanentFailure, match="nothing is recorded of 2024-01-02: materialize its instrum"):
        settle(store, DAY, THRESHOLDS)
    assert (load_settled(store, DAY), load_day(store, DAY)) == (None, None)
    assert not (tmp_path / "lake" / "settled").exists()


class TestSealed:
    def sealed(self, store: Store) -> bool:
        return loaded(store).is_sealed

    def test_a_day_is_sealed_when_both_neighbours_are_accepted(self, store: Store) -> None:
        run(store, DAY, ids(DAY, 1001, 2000))
        assert not self.sealed(store)
        run(store, BEFORE, ids(BEFORE, 1, 1000))
        assert not self.sealed(store)
        run(store, AFTER, ids(AFTER, 2001, 3000))
        assert self.sealed(store)

    @pytest.mark.parametrize("state", ["not listed", "empty and proven"])
    def test_what_will_never_come_does_not_keep_it_open(self, state: str, store: Store) -> None:
        run(store, BEFORE, ids(BEFORE, 1, 1000))
        run(store, DAY, ids(DAY, 1001, 2000))
        expect(store, AFTER)
        if state == "not listed":
            expect(store, AFTER, ETH, not_listed=("binance/trades/BTC-USDT",))
        else:
            run(store, AFTER, empty_profile())
            run(store, shift(AFTER, 1), ids(shift(AFTER, 1), 2001, 3000))
        settle(store, AFTER, THRESHOLDS)
        assert self.sealed(store)

    @pytest.mark.parametrize(
        "state", ["not fetched", "a 404", "not asked for", "quarantined", "no record", "not exported yet"]
    )
    def test_what_may_still_come_keeps_it_open(self, state: str, store: Store) -> None:
        run(store, BEFORE, ids(BEFORE, 1, 1000))
        run(store, DAY, ids(DAY, 1001, 2000))
        if state == "not fetched":
            expect(store, AFTER)
            settle(store, AFTER, THRESHOLDS)
        elif state == "a 404":
            expect(store, AFTER)
            absent(store, AFTER)
            settle(store, AFTER, THRESHOLDS)
        elif state == "not asked for":
            expect(store, AFTER, ETH)
            settle(store, AFTER, THRESHOLDS)
        elif state == "quarantined":
            run(store, AFTER, ids(AFTER, 2001, 3000, **gaps((2100, 2200))))
        elif state == "not exported yet":
            waiting = DayRecord(day=AFTER, expected=(), awaiting_export=("binance",), recorded_at=NOW)
            documents.update(store, paths.day_record(AFTER), DayRecord, lambda _: waiting)
            settle(store, AFTER, THRESHOLDS)
        assert not self.sealed(store)

    def test_the_days_beside_a_rename_are_sealed_by_the_files_of_the_markets_other_name(
        self, store: Store
    ) -> None:
        """The symbol is renamed at midnight before DAY, and keeps its next name."""
        old, new = Feed("binance", "trades", "XBTUSDT"), FEED
        for n, day in enumerate([shift(DAY, -2), BEFORE, DAY, AFTER]):
            feed = old if n < 2 else new
            expect(store, day, feed, market="BTC-USDT")
            if day != BEFORE:
                fetch(store, day, ids(day, 1000 * n + 1, 1000 * (n + 1)), feed)
            settle(store, day, THRESHOLDS)
        assert [loaded(store, day).is_sealed for day in (BEFORE, DAY)] == [True, False]
        fetch(store, BEFORE, ids(BEFORE, 1001, 2000), old)
        settle(store, BEFORE, THRESHOLDS)
        assert [loaded(store, day).is_sealed for day in (BEFORE, DAY)] == [True, True]

    def test_one_feed_may_be_sealed_where_another_is_not(self, store: Store) -> None:
        for n, day in enumerate((BEFORE, DAY, AFTER)):
            expect(store, day, FEED, ETH)
            fetch(store, day, ids(day, n * 1000 + 1, (n + 1) * 1000))
            if day == AFTER:
                absent(store, day, ETH)
            else:
                eth = ids(day, n * 1000 + 1, (n + 1) * 1000, dataset_symbol="ETHUSDT", symbol="ETH-USDT")
                fetch(store, day, eth, ETH)
            settle(store, day, THRESHOLDS)
        settled = load_settled(store, DAY)
        assert settled is not None
        assert (settled.sealed_feeds, settled.is_sealed) == ({str(FEED)}, False)


class TestWindow:
    @staticmethod
    def list_from(store: Store, hour: float | None, to: float | None, column: str, end: str) -> None:
        """Instruments that list BTCUSDT from and to these hours of the day, and ETHUSDT for years."""

        def moment(hours: float) -> datetime:
            return datetime.fromtimestamp(start_us(DAY) / 1e6 + hours * 3600, tz=UTC)

        listed = {"type": "spot", "available_since": moment(-24 * 365)}
        rows = [
            {**listed, "instrument_id": "ETHUSDT", "dataset_symbol": "ETHUSDT"},
            {**listed, "instrument_id": "BTCUSDT", "dataset_symbol": "BTCUSDT"}
            | ({column: moment(hour)} if hour is not None else {})
            | ({end: moment(to)} if to is not None else {}),
        ]
        schema = pa.schema([field.with_nullable(True) for field in arrow_schema(INSTRUMENT_COLUMNS)])
        store_instruments(store, "binance", DAY, pa.Table.from_pylist(rows, schema=schema), "instruments")

    def window_hours(self, store: Store) -> tuple[float, float]:
        context = settle(store, DAY, THRESHOLDS).feeds[0].verdict.context
        return tuple(  # type: ignore[return-value]
            (edge - start_us(DAY)) / HOUR for edge in (context.window_start_us, context.window_end_us)
        )

    @pytest.mark.parametrize("column", ["available_since", "listing"])
    @pytest.mark.parametrize("end", ["available_to", "expiry"])
    @pytest.mark.parametrize(
        ("hour", "to", "expected"),
        [
            (None, None, (0, 24)),
            (-5, 48, (0, 24)),
            (0, 24, (0, 24)),
            (6, None, (6, 24)),
            (None, 8.5, (0, 8.5)),
            (6, 18, (6, 18)),
        ],
    )
    def test_the_day_is_clipped_to_listing_and_expiry(
        self, column: str, end: str, hour: float, to: float, expected: tuple[float, float], store: Store
    ) -> None:
        expect(store, DAY)
        self.list_from(store, hour, to, column, end)
        assert self.window_hours(store) == expected

    def test_a_feed_listed_at_noon_is_not_blamed_for_the_morning(self, store: Store) -> None:
        expect(store, DAY, FEED)
        fetch(store, DAY, ids(DAY, 1, 900_000, head_us=12 * HOUR + SECOND, **BUSY))
        assert settle(store, DAY, THRESHOLDS).scores.completeness == pytest.approx(0.5, abs=1e-3)
        self.list_from(store, 12, None, "listing", "expiry")
        assert settle(store, DAY, THRESHOLDS).scores.completeness == 1.0

    def test_without_instruments_the_whole_day_counts(self, store: Store) -> None:
        expect(store, DAY)
        assert self.window_hours(store) == (0, 24)


def test_quotes_beside_trades_are_judged_on_their_own(store: Store) -> None:
    feed = Feed("binance", "quotes", "BTCUSDT")
    expect(store, DAY, feed, FEED)
    fetch(store, DAY, quotes(), feed)
    fetch(store, DAY, ids(DAY, 1, 9000))
    settle(store, DAY, THRESHOLDS)
    found = loaded(store)
    assert [f.verdict.completeness for f in found.feeds] == [0.99, 1.0]
    assert len(found.accepted_feeds("quotes")) == len(found.accepted_feeds("trades")) == 1


def test_thresholds_reach_the_verdict(store: Store) -> None:
    lossy = ids(DAY, 1, 9000, **gaps((100, 110)))
    assert run(store, DAY, lossy, missing_ids=11).feeds[0].accepted is not None
    assert run(store, DAY, lossy).feeds[0].accepted is None


def test_a_document_of_the_former_layout_has_its_contracts_as_one_each(store: Store) -> None:
    (feed,) = run(store, DAY, ids(DAY, 1, 9000)).feeds
    former = {**feed.model_dump(mode="json"), "contracts": {"BTC-USDT": [100.0, True]}}
    assert SettledFeed.model_validate(former).contracts == {"BTC-USDT": (Contract(100.0, inverse=True),)}
    kept = SettledFeed.model_validate_json(SettledFeed.model_validate(former).model_dump_json())
    assert kept.contracts == {"BTC-USDT": (Contract(100.0, inverse=True),)}


def test_of_unknown_contracts_only_those_with_rows_are_named() -> None:
    traded = ids(DAY, 1, 9000)
    names = ("BTC-USDT", "ETH-USDT")
    (alone,) = contract_warnings(names, traded, grouped=False)
    (grouped,) = contract_warnings(names, traded, grouped=True)
    assert alone.startswith("volumes are null: ")
    assert grouped.startswith("volumes of BTC-USDT are null: ")
    assert list(contract_warnings(("ETH-USDT",), traded, grouped=True)) == []


def list_contract(store: Store, multiplier: float) -> None:
    """Store the day's instruments: BTCUSDT as a perpetual of this size."""
    schema = pa.schema([field.with_nullable(True) for field in arrow_schema(INSTRUMENT_COLUMNS)])
    terms = {"type": "perpetual", "inverse": False, "contract_multiplier": multiplier}
    names = {"instrument_id": "BTCUSDT", "dataset_symbol": "BTCUSDT"}
    row = {**names, **terms, "base_currency": "BTC", "quote_currency": "USDT"}
    store_instruments(store, "binance", DAY, pa.Table.from_pylist([row], schema=schema), "instruments")


def test_the_run_that_finds_other_terms_warns_of_the_volumes_that_change(store: Store) -> None:
    list_contract(store, 10)
    run(store, DAY, ids(DAY, 1, 9000))
    list_contract(store, 100)
    (feed,) = settle(store, DAY, THRESHOLDS).feeds
    assert [warning for warning in feed.verdict.warnings if warning.startswith("volumes")] == [
        "volumes change: an amount of 1 of BTC-USDT was 10 BTC of BTC-USDT, and is 100 BTC of BTC-USDT now"
    ]


def test_terms_of_a_feed_without_published_candles_change_without_a_warning(store: Store) -> None:
    list_contract(store, 10)
    lossy = ids(DAY, 1, 9000, **gaps((100, 110)))
    (feed,) = run(store, DAY, lossy).feeds
    assert feed.accepted is None
    list_contract(store, 100)
    (feed,) = settle(store, DAY, THRESHOLDS).feeds
    assert not any(warning.startswith("volumes") for warning in feed.verdict.warnings)
    list_contract(store, 1)
    fetch(store, DAY, ids(DAY, 1, 9000))
    (feed,) = settle(store, DAY, THRESHOLDS).feeds
    assert feed.accepted is not None
    assert not any(warning.startswith("volumes") for warning in feed.verdict.warnings)


def test_terms_that_change_by_time_are_told_with_the_clock() -> None:
    noon = start_us(DAY) + 12 * HOUR
    contracts = (
        Contract(10.0, base="BTC", quote="USD", inverse=True),
        Contract(None, quote="USD", since_us=noon),
    )
    [said] = terms_warnings(["BTC-USD"], {}, {"BTC-USD": contracts})
    later = "from 12:00:00.000 an unknown number of units of ?-USD"
    assert said.endswith(f"was 1 BTC of BTC-USD, and is 10 USD of BTC-USD, {later} now")
