"""How much of a day is there: by ids where the venue gives contiguous ones, by silences where it does not."""

from __future__ import annotations

from typing import Any, Final

import pytest

from backfill_assets.quality.completeness import (
    Completeness,
    Seam,
    completeness,
    evidence_class,
    over_nothing,
    without_rows,
)
from backfill_assets.quality.profiles import SymbolProfile
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
    silence,
    symbol,
    without_ids,
)

HOUR = 3600 * SECOND
CAP = THRESHOLDS.uncalibrated_cap
#: The neighbours' nearest ids where nothing is lost at midnight: the sample's ids are 1001 to 10000.
BEFORE, AFTER = Seam(1000, SECOND), Seam(10_001, SECOND)


def judged(
    profile: SymbolProfile,
    previous: Seam | None = BEFORE,
    following: Seam | None = AFTER,
    *,
    exchange: str = "binance",
    window: Window = WHOLE_DAY,
    edges: tuple[int, int] = EDGES,
    thinning: float | None = None,
    **thresholds: Any,
) -> Completeness:
    limits = ThresholdSettings(**thresholds) if thresholds else THRESHOLDS
    return completeness(exchange, DAY, profile, window, previous, following, limits, edges, thinning)


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
    assert evidence_class(exchange, day, profile) == expected


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
    previous: Seam | None, following: Seam | None, state: str
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


@pytest.mark.parametrize(
    ("ours_us", "theirs_us", "is_ours"),
    [(5 * SECOND, SECOND, True), (SECOND, 5 * SECOND, False), (SECOND, SECOND, True)],
)
def test_a_gap_at_midnight_is_the_loss_of_the_side_that_was_silent_for_longer(
    ours_us: int, theirs_us: int, is_ours: bool
) -> None:
    later = judged(symbol(), Seam(990, theirs_us), AFTER, edges=(START + ours_us, END - SECOND))
    assert later.missing_ids == (10 if is_ours else 0)
    assert later.span == (9010 if is_ours else 9000)
    assert later.longest_gap == (10 if is_ours else 0)
    assert later.state == ("degraded" if is_ours else "inner_proven")


@pytest.mark.parametrize("earlier_us", [0, 1, SECOND, SECOND + 1, 20 * SECOND])
@pytest.mark.parametrize("later_us", [0, 1, SECOND, SECOND + 1, 20 * SECOND])
def test_a_gap_at_midnight_counts_on_exactly_one_side(earlier_us: int, later_us: int) -> None:
    """The day before ends with id 10000, ours begins with 10008: seven ids lie between."""
    earlier = judged(symbol(), BEFORE, Seam(10_008, later_us), edges=(START + SECOND, END - earlier_us))
    later = judged(
        symbol(10_008, 20_000),
        Seam(10_000, earlier_us),
        Seam(20_001, SECOND),
        edges=(START + later_us, END - SECOND),
    )
    assert sorted([earlier.missing_ids or 0, later.missing_ids or 0]) == [0, 7]


@pytest.mark.parametrize(
    ("previous", "repeated"), [(1000, 0), (1001, 1), (1010, 10), (20_000, 19_000), (999, 0)]
)
def test_ids_that_the_day_before_has_too_are_counted_and_are_no_gap(previous: int, repeated: int) -> None:
    found = judged(symbol(), Seam(previous, 20 * SECOND), AFTER)
    assert found.repeated_ids == repeated
    assert found.missing_ids == 0


def test_ids_that_begin_anew_the_next_day_are_no_gap_of_this_day_and_prove_nothing_of_its_end() -> None:
    found = judged(symbol(), BEFORE, Seam(1, SECOND))
    assert (found.missing_ids, found.state, found.repeated_ids, found.score) == (0, "head_proven", 0, 1.0)
    quiet = judged(symbol(1001, 900_000), BEFORE, Seam(1, SECOND), edges=(EDGES[0], END - 2 * HOUR))
    assert quiet.score == pytest.approx(1 - 2 / 24, abs=1e-3)


@pytest.mark.parametrize(
    ("previous", "following", "state"),
    [
        (1000, 9_901, "proven"),
        (1100, 10_001, "proven"),
        (1000, 9_900, "head_proven"),
        (1101, 10_001, "inner_proven"),
    ],
)
def test_a_seam_joins_over_as_many_repeated_ids_as_are_excused(
    previous: int, following: int, state: str
) -> None:
    found = judged(symbol(), Seam(previous, SECOND), Seam(following, SECOND))
    assert (found.state, found.missing_ids) == (state, 0)


def test_a_silent_end_is_excused_by_ids_that_join_and_not_without_them() -> None:
    edges, busy, after = (START + HOUR, END - 2 * HOUR), symbol(1001, 900_000), Seam(900_001, 0)
    proven = judged(busy, BEFORE, after, edges=edges)
    assert (proven.score, proven.silence_us) == (1.0, 0)
    assert judged(busy, BEFORE, None, edges=edges).score == pytest.approx(1 - 2 / 24, abs=1e-3)
    assert judged(busy, None, after, edges=edges).score == pytest.approx(1 - 1 / 24, abs=1e-3)
    alone = judged(busy, None, None, edges=edges)
    assert alone.score == pytest.approx(1 - 3 / 24, abs=1e-3)
    assert alone.silence_us == pytest.approx(3 * HOUR, rel=0.01)
    assert alone.state == "inner_proven"


