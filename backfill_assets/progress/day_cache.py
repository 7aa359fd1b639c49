"""The stored days that statuses show, read once and kept for a while; bounded, for one process.

A day that was read before the end of a run that may have changed it is read again. Approvals and runs of
other backfills change days as well, so what is shown in full is also read again once it is old, a few days
at each look.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from backfill_assets.days import utc_now
from backfill_assets.progress.model import DayTruth

LOGGER: Final = logging.getLogger(__name__)
#: After so long a day is read again.
SECONDS_KEPT: Final = 60.0
#: Days that are read again because they are old, in one look: a look must not take longer for them.
MOST_OLD_DAYS: Final = 200
#: A day with few odd feeds is a kilobyte.
_MOST_DAYS: Final = 20_000
_TROUBLES_TOLD: Final = 3

Read = Callable[[Sequence[str]], Sequence[DayTruth | Exception]]


@dataclass(slots=True)
class _Kept:
    truth: DayTruth
    #: When the reading began, as Dagster's records tell the time.
    at: datetime
    checked: float


class DayCache:
    """Over one lake; safe to share among threads.

    Parameters
    ----------
    read
        Gives each of the days, or why it cannot be read, in order.
    """

    def __init__(self, read: Read) -> None:
        self._read = read
        self._kept: dict[str, _Kept] = {}
        self._reading = threading.Lock()

    def days(
        self, wanted: Mapping[str, datetime | None], *, again: bool
    ) -> tuple[dict[str, DayTruth], list[str]]:
        """The wanted days, and in words why some of them are not known.

        Parameters
        ----------
        wanted
            By day, when it may have changed for the last time.
        again
            Read some of the days that are old again.
        """
        troubles = []
        if self._outdated(wanted):
            # One at a time: statuses of the same days are often asked for together.
            with self._reading:
                troubles = self._load(self._outdated(wanted))
        if again and (old := self._old(wanted)) and self._reading.acquire(blocking=False):
            try:
                self._load(old[:MOST_OLD_DAYS])
            finally:
                self._reading.release()
        return {day: truth for day, since in wanted.items() if (truth := self._current(day, since))}, troubles

    def _current(self, day: str, since: datetime | None) -> DayTruth | None:
        kept = self._kept.get(day)
        return kept.truth if kept is not None and (since is None or kept.at >= since) else None

    def _outdated(self, wanted: Mapping[str, datetime | None]) -> list[str]:
        return [day for day, since in wanted.items() if self._current(day, since) is None]

    def _old(self, wanted: Mapping[str, datetime | None]) -> list[str]:
        before = time.monotonic() - SECONDS_KEPT
        checked = {day: kept.checked for day in wanted if (kept := self._kept.get(day)) is not None}
        return sorted((day for day, when in checked.items() if when < before), key=checked.__getitem__)

    def _load(self, days: Sequence[str]) -> list[str]:
        at, checked = utc_now(), time.monotonic()
        troubles = []
        for day, found in zip(days, self._read(days), strict=True):
            kept = self._kept.get(day)
            if isinstance(found, Exception):
                LOGGER.warning("%s cannot be read: %s", day, found)
                troubles.append(f"what came of {day} is not known yet: {found}")
            else:
                # The same object while nothing has changed, so that nobody compares twice.
                truth = kept.truth if kept is not None and kept.truth == found else found
                self._kept[day] = _Kept(truth, at, checked)
        if len(troubles) > _TROUBLES_TOLD:
            troubles[_TROUBLES_TOLD:] = [f"nor of {len(troubles) - _TROUBLES_TOLD} days more"]
        for day in list(self._kept)[: max(0, len(self._kept) - _MOST_DAYS)]:
            if day not in days:
                del self._kept[day]
        return troubles
