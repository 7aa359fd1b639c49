"""Metrics of the last days at ``/metrics``, from stored documents of lake and ledger, which survive restarts.

They are read at most once a minute, since a day takes several documents of the lake.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Final

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from backfill_assets.automation.due import look_back
from backfill_assets.days import parse_day, utc_now
from backfill_assets.failures import BackfillError
from backfill_assets.progress.model import CalendarDay
from backfill_assets.progress.service import Backfills
from backfill_assets.quality.settled import Day, load_day
from backfill_assets.warehouse.presence import published_lag

#: Seconds for which the last reading of the days is reported.
SECONDS: Final = 60
STATES: Final = ("published", "degraded", "held", "missing", "unreadable")


class DayMetrics(Collector):
    """Gauges of yesterday, and the states of the days that the schedule covers."""

    def __init__(self, service: Backfills, now: Callable[[], datetime] = utc_now) -> None:
        self._service = service
        self._now = now
        self._lock = threading.Lock()
        self._read: float | None = None
        self._families: list[GaugeMetricFamily] = []

    def describe(self) -> list[GaugeMetricFamily]:
        """Return nothing: otherwise a registry would read the lake to learn the names."""
        return []

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Yield all gauges except those that cannot be read now."""
        with self._lock:
            if self._read is None or time.monotonic() - self._read > SECONDS:
                self._read, self._families = time.monotonic(), []
                try:
                    self._families = list(self._of_days(self._now()))
                except BackfillError:
                    # Readiness and the log report the failure; a scrape shows the known values.
                    self._families = []
            families = self._families
        yield from families

    def _of_days(self, now: datetime) -> Iterator[GaugeMetricFamily]:
        days = look_back(now.astimezone(UTC).date(), self._service.settings)
        yield _states(self._service.days(parse_day(days[0]), parse_day(days[-1])))
        found = load_day(self._service.store, days[-1])
        if found is not None:
            yield from _of_yesterday(found)
            lag = published_lag(self._service.store, days[-1])
            if lag is not None:
                name, text = (
                    "backfill_yesterday_lag_seconds",
                    "Seconds from 09:00 UTC until yesterday was published.",
                )
                yield _gauge(name, text, lag.total_seconds())


def _states(days: list[CalendarDay]) -> GaugeMetricFamily:
    states = GaugeMetricFamily(
        "backfill_day_state",
        "1 for the state of each recent day; 1 day ago is yesterday.",
        labels=["days_ago", "state"],
    )
    for ago, day in enumerate(reversed(days), start=1):
        for state in STATES:
            states.add_metric([str(ago), state], int(day.outcome == state))
    return states


def _of_yesterday(found: Day) -> Iterator[GaugeMetricFamily]:
    accepted = [feed.accepted for feed in found.feeds if feed.accepted is not None]
    feeds = GaugeMetricFamily("backfill_yesterday_feeds", "Expected feeds by verdict.", labels=["verdict"])
    for verdict, count in sorted(Counter(feed.verdict.outcome for feed in found.feeds).items()):
        feeds.add_metric([verdict], count)
    yield feeds
    yield _gauge("backfill_yesterday_feeds_accepted", "Feeds with an accepted version.", len(accepted))
    yield _gauge("backfill_yesterday_rows", "Rows of the accepted files.", sum(v.rows for v in accepted))
    raw = sum(v.raw_bytes for v in accepted)
    yield _gauge("backfill_yesterday_raw_bytes", "Compressed bytes of the accepted files.", raw)
    paced = sum(v.paced_seconds for v in accepted)
    text = "Seconds that downloads of the accepted files waited for tardis.requests_per_minute."
    yield _gauge("backfill_yesterday_rate_limit_wait_seconds", text, paced)
    scores = GaugeMetricFamily("backfill_yesterday_score", "Scores of the day, 0 to 1.", labels=["score"])
    for name in ("completeness", "quality", "consistency"):
        value = getattr(found.scores, name)
        if value is not None:
            scores.add_metric([name], value)
    yield scores


def _gauge(name: str, text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, text, value=value)
