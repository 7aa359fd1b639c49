"""Days and microseconds: a day has one spelling, and every microsecond belongs to one day."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backfill_assets import days
from backfill_assets.failures import PermanentFailure

DAYS = st.dates(datetime(2009, 1, 1, tzinfo=UTC).date(), datetime(2099, 12, 30, tzinfo=UTC).date()).map(
    lambda day: day.isoformat()
)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "today",
        "2024-1-1",
        "20240101",
        "2024-W01-1",
        "2024-02-30",
        "2023-02-29",
        "2024-01-01T00:00",
        " 2024-01-01",
        "2024-01-01\n",
        "01.01.2024",
    ],
)
def test_what_is_not_written_as_a_day_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(PermanentFailure, match="write it as YYYY-MM-DD, for example 2024-01-01"):
        days.parse_day(text)


@pytest.mark.parametrize("text", ["2024-01-01", "2024-02-29", "2019-03-30"])
def test_a_day_is_read_as_written(text: str) -> None:
    assert days.parse_day(text).isoformat() == text


@pytest.mark.parametrize(
    ("day", "by", "expected"),
    [
        ("2024-01-01", -1, "2023-12-31"),
        ("2024-02-28", 1, "2024-02-29"),
        ("2023-02-28", 1, "2023-03-01"),
        ("2024-01-01", 0, "2024-01-01"),
        ("2024-12-31", 366, "2026-01-01"),
    ],
)
def test_shifting_knows_months_and_leap_years(day: str, by: int, expected: str) -> None:
    assert days.shift(day, by) == expected


@pytest.mark.parametrize(
    ("first", "last", "expected"),
    [
        ("2024-02-28", "2024-03-01", ["2024-02-28", "2024-02-29", "2024-03-01"]),
        ("2024-01-01", "2024-01-01", ["2024-01-01"]),
        ("2024-01-02", "2024-01-01", []),
        ("2024-03-30", "2024-04-01", ["2024-03-30", "2024-03-31", "2024-04-01"]),
    ],
)
def test_a_range_holds_both_its_ends(first: str, last: str, expected: list[str]) -> None:
    assert days.day_range(first, last) == expected


def test_the_day_of_a_reference_capture_begins_where_the_vendor_says() -> None:
    assert days.start_us("2024-01-01") == 1_704_067_200_000_000
    assert days.iso_time(days.start_us("2024-01-01") + 1) == "2024-01-01T00:00:00.000001Z"


@settings(max_examples=200, deadline=None, derandomize=True, database=None)
@given(day=DAYS, offset=st.integers(0, days.MICROSECONDS_PER_DAY - 1))
def test_every_microsecond_belongs_to_the_day_that_holds_it(day: str, offset: int) -> None:
    assert days.end_us(day) == days.start_us(day) + days.MICROSECONDS_PER_DAY
    assert days.end_us(day) == days.start_us(days.shift(day, 1))
    moment = days.start_us(day) + offset
    assert days.day_of(moment) == day
    assert days.day_of(days.start_us(day) - 1) == days.shift(day, -1)
    assert datetime.fromisoformat(days.iso_time(moment)) == datetime.fromisoformat(day).replace(
        tzinfo=UTC
    ) + timedelta(microseconds=offset)


def test_the_clock_is_in_utc() -> None:
    assert days.utc_now().tzinfo is UTC
    assert abs(days.utc_now() - datetime.now(tz=UTC)) < timedelta(minutes=1)
