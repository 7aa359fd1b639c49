"""Soundness of the rows: each rule's score, the hard rules, and the warnings that do not gate."""

from __future__ import annotations

from typing import Any, Final

import pytest

from backfill_assets.quality.profiles import (
    BookProfile,
    Disagreement,
    FeedProfile,
    Silence,
    Spike,
    Stretch,
    Stuck,
    SymbolProfile,
)
from backfill_assets.quality.rules import Rule, quality, row_rules, rule_score, violations
from backfill_assets.quality.spikes import SpikeEvidence
from backfill_assets.settings import RowSettings
from backfill_assets_tests.quality.quality_samples import (
    SECOND,
    START,
    empty_profile,
    profile,
    quotes,
    symbol,
)

RULES = row_rules(RowSettings())
INVALID_VALUES, CONFLICTING_IDS, OFF_GRID, SPIKES, CROSSED, VALUELESS, *OTHERS = RULES


@pytest.mark.parametrize(
    ("rule", "broken", "rows", "expected"),
    [
        (INVALID_VALUES, 0, 1_000_000, 1.0),
        (INVALID_VALUES, 50, 1_000_000, 0.5),
        (INVALID_VALUES, 99, 1_000_000, 0.01),
        (INVALID_VALUES, 100, 1_000_000, 0.0),
        (INVALID_VALUES, 101, 1_000_000, 0.0),
        (CONFLICTING_IDS, 5, 1_000_000, 0.5),
        (CONFLICTING_IDS, 10, 1_000_000, 0.0),
        (OFF_GRID, 1, 1_000_000, 0.999),
        (OFF_GRID, 500, 1_000_000, 0.5),
        (OFF_GRID, 1_000, 1_000_000, 0.0),
        (CROSSED, 3, 1_000_000, 1.0),
        (CROSSED, 4, 1_000_000, 0.999),
        (CROSSED, 503, 1_000_000, 0.5),
        (CROSSED, 1003, 1_000_000, 0.0),
        (SPIKES, 3, 1_000_000, 1.0),
        (SPIKES, 53, 1_000_000, 0.5),
        (SPIKES, 103, 1_000_000, 0.0),
        (VALUELESS, 3, 1_000_000, 1.0),
        (VALUELESS, 5_003, 1_000_000, 0.5),
        (VALUELESS, 10_003, 1_000_000, 0.0),
        (INVALID_VALUES, 1, 1, 0.9),
        (INVALID_VALUES, 1, 100_000, 0.9),
        (INVALID_VALUES, 1, 200_000, 0.95),
        (CONFLICTING_IDS, 1, 10, 0.0),
    ],
)
def test_a_score_falls_with_the_rate_of_broken_rows_to_zero_at_the_limit(
    rule: Rule, broken: int, rows: int, expected: float
) -> None:
    assert rule_score(rule, broken, rows, 100_000) == pytest.approx(expected, abs=1e-12)


def test_a_sound_file_scores_one_and_says_nothing() -> None:
    found = quality(profile())
    assert (found.score, found.violations, found.warnings) == (1.0, (), ())
    assert found.counts == {rule.name: 0 for rule in RULES}


@pytest.mark.parametrize(
    ("changes", "score", "count"),
    [
        ({"invalid_price_rows": 2}, 0.8, ("invalid_price_or_amount", 2)),
        ({"invalid_amount_rows": 3}, 0.7, ("invalid_price_or_amount", 3)),
        ({"invalid_price_rows": 2, "invalid_amount_rows": 3}, 0.7, ("invalid_price_or_amount", 3)),
        ({"crossed_rows": 13}, 0.9, ("crossed_quotes", 13)),
        ({"crossed_rows": 3}, 1.0, ("crossed_quotes", 3)),
        ({"valueless_rows": 3}, 1.0, ("rows_without_values", 3)),
        ({"valueless_rows": 103}, 0.9, ("rows_without_values", 103)),
    ],
)
def test_the_lowest_score_is_the_feeds(changes: dict[str, int], score: float, count: tuple[str, int]) -> None:
    found = quality(profile(**changes))
    assert found.score == pytest.approx(score, abs=1e-12)
    assert found.counts[count[0]] == count[1]


def test_conflicting_ids_of_all_symbols_add_up() -> None:
    symbols = [symbol(1, 300_000, dataset_symbol=name, conflicting_rows=3) for name in ("A", "B")]
    found = quality(profile(*symbols), grouped=True)
    assert found.counts["same_id_other_payload"] == 6
    assert found.score == pytest.approx(0.0, abs=1e-12)


