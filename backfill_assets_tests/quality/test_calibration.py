"""Usual numbers of rows: the baseline's median of the same weekday, and its judgment on a thinned-out day."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pytest

from backfill_assets.days import shift, start_us
from backfill_assets.feeds import Feed
from backfill_assets.lake.local import LocalStore
from backfill_assets.lake.store import Store
from backfill_assets.quality.baseline import (
    Baseline,
    accepted_rows,
    add_days,
    load_baseline,
    longest_silences,
    series,
)
from backfill_assets.quality.settle import settle
from backfill_assets.quality.settled import load_settled
from backfill_assets.quality.verdict import Verdict, judge_feed
from backfill_assets.settings import HistorySettings
from backfill_assets_tests.candles import candle_lake
from backfill_assets_tests.candles.candle_samples import SECOND, Trade
from backfill_assets_tests.quality import damaged_days as dd
from backfill_assets_tests.quality.damaged_days import SAMPLES, THRESHOLDS, Sample
from backfill_assets_tests.quality.quality_samples import (
    DAY,
    FEED,
    JOINED,
    context,
    empty_profile,
    profile,
    quotes,
    without_ids,
)
from backfill_assets_tests.quality.settled_lake import absent, expect, fetch, ids, settled_feed

HISTORY: Final = HistorySettings()
BTC: Final = (("BTCUSDT", "BTC-USDT"),)
NAME: Final = "binance/trades/BTC-USDT"


def counted(rows: dict[int, int], name: str = NAME) -> Baseline:
    """A baseline with these rows so many days before the day."""
    return Baseline().with_days({}, {shift(DAY, -days): {name: n} for days, n in rows.items()})


def usual(found: Baseline, **history: int) -> float | None:
    limits = HISTORY.model_copy(update=history)
    return found.usual_rows(DAY, [(FEED, BTC)], limits).get(FEED)


class TestUsualRows:
    def test_they_are_the_median_of_the_same_weekday_before_the_day(self) -> None:
        found = counted({7: 1000, 14: 3000, 21: 2000, 28: 90_000, 1: 5, 6: 5, 8: 5, 0: 7, -7: 7})
        assert usual(found) == 2500.0

    @pytest.mark.parametrize(("days", "expected"), [(3, None), (4, 1000.0)])
    def test_fewer_than_four_days_say_nothing(self, days: int, expected: float | None) -> None:
        assert usual(counted({7 * (n + 1): 1000 for n in range(days)})) == expected

    def test_days_longer_ago_than_eight_weeks_do_not_count(self) -> None:
        assert usual(counted({7: 1000, 14: 1000, 21: 1000, 63: 1000})) is None
        assert usual(counted({7: 1000, 14: 1000, 21: 1000, 56: 1000})) == 1000.0

    @pytest.mark.parametrize(("rows", "expected"), [(99, None), (100, 100.0)])
    def test_markets_with_few_rows_have_no_usual_count(self, rows: int, expected: float | None) -> None:
        assert usual(counted({7 * (n + 1): rows for n in range(8)})) == expected

    def test_how_many_are_settings(self) -> None:
        assert usual(counted({7: 50, 14: 60}), least_days=2, least_rows=10) == 55.0
        assert usual(counted({7: 50, 14: 60}), least_days=1, least_rows=10, weeks=1) == 50.0

    def test_days_on_which_the_feed_was_not_accepted_are_none_of_it(self) -> None:
        found = counted({7: 1000, 14: 1000, 21: 1000, 28: 1000})
        assert usual(found.with_days({}, {shift(DAY, -7): {}})) is None

    def test_a_renamed_symbol_keeps_its_history_and_a_group_its_own(self) -> None:
        old, new = Feed("kraken", "trades", "XBT-USDT"), Feed("kraken", "trades", "BTC-USDT")
        assert series(old, (("XBT/USDT", "BTC-USDT"),)) == series(new, (("BTC/USDT", "BTC-USDT"),))
        assert series(Feed("binance", "trades", "SPOT"), BTC) == "binance/trades/SPOT"
        assert series(Feed("binance", "quotes", "BTCUSDT"), BTC) != series(FEED, BTC)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return LocalStore(tmp_path / "lake")


class TestBaseline:
    def test_it_counts_the_rows_of_accepted_files(self, store: Store) -> None:
        eth, ada = Feed("binance", "trades", "ETHUSDT"), Feed("binance", "trades", "ADAUSDT")
        expect(store, DAY, FEED, eth, ada)
        fetch(store, DAY, ids(DAY, 1, 9000))
        fetch(store, DAY, ids(DAY, 1, 9000, dataset_symbol="ETHUSDT", missing_ids=50, longest_gap=50), eth)
        absent(store, DAY, ada)
        assert accepted_rows(settle(store, DAY, THRESHOLDS)) == {NAME: 9000}

    def test_its_version_grows_with_its_rows_and_a_day_is_measured_when_both_are(self, store: Store) -> None:
        assert add_days(store, {DAY: {"m": 1.0}}).days == frozenset()
        assert add_days(store, {DAY: {"m": 1.0}}, {DAY: {NAME: 5}}).version == 2
        assert add_days(store, {DAY: {"m": 1.0}}, {DAY: {NAME: 5}}).version == 2
        assert load_baseline(store).days == {DAY}


def remember(store: Store, sample: Sample, rows: int, day: str = dd.DAY) -> None:
    name = series(sample.feed, ((sample.symbol, sample.canonical),))
    add_days(store, {}, {shift(day, -7 * n): {name: rows} for n in range(1, 9)})


def rows_of(sample: Sample) -> int:
    return len(dd.good_rows(sample, dd.DAY))


def judged(sample: Sample, damage: dd.Damage, folder: Path) -> dd.Judged:
    found = dd.profile_of(sample, dd.DAY, damage(sample, dd.good_rows(sample, dd.DAY)))
    return dd.judge_damaged(sample, found, folder, lambda store: remember(store, sample, rows_of(sample)))


def said(verdict: Verdict) -> list[str]:
    return [w.split(":")[0] for w in verdict.warnings]


@pytest.mark.parametrize("name", ["C liquid", "C thin"])
class TestFeedWithoutIds:
    def test_a_good_day_has_its_full_score(self, name: str, tmp_path: Path) -> None:
        found = judged(SAMPLES[name], dd.nothing(), tmp_path)
        for verdict in (found.before, found.after):
            assert (verdict.completeness, verdict.completeness_state) == (1.0, "estimated")
            assert verdict.warnings == ()
            assert verdict.context.usual_rows == rows_of(SAMPLES[name])

    def test_of_a_day_with_one_row_in_eight_the_score_and_a_warning_tell(
        self, name: str, tmp_path: Path
    ) -> None:
        found = judged(SAMPLES[name], dd.thinned(8), tmp_path)
        for verdict in (found.before, found.after):
            assert (verdict.outcome, said(verdict)) == ("publish", ["volume collapse"])
            assert verdict.completeness == pytest.approx(1 / 8 / 0.3, abs=0.01)
            assert "are usual on this weekday (13%)" in verdict.warnings[0]

    def test_a_quiet_day_is_not_blamed(self, name: str, tmp_path: Path) -> None:
        found = judged(SAMPLES[name], dd.thinned(3), tmp_path)
        assert (found.after.completeness, found.after.warnings) == (1.0, ())

    def test_a_long_silence_still_counts(self, name: str, tmp_path: Path) -> None:
        found = judged(SAMPLES[name], dd.silence(12, 4), tmp_path)
        assert 0.83 < (found.after.completeness or 0) < 0.87
        assert said(found.after)[0].endswith("40 usual silences")


@pytest.mark.parametrize("name", ["A liquid", "A thin", "B liquid", "B thin"])
def test_with_ids_a_collapse_is_told_beside_what_they_prove(name: str, tmp_path: Path) -> None:
    lossy = judged(SAMPLES[name], dd.thinned(8), tmp_path / "lossy").after
    assert (lossy.outcome, said(lossy)) == ("quarantine", ["volume collapse"])
    whole = judged(SAMPLES[name], dd.nothing(), tmp_path / "whole").after
    assert (whole.completeness, whole.warnings) == (1.0, ())


def test_a_collapse_that_the_ids_prove_costs_nothing() -> None:
    around = JOINED.model_copy(update={"usual_rows": 90_000.0})
    verdict = judge_feed(FEED, DAY, "sha", profile(), around, THRESHOLDS)
    assert (verdict.outcome, verdict.completeness, verdict.completeness_state) == ("publish", 1.0, "proven")
    assert verdict.warnings == ("volume collapse: 9000 rows, where 90000 are usual on this weekday (10%)",)


@pytest.mark.parametrize(("rows", "score"), [(2_700, 1.0), (2_699, 2_699 / 2_700), (1_350, 0.5)])
def test_the_score_falls_in_proportion_below_three_tenths_of_what_is_usual(rows: int, score: float) -> None:
    thin = profile(without_ids(rows))
    verdict = judge_feed(FEED, DAY, "sha", thin, context(usual_rows=9000.0), THRESHOLDS)
    assert verdict.completeness == pytest.approx(score)
    assert bool(verdict.warnings) == (score < 1)


def test_only_the_hours_that_are_owed_are_held_against_it() -> None:
    noon = JOINED.window_start_us + 43_200_000_000
    half = context(usual_rows=9000.0, outages=((noon, JOINED.window_end_us),))
    found = judge_feed(FEED, DAY, "sha", profile(without_ids(1_400)), half, THRESHOLDS)
    assert (found.completeness, found.warnings) == (1.0, ())
    whole = judge_feed(FEED, DAY, "sha", profile(without_ids(1_400)), context(usual_rows=9000.0), THRESHOLDS)
    assert whole.completeness == pytest.approx(1_400 / 2_700)


def test_quotes_are_calibrated_too() -> None:
    feed = Feed("binance", "quotes", "BTCUSDT")
    assert judge_feed(feed, DAY, "sha", quotes(), context(), THRESHOLDS).completeness == 0.99
    found = judge_feed(feed, DAY, "sha", quotes(), context(usual_rows=9000.0), THRESHOLDS)
    assert (found.completeness, found.completeness_state, found.warnings) == (1.0, "estimated", ())


def test_an_empty_file_that_ids_prove_is_told_as_a_collapse() -> None:
    around = context(1000, 1001, usual_rows=9000.0)
    verdict = judge_feed(FEED, DAY, "sha", empty_profile(), around, THRESHOLDS)
    assert (verdict.completeness, said(verdict)) == (1.0, ["volume collapse"])


def test_a_new_baseline_changes_the_verdict_and_an_old_one_can_be_computed_again(store: Store) -> None:
    sample = SAMPLES["C thin"]
    dd.expect(store, sample, dd.DAY)
    found = dd.good_profile(sample, dd.DAY)
    content = fetch(store, dd.DAY, found, sample.feed)
    first = settle(store, dd.DAY, THRESHOLDS).feeds[0].verdict
    remember(store, sample, 10 * rows_of(sample))
    second = settle(store, dd.DAY, THRESHOLDS).feeds[0].verdict
    assert first.completeness == 0.99
    assert second.completeness == pytest.approx(1 / 3)
    for verdict in (first, second):
        stored = Verdict.model_validate_json(verdict.model_dump_json())
        assert judge_feed(sample.feed, dd.DAY, content, found, stored.context, THRESHOLDS) == verdict


RARE: Final = Feed("gate-io", "trades", "RAREUSDT")
HOUR: Final = 3_600 * SECOND


def every(hours: float, day: str, until: float = 24.0) -> list[tuple[int, Trade]]:
    """A market that trades once in so many hours, until an hour of the day."""
    times = [start_us(day) + round(n * hours * HOUR) for n in range(1, int(until / hours) + 1)]
    return [
        (us, Trade(us, 100.0 + n % 5, 0.5)) for n, us in enumerate(times) if us < start_us(day) + 24 * HOUR
    ]


def measure(store: Store, day: str) -> None:
    settled = load_settled(store, day)
    assert settled is not None
    add_days(store, {}, {day: accepted_rows(settled)}, {day: longest_silences(settled)})


class TestLongestSilence:
    """A market that trades seldom is compared with the longest silence of its history."""

    @pytest.mark.parametrize(
        ("history", "until", "expected"),
        [
            (4, 24.0, (0.99, "estimated")),
            # 2 h are known, 6 h excused; 14 h are silent, 8 of them too long.
            (4, 10.0, (1 - 8 / 24, "estimated")),
            (3, 10.0, (None, "no_evidence")),
        ],
        ids=["as usual", "longer than three times", "too short a history"],
    )
    def test_silence_beyond_three_times_of_it_is_lost(
        self, store: Store, history: int, until: float, expected: tuple[float | None, str]
    ) -> None:
        for n in range(history, 0, -1):
            day = shift(DAY, -n)
            candle_lake.bring(store, day, every(2.0, day), RARE)
            measure(store, day)
        candle_lake.bring(store, DAY, every(2.0, DAY, until), RARE)
        verdict = settled_feed(store, DAY, RARE).verdict
        assert (verdict.completeness, verdict.completeness_state) == (pytest.approx(expected[0]), expected[1])
        assert verdict.outcome == "publish"
        told = "28800 s of silence beyond 3 times the longest that its history knows"
        assert (told in verdict.warnings) is (expected[0] is not None and expected[0] < 0.99)

    def test_busy_markets_and_groups_have_none(self, store: Store) -> None:
        for day in (shift(DAY, -n) for n in range(1, 6)):
            candle_lake.bring(store, day, every(0.2, day), RARE)
            settled = load_settled(store, day)
            assert settled is not None
            assert longest_silences(settled) == {}
        days = {shift(DAY, -n): {"gate-io/trades/SPOT": HOUR} for n in range(1, 6)}
        group = [(Feed("gate-io", "trades", "SPOT"), BTC)]
        assert Baseline().with_days({}, {}, days).known_silences(DAY, group, HISTORY) == {}

    def test_the_history_is_that_of_the_weeks_before(self) -> None:
        days = {shift(DAY, -n): {NAME: n * HOUR} for n in (-1, 0, 1, 2, 3, 56, 57)}
        found = Baseline().with_days({}, {}, days)
        assert found.known_silences(DAY, [(FEED, BTC)], HISTORY) == {FEED: 56 * HOUR}
