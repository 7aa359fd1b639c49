"""The part of a day in which data is owed: listed, and not within a known outage of the vendor's capture.

It is separate from completeness because the day's context is clipped by it before anything is judged.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

from backfill_assets.days import MICROSECONDS_PER_SECOND

Range = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Window:
    """From ``start_us`` to before ``end_us``, in microseconds, without the outages in it."""

    start_us: int
    end_us: int
    #: In order of time, disjoint, inside the window.
    outages: tuple[Range, ...] = ()
    #: False where the listing is unknown: the start and the end are then those of the day and mean nothing.
    is_listed: bool = True

    @property
    def length_us(self) -> int:
        """Length without the outages, never negative."""
        return self.owed_us(self.start_us, self.end_us)

    def owed_us(self, start_us: int, end_us: int) -> int:
        """How much of the range lies in no outage, never negative."""
        out = sum(max(0, min(end_us, last) - max(start_us, first)) for first, last in self.outages)
        return max(0, end_us - start_us) - out

    def touches_outage(self, start_us: int, end_us: int) -> bool:
        """Whether the range shares a moment with an outage."""
        return any(first <= end_us and start_us < last for first, last in self.outages)


def clipped(ranges: Iterable[Range], start_us: int, end_us: int) -> tuple[Range, ...]:
    """The ranges clipped to start and end, in order of time; ranges that meet are merged."""
    found: list[Range] = []
    for first, last in sorted((max(a, start_us), min(b, end_us)) for a, b in ranges):
        if first >= last:
            continue
        if found and first <= found[-1][1]:
            found[-1] = (found[-1][0], max(found[-1][1], last))
        else:
            found.append((first, last))
    return tuple(found)


def shown(outages: Iterable[Range]) -> str:
    """The outages for people to read: ``12:00:00 to 13:00:00``, several separated by commas."""
    return ", ".join(f"{_clock_time(first)} to {_clock_time(last)}" for first, last in outages)


def _clock_time(time_us: int) -> str:
    return datetime.fromtimestamp(time_us // MICROSECONDS_PER_SECOND, UTC).strftime("%H:%M:%S")