def test_a_file_without_rows_has_no_quality() -> None:
    assert quality(empty_profile()).score is None


HARD_RULES = [
    ("implausible_times", "rows whose times are not microseconds since the epoch"),
    ("local_before_day", "rows that arrived outside the file's day"),
    ("local_after_day", "rows that arrived outside the file's day"),
    ("local_decreases", "rows that arrived before the row above them"),
    ("wrong_exchange_rows", "rows of another exchange"),
    ("unknown_symbol_rows", "rows of a symbol that is not this feed's"),
    ("misplaced_rows", "rows stamped further outside the day than the seam window"),
]


@pytest.mark.parametrize(("count", "sentence"), HARD_RULES)
@pytest.mark.parametrize("rows", [1, 7])
def test_one_row_that_breaks_a_hard_rule_is_a_violation(count: str, sentence: str, rows: int) -> None:
    assert violations(profile(**{count: rows})) == (f"{rows} {sentence}",)


def test_violations_are_all_named() -> None:
    broken: dict[str, Any] = {name: 1 for name, _ in HARD_RULES}
    found = violations(profile(**broken, clock_offset_p99_us=6_000_000))
    assert len(found) == len(HARD_RULES)
    assert "2 rows that arrived outside the file's day" in found
    assert found[-1] == "capture clock 6.00 s behind the exchange"


@pytest.mark.parametrize(
    ("offset_us", "outcome"),
    [
        (None, "fine"),
        (-40_000_000, "fine"),
        (400_000, "fine"),
        (500_000, "fine"),
        (501_000, "warning"),
        (1_300_000, "warning"),
        (5_000_000, "warning"),
        (5_001_000, "violation"),
        (6_000_000, "violation"),
    ],
)
def test_a_capture_clock_behind_the_exchange_warns_and_then_fails(
    offset_us: int | None, outcome: str
) -> None:
    found = quality(profile(clock_offset_p99_us=offset_us))
    assert (bool(found.warnings), bool(found.violations)) == (outcome == "warning", outcome == "violation")
    if outcome != "fine":
        assert offset_us is not None
        assert (found.warnings + found.violations) == (
            f"capture clock {offset_us / 1e6:.2f} s behind the exchange",
        )


def test_repeated_rows_with_the_same_payload_only_warn() -> None:
    found = quality(profile(symbol(duplicate_rows=4)))
    assert found.warnings == ("4 rows repeat an id with the same payload: each counts once in candles",)
    assert (found.score, found.violations) == (1.0, ())


def test_a_grouped_file_may_hold_symbols_that_nobody_knows() -> None:
    unknown = profile(unknown_symbol_rows=5)
    found = quality(unknown, grouped=True)
    assert found.violations == ()
    assert found.warnings == ("5 rows of symbols that the instruments do not list",)
    assert quality(unknown).violations == ("5 rows of a symbol that is not this feed's",)
    assert quality(profile(wrong_exchange_rows=5), grouped=True).violations == ("5 rows of another exchange",)


def test_quotes_are_judged_without_symbols() -> None:
    assert quality(quotes(crossed_rows=3)).score == 1.0
    assert quality(quotes(crossed_rows=53)).score == pytest.approx(0.5, abs=1e-12)


def test_limits_of_the_rules_are_settings() -> None:
    broken = profile(invalid_price_rows=5)
    assert quality(broken).score == pytest.approx(0.5)
    assert quality(broken, RowSettings(invalid_limit=1e-3)).score == pytest.approx(0.95)
    assert quality(broken, RowSettings(minimum_rows=1_000_000)).score == pytest.approx(0.95)
    crossed = quotes(crossed_rows=3)
    assert quality(crossed, RowSettings(crossed_excused=2)).score == pytest.approx(0.99)
    slow = profile(clock_offset_p99_us=2_000_000)
    assert (quality(slow).violations, len(quality(slow).warnings)) == ((), 1)
    assert len(quality(slow, RowSettings(clock_failure_seconds=1.9)).violations) == 1
    assert quality(slow, RowSettings(clock_warning_seconds=2)).warnings == ()


HOUR_US: Final = 3_600 * SECOND


def book(**changes: Any) -> BookProfile:
    """A book that was valid all day, with the first snapshot only."""
    fields: dict[str, Any] = dict.fromkeys(BookProfile.model_fields, 0)
    nothing = dict.fromkeys(("longest_crossed", "off_grid_rows", "off_finer_grid_rows", "longest_unchanged"))
    names = {"dataset_symbol": "BTCUSDT", "symbol": "BTC-USDT", "minutes": "c" * 1440, "disagreements": ()}
    counts = {
        "rows": 200_000,
        "messages": 90_000,
        "snapshots": 1,
        "valid_us": 24 * HOUR_US,
        "deletes": 80_000,
    }
    return BookProfile(**{**fields, **nothing, **names, **counts, **changes})


