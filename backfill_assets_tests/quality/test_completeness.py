"""How much of a day is there: by ids where the venue gives contiguous ones, by silences where it does not."""

from __future__ import annotations

from typing import Any

import pytest

from backfill_assets.quality.completeness import (
    UNCALIBRATED_CAP,
    Completeness,
    Seam,
    Window,
    completeness,
    evidence_class,
)
from backfill_assets.quality.profiles import SymbolProfile
from backfill_assets.settings import ThresholdSettings
from backfill_assets_tests.quality.quality_samples import (
    DAY,
    EDGES,
    END,
    SECOND,
    START,
    THRESHOLDS,
    WHOLE_DAY,
    gap,
    holes,
    symbol,
    without_ids,
)

HOUR = 3600 * SECOND
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
    **thresholds: Any,
) -> Completeness:
    limits = ThresholdSettings(**thresholds) if thresholds else THRESHOLDS
    return completeness(exchange, DAY, profile, window, previous, following, limits, edges)


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
def test_ids_without_a_hole_prove_the_day_as_far_as_its_neighbours_are_here(
    previous: Seam | None, following: Seam | None, state: str
) -> None:
    found = judged(symbol(), previous, following)
    assert (found.score, found.evidence_class, found.state) == (1.0, "A", state)
    assert (found.span, found.missing_ids, found.longest_hole, found.uncalibrated) == (9000, 0, 0, False)


@pytest.mark.parametrize("run", [(5000, 5000), (5000, 5009), (5000, 5010), (5000, 5100)])
def test_a_single_missing_id_degrades_and_every_one_is_counted(run: tuple[int, int]) -> None:
    length = run[1] - run[0] + 1
    found = judged(symbol(**holes(run, seconds=3)))
    assert (found.state, found.missing_ids, found.longest_hole) == ("degraded", length, length)
    assert found.score == (9000 - length) / 9000
    assert found.lossy_us == 3 * SECOND


def test_the_time_of_several_holes_adds_up_and_the_longest_is_told() -> None:
    found = judged(symbol(**holes((2000, 2002), (3000, 3000), (4000, 4009), seconds=2)))
    assert (found.missing_ids, found.longest_hole, found.lossy_us) == (14, 10, 6 * SECOND)


def test_ids_that_go_back_beside_a_hole_lose_no_negative_time() -> None:
    assert judged(symbol(**holes((2000, 2000), seconds=-5))).lossy_us == 0


@pytest.mark.parametrize(
    ("ours_us", "theirs_us", "is_ours"),
    [(5 * SECOND, SECOND, True), (SECOND, 5 * SECOND, False), (SECOND, SECOND, True)],
)
def test_a_hole_at_midnight_is_the_loss_of_the_side_that_was_silent_for_longer(
    ours_us: int, theirs_us: int, is_ours: bool
) -> None:
    later = judged(symbol(), Seam(990, theirs_us), AFTER, edges=(START + ours_us, END - SECOND))
    assert later.missing_ids == (10 if is_ours else 0)
    assert later.span == (9010 if is_ours else 9000)
    assert later.longest_hole == (10 if is_ours else 0)
    assert later.state == ("degraded" if is_ours else "inner_proven")


@pytest.mark.parametrize("earlier_us", [0, 1, SECOND, SECOND + 1, 20 * SECOND])
@pytest.mark.parametrize("later_us", [0, 1, SECOND, SECOND + 1, 20 * SECOND])
def test_a_hole_at_midnight_counts_on_exactly_one_side(earlier_us: int, later_us: int) -> None:
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
def test_ids_that_the_day_before_has_too_are_counted_and_are_no_hole(previous: int, repeated: int) -> None:
    found = judged(symbol(), Seam(previous, 20 * SECOND), AFTER)
    assert found.repeated_ids == repeated
    assert found.missing_ids == 0


def test_ids_that_begin_anew_the_next_day_are_no_hole_of_this_day() -> None:
    found = judged(symbol(), BEFORE, Seam(1, SECOND))
    assert (found.missing_ids, found.state, found.repeated_ids) == (0, "proven", 0)


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


