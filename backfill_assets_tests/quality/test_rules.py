"""How sound are the rows: each rule's score, the hard rules, and the warnings that do not gate."""

from __future__ import annotations

from typing import Any

import pytest

from backfill_assets.quality.rules import (
    CONFLICTING_IDS,
    CROSSED,
    INVALID_VALUES,
    RULES,
    Rule,
    quality,
    rule_score,
    violations,
)
from backfill_assets_tests.quality.quality_samples import empty_profile, profile, quotes, symbol


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
        (CROSSED, 3, 1_000_000, 1.0),
        (CROSSED, 4, 1_000_000, 0.999),
        (CROSSED, 503, 1_000_000, 0.5),
        (CROSSED, 1003, 1_000_000, 0.0),
        (INVALID_VALUES, 1, 1, 0.9),
        (INVALID_VALUES, 1, 100_000, 0.9),
        (INVALID_VALUES, 1, 200_000, 0.95),
        (CONFLICTING_IDS, 1, 10, 0.0),
    ],
)
def test_a_score_falls_with_the_rate_of_broken_rows_to_zero_at_the_limit(
    rule: Rule, broken: int, rows: int, expected: float
) -> None:
    assert rule_score(rule, broken, rows) == pytest.approx(expected, abs=1e-12)


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
    assert found.warnings == ("4 rows repeat an id with the same payload",)
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
