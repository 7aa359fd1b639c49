"""Completeness of a day: by ids if the venue gives contiguous ones, else by silences."""

from __future__ import annotations

from typing import Any, Final

import pytest

from backfill_assets.quality.completeness import (
    Completeness,
    completeness,
    evidence_class,
    judged_window,
    legitimate_gap,
    over_nothing,
)
from backfill_assets.quality.profiles import SymbolProfile
from backfill_assets.quality.seams import seams_of
from backfill_assets.quality.window import Window
from backfill_assets.settings import ThresholdSettings
from backfill_assets_tests.quality.quality_samples import (
    DAY,
    EDGES,
    END,
    SECOND,
    START,
    THRESHOLDS,
    WHOLE_DAY,
    gaps,
    law,
    silence,
    symbol,
    without_ids,
)

HOUR = 3600 * SECOND
CAP = THRESHOLDS.uncalibrated_cap
#: The neighbors' nearest ids if nothing is lost at midnight: the sample's ids are 1001 to 10000.
BEFORE, AFTER = 1000, 10_001


def judged(
    profile: SymbolProfile,
    previous: int | None = BEFORE,
    following: int | None = AFTER,
    *,
    exchange: str = "binance",
    window: Window = WHOLE_DAY,
    edges: tuple[int, int] = EDGES,
    thinning: float | None = None,
    **thresholds: Any,
) -> Completeness:
    limits = ThresholdSettings(**thresholds) if thresholds else THRESHOLDS
    seams = seams_of(
        profile,
        judged_window(window, edges),
        edges,
        [] if previous is None else [previous],
        [] if following is None else [following],
        legitimate_gap(evidence_class(law(exchange), profile), limits, profile),
        limits,
    )
    return completeness(law(exchange), profile, window, seams, limits, edges, thinning)


@pytest.mark.parametrize(
    ("exchange", "day", "profile", "expected"),
    [
        ("binance", DAY, symbol(), "A"),
        ("coinbase", DAY, symbol(), "A"),
        ("binance-futures", DAY, symbol(), "B"),
        ("kraken", "2026-07-09", symbol(), "C"),
        ("kraken", "2026-07-10", symbol(), "A"),
        ("bybit", DAY, symbol(), "C"),
        ("coinbase", DAY, without_ids(), "C"),
        ("binance", DAY, symbol(numeric_ids=8_999), "C"),
        ("binance", DAY, symbol(missing_ids=None, rows=9_000), "C"),
    ],
)
def test_the_class_is_the_venues_promise_if_every_row_carries_an_id(
    exchange: str, day: str, profile: SymbolProfile, expected: str
) -> None:
    assert evidence_class(law(exchange, day), profile) == expected


@pytest.mark.parametrize(
    ("previous", "following", "state"),
    [
        (BEFORE, AFTER, "proven"),
        (BEFORE, None, "head_proven"),
        (None, AFTER, "inner_proven"),
        (None, None, "inner_proven"),
    ],
)
def test_ids_without_a_gap_prove_the_day_as_far_as_its_neighbours_are_here(
    previous: int | None, following: int | None, state: str
) -> None:
    found = judged(symbol(), previous, following)
    assert (found.score, found.evidence_class, found.state) == (1.0, "A", state)
    assert (found.span, found.missing_ids, found.longest_gap, found.uncalibrated) == (9000, 0, 0, False)


@pytest.mark.parametrize("run", [(5000, 5000), (5000, 5009), (5000, 5010), (5000, 5100)])
def test_a_single_missing_id_degrades_and_every_one_is_counted(run: tuple[int, int]) -> None:
    length = run[1] - run[0] + 1
    found = judged(symbol(**gaps(run, seconds=3)))
    assert (found.state, found.missing_ids, found.longest_gap) == ("degraded", length, length)
    assert found.score == (9000 - length) / 9000
    assert found.lossy_us == 3 * SECOND


def test_the_time_of_several_gaps_adds_up_and_the_longest_is_told() -> None:
    found = judged(symbol(**gaps((2000, 2002), (3000, 3000), (4000, 4009), seconds=2)))
    assert (found.missing_ids, found.longest_gap, found.lossy_us) == (14, 10, 6 * SECOND)