def disagreement(differing: int, explained: int = 0) -> Disagreement:
    return Disagreement(
        time_us=START + HOUR_US, gap_us=2 * SECOND, compared=500, differing=differing, explained=explained
    )


@pytest.mark.parametrize(
    ("changes", "score", "worst", "warning"),
    [
        ({}, 1.0, None, None),
        # Ten seconds of a day are excused, 4,320 are a twentieth of it.
        ({"stuck_us": 10 * SECOND, "longest_crossed": Stuck(start_us=START, end_us=START + 10 * SECOND)},
         1.0, None, None),
        ({"stuck_us": 2_170 * SECOND, "longest_crossed": Stuck(start_us=START, end_us=START + 9 * SECOND)},
         0.5, "crossed_book",
         "best bid at or above best ask for 2170.00 s, longest for 9.00 s from 00:00:00.000"),
        ({"stuck_us": 4_331 * SECOND, "longest_crossed": Stuck(start_us=START, end_us=START + 9 * SECOND)},
         0.0, "crossed_book",
         "best bid at or above best ask for 4331.00 s, longest for 9.00 s from 00:00:00.000"),
        ({"locked_us": 900 * SECOND, "crossed_us": 900 * SECOND, "valid_us": 23 * HOUR_US}, 1.0, None, None),
        ({"unknown_us": 60 * SECOND}, 1.0, None, None),
        ({"unknown_us": 2_220 * SECOND, "valid_us": 24 * HOUR_US - 2_220 * SECOND}, 0.5,
         "book_without_snapshot",
         "no snapshot in the first 2220.00 s, so nobody knows the book until then"),
        ({"unknown_us": 24 * HOUR_US, "valid_us": 0, "snapshots": 0}, 0.0, "book_without_snapshot",
         "no snapshot, so nobody knows the book"),
        ({"compared_levels": 10_000, "disagreements": (disagreement(40, 40),), "disagreement_count": 1},
         1.0, None, None),
        ({"compared_levels": 10_000, "disagreements": (disagreement(10),), "disagreement_count": 1},
         1.0, None,
         "10 levels of snapshots differ from the book replayed up to them, first at 01:00:00.000: changes "
         "were lost before"),
        ({"compared_levels": 10_000, "disagreements": (disagreement(300, 40),), "disagreement_count": 1}, 0.5,
         "diverged_snapshots",
         "260 levels of snapshots differ from the book replayed up to them, first at 01:00:00.000: changes "
         "were lost before"),
        ({"absent_deletes": 20_000, "absent_deletes_beyond": 60_000}, 1.0, None, None),
        ({"absent_deletes": 40_000}, 0.5, "deletes_of_absent_levels",
         "40000 of 80000 deletes are of levels that the book lacks"),
        ({"sideless_rows": 10}, 0.5, "invalid_price_or_amount", None),
        ({"off_grid_rows": 100, "off_finer_grid_rows": 50}, 0.5, "off_price_grid", None),
        ({"resent_messages": 14, "resent_blocks": 1}, 1.0, None,
         "14 messages in 1 blocks repeat earlier messages in order"),
        ({"dropped_levels": 5}, 1.0, None, "5 levels far from the best were too many to replay"),
        ({"longest_unchanged": Silence(start_us=START, end_us=START + 90 * SECOND, usual_us=800_000)},
         1.0, None,
         "no change of the book for 90.00 s from 00:00:00.000"),
        ({"longest_unchanged": Silence(start_us=START, end_us=START + 90 * SECOND, usual_us=950_000)},
         1.0, None,
         None),
    ],
)  # fmt: skip
def test_a_replayed_book_is_judged_by_seconds_levels_and_deletes(
    changes: dict[str, Any], score: float, worst: str | None, warning: str | None
) -> None:
    found = quality(quotes(200_000, books=(book(**changes),)))
    assert found.score == pytest.approx(score, abs=1e-3)
    assert found.worst == worst
    assert found.warnings == ((warning,) if warning else ())


def test_snapshots_that_are_not_listed_are_taken_to_be_like_the_listed() -> None:
    found = book(disagreements=(disagreement(30), disagreement(10)), disagreement_count=6)
    assert found.unexplained_levels == 40 + 4 * 20


