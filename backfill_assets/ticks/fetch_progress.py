"""Writes the progress of a day's feeds as text for viewers, a few times a minute.

It is separate from ``assets`` because it does not depend on Dagster: the caller gives it a function that
writes. Each text is complete, so a reader needs only the latest. The last text stays as the run's totals, and
names no feed.
"""

from __future__ import annotations

import json
import time
from collections import Counter, deque
from collections.abc import Callable
from typing import Final

from backfill_assets.days import utc_now
from backfill_assets.ticks.fetch import FeedOutcome

#: A write takes about 20 ms with SQLite, and people do not read faster.
SECONDS_BETWEEN_WRITES: Final = 2.0
#: Most feeds named of those with a problem, and of the latest others. A day may have thousands.
FEEDS_NAMED: Final = 100

_IN_ORDER: Final = ("fetched", "kept")


class FetchProgress:
    """Takes each outcome that ``fetch_day`` reports, and writes JSON from time to time and at the end."""

    def __init__(self, write: Callable[[str], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._write = write
        self._clock = clock
        self._written: float | None = None
        self._states: Counter[str] = Counter()
        self._rows = self._raw_bytes = self._fetched_bytes = 0
        self._latest: deque[FeedOutcome] = deque(maxlen=FEEDS_NAMED)
        self._odd: deque[FeedOutcome] = deque(maxlen=FEEDS_NAMED)

    def __call__(self, outcome: FeedOutcome, done: int, total: int) -> None:
        """Count one finished feed; ``done`` feeds are finished now."""
        self._states[outcome.state] += 1
        self._rows += outcome.rows
        self._raw_bytes += outcome.raw_bytes
        self._fetched_bytes += outcome.raw_bytes if outcome.state == "fetched" else 0
        (self._latest if outcome.state in _IN_ORDER else self._odd).append(outcome)
        now = self._clock()
        if done < total and self._written is not None and now - self._written < SECONDS_BETWEEN_WRITES:
            return
        self._written = now
        feeds = [
            {
                "feed": str(o.feed),
                "state": o.state,
                "rows": o.rows,
                "raw_bytes": o.raw_bytes,
                "reason": o.reason,
            }
            for o in (*self._odd, *self._latest)
            if done < total
        ]
        content = {
            "done": done,
            "total": total,
            "rows": self._rows,
            "raw_bytes": self._raw_bytes,
            "fetched_bytes": self._fetched_bytes,
            "written": utc_now().isoformat(),
            "states": dict(sorted(self._states.items())),
            "feeds": feeds,
        }
        self._write(json.dumps(content, separators=(",", ":")))
