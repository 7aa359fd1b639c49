"""A start and an end that a person gives become a half-open range of UTC time."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone

import pandas as pd
import pytest

from backfill_assets.failures import BadInput
from backfill_assets.frames.ranges import time_range

JAN_2 = datetime(2024, 1, 2, tzinfo=UTC)


@pytest.mark.parametrize(
    "start",
    [
        "2024-01-02",
        "2024-01-02T00:00",
        "2024-01-02T01:00+01:00",
        date(2024, 1, 2),
        datetime(2024, 1, 2),  # noqa: DTZ001 - without a zone it is UTC
        datetime(2024, 1, 1, 19, tzinfo=timezone(timedelta(hours=-5))),
        pd.Timestamp("2024-01-02"),
        pd.Timestamp("2024-01-02T09:00", tz="Asia/Tokyo"),
    ],
)
def test_a_text_a_date_and_a_datetime_of_any_zone_are_the_same_moment(start):
    found = time_range(start)
    assert (found.start, found.end) == (JAN_2, JAN_2 + timedelta(days=1))
    assert found.days == ["2024-01-02"]


def test_the_end_does_not_belong_to_the_range():
    assert time_range("2024-01-01", "2024-01-03").days == ["2024-01-01", "2024-01-02"]
    assert time_range("2024-01-01T12:00", "2024-01-03T00:00:00.000001").days == [
        "2024-01-01",
        "2024-01-02",
        "2024-01-03",
    ]


def test_without_an_end_it_is_the_rest_of_the_day():
    found = time_range("2024-01-02T22:30")
    assert (found.start.hour, found.end) == (22, JAN_2 + timedelta(days=1))
    assert not found.is_whole_days


@pytest.mark.parametrize(
    ("start", "end", "said"),
    [
        ("yesterday", None, "start 'yesterday' is not a time: write 2024-01-31"),
        ("2024-01-02", "2024-01-02", "is not after start"),
        ("2024-01-02", "2024-01-01", "is not after start"),
        (20240102, None, "start has type int: give a string, a date or a datetime"),
        ("2024-01-02", "2024-13-01", "end '2024-13-01' is not a time"),
        (date.min, date.max, "start 0001-01-01 is not between 2000-01-01 and 2099-12-31: correct the year"),
        ("2024-01-02", "9999-12-31T23:00-05:00", "end 9999-12-31 23:00:00-05:00 is not between"),
    ],
)
def test_what_is_no_range_is_told(start, end, said):
    with pytest.raises(BadInput, match=said):
        time_range(start, end)
