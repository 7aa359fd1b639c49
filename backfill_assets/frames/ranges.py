"""Parses start and end into a half-open range of UTC time, and lists the days that it touches."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta

from backfill_assets.days import EARLIEST_DAY, LATEST_DAY, day_range
from backfill_assets.failures import BadInput
from backfill_assets.frames.arguments import insist_on_type

#: ``2024-01-31``, an ISO time, a date, or a datetime; a value without a zone is UTC.
Moment = str | date | datetime

_SMALLEST = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class TimeRange:
    """A range of time that excludes ``end``."""

    start: datetime
    end: datetime

    @property
    def days(self) -> list[str]:
        """Every UTC day that the range touches."""
        return day_range(self.start.date().isoformat(), (self.end - _SMALLEST).date().isoformat())

    @property
    def is_whole_days(self) -> bool:
        """Whether the range begins and ends at midnight."""
        return self.start.time() == time() and self.end.time() == time()


def time_range(start: Moment, end: Moment | None = None) -> TimeRange:
    """The range from ``start`` to before ``end``; without ``end``, to the end of the UTC day of ``start``.

    Raises
    ------
    BadInput
        A value is not a time, or the range is empty.
    """
    first = moment(start, "start")
    if end is None:
        midnight = datetime.combine(first.date(), time(), UTC)
        return TimeRange(first, midnight + timedelta(days=1))
    last = moment(end, "end")
    if last <= first:
        msg = f"end {last.isoformat()} is not after start {first.isoformat()}: the range excludes its end"
        raise BadInput(msg)
    return TimeRange(first, last)


def moment(value: Moment, name: str) -> datetime:
    """The value as UTC time; a day means its midnight."""
    insist_on_type(name, value, (str, date), "give a string, a date or a datetime")
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            msg = f"{name} {value!r} is not a time: write 2024-01-31 or 2024-01-31T09:00"
            raise BadInput(msg) from None
    if not EARLIEST_DAY <= value.isoformat()[:10] <= LATEST_DAY:
        msg = f"{name} {value} is not between {EARLIEST_DAY} and {LATEST_DAY}: correct the year"
        raise BadInput(msg)
    if not isinstance(value, datetime):
        return datetime.combine(value, time(), UTC)
    return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
