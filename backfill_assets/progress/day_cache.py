"""The stored days that statuses show, read once and kept for a while; a bounded cache for one process.

A day that was read before the end of a run that may have changed it is read again before the answer.
Approvals and runs of other backfills change days too, so days shown in full are also read again once they are
old. They are read a few at a time in a separate thread, since reading a bucket takes seconds.
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
from backfill_assets.failures import BackfillError
from backfill_assets.lake.parallel import parallel_map
from backfill_assets.lake.store import Store
from backfill_assets.logs import bound
from backfill_assets.progress.model import StoredDay

LOGGER: Final = logging.getLogger(__name__)
#: A day is read again after this many seconds.
SECONDS_KEPT: Final = 60.0
#: Most old days that one thread reads again before it ends.
MOST_OLD_DAYS: Final = 200
#: The name of the thread that reads old days again.
OLD_DAYS: Final = "old days"
#: A day with few unusual feeds takes a kilobyte.
_MOST_DAYS: Final = 20_000
_TROUBLES_TOLD: Final = 3

ReadDay = Callable[[Store, str], StoredDay]


@dataclass(slots=True)
class _Kept:
    stored: StoredDay
    #: When the reading began, on the clock of Dagster's records.
    at: datetime
    checked: float


class DayCache:
    """A cache over one lake; safe to share among threads.

    Parameters
    ----------
    store
        Returns the lake that the settings name now.
    """

    def __init__(self, store: Callable[[], Store], read: ReadDay) -> None:
        self._store = store
        self._read = read
        self._kept: dict[str, _Kept] = {}
        self._reading = threading.Lock()
        self._reading_old = threading.Lock()

    def days(
        self, wanted: Mapping[str, datetime | None], *, again: bool
    ) -> tuple[dict[str, StoredDay], list[str]]:
        """Return the wanted days, and the reasons for those that are not known.

        Parameters
        ----------
        wanted
            By day, the time of the last possible change.
        again
            Begin to read again some of the old days; a later call returns them.
        """
        troubles = []
        if self._outdated(wanted):
            # One thread at a time: the same days are often requested together.
            with self._reading:
                troubles = self._load(self._outdated(wanted))
        if again and (old := self._old(wanted)) and self._reading_old.acquire(blocking=False):
            days = old[:MOST_OLD_DAYS]
            threading.Thread(target=self._load_old, args=(days,), name=OLD_DAYS, daemon=True).start()
        found = {day: self._current(day, since) for day, since in wanted.items()}
        return {day: stored for day, stored in found.items() if stored is not None}, troubles

    def _current(self, day: str, since: datetime | None) -> StoredDay | None:
        kept = self._kept.get(day)
        return kept.stored if kept is not None and (since is None or kept.at >= since) else None

    def _outdated(self, wanted: Mapping[str, datetime | None]) -> list[str]:
        return [day for day, since in wanted.items() if self._current(day, since) is None]

    def _old(self, wanted: Mapping[str, datetime | None]) -> list[str]:
        before = time.monotonic() - SECONDS_KEPT
        checked = {day: kept.checked for day in wanted if (kept := self._kept.get(day)) is not None}
        return sorted((day for day, when in checked.items() if when < before), key=checked.__getitem__)

    def _load_old(self, days: Sequence[str]) -> None:
        try:
            self._load(days)
        finally:
            self._reading_old.release()

    def _load(self, days: Sequence[str]) -> list[str]:
        at, checked, store = utc_now(), time.monotonic(), self._store()

        def read(day: str) -> StoredDay | Exception:
            try:
                return self._read(store, day)
            except (BackfillError, OSError) as failure:
                return failure

        troubles = []
        for day, found in zip(days, parallel_map(read, days, store.parallel_reads), strict=True):
            kept = self._kept.get(day)
            if isinstance(found, Exception):
                with bound(day=day):
                    LOGGER.warning("%s cannot be read: %s", day, found)
                troubles.append(f"the outcome of {day} is not known yet: {found}")
            elif kept is None or kept.at <= at:
                # Keep the same object while nothing has changed, so that readers need not compare again.
                stored = kept.stored if kept is not None and kept.stored == found else found
                self._kept[day] = _Kept(stored, at, checked)
        if len(troubles) > _TROUBLES_TOLD:
            troubles[_TROUBLES_TOLD:] = [f"nor that of {len(troubles) - _TROUBLES_TOLD} more days"]
        for day in list(self._kept)[: max(0, len(self._kept) - _MOST_DAYS)]:
            if day not in days:
                self._kept.pop(day, None)
        return troubles