def test_ids_that_go_back_beside_a_gap_lose_no_negative_time() -> None:
    assert judged(symbol(**gaps((2000, 2000), seconds=-5))).lossy_us == 0


#: A whole busy day, and the edges of one that ends two hours early.
BUSY = symbol(1001, 900_000, minute_rows=(600,) * 1440)
CUT: Final = (EDGES[0], END - 2 * HOUR)


def seams(found: Completeness) -> tuple[tuple[bool, bool], tuple[int, int]]:
    assert found.seams is not None
    return found.seams.joins, tuple(round(us / HOUR) for us in found.seams.lost_us)  # type: ignore[return-value]


@pytest.mark.parametrize("between", [1, 7, 100, 10**9])
def test_ids_between_two_days_are_nobodys_loss_and_leave_the_midnight_unproven(between: int) -> None:
    found = judged(symbol(), 1000 - between, 10_001 + between)
    assert (found.missing_ids, found.span, found.score, found.state) == (0, 9000, 1.0, "inner_proven")
    assert found.seams is not None
    assert found.seams.between == (between, between)


@pytest.mark.parametrize(
    ("previous", "following", "state"),
    [
        (1000, 9_901, "proven"),
        (1100, 10_001, "proven"),
        (1000, 9_900, "head_proven"),
        (1101, 10_001, "inner_proven"),
        (20_000, 1, "inner_proven"),
    ],
)
def test_a_midnight_joins_over_as_many_common_ids_as_are_excused(
    previous: int, following: int, state: str
) -> None:
    found = judged(symbol(), previous, following)
    assert (found.state, found.missing_ids, found.score) == (state, 0, 1.0)


def test_a_day_that_is_cut_off_counts_as_lost_until_ids_join_over_midnight() -> None:
    for following in (None, 1, 899_000, 900_002, 10**12):
        found = judged(BUSY, BEFORE, following, edges=CUT)
        assert seams(found) == ((True, False), (0, 2))
        assert found.score == pytest.approx(1 - 2 / 24, abs=1e-3)
        assert found.silence_us == pytest.approx(2 * HOUR, rel=0.01)
    proven = judged(BUSY, BEFORE, 900_001, edges=CUT)
    assert (proven.score, proven.silence_us, proven.state, seams(proven)[1]) == (1.0, 0, "proven", (0, 0))
    late = judged(BUSY, None, 900_001, edges=(START + HOUR, EDGES[1]))
    assert seams(late) == ((False, True), (1, 0))


def test_of_several_files_of_a_neighbour_one_that_joins_is_enough() -> None:
    found = seams_of(BUSY, WHOLE_DAY, CUT, [5, 1000, 2000], [1, 900_001], 0, THRESHOLDS)
    assert (found.joins, found.between) == ((True, True), (0, 0))
    assert (found.silence_us, found.lost_us) == ((0, 0), (0, 0))


class TestEdgesThatMayBeSilent:
    def silent_hours(self, profile: SymbolProfile, edges: tuple[int, int] = CUT, **rules: Any) -> int:
        return seams(judged(profile, BEFORE, None, edges=edges, **rules))[1][1]

    @pytest.mark.parametrize(("minutes", "hours"), [(59, 0), (60, 2), (1440, 2)])
    def test_a_market_that_trades_in_few_minutes_may_be_silent_for_the_rest(
        self, minutes: int, hours: int
    ) -> None:
        few = symbol(1001, 900_000, minute_rows=(600,) * minutes + (0,) * (1440 - minutes))
        assert self.silent_hours(few) == hours
        assert self.silent_hours(few, edge_minutes=minutes) == 2

    @pytest.mark.parametrize(("longest", "hours"), [(39 * 60, 0), (41 * 60, 0), (20 * 60, 1)])
    def test_a_market_that_is_silent_for_long_elsewhere_may_be_so_at_midnight(
        self, longest: float, hours: int
    ) -> None:
        bursts = BUSY.model_copy(update={"silences": (silence(longest),), "silence_count": 1})
        assert self.silent_hours(bursts) == hours
        assert self.silent_hours(bursts, edge_factor=1) >= 1

    def test_so_may_one_with_few_trades(self) -> None:
        thin = symbol(1001, 1300, minute_rows=(1,) * 300 + (0,) * 1140)
        assert self.silent_hours(thin) == 0

    def test_the_edges_are_those_of_the_listing(self) -> None:
        edges = (START + 6 * HOUR + SECOND, START + 18 * HOUR - SECOND)
        listed = Window(START + 6 * HOUR, START + 18 * HOUR)
        assert judged(BUSY, None, None, window=listed, edges=edges).score == 1.0
        assert judged(BUSY, None, None, edges=edges).score == pytest.approx(0.5, abs=1e-3)