class TestHolesThatTheVenueLeaves:
    @pytest.mark.parametrize(("length", "lost"), [(1, 0), (5, 0), (6, 6), (101, 101)])
    def test_short_ones_are_its_own_and_long_ones_are_lost(self, length: int, lost: int) -> None:
        found = judged(symbol(**holes((5000, 5000 + length - 1))), exchange="binance-futures")
        assert (found.evidence_class, found.missing_ids) == ("B", lost)
        assert found.longest_hole == lost
        assert found.lossy_us == (SECOND if lost else 0)
        assert found.state == ("degraded" if lost else "proven")
        assert found.score == (9000 - lost) / 9000

    @pytest.mark.parametrize(("length", "lost"), [(5, 0), (6, 6)])
    def test_the_same_holds_at_midnight(self, length: int, lost: int) -> None:
        seam = Seam(1000 - length, 0)
        found = judged(symbol(), seam, AFTER, exchange="binance-futures")
        assert found.missing_ids == lost
        assert found.state == ("degraded" if lost else "proven")

    @pytest.mark.parametrize(("allowed", "lost"), [(5, 0), (4, 0), (3, 4), (1, 6), (0, 7)])
    def test_how_long_is_a_setting(self, allowed: int, lost: int) -> None:
        found = judged(
            symbol(**holes((2000, 2000), (3000, 3001), (4000, 4003))),
            exchange="binance-futures",
            legitimate_hole=allowed,
        )
        assert found.missing_ids == lost
        assert found.state == ("degraded" if lost else "proven")

    def test_a_venue_with_contiguous_ids_leaves_none(self) -> None:
        assert judged(symbol(**holes((5000, 5000))), legitimate_hole=5).missing_ids == 1


class TestSilences:
    """Score of a feed without usable ids: 1 - the sum of max(0, gap - excused) / window, below the cap."""

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
        found = judged(without_ids(gaps=(gap(seconds, usual),), gap_count=1))
        assert found.silence_us == round(unexcused * SECOND)
        assert found.score == min(UNCALIBRATED_CAP, 1 - unexcused / 86_400)
        assert (found.evidence_class, found.state, found.uncalibrated) == ("C", "estimated", True)
        assert (found.missing_ids, found.span, found.longest_hole) == (None, None, None)

    def test_silences_add_up_with_those_at_the_ends(self) -> None:
        # 86,401 rows a second apart: 40 usual gaps are 40 s, or little less where the ends are cut off.
        edges = (START + HOUR, END - HOUR)
        usual = 22 * 3600 / 86_400
        found = judged(
            without_ids(rows=86_401, gaps=(gap(100, 1), gap(45, 1, START + 9 * HOUR)), gap_count=2),
            edges=edges,
        )
        expected = 60 + 5 + 2 * (3600 - 40 * usual)
        assert found.silence_us == pytest.approx(expected * SECOND, abs=2)
        assert found.score == pytest.approx(1 - expected / 86_400, abs=1e-9)

    def test_a_perfect_day_reaches_the_cap_and_no_more(self) -> None:
        assert judged(without_ids()).score == UNCALIBRATED_CAP == 0.99

    def test_the_seams_prove_nothing_without_ids(self) -> None:
        assert judged(without_ids(), BEFORE, AFTER) == judged(without_ids(), None, None)

    def test_the_score_never_falls_below_zero(self) -> None:
        gaps = tuple(gap(80_000, 0.1, START + i) for i in range(3))
        assert judged(without_ids(gaps=gaps, gap_count=3)).score == 0.0

    def test_a_window_without_length_lacks_nothing(self) -> None:
        found = judged(without_ids(), window=Window(START, START), edges=(START, START))
        assert found.score == UNCALIBRATED_CAP
        assert Window(START + 1, START).length_us == 0

    def test_what_is_excused_is_a_setting(self) -> None:
        quiet = without_ids(gaps=(gap(60, 1),), gap_count=1)
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
