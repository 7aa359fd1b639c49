"""The metrics at ``/metrics`` for Prometheus: days (``day_metrics``), incidents, jobs, requests, the process.

Each app has its own registry, because other libraries in the process share the default one.
"""

from __future__ import annotations

import time
from collections import Counter as Counts
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from backfill_assets.alerts.incidents import TITLES
from backfill_assets.days import utc_now
from backfill_assets.failures import BackfillError
from backfill_assets.progress.day_metrics import DayMetrics
from backfill_assets.progress.model import FINAL_JOB_STATES
from backfill_assets.progress.service import UNFINISHED, Backfills

#: The target for statuses is an answer within 0.2 s.
_BUCKETS: Final = (0.005, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5)


class Metrics:
    """One registry with all metrics."""

    def __init__(self, service: Backfills, now: Callable[[], datetime] = utc_now) -> None:
        self.registry: Final = CollectorRegistry()
        self.registry.register(_Jobs(service))
        self.registry.register(_Incidents(service))
        self.registry.register(DayMetrics(service, now))
        ProcessCollector(registry=self.registry)
        labels = ("method", "route", "status")
        self.requests: Final = Counter(
            "backfill_http_requests", "Requests answered.", labels, registry=self.registry
        )
        self.seconds: Final = Histogram(
            "backfill_http_request_seconds",
            "Seconds until the answer began.",
            ("method", "route"),
            buckets=_BUCKETS,
            registry=self.registry,
        )


class _Jobs(Collector):
    def __init__(self, service: Backfills) -> None:
        self._service = service

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Yield jobs by state."""
        jobs = GaugeMetricFamily(
            "backfill_jobs",
            "Unfinished jobs by state, and the ended ones among the newest fifty.",
            labels=["state"],
        )
        counts = self._service.counts()
        for state in (*UNFINISHED, *sorted(FINAL_JOB_STATES)):
            jobs.add_metric([state], counts.get(state, 0))
        yield jobs


class _Incidents(Collector):
    def __init__(self, service: Backfills) -> None:
        self._service = service

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Yield open incidents by rule, and whether alerts fail; nothing if incidents cannot be read."""
        try:
            found = self._service.incidents()
        except BackfillError:
            return
        opened = GaugeMetricFamily("backfill_incidents_open", "Open incidents by rule.", labels=["rule"])
        counts = Counts(incident.rule for incident in found.open)
        for rule in TITLES:
            opened.add_metric([rule], counts[rule])
        yield opened
        failing = GaugeMetricFamily(
            "backfill_alerts_failing", "1 while a service refuses messages about incidents."
        )
        failing.add_metric([], int(bool(found.trouble)))
        yield failing


class MeasureRequests:
    """ASGI middleware that counts answers by route, so that a wrong address makes no new series."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on and measure the time until its answer begins."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()

        async def measured(message: Message) -> None:
            if message["type"] == "http.response.start":
                route = getattr(scope.get("route"), "path", "(none)")
                method = scope["method"] if scope["method"] in _METHODS else "(other)"
                self._metrics.requests.labels(method, route, str(message["status"])).inc()
                self._metrics.seconds.labels(method, route).observe(time.perf_counter() - began)
            await send(message)

        await self._app(scope, receive, measured)


_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