def test_a_profile_of_an_earlier_version_has_no_books() -> None:
    stored = quotes().model_dump(exclude={"books", "odd_rows", "apart_rows", "off_hour_rows"})
    assert FeedProfile.model_validate(stored).books == ()
    assert quality(FeedProfile.model_validate(stored)).score == 1.0


def test_the_rule_with_the_lowest_score_is_named_and_not_the_one_with_the_most_rows() -> None:
    found = quality(profile(symbol(conflicting_rows=2), invalid_price_rows=5))
    assert (found.score, found.worst) == (0.0, "same_id_other_payload")
    assert quality(profile()).worst is None


def grid(off: int, finer: int = 0, rows: int = 100_000) -> SymbolProfile:
    return symbol(1, rows, price_increments=(0.01,), off_grid_rows=off, off_finer_grid_rows=finer)


@pytest.mark.parametrize(
    ("found", "score", "stale"),
    [
        (grid(0), 1.0, False),
        (grid(50), 0.5, False),
        (grid(4_999), 0.0, False),
        (grid(5_000), 1.0, True),
        (grid(100_000), 1.0, True),
        (grid(5_000, finer=1), 0.0, False),
        (symbol(1, 100_000, off_grid_rows=None), 1.0, False),
    ],
)
def test_prices_off_the_grid_cost_quality_unless_the_listed_grid_is_stale(
    found: SymbolProfile, score: float, stale: bool
) -> None:
    judged = quality(profile(found))
    assert judged.score == pytest.approx(score)
    assert any("the list is out of date" in w for w in judged.warnings) == stale


HOUR = 3600 * SECOND


def stretch(rows: int, length_us: int) -> Stretch:
    return Stretch(start_us=START + HOUR, end_us=START + HOUR + length_us, rows=rows, price=42.5)


@pytest.mark.parametrize(
    ("changes", "warning"),
    [
        ({"spike_count": 1, "spikes": (Spike(time_us=START + 1_500_000, price=4.25),)},
         "1 prices far from those around them, unconfirmed: 4.25 at 00:00:01.500"),
        ({"spike_count": 0}, None),
        ({"id_resets": 2}, "ids fall back 2 times, as if the venue had started its count over"),
        ({"resent_blocks": 1, "resent_rows": 12}, "12 rows in 1 blocks repeat earlier rows in order"),
        ({"empty_ids": 9_000, "twin_rows": 4_500},
         "4500 of 9000 rows without ids equal another one: each counts, though the file may hold them twice"),
        ({"empty_ids": 9_000, "twin_rows": 4_499}, None),
        ({"rows": 99, "empty_ids": 99, "twin_rows": 99, "buy_rows": 50, "sell_rows": 49}, None),
        ({"longest_at_one_price": stretch(1_000, HOUR)},
         "price frozen at 42.5 for 3600.00 s and 1000 rows, from 01:00:00.000"),
        ({"most_rows_at_one_price": stretch(1_000, HOUR)},
         "price frozen at 42.5 for 3600.00 s and 1000 rows, from 01:00:00.000"),
        ({"longest_at_one_price": stretch(999, HOUR)}, None),
        ({"longest_at_one_price": stretch(1_000, HOUR - 1)}, None),
        ({"buy_rows": 0, "sell_rows": 0, "unknown_side_rows": 9000}, "no row says which side took"),
        ({"buy_rows": 8_910, "sell_rows": 90}, "one-sided: 99.0% of the rows are buys"),
        ({"buy_rows": 90, "sell_rows": 8_910}, "one-sided: 99.0% of the rows are sells"),
        ({"buy_rows": 8_909, "sell_rows": 91}, None),
        ({"buy_rows": 999, "sell_rows": 0, "unknown_side_rows": 8_001}, None),
        ({"rows": 999, "buy_rows": 999, "sell_rows": 0}, None),
        ({"rows": 999, "buy_rows": 0, "unknown_side_rows": 999}, None),
    ],
)  # fmt: skip
def test_what_is_odd_about_a_symbol_warns_and_costs_nothing(
    changes: dict[str, Any], warning: str | None
) -> None:
    found = quality(profile(symbol(**changes)))
    assert found.warnings == ((warning,) if warning else ())
    assert (found.score, found.violations) == (1.0, ())


def test_rows_ahead_of_their_arrival_beyond_the_offset_warn() -> None:
    found = quality(profile(clock_residual_rows=7))
    assert found.warnings == ("7 rows are stamped later than they arrived, beyond the clock's offset",)
    assert (found.score, found.violations) == (1.0, ())