class TestGapsThatTheVenueLeaves:
    @pytest.mark.parametrize(("length", "lost"), [(1, 0), (5, 0), (6, 6), (101, 101)])
    def test_short_ones_are_its_own_and_long_ones_are_lost(self, length: int, lost: int) -> None:
        found = judged(symbol(**gaps((5000, 5000 + length - 1))), exchange="binance-futures")
        assert (found.evidence_class, found.missing_ids) == ("B", lost)
        assert found.longest_gap == lost
        assert found.lossy_us == (SECOND if lost else 0)
        assert found.state == ("degraded" if lost else "estimated")
        assert found.score == (9000 - lost) / 9000

    @pytest.mark.parametrize(("length", "state"), [(0, "proven"), (5, "estimated"), (6, "inner_proven")])
    def test_over_short_ones_midnight_joins(self, length: int, state: str) -> None:
        found = judged(symbol(), 1000 - length, AFTER, exchange="binance-futures")
        assert (found.missing_ids, found.state) == (0, state)

    def test_without_any_gap_they_prove_the_day_like_those_of_other_venues(self) -> None:
        assert judged(symbol(), exchange="binance-futures").state == "proven"
        assert judged(symbol(), BEFORE, None, exchange="binance-futures").state == "head_proven"

    @pytest.mark.parametrize(("allowed", "lost"), [(5, 0), (4, 0), (3, 4), (1, 6), (0, 7)])
    def test_how_long_is_a_setting(self, allowed: int, lost: int) -> None:
        found = judged(
            symbol(**gaps((2000, 2000), (3000, 3001), (4000, 4003))),
            exchange="binance-futures",
            legitimate_hole=allowed,
        )
        assert found.missing_ids == lost
        assert found.state == ("degraded" if lost else "estimated")

    @pytest.mark.parametrize(
        ("runs", "missing"), [(180, 0), (181, 181)], ids=["at the share", "above the share"]
    )
    def test_more_short_ones_than_a_share_of_the_ids_are_losses(self, runs: int, missing: int) -> None:
        """Thinned data consists of short runs."""
        lost = symbol(**gaps(*((1010 + 10 * n, 1010 + 10 * n) for n in range(runs))))
        assert judged(lost, exchange="binance-futures").missing_ids == missing

    def test_one_short_one_is_no_loss_however_few_the_ids(self) -> None:
        few = symbol(1000, 1010, **gaps((1003, 1007)))
        assert judged(few, None, None, exchange="binance-futures").missing_ids == 0

    def test_a_venue_with_contiguous_ids_leaves_none(self) -> None:
        assert judged(symbol(**gaps((5000, 5000))), legitimate_hole=5).missing_ids == 1