def test_the_edges_of_the_day_are_judged_inside_its_window() -> None:
    edges = (START + 6 * HOUR + SECOND, START + 18 * HOUR - SECOND)
    listed = Window(START + 6 * HOUR, START + 18 * HOUR)
    busy = symbol(1001, 900_000)
    assert judged(busy, None, None, window=listed, edges=edges).score == 1.0
    assert judged(busy, None, None, edges=edges).score == pytest.approx(0.5, abs=1e-3)


class TestGapsThatTheVenueLeaves:
    @pytest.mark.parametrize(("length", "lost"), [(1, 0), (5, 0), (6, 6), (101, 101)])
    def test_short_ones_are_its_own_and_long_ones_are_lost(self, length: int, lost: int) -> None:
        found = judged(symbol(**gaps((5000, 5000 + length - 1))), exchange="binance-futures")
        assert (found.evidence_class, found.missing_ids) == ("B", lost)
        assert found.longest_gap == lost
        assert found.lossy_us == (SECOND if lost else 0)
        assert found.state == ("degraded" if lost else "estimated")
        assert found.score == (9000 - lost) / 9000

    @pytest.mark.parametrize(("length", "lost"), [(5, 0), (6, 6)])
    def test_the_same_holds_at_midnight(self, length: int, lost: int) -> None:
        seam = Seam(1000 - length, 0)
        found = judged(symbol(), seam, AFTER, exchange="binance-futures")
        assert found.missing_ids == lost
        assert found.state == ("degraded" if lost else "estimated")

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
        # 86,401 rows a second apart: 40 usual silences are 40 s, or little less where the ends are cut off.
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
    assert found.span == 1
    assert found.score == pytest.approx(0, abs=1e-3)
    assert judged(symbol(1001, 1001), BEFORE, Seam(1002, SECOND), edges=(noon, noon)).score == 1.0


class TestOutages:
    """From 12:00 to 13:00 the vendor's capture is known to have failed."""

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
        edges, busy = (EDGES[0], END - 2 * HOUR), symbol(1001, 900_000)
        assert judged(busy, BEFORE, None, window=late, edges=edges).score == 1.0
        assert judged(without_ids(900_000), window=late, edges=edges).silence_us == 0

    def test_ids_that_are_missing_stay_missing_and_their_time_does_not_count(self) -> None:
        lossy = symbol(**gaps((5000, 5004), seconds=3_600 * 9 + 7))  # the samples' gaps begin at 01:00
        found = judged(lossy, window=Window(START, END, ((START + HOUR, START + 10 * HOUR),)))
        assert (found.missing_ids, found.outage_ids, found.lossy_us) == (5, 5, 7 * SECOND)
        assert found.state == "degraded"
        elsewhere = judged(lossy, window=Window(START, END, ((START + 20 * HOUR, END),)))
        assert (elsewhere.outage_ids, elsewhere.lossy_us) == (0, (9 * 3600 + 7) * SECOND)

    def test_a_gap_at_a_midnight_inside_is_named_too(self) -> None:
        found = judged(symbol(), Seam(990, SECOND), window=Window(START, END, ((START, START + HOUR),)))
        assert (found.missing_ids, found.outage_ids) == (10, 10)
        assert judged(symbol(), Seam(990, SECOND), window=self.OUT).outage_ids == 0


class TestListingUnknown:
    """Nobody knows when the symbol was listed: the first and the last trade bound the window."""

    UNKNOWN = Window(START, END, is_listed=False)
    HALF = (START + 12 * HOUR, END - SECOND)

    def test_what_is_not_there_at_the_edges_is_not_missing_and_not_proven(self) -> None:
        found = judged(symbol(1001, 900_000), None, None, window=self.UNKNOWN, edges=self.HALF)
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
        at_midnight = judged(symbol(), Seam(990, 5 * SECOND), window=self.UNKNOWN, edges=self.HALF)
        assert at_midnight.missing_ids == 10


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
    KNOWN: Final = {"BTCUSDT": BEFORE}

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
        found = over_nothing(exchange, DAY, self.KNOWN, {"BTCUSDT": Seam(following, 0)})
        assert (found.score, found.state) == (score, "proven" if score else "no_evidence")

    def test_one_neighbour_is_not_enough(self) -> None:
        assert over_nothing("binance", DAY, self.KNOWN, {}).score is None
        assert over_nothing("binance", DAY, {}, self.KNOWN).score is None
        assert over_nothing("binance", DAY, self.KNOWN, {"ETHUSDT": AFTER}).score is None

    @pytest.mark.parametrize(
        ("exchange", "following", "lost"),
        [
            ("binance", 1001, 0),
            ("binance", 1002, 1),
            ("binance-futures", 1006, 0),
            ("binance-futures", 1007, 6),
            ("bybit", 2000, 0),
        ],
    )
    def test_a_symbol_that_a_group_has_lost_lacks_the_ids_between_its_neighbours(
        self, exchange: str, following: int, lost: int
    ) -> None:
        found = without_rows(exchange, DAY, BEFORE, Seam(following, 0), THRESHOLDS)
        assert (found is not None) == bool(lost)
        if found:
            assert (found.score, found.state, found.missing_ids, found.longest_gap) == (
                0.0, "degraded", lost, lost,
            )  # fmt: skip
