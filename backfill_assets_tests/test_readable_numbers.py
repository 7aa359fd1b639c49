"""Counts, bytes and durations as people read them."""

import pytest

from backfill_assets.readable_numbers import bytes_text, plural, seconds_text


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 days"), (1, "1 day"), (2, "2 days"), (1_000, "1,000 days")]
)
def test_a_noun_is_plural_unless_there_is_one(count: int, text: str) -> None:
    assert plural(count, "day") == text


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1_000, "1.0 kB"),
        (999_400, "999 kB"),
        (999_600, "1.0 MB"),
        (1_540_000_000, "1.5 GB"),
    ],
)
def test_bytes_are_told_with_two_or_three_digits(number: float, text: str) -> None:
    assert bytes_text(number) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(40, "40 s"), (720, "12 min"), (12_600, "3.5 h"), (180_000, "2.1 days")]
)
def test_seconds_are_told_in_the_unit_that_a_person_would_use(seconds: float, text: str) -> None:
    assert seconds_text(seconds) == text
