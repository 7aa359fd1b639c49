"""The verdict from a feed's counts."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel

from backfill_assets.feeds import Feed
from backfill_assets.quality.profiles import FeedProfile, SymbolProfile
from backfill_assets.quality.verdict import (
    RULES_VERSION,
    Context,
    Verdict,
    judge_feed,
    missing_verdict,
    rules_hash,
)
from backfill_assets.settings import ThresholdSettings
from backfill_assets_tests.quality.quality_samples import (
    DAY,
    EDGES,
    END,
    FEED,
    JOINED,
    SECOND,
    START,
    THRESHOLDS,
    context,
    empty_profile,
    gaps,
    profile,
    quotes,
    symbol,
    without_ids,
)

HOUR = 3600 * SECOND


def judged(found: FeedProfile, around: Context = JOINED, feed: Feed = FEED, **thresholds: Any) -> Verdict:
    limits = ThresholdSettings(**thresholds) if thresholds else THRESHOLDS
    return judge_feed(feed, DAY, "sha", found, around, limits)


class TestFeed:
    def test_a_sound_feed_is_published_and_its_verdict_says_what_it_rests_on(self) -> None:
        verdict = judged(profile())
        assert (verdict.outcome, verdict.reasons, verdict.warnings) == ("publish", (), ())
        assert (verdict.completeness, verdict.completeness_state, verdict.evidence_class) == (
            1.0,
            "proven",
            "A",
        )
        assert (verdict.quality, verdict.rows, verdict.valid_rows) == (1.0, 9000, 9000)
        assert (verdict.missing_ids, verdict.longest_gap, verdict.content) == (0, 0, "sha")
        assert verdict.context == JOINED
        assert verdict.rules == rules_hash(THRESHOLDS)

    def test_it_can_be_computed_again_from_what_is_stored(self) -> None:
        first = judged(profile(symbol(**gaps((2000, 2003)))))
        again = judge_feed(
            FEED,
            first.day,
            first.content or "",
            profile(symbol(**gaps((2000, 2003)))),
            first.context,
            THRESHOLDS,
        )
        assert Verdict.model_validate_json(first.model_dump_json()) == again

    @pytest.mark.parametrize(
        ("missing", "outcome"), [(1, "publish"), (10, "publish"), (11, "quarantine"), (101, "quarantine")]
    )
    def test_a_small_feed_may_lose_ten_ids_and_no_more(self, missing: int, outcome: str) -> None:
        verdict = judged(profile(symbol(**gaps((5000, 4999 + missing)))))
        assert (verdict.outcome, verdict.completeness_state) == (outcome, "degraded")
        assert verdict.missing_ids == verdict.longest_gap == missing
        expected = () if outcome == "publish" else (f"{missing} ids are missing (at most 10 are excused)",)
        assert verdict.reasons == expected

    @pytest.mark.parametrize(
        ("runs", "outcome", "reason"),
        [
            (((5000, 5099),), "publish", None),
            (((5000, 5100),), "quarantine", "101 ids in a row are missing (at most 100)"),
            (tuple((n * 1000, n * 1000 + 98) for n in range(2, 4)), "publish", None),
            (
                tuple((n * 1000, n * 1000 + 99) for n in range(2, 5)),
                "quarantine",
                "300 ids are missing (at most 200 are excused)",
            ),
        ],
    )
    def test_a_large_feed_may_lose_one_id_in_ten_thousand_but_not_many_in_a_row(
        self, runs: tuple[tuple[int, int], ...], outcome: str, reason: str | None
    ) -> None:
        big = symbol(1001, 2_001_000, **gaps(*runs))
        verdict = judged(profile(big), context(1000, 2_001_001))
        assert verdict.outcome == outcome
        assert verdict.reasons == ((reason,) if reason else ())

    @pytest.mark.parametrize(("seconds", "outcome"), [(10, "publish"), (10.000001, "quarantine")])
    def test_few_ids_over_a_long_time_are_too_much(self, seconds: float, outcome: str) -> None:
        assert judged(profile(symbol(**gaps((5000, 5001), seconds=seconds)))).outcome == outcome

    def test_limits_are_settings(self) -> None:
        lossy = profile(symbol(**gaps((5000, 5011))))
        assert judged(lossy).outcome == "quarantine"
        assert judged(lossy, missing_ids=12).outcome == "publish"
        assert judged(lossy, missing_ids_rate=0.01).outcome == "publish"
        assert judged(lossy, missing_ids=12, longest_hole=11).outcome == "quarantine"

    @pytest.mark.parametrize(
        ("previous", "following", "warning"),
        [
            (1000, 10_001, None),
            (1100, 9_901, None),
            (1101, 10_001, "its ids and those of the day before overlap by 101"),
            (1000, 9_900, "its ids and those of the day after overlap by 101"),
            (990, 10_001, "10 ids lie between its ids and those of the day before"),
            (1000, 10**9, "999989999 ids lie between its ids and those of the day after"),
        ],
    )
    def test_no_id_of_a_neighbour_ever_quarantines_a_day(
        self, previous: int, following: int, warning: str | None
    ) -> None:
        verdict = judged(profile(), context(previous, following))
        assert (verdict.outcome, verdict.reasons, verdict.completeness) == ("publish", (), 1.0)
        assert [w.split(":")[0] for w in verdict.warnings] == ([warning] if warning else [])

    @pytest.mark.parametrize("seconds", [10, 11])
    def test_a_day_that_is_cut_off_waits_until_ids_join(self, seconds: int) -> None:
        """Rows come 0.1 s apart, so 5 s are usual and the rest counts as lost."""
        end = END - 5 * SECOND - seconds * SECOND
        cut = profile(symbol(1001, 900_000, minute_rows=(600,) * 1440), last_local_timestamp_us=end)
        reasons = judged(cut, context(1000)).reasons
        assert bool(reasons) == (seconds > 10)
        assert reasons in (
            (),
            (
                "it is silent for longer than usual: 11 s before midnight count as lost until the ids of the "
                "neighboring day's file join",
            ),
        )
        assert judged(cut, context(1000, 900_100)).reasons == reasons
        assert judged(cut, context(1000, 900_001)).reasons == ()

    @pytest.mark.parametrize(
        ("changes", "reason"),
        [
            ({"local_decreases": 1}, "1 rows that arrived before the row above them"),
            ({"misplaced_rows": 2}, "2 rows stamped further outside the day than the seam window"),
            ({"invalid_amount_rows": 10}, "quality is 0: 10 rows break invalid_price_or_amount"),
        ],
    )
    def test_broken_rows_quarantine_with_the_rule_in_words(
        self, changes: dict[str, int], reason: str
    ) -> None:
        verdict = judged(profile(**changes))
        assert (verdict.outcome, verdict.reasons) == ("quarantine", (reason,))

    def test_a_low_quality_above_zero_does_not_quarantine(self) -> None:
        verdict = judged(profile(invalid_amount_rows=9))
        assert verdict.outcome == "publish"
        assert verdict.quality == pytest.approx(0.1)

    def test_all_reasons_are_named_together(self) -> None:
        verdict = judged(profile(symbol(**gaps((5000, 5010))), wrong_exchange_rows=1))
        assert verdict.reasons == (
            "1 rows of another exchange",
            "11 ids are missing (at most 10 are excused)",
        )

    @pytest.mark.parametrize(
        ("around", "outcome"),
        [
            (context(1000, 1001), "publish"),
            (context(1000, 1002), "no_evidence"),
            (context(1000, None), "no_evidence"),
            (context(None, 1001), "no_evidence"),
            (context(), "no_evidence"),
        ],
    )
    def test_an_empty_file_is_complete_only_if_the_ids_around_it_join(
        self, around: Context, outcome: str
    ) -> None:
        verdict = judged(empty_profile(), around)
        assert verdict.outcome == outcome
        assert (verdict.rows, verdict.valid_rows, verdict.quality) == (0, 0, None)
        if outcome == "publish":
            assert (verdict.completeness, verdict.completeness_state, verdict.reasons) == (1.0, "proven", ())
        else:
            assert (verdict.completeness, verdict.completeness_state) == (None, "no_evidence")
            assert verdict.reasons == (
                "the file is empty and no ids of the neighbours show that the day was",
            )

    def test_a_group_without_rows_is_no_evidence_whatever_the_days_around_it_show(self) -> None:
        around = context(10, 11)
        assert judged(empty_profile(), around).outcome == "publish"
        assert judged(empty_profile(), around, Feed("binance", "trades", "SPOT")).outcome == "no_evidence"

    def test_a_grouped_file_is_as_complete_as_its_worst_symbol(self) -> None:
        group = Feed("binance", "trades", "SPOT")
        good, bad = (
            symbol(dataset_symbol="A"),
            symbol(dataset_symbol="B", **gaps((2000, 2004), (3000, 3002))),
        )
        verdict = judged(profile(good, bad), context(), group)
        assert verdict.completeness == pytest.approx((9000 - 8) / 9000)
        assert (verdict.completeness_state, verdict.missing_ids, verdict.longest_gap) == ("degraded", 8, 5)
        assert verdict.outcome == "publish"
        worse = symbol(dataset_symbol="B", **gaps((2000, 2010)))
        assert judged(profile(good, worse), context(), group).outcome == "quarantine"

    def test_a_reason_that_concerns_one_symbol_of_a_group_names_it(self) -> None:
        lossy = symbol(dataset_symbol="B", **gaps((2000, 2010)))
        group = Feed("binance", "trades", "SPOT")
        assert judged(profile(symbol(dataset_symbol="A"), lossy), context(), group).reasons == (
            "B: 11 ids are missing (at most 10 are excused)",
        )

    def test_quotes_are_judged_by_the_silence_at_their_ends(self) -> None:
        feed = Feed("binance", "quotes", "BTCUSDT")
        verdict = judged(quotes(), context(), feed)
        assert (verdict.completeness, verdict.completeness_state, verdict.outcome) == (
            0.99,
            "estimated",
            "publish",
        )
        assert (verdict.valid_rows, verdict.missing_ids) == (9000, None)
        late = judged(
            quotes(rows=900_000, first_local_timestamp_us=START + 12 * 3600 * SECOND), context(), feed
        )
        assert late.completeness == pytest.approx(0.5, abs=1e-3)
        assert judged(empty_profile(), context(), feed).outcome == "no_evidence"


class TestPartOfADay:
    """Trades without ids: the file covers as much of the day as its best symbol shows."""

    GROUP = Feed("bybit", "trades", "PERPETUALS")
    MARKET = Feed("bybit", "trades", "BTCUSDT")
    NOON = START + 12 * HOUR
    AT_NOON = "only 50.2% of the day is there (publish_completeness 0.6)"

    def between(self, start: int, end: int, name: str = "BTCUSDT", rows: int = 9_000) -> SymbolProfile:
        return without_ids(rows, dataset_symbol=name, first_trade_us=start, last_trade_us=end)

    def group(self, *symbols: SymbolProfile, **around: Any) -> tuple[str, ...]:
        return judged(profile(*symbols), context(**around), self.GROUP, publish_completeness=0.6).reasons

    def market(self, rows: int, *, is_live: bool, feed: Feed = MARKET) -> tuple[str, ...]:
        found = self.between(START + HOUR, START + 3 * HOUR, rows=rows)
        edges = {"first_local_timestamp_us": START + HOUR, "last_local_timestamp_us": START + 3 * HOUR}
        return judged(profile(found, **edges), context(venue_is_live=is_live), feed).reasons

    def test_a_burst_in_one_market_of_a_group_leaves_the_others_in(self) -> None:
        burst = self.between(self.NOON, self.NOON + HOUR, "MEMEUSDT", 150)
        assert self.group(self.between(*EDGES), burst) == ()
        assert self.group(burst) == ("only 6.4% of the day is there (publish_completeness 0.6)",)

    def test_a_group_that_is_cut_at_noon_has_no_market_beyond_it(self) -> None:
        cut = [self.between(START, self.NOON, name) for name in ("BTCUSDT", "ETHUSDT", "MEMEUSDT")]
        assert self.group(*cut) == (self.AT_NOON,)

    def test_a_market_that_was_delisted_before_the_cut_shows_nothing_of_the_rest(self) -> None:
        """Options of the day expire in the morning, and are whole."""
        expired = self.between(START, START + 8 * HOUR, "DAILY")
        whole = {"symbol_windows": {"DAILY": (START, START + 8 * HOUR)}}
        assert self.group(self.between(START, self.NOON), expired, **whole) == (self.AT_NOON,)
        assert self.group(expired, **whole) == ()
        assert self.group(self.between(*EDGES), expired, **whole) == ()

    @pytest.mark.parametrize("rows", [100, 150, 8_639])
    def test_a_burst_in_a_market_with_few_rows_is_no_part_of_a_day_where_the_capture_is_known_to_be_live(
        self, rows: int
    ) -> None:
        assert self.market(rows, is_live=True) == ()
        assert self.market(rows, is_live=False) != ()

    def test_a_busy_file_of_two_hours_is_quarantined_however_live_the_venue_is(self) -> None:
        assert self.market(8_640, is_live=True) != ()

    def test_so_is_one_with_ids(self) -> None:
        edges = {"first_local_timestamp_us": START + HOUR, "last_local_timestamp_us": START + 3 * HOUR}
        few = profile(symbol(1001, 1150), **edges)
        assert "of the day is there" in " ".join(judged(few, context(venue_is_live=True)).reasons)

    def test_a_stream_of_updates_has_no_bursts(self) -> None:
        two_hours = {"first_local_timestamp_us": START + HOUR, "last_local_timestamp_us": START + 3 * HOUR}
        for data_type, is_part in (("quotes", True), ("liquidations", False)):
            feed = Feed("bybit", data_type, "BTCUSDT")
            found = judged(quotes(rows=150, **two_hours), context(venue_is_live=True), feed)
            assert bool(found.reasons) == is_part


class TestRowsWithoutAnId:
    """If a law makes ids count, one row without an id would otherwise remove the evidence of all others."""

    REASON = (
        "1 of 9,000 rows has no integer id, though ids are contiguous per symbol: "
        "missing trades cannot be counted"
    )

    def partly(self, without: int = 1, **changes: Any) -> SymbolProfile:
        return symbol(numeric_ids=9_000 - without, **changes)

    @pytest.mark.parametrize("changes", [{"empty_ids": 1}, {"empty_ids": 0}], ids=["empty", "007"])
    def test_they_quarantine_a_feed_whose_ids_are_contiguous(self, changes: dict[str, int]) -> None:
        verdict = judged(profile(self.partly(**changes)))
        assert (verdict.outcome, verdict.evidence_class, verdict.missing_ids) == ("quarantine", "C", None)
        assert verdict.reasons == (self.REASON,)

    def test_and_one_whose_ids_have_the_venues_own_gaps(self) -> None:
        verdict = judged(profile(self.partly(3)), feed=Feed("binance-futures", "trades", "BTCUSDT"))
        assert verdict.reasons == (
            "3 of 9,000 rows have no integer id, though ids are contiguous per symbol but for short holes of "
            "the venue's own: missing trades cannot be counted",
        )

    def test_a_file_without_any_id_is_judged_by_silences(self) -> None:
        """Captures of early days have no ids."""
        assert judged(profile(without_ids())).outcome == "publish"
        assert judged(profile(self.partly(9_000))).outcome == "publish"

    @pytest.mark.parametrize("exchange", ["upbit", "hyperliquid", "kraken"])
    def test_without_such_a_law_nothing_counts_on_ids(self, exchange: str) -> None:
        assert judged(profile(self.partly(5)), feed=Feed(exchange, "trades", "BTCUSDT")).outcome == "publish"

    def test_in_a_group_the_symbol_is_named_also_when_it_has_lost_all_of_its_ids(self) -> None:
        group = Feed("binance", "trades", "SPOT")
        whole = symbol(dataset_symbol="A")
        verdict = judged(profile(whole, self.partly(dataset_symbol="B")), context(), group)
        assert verdict.reasons == (f"B: {self.REASON}",)
        lost = judged(profile(whole, without_ids(dataset_symbol="B")), context(), group)
        every = self.REASON.replace("1 of 9,000 rows has", "9,000 of 9,000 rows have")
        assert lost.reasons == (f"B: {every}",)

    def test_quotes_have_no_ids(self) -> None:
        assert judged(quotes(), feed=Feed("binance", "quotes", "BTCUSDT")).outcome == "publish"


def test_a_missing_feed_scores_zero_and_says_why() -> None:
    verdict = missing_verdict(FEED, DAY, "the vendor has no such file", JOINED, "rules")
    assert (verdict.outcome, verdict.completeness, verdict.quality) == ("missing", 0.0, None)
    assert (verdict.content, verdict.reasons) == (None, ("the vendor has no such file",))


def test_the_hash_of_the_rules_changes_with_every_threshold(monkeypatch: pytest.MonkeyPatch) -> None:
    def changed(model: BaseModel) -> list[dict[str, Any]]:
        """Copies of the model's values, each with another value changed."""
        found = []
        for name in type(model).model_fields:
            value = getattr(model, name)
            others = (
                changed(value)
                if isinstance(value, BaseModel)
                else [value[1:]]
                if isinstance(value, tuple)
                else [True if value is False else type(value)(value / 2)]
            )
            found += [{name: other} for other in others]
        return found

    copies = [
        THRESHOLDS.model_copy(
            update={
                name: getattr(THRESHOLDS, name).model_copy(update=value) if isinstance(value, dict) else value
                for name, value in change.items()
            }
        )
        for change in changed(THRESHOLDS)
    ]
    nested = [value for _, value in THRESHOLDS if isinstance(value, BaseModel)]
    assert len(copies) == len(ThresholdSettings.model_fields) - len(nested) + sum(
        len(type(m).model_fields) for m in nested
    )
    hashes = {rules_hash(thresholds) for thresholds in (THRESHOLDS, *copies)}
    assert len(hashes) == len(copies) + 1
    assert rules_hash(ThresholdSettings()) == rules_hash(THRESHOLDS)
    monkeypatch.setattr("backfill_assets.quality.verdict.RULES_VERSION", RULES_VERSION + 1)
    assert rules_hash(THRESHOLDS) not in hashes