@pytest.mark.parametrize(
    ("latencies", "rows", "drifts"),
    [
        ((20_000, 1_020_000), (100, 100), False),
        ((20_000, 1_021_000), (100, 100), True),
        ((-700_000, 400_000), (100, 100), True),
        ((20_000, 1_021_000), (100, 99), False),
        ((20_000, None), (100, 0), False),
    ],
)
def test_a_latency_that_drifts_over_the_day_warns(
    latencies: tuple[int | None, ...], rows: tuple[int, ...], drifts: bool
) -> None:
    found = quality(profile(hour_latency_us=latencies, hour_rows=rows))
    assert any(w.startswith("latency drifts") for w in found.warnings) == drifts
    assert found.score == 1.0


@pytest.mark.parametrize(("latency", "warns"), [(5_000_000, False), (5_000_001, True), (200_000_000, True)])
def test_times_that_are_early_all_day_warn(latency: int, warns: bool) -> None:
    found = quality(profile(hour_latency_us=(latency,) * 24, hour_rows=(100,) * 24))
    assert any(w.startswith("rows arrive") for w in found.warnings) == warns
    partly = quality(profile(hour_latency_us=(10_000, *(latency,) * 23), hour_rows=(100,) * 24))
    assert not any(w.startswith("rows arrive") for w in partly.warnings)


def test_a_grouped_file_names_the_symbol_of_a_warning_and_does_not_go_on_for_ever() -> None:
    symbols = [symbol(dataset_symbol=f"S{n}", duplicate_rows=1) for n in range(25)]
    found = quality(profile(*symbols), grouped=True).warnings
    assert found[0] == "S0: 1 rows repeat an id with the same payload: each counts once in candles"
    assert (len(found), found[-1]) == (21, "5 more warnings on symbols of the file")


def spiked(count: int, listed: int = 3) -> FeedProfile:
    spikes = tuple(Spike(time_us=START + n * SECOND, price=4.25 + n) for n in range(listed))
    return profile(symbol(1, 100_000, spike_count=count, spikes=spikes))


@pytest.mark.parametrize(
    ("confirmed", "refuted", "warnings"),
    [
        ((), (), ("3 prices far from those around them, unconfirmed: 4.25 at 00:00:00.000, "
                  "5.25 at 00:00:01.000, 6.25 at 00:00:02.000",)),
        ((0, 1, 2), (), ()),
        ((0, 1), (), ("1 prices far from those around them, unconfirmed: 6.25 at 00:00:02.000",)),
        ((0,), (2,), ("1 prices far from those around them, seen by none of v, w: 6.25 at 00:00:02.000",
                      "1 prices far from those around them, unconfirmed: 5.25 at 00:00:01.000")),
    ],
)  # fmt: skip
def test_a_confirmed_spike_is_true_a_refuted_one_counts_and_an_open_one_only_warns(
    confirmed: tuple[int, ...], refuted: tuple[int, ...], warnings: tuple[str, ...]
) -> None:
    told = {"confirmed": confirmed, "refuted": refuted}
    sides = {name: {"BTCUSDT": positions} for name, positions in told.items() if positions}
    found = quality(
        spiked(3),
        RowSettings(spike_excused=0),
        spikes=SpikeEvidence(inputs="", witnesses=("v", "w"), **sides),
    )
    assert found.warnings == warnings
    assert found.counts["unconfirmed_spikes"] == len(refuted)
    assert found.score == pytest.approx(1 - len(refuted) / 10)


def test_without_evidence_spikes_cost_nothing_however_many() -> None:
    found = quality(spiked(5_000))
    assert (found.score, found.counts["unconfirmed_spikes"]) == (1.0, 0)
    assert found.warnings[0].startswith("5000 prices far from those around them, unconfirmed: ")


@pytest.mark.parametrize(
    ("length", "usual", "stale"), [(60, 0.1, False), (61, 0.1, True), (100, 1, False), (101, 1, True)]
)
def test_quotes_that_stand_still_are_stale_by_their_own_pace(
    length: float, usual: float, stale: bool
) -> None:
    silence = Silence(
        start_us=START + HOUR, end_us=START + HOUR + round(length * SECOND), usual_us=usual * SECOND
    )
    found = quality(quotes(longest_silence=silence))
    assert found.warnings == ((f"no update for {length:.2f} s from 01:00:00.000",) if stale else ())
    assert found.score == 1.0


def test_settings_say_what_is_stale() -> None:
    silence = Silence(start_us=START, end_us=START + 50 * SECOND, usual_us=SECOND)
    limits = RowSettings(stale_seconds=10, stale_factor=40)
    assert len(quality(quotes(longest_silence=silence), limits).warnings) == 1
    assert quality(quotes(longest_silence=silence)).warnings == ()