class TestSilences:
    """Score of a feed without usable ids: 1 - sum of max(0, silence - excused) / window, below the cap."""

    @pytest.mark.parametrize(
        ("seconds", "usual", "unexcused"),
        [
            (5, 0.01, 0),
            (5.5, 0.01, 0.5),
            (60, 0.1, 55),
            (60, 1.5, 0),
            (60, 1.0, 20),
            (7200, 0.1, 7195),
        ],
    )
    def test_only_what_is_unusual_there_counts(self, seconds: float, usual: float, unexcused: float) -> None:
        found = judged(without_ids(silences=(silence(seconds, usual),), silence_count=1))
        assert found.silence_us == round(unexcused * SECOND)
        assert found.score == min(CAP, 1 - unexcused / 86_400)
        assert (found.evidence_class, found.state, found.uncalibrated) == ("C", "estimated", True)
        assert (found.missing_ids, found.span, found.longest_gap) == (None, None, None)

    def test_silences_add_up_with_those_at_the_ends(self) -> None:
        # 86,401 rows a second apart: 40 usual silences are 40 s, or slightly less if the ends are cut off.
        edges = (START + HOUR, END - HOUR)
        usual = 22 * 3600 / 86_400
        found = judged(
            without_ids(
                rows=86_401, silences=(silence(100, 1), silence(45, 1, START + 9 * HOUR)), silence_count=2
            ),
            edges=edges,
        )
        expected = 60 + 5 + 2 * (3600 - 40 * usual)
        assert found.silence_us == pytest.approx(expected * SECOND, abs=2)
        assert found.score == pytest.approx(1 - expected / 86_400, abs=1e-9)

    def test_a_perfect_day_reaches_the_cap_and_no_more(self) -> None:
        assert judged(without_ids()).score == CAP == 0.99

    def test_the_seams_prove_nothing_without_ids(self) -> None:
        assert judged(without_ids(), BEFORE, AFTER) == judged(without_ids(), None, None)

    def test_the_score_never_falls_below_zero(self) -> None:
        silences = tuple(silence(80_000, 0.1, START + i) for i in range(3))
        assert judged(without_ids(silences=silences, silence_count=3)).score == 0.0

    def test_a_window_without_length_lacks_nothing(self) -> None:
        found = judged(without_ids(), window=Window(START, START), edges=(START, START))
        assert found.score == CAP
        assert Window(START + 1, START).length_us == 0

    def test_what_is_excused_is_a_setting(self) -> None:
        quiet = without_ids(silences=(silence(60, 1),), silence_count=1)
        assert judged(quiet, silence_factor=60).silence_us == 0
        assert judged(quiet, silence_seconds=60).silence_us == 0
        assert judged(quiet, silence_factor=10, silence_seconds=50).silence_us == 10 * SECOND


def test_a_symbol_without_rows_has_no_evidence() -> None:
    found = judged(without_ids(rows=0))
    assert (found.score, found.evidence_class, found.state) == (None, None, "no_evidence")


def test_one_row_is_enough_to_be_judged() -> None:
    noon = START + 12 * HOUR
    found = judged(symbol(1001, 1001), None, None, edges=(noon, noon))
    assert (found.span, seams(found)[1]) == (1, (0, 0))
    assert found.score == pytest.approx(0, abs=1e-3)
    joined = judged(symbol(1001, 1001), BEFORE, 1002, edges=(noon, noon))
    assert (joined.score, joined.state) == (1.0, "proven")


class TestOutages:
    """The vendor's capture is known to have failed from 12:00 to 13:00."""

    NOON = START + 12 * HOUR
    OUT = Window(START, END, ((NOON, NOON + HOUR),))

    @pytest.mark.parametrize(
        ("start", "length", "counted"),
        [
            (12.0, 1.0, 0.0),
            (12.25, 0.5, 0.0),
            (11.5, 2.0, 3_595.0),
            (11.5, 1.0, 1_795.0),
            (14.0, 1.0, 3_595.0),
        ],
    )
    def test_silence_inside_does_not_count_and_the_rest_does(
        self, start: float, length: float, counted: float
    ) -> None:
        quiet = without_ids(
            silences=(silence(length * 3600, 0.1, START + round(start * HOUR)),), silence_count=1
        )
        found = judged(quiet, window=self.OUT)
        assert found.silence_us == round(counted * SECOND)
        assert found.score == pytest.approx(min(CAP, 1 - counted / (23 * 3600)))
        inside = min(13.0, start + length) - max(12.0, start)
        assert found.outage_silence_us == round(max(0.0, inside) * HOUR)

    def test_it_counts_without_the_incident(self) -> None:
        quiet = without_ids(silences=(silence(3600, 0.1, self.NOON),), silence_count=1)
        assert judged(quiet).score == pytest.approx(1 - 3595 / 86_400)
        assert judged(quiet).outage_silence_us == 0

    def test_trades_inside_are_as_good_as_any(self) -> None:
        assert judged(without_ids(), window=self.OUT) == judged(without_ids())
        assert judged(symbol(), window=self.OUT) == judged(symbol())

    def test_a_silent_end_inside_is_excused_where_the_neighbour_is_not_here(self) -> None:
        late = Window(START, END, ((END - 2 * HOUR, END),))
        assert judged(BUSY, BEFORE, None, window=late, edges=CUT).score == 1.0
        assert judged(without_ids(900_000), window=late, edges=CUT).silence_us == 0

    def test_ids_that_are_missing_stay_missing_and_their_time_does_not_count(self) -> None:
        lossy = symbol(**gaps((5000, 5004), seconds=3_600 * 9 + 7))  # the samples' gaps begin at 01:00
        found = judged(lossy, window=Window(START, END, ((START + HOUR, START + 10 * HOUR),)))
        assert (found.missing_ids, found.outage_ids, found.lossy_us) == (5, 5, 7 * SECOND)
        assert found.state == "degraded"
        elsewhere = judged(lossy, window=Window(START, END, ((START + 20 * HOUR, END),)))
        assert (elsewhere.outage_ids, elsewhere.lossy_us) == (0, (9 * 3600 + 7) * SECOND)


