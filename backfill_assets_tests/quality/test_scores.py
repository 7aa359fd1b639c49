"""The scores of a day from the verdicts on its feeds: weights, nulls, states, and one number for all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from backfill_assets.feeds import Feed
from backfill_assets.lake import documents, paths
from backfill_assets.lake.local import LocalStore
from backfill_assets.lake.store import Store
from backfill_assets.quality.baseline import Baseline, add_days, load_baseline, notional_of_feeds
from backfill_assets.quality.measures import DataFile, DayMeasures, TradesFile
from backfill_assets.quality.schemas import quality_rows
from backfill_assets.quality.scores import (
    DayScores,
    feed_weights,
    instruments_share,
    judge_day,
    overall,
)
from backfill_assets.quality.settle import settle
from backfill_assets.quality.settled import Day, load_day
from backfill_assets.quality.verdict import judge_feed
from backfill_assets.settings import OverallSettings, ThresholdSettings
from backfill_assets_tests.quality.quality_samples import (
    DAY,
    FEED,
    JOINED,
    THRESHOLDS,
    profile,
)
from backfill_assets_tests.quality.settled_lake import absent, contents, expect, fetch, ids

ETH, QUOTES = Feed("binance", "trades", "ETHUSDT"), Feed("binance", "quotes", "BTCUSDT")


def verdict(completeness: float | None = 1.0, quality: float | None = 1.0, **changes: Any) -> Any:
    """A verdict with these scores, otherwise sound."""
    found = judge_feed(FEED, DAY, "sha", profile(), JOINED, THRESHOLDS)
    return found.model_copy(update={"completeness": completeness, "quality": quality, **changes})


def loaded(store: Store) -> Day:
    """The day as readers see it."""
    found = load_day(store, DAY)
    assert found is not None
    return found


def weighed(
    *feeds: tuple[float | None, float | None, bool, float],
    consistencies: tuple[float | None, ...] = (),
    **thresholds: Any,
) -> DayScores:
    """A day of feeds (completeness, quality, accepted, notional)."""
    return judge_day(
        [verdict(completeness, quality) for completeness, quality, _, _ in feeds],
        [accepted for _, _, accepted, _ in feeds],
        ThresholdSettings(**thresholds),
        notional=[notional for *_, notional in feeds],
        consistencies=consistencies,
    )


class TestWeights:
    def test_half_is_alike_and_half_by_notional(self) -> None:
        assert feed_weights([900.0, 100.0], 0.5) == pytest.approx((0.25 + 0.45, 0.25 + 0.05))

    def test_without_history_all_feeds_weigh_the_same(self) -> None:
        assert feed_weights([0.0, 0.0, 0.0, 0.0], 0.5) == (0.25,) * 4

    def test_a_feed_without_a_dollar_price_weighs_by_its_equal_share_alone(self) -> None:
        assert feed_weights([300.0, 0.0, 100.0], 0.5) == pytest.approx((1 / 6 + 3 / 8, 1 / 6, 1 / 6 + 1 / 8))

    @pytest.mark.parametrize(("share", "expected"), [(0.0, (0.5, 0.5)), (1.0, (0.9, 0.1))])
    def test_how_much_the_notional_counts_is_a_setting(
        self, share: float, expected: tuple[float, ...]
    ) -> None:
        assert feed_weights([900.0, 100.0], share) == pytest.approx(expected)

    def test_losing_the_large_market_costs_more_than_losing_a_small_one(self) -> None:
        large = weighed((0.0, None, False, 900.0), (1.0, 1.0, True, 50.0), (1.0, 1.0, True, 50.0))
        small = weighed((1.0, 1.0, True, 900.0), (0.0, None, False, 50.0), (1.0, 1.0, True, 50.0))
        assert large.completeness == pytest.approx(2 / 3 * 0.5 + 0.05)
        assert small.completeness == pytest.approx(2 / 3 * 0.5 + 0.475)

    def test_quality_and_consistency_are_weighed_among_the_accepted_feeds(self) -> None:
        day = weighed(
            (1.0, 0.95, True, 600.0), (1.0, 1.0, True, 200.0), (0.0, 0.0, False, 200.0),
            consistencies=(1.0, 0.0, None),
        )  # fmt: skip
        first, second = 1 / 6 + 0.3, 1 / 6 + 0.1
        assert day.quality == pytest.approx((0.95 * first + second) / (first + second))
        assert day.consistency == pytest.approx(first / (first + second))
        assert day.weights == pytest.approx((first, second, second))


class TestHoldingByNotional:
    def test_a_day_that_lost_most_of_its_notional_is_held_though_most_feeds_are_there(self) -> None:
        day = weighed((0.0, None, False, 900.0), (1.0, 1.0, True, 50.0), (1.0, 1.0, True, 50.0))
        assert (day.state, day.accepted_notional) == ("held", pytest.approx(0.1))
        assert day.reasons[0] == "the accepted feeds make only 10.0% of the usual notional (hold_below 0.5)"

    def test_exactly_half_of_the_notional_is_enough(self) -> None:
        assert weighed((0.0, None, False, 500.0), (1.0, 1.0, True, 500.0)).state == "degraded"
        assert weighed((0.0, None, False, 501.0), (1.0, 1.0, True, 499.0)).state == "held"

    def test_most_of_the_notional_does_not_make_up_for_most_of_the_feeds(self) -> None:
        day = weighed((1.0, 1.0, True, 900.0), (0.0, None, False, 50.0), (0.0, None, False, 50.0))
        assert (day.state, day.accepted_notional) == ("held", 0.9)
        assert day.reasons[0] == "only 1 of 3 feeds are accepted (hold_below 0.5)"

    def test_without_history_only_feeds_are_counted(self) -> None:
        day = weighed((0.0, None, False, 0.0), (1.0, 1.0, True, 0.0))
        assert (day.state, day.accepted_notional) == ("degraded", None)


class TestConsistency:
    @pytest.mark.parametrize(
        ("consistencies", "score", "state"),
        [((1.0, 1.0), 1.0, "published"), ((1.0, 0.0), 0.5, "degraded"), ((0.0, 0.0), 0.0, "degraded")],
    )
    def test_a_miss_of_one_feed_degrades_the_day(
        self, consistencies: tuple[float, ...], score: float, state: str
    ) -> None:
        day = weighed((1.0, 1.0, True, 0.0), (1.0, 1.0, True, 0.0), consistencies=consistencies)
        assert (day.consistency, day.state) == (score, state)
        assert bool(day.reasons) is (state == "degraded")

    def test_a_score_at_its_threshold_is_not_above_it(self) -> None:
        feeds = [(1.0, 1.0, True, 0.0)] * 20
        at = weighed(*feeds, consistencies=(0.0, *[1.0] * 19))
        assert (at.consistency, at.state) == (0.95, "degraded")
        above = weighed(*feeds, consistencies=(0.0, *[1.0] * 19), day_consistency=0.949)
        assert above.state == "published"
        assert weighed(*feeds, consistencies=(0.0, *[1.0] * 19), strict=True).state == "held"

    def test_what_is_not_compared_yet_leaves_the_day_without_a_score(self) -> None:
        day = weighed((1.0, 1.0, True, 0.0), (1.0, 1.0, True, 0.0), consistencies=(1.0, None))
        assert (day.consistency, day.state) == (None, "published")

    def test_feeds_that_make_no_candles_have_none_and_take_nothing_from_the_others(self) -> None:
        verdicts = [verdict(), verdict(feed=str(QUOTES))]
        day = judge_day(verdicts, [True, True], THRESHOLDS, consistencies=[1.0, None])
        assert (day.consistency, day.state) == (1.0, "published")

    def test_a_comparison_counts_for_the_version_that_it_was_made_of_and_no_other(self, store: Store) -> None:
        expect(store, DAY, FEED)
        fetch(store, DAY, ids(DAY, 1, 9000))
        settle(store, DAY, THRESHOLDS)
        content = contents(store, DAY)[0]
        assert loaded(store).scores.consistency is None
        for of, compared, mismatches, misses, score in (
            (content, "partials", (), 0, 1.0),
            (content, "partials", ({"open_time": "10:00"},), 0, 0.0),
            (content, "partials", (), 1, 0.0),
            (content, "former partials", (), 0, None),
            (content, "", (), 0, None),
            ("x", "partials", (), 0, None),
        ):
            file = TradesFile(
                content=str(of), key="k", partials=DataFile(content="partials", rows=9, bytes=9),
                compared=compared, buckets=9, mismatches=mismatches, rolled_up=9, rolled_up_misses=misses,
            )  # fmt: skip
            measures = DayMeasures(day=DAY, files={str(FEED): file})
            documents.update(store, paths.measures(DAY), DayMeasures, lambda _, made=measures: made)
            day = loaded(store)
            assert (day.scores.consistency, day.scores.consistencies) == (score, (score,))
            row = quality_rows(day).to_pylist()[0]
            assert (row["consistency"], row["day_consistency"]) == (score, score)


class TestNulls:
    def test_an_accepted_feed_without_quality_makes_the_day_null(self) -> None:
        day = weighed((1.0, 1.0, True, 0.0), (1.0, None, True, 0.0))
        assert (day.quality, day.state) == (None, "degraded")

    def test_a_file_that_is_proven_to_be_empty_breaks_no_rule(self) -> None:
        empty = verdict(1.0, None, rows=0, completeness_state="proven")
        assert judge_day([verdict(), empty], [True, True], THRESHOLDS).quality == 1.0
        unproven = verdict(None, None, rows=0, completeness_state="no_evidence")
        assert judge_day([verdict(), unproven], [True, True], THRESHOLDS).quality is None


class TestOverall:
    WEIGHTS = OverallSettings()

    @staticmethod
    def scores(completeness: float | None, quality: float | None, consistency: float | None) -> DayScores:
        return DayScores(
            state="published", completeness=completeness, quality=quality, consistency=consistency,
            accepted_share=1, reasons=(),
        )  # fmt: skip

    def test_product_and_weighted_sum(self) -> None:
        found = overall(self.scores(0.9, 0.95, 0.8), 0.5, 1.0, self.WEIGHTS)
        assert found.product == pytest.approx(0.9**0.4 * 0.8**0.3 * 0.5**0.2)
        assert found.weighted_sum == pytest.approx(0.4 * 0.9 + 0.3 * 0.8 + 0.2 * 0.5 + 0.1)
        assert found.ticks == 0.9

    def test_an_empty_warehouse_is_nine_tenths_of_the_sum_and_nothing_of_the_product(self) -> None:
        found = overall(self.scores(1.0, 1.0, 1.0), 1.0, 0.0, self.WEIGHTS)
        assert (found.product, found.weighted_sum) == (0.0, pytest.approx(0.9))
        full = overall(self.scores(1.0, 1.0, 1.0), 1.0, 1.0, self.WEIGHTS)
        assert (full.product, full.weighted_sum) == (1.0, pytest.approx(1.0))

    @pytest.mark.parametrize("scores", [(None, 1.0, 1.0), (1.0, None, 1.0), (1.0, 1.0, None)])
    def test_a_part_without_evidence_leaves_no_number(self, scores: tuple[float | None, ...]) -> None:
        found = overall(self.scores(*scores), 1.0, 1.0, self.WEIGHTS)
        assert (found.product, found.weighted_sum) == (None, None)

    def test_instruments_are_the_share_of_symbols_with_exactly_one_row(self) -> None:
        feeds = [FEED, ETH, QUOTES, Feed("binance", "trades", "SPOT")]
        one, other = ("binance", "BTCUSDT"), ("binance", "ETHUSDT")
        assert instruments_share(feeds, [one, other, ("kraken", "X")]) == 1.0
        assert instruments_share(feeds, [one, other, other]) == 0.5
        assert instruments_share(feeds, [one]) == 0.5
        assert instruments_share(feeds[3:], [one]) is None

    def test_weights_that_do_not_add_up_are_refused(self) -> None:
        with pytest.raises(ValueError, match=r"must add up to 1, not to 1\.1"):
            OverallSettings(ticks=0.5)
        assert OverallSettings(ticks=0.5, candles=0.2).ticks == 0.5


class TestBaseline:
    def test_the_median_is_over_the_last_days_before_the_day(self) -> None:
        days = {f"2024-01-{n:02}": {"binance/BTC-USDT": float(n)} for n in range(1, 11)}
        found = Baseline().with_days(days)
        assert found.median_notional("2024-01-06", 28) == {"binance/BTC-USDT": 3.0}
        assert found.median_notional("2024-01-06", 2) == {"binance/BTC-USDT": 4.5}
        assert found.median_notional("2024-01-01", 28) == {}

    def test_one_wild_day_does_not_move_the_weights(self) -> None:
        days = {f"2024-01-0{n}": {"m": 1e9 if n == 3 else 10.0} for n in range(1, 6)}
        assert Baseline().with_days(days).median_notional("2024-01-06", 28) == {"m": 10.0}

    def test_the_version_grows_with_the_content_only(self, store: Store) -> None:
        assert load_baseline(store).version == 0
        assert add_days(store, {"2024-01-01": {"m": 1.0}}).version == 1
        assert add_days(store, {"2024-01-01": {"m": 1.0}}).version == 1
        assert add_days(store, {"2024-01-02": {"m": 2.0}}).version == 2
        assert load_baseline(store).notional_usd == {"2024-01-01": {"m": 1.0}, "2024-01-02": {"m": 2.0}}

    def test_a_feed_weighs_as_its_markets_do_under_whatever_name_the_venue_has_for_them(
        self, store: Store
    ) -> None:
        add_days(store, {"2024-01-01": {"kraken/BTC-USDT": 7.0, "kraken/ETH-USDT": 2.0}})
        feeds = [
            (Feed("kraken", "trades", "XBT-USDT"), (("XBT/USDT", "BTC-USDT"),)),
            (Feed("kraken", "quotes", "XBT-USDT"), (("XBT/USDT", "BTC-USDT"),)),
            (Feed("kraken", "trades", "SPOT"), (("XBT/USDT", "BTC-USDT"), ("ETH/USDT", "ETH-USDT"))),
            (Feed("binance", "trades", "BTCUSDT"), (("BTCUSDT", "BTC-USDT"),)),
        ]
        assert notional_of_feeds(load_baseline(store), DAY, feeds, 28) == [7.0, 7.0, 9.0, 0.0]

    def test_a_settled_day_is_weighed_by_the_baseline_and_held_by_it(self, store: Store) -> None:
        expect(store, DAY, FEED, ETH)
        fetch(store, DAY, ids(DAY, 1, 9000))
        absent(store, DAY, ETH)
        alike = settle(store, DAY, THRESHOLDS).scores
        assert (alike.completeness, alike.state, alike.weights) == (0.5, "degraded", (0.5, 0.5))
        add_days(store, {"2024-01-01": {"binance/BTC-USDT": 90.0, "binance/ETH-USDT": 10.0}})
        most = settle(store, DAY, THRESHOLDS).scores
        assert (most.completeness, most.state) == (pytest.approx(0.7), "degraded")
        add_days(store, {"2024-01-01": {"binance/BTC-USDT": 10.0, "binance/ETH-USDT": 90.0}})
        settle(store, DAY, THRESHOLDS)
        least = loaded(store)
        assert (least.scores.completeness, least.scores.state) == (pytest.approx(0.3), "held")
        assert [row["weight"] for row in quality_rows(least).to_pylist()] == pytest.approx([0.3, 0.7])


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return LocalStore(tmp_path / "lake")


class TestDay:
    @staticmethod
    def day(*feeds: tuple[float | None, float | None, bool], **thresholds: Any) -> DayScores:
        """A day of feeds (completeness, quality, accepted)."""
        verdicts = [verdict(completeness, quality) for completeness, quality, _ in feeds]
        return judge_day(verdicts, [accepted for *_, accepted in feeds], ThresholdSettings(**thresholds))

    def test_a_day_of_good_feeds_is_published(self) -> None:
        scores = self.day((1.0, 1.0, True), (0.99, 1.0, True))
        assert (scores.state, scores.reasons, scores.accepted_share) == ("published", (), 1.0)
        assert (scores.completeness, scores.quality) == (pytest.approx(0.995), 1.0)

    def test_completeness_is_over_expected_and_quality_over_accepted_feeds(self) -> None:
        scores = self.day((1.0, 0.96, True), (1.0, 1.0, True), (0.0, 0.0, False))
        assert scores.completeness == pytest.approx(2 / 3)
        assert scores.quality == pytest.approx(0.98)
        assert scores.accepted_share == pytest.approx(2 / 3)
        assert scores.state == "degraded"
        assert scores.reasons == ("completeness 0.6667 (threshold 0.95)",)

    @pytest.mark.parametrize(
        ("completeness", "quality", "state"),
        [
            (0.95, 1.0, "degraded"),
            (0.950001, 1.0, "published"),
            (1.0, 0.9, "degraded"),
            (1.0, 0.900001, "published"),
        ],
    )
    def test_a_score_must_be_above_its_threshold(
        self, completeness: float, quality: float, state: str
    ) -> None:
        scores = self.day((completeness, quality, True))
        assert scores.state == state
        assert len(scores.reasons) == (state == "degraded")
        strict = self.day((completeness, quality, True), strict=True)
        assert strict.state == ("published" if state == "published" else "held")

    @pytest.mark.parametrize(
        ("accepted", "of", "state"),
        [(4, 4, "published"), (3, 4, "degraded"), (2, 4, "degraded"), (1, 4, "held"), (0, 4, "held")],
    )
    def test_a_day_is_held_when_too_few_feeds_are_accepted(self, accepted: int, of: int, state: str) -> None:
        scores = self.day(*[(1.0, 1.0, n < accepted) for n in range(of)])
        assert scores.state == state
        held = scores.reasons[0].startswith(f"only {accepted} of {of} feeds") if scores.reasons else False
        assert held is (state == "held")

    def test_how_few_is_a_setting(self) -> None:
        feeds = [(1.0, 1.0, n < 2) for n in range(4)]
        assert self.day(*feeds, hold_below=0.51).state == "held"
        assert self.day(*[(1.0, 1.0, False)] * 2, hold_below=0).state == "degraded"

    def test_a_strict_day_with_all_scores_high_is_not_held_for_one_missing_feed(self) -> None:
        feeds = [(1.0, 1.0, True)] * 30 + [(0.0, None, False)]
        assert self.day(*feeds, strict=True).state == "degraded"

    def test_a_score_without_evidence_stays_null_and_is_never_averaged_away(self) -> None:
        scores = self.day((1.0, 1.0, True), (None, None, False))
        assert (scores.completeness, scores.quality, scores.state) == (None, 1.0, "degraded")
        assert scores.reasons == ("completeness has no evidence (threshold 0.95)",)
        assert self.day((1.0, 1.0, True), (None, None, False), strict=True).state == "held"

    def test_a_day_without_any_quality_says_so(self) -> None:
        scores = self.day((1.0, None, True))
        assert (scores.quality, scores.state) == (None, "degraded")
        assert scores.reasons == ("quality has no evidence (threshold 0.9)",)

    def test_a_day_that_expects_nothing_is_published_and_says_so(self) -> None:
        scores = judge_day((), (), THRESHOLDS)
        assert (scores.state, scores.completeness, scores.quality) == ("published", None, None)
        assert scores.reasons == ("no feed is expected of the day",)

    def test_a_day_that_waits_for_all_its_exchanges_is_missing(self) -> None:
        scores = judge_day((), (), THRESHOLDS, awaited=["binance is not exported yet"])
        assert (scores.state, scores.reasons) == ("missing", ("binance is not exported yet",))
