"""The measures of a scenario: their names in limits, history and reports, and how each is written."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from backfill_assets.readable_numbers import bytes_text
from backfill_assets.rehearsal.model import Measurement

MB: Final = 10**6


@dataclass(frozen=True, slots=True)
class Measure:
    """One measure.

    Attributes
    ----------
    name
        The key in a file of limits, and the field of ``Measurement``.
    words
        Its name for people.
    text
        The value as people read it.
    slack
        A difference up to this is not a trend: it comes from the machine and its other work.
    """

    name: str
    words: str
    text: Callable[[float], str]
    slack: float
    is_better_high: bool = False

    def of(self, measured: Measurement) -> float:
        """Its value."""
        return float(getattr(measured, self.name))


#: In the order of ``Measurement`` and of the columns of reports.
MEASURES: Final = (
    Measure("seconds", "duration", lambda value: f"{value:,.1f} s", slack=5),
    Measure("cpu_seconds", "processor time", lambda value: f"{value:,.1f} s", slack=5),
    Measure("peak_mb", "peak memory", lambda value: f"{value:,.0f} MB", slack=100),
    Measure("bytes_fetched", "bytes fetched", bytes_text, slack=10 * MB),
    Measure("requests", "requests", lambda value: f"{value:,.0f}", slack=20),
    Measure("retries", "retries", lambda value: f"{value:,.0f}", slack=10),
    Measure("rows", "rows", lambda value: f"{value:,.0f}", slack=0, is_better_high=True),
)