class TestListingUnknown:
    """The symbol's listing time is unknown, so the first and the last trade bound the window."""

    UNKNOWN = Window(START, END, is_listed=False)
    HALF = (START + 12 * HOUR, END - SECOND)

    def test_what_is_not_there_at_the_edges_is_not_missing_and_not_proven(self) -> None:
        found = judged(BUSY, None, None, window=self.UNKNOWN, edges=self.HALF)
        assert (found.score, found.state) == (1.0, "estimated")
        without = judged(without_ids(900_000), window=self.UNKNOWN, edges=self.HALF)
        assert (without.score, without.state, without.silence_us) == (CAP, "estimated", 0)

    def test_ids_that_join_on_both_sides_prove_all_the_same(self) -> None:
        assert judged(symbol(), window=self.UNKNOWN, edges=self.HALF).state == "proven"
        assert judged(symbol(), BEFORE, None, window=self.UNKNOWN).state == "estimated"
        assert judged(symbol(), None, AFTER, window=self.UNKNOWN).state == "estimated"

    def test_a_gap_is_seen_and_charged_as_ever(self) -> None:
        found = judged(symbol(**gaps((5000, 5001))), window=self.UNKNOWN)
        assert (found.state, found.missing_ids) == ("degraded", 2)


class TestHistory:
    @pytest.mark.parametrize(("thinning", "score"), [(1.0, 1.0), (0.4, 0.4), (0.0, 0.0)])
    def test_with_it_there_is_no_cap_and_the_lower_score_counts(self, thinning: float, score: float) -> None:
        found = judged(without_ids(), thinning=thinning)
        assert (found.score, found.state, found.uncalibrated) == (score, "estimated", False)
        quiet = judged(without_ids(silences=(silence(43_205),), silence_count=1), thinning=thinning)
        assert quiet.score == min(0.5, thinning)

    def test_ids_prove_whatever_the_history_says(self) -> None:
        assert judged(symbol(), thinning=0.1) == judged(symbol())

    def test_the_cap_is_a_setting(self) -> None:
        assert judged(without_ids(), uncalibrated_cap=0.97).score == 0.97


class TestNoRows:
    @pytest.mark.parametrize(
        ("exchange", "following", "score"),
        [
            ("binance", 1001, 1.0),
            ("binance", 1002, None),
            ("binance", 1000, None),
            ("binance-futures", 1001, 1.0),
            ("binance-futures", 1002, None),
            ("bybit", 1001, None),
            ("kraken", 1001, None),
        ],
    )
    def test_a_file_without_rows_is_complete_if_a_venue_that_numbers_its_trades_went_on_counting(
        self, exchange: str, following: int, score: float | None
    ) -> None:
        found = over_nothing(law(exchange), [BEFORE], [following])
        assert (found.score, found.state) == (score, "proven" if score else "no_evidence")

    def test_one_neighbour_is_not_enough_and_one_file_of_each_is(self) -> None:
        assert over_nothing(law("binance"), [BEFORE], []).score is None
        assert over_nothing(law("binance"), [], [AFTER]).score is None
        assert over_nothing(law("binance"), [5, BEFORE], [1001, 10**9]).score == 1.0
