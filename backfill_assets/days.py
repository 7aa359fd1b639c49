"""Days: the only date arithmetic of the package.

It is separate from ``partitions`` so that the logic and the command line can count days without importing
Dagster. A day is a UTC calendar day written ``YYYY-MM-DD``. Times are integer microseconds since the epoch,
as the vendor writes them.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Final

from backfill_assets.failures import BadInput

MICROSECONDS_PER_MILLISECOND: Final = 1_000
MICROSECONDS_PER_SECOND: Final = 1_000_000
MICROSECONDS_PER_MINUTE: Final = 60 * MICROSECONDS_PER_SECOND
MICROSECONDS_PER_DAY: Final = 86_400 * MICROSECONDS_PER_SECOND

#: The vendor's oldest data sets begin on this day (vendor documentation).
FIRST_DAY: Final = "2019-03-30"
#: Days that may be named: arithmetic with them stays within the calendar, and a range of them can be walked.
EARLIEST_DAY, LATEST_DAY = "2000-01-01", "2099-12-31"


def parse_day(text: str) -> date:
    """Read ``YYYY-MM-DD``; raise ``BadInput`` with the right form for other text, and for years far away."""
    try:
        day = date.fromisoformat(text)
    except ValueError:
        day = None
    if day is None or day.isoformat() != text:
        msg = f"'{text}' is not a day: write it as YYYY-MM-DD, for example 2024-01-01"
        raise BadInput(msg)
    if not EARLIEST_DAY <= text <= LATEST_DAY:
        msg = f"{text} is not between {EARLIEST_DAY} and {LATEST_DAY}: correct the year"
        raise BadInput(msg)
    return day


def parse_month(text: str) -> date:
    """Read ``YYYY-MM`` as its first day; raise ``BadInput`` with the right form for other text."""
    if not is_day(f"{text}-01"):
        msg = f"'{text}' is not a month: write it as YYYY-MM, for example 2024-01"
        raise BadInput(msg)
    return parse_day(f"{text}-01")


def insist_on_order(start: str, end: str) -> None:
    """Raise ``BadInput`` if the range ends before it starts."""
    if end < start:
        msg = f"the range ends ({end}) before it starts ({start}): swap them"
        raise BadInput(msg)


def is_day(text: str) -> bool:
    """Whether the text is a day in the form ``YYYY-MM-DD``."""
    try:
        return parse_day(text).isoformat() == text
    except BadInput:
        return False


def shift(day: str, days: int) -> str:
    """Return the day that is ``days`` later (negative: earlier)."""
    return (date.fromisoformat(day) + timedelta(days=days)).isoformat()


def day_range(first: str, last: str) -> list[str]:
    """Return all days from ``first`` to ``last``, both included; empty if ``last`` is before ``first``."""
    start, count = date.fromisoformat(first), (date.fromisoformat(last) - date.fromisoformat(first)).days
    return [(start + timedelta(days=i)).isoformat() for i in range(count + 1)]


def start_us(day: str) -> int:
    """Return the first microsecond of the day."""
    midnight = datetime.fromisoformat(day).replace(tzinfo=UTC)
    return int(midnight.timestamp()) * MICROSECONDS_PER_SECOND


def end_us(day: str) -> int:
    """Return the first microsecond after the day."""
    return start_us(day) + MICROSECONDS_PER_DAY


def time_us(moment: datetime) -> int:
    """Return the moment in microseconds."""
    return int(moment.timestamp()) * MICROSECONDS_PER_SECOND + moment.microsecond


def day_of(time_us: int) -> str:
    """Return the day of the microsecond."""
    return datetime.fromtimestamp(time_us // MICROSECONDS_PER_SECOND, tz=UTC).date().isoformat()


def utc_now() -> datetime:
    """Return the current time; no other function reads the clock for dates."""
    return datetime.now(tz=UTC)


def iso_time(time_us: int) -> str:
    """Format a time like ``2024-01-01T00:00:00.000001Z``, for messages and reports."""
    moment = datetime.fromtimestamp(0, tz=UTC) + timedelta(microseconds=time_us)
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")
