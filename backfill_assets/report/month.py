"""What the page of a month shows: every feed on every day, from the summaries beside the day pages.

A summary is a small document, so that a month is 31 reads and not 31 judgements; ``fresh`` judges all the
same.
"""

from __future__ import annotations

import calendar
import hashlib
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict

from backfill_assets.candles.day import PARTIALS_VERSION
from backfill_assets.candles.measures import MEASURES_VERSION
from backfill_assets.days import day_range, parse_day
from backfill_assets.lake import documents, paths
from backfill_assets.lake.gather import gather
from backfill_assets.lake.manifests import load_day_record
from backfill_assets.lake.store import Store
from backfill_assets.quality.day import JudgedDay
from backfill_assets.quality.scores import Overall
from backfill_assets.quality.verdict import RULES_VERSION, Outcome
from backfill_assets.report.model import judged_day
from backfill_assets.settings import Settings
from backfill_assets.ticks.fetch import SCHEMA_VERSION
from backfill_assets.ticks.profile import PROFILE_VERSION
from backfill_assets.warehouse.overall import day_overall


class FeedSummary(BaseModel):
    """A feed's verdict on one day."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    feed: str
    outcome: Outcome
    accepted: bool
    completeness: float | None
    completeness_state: str
    quality: float | None


class DaySummary(BaseModel):
    """A day in a few lines."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    day: str
    #: ``making_of`` the day's own run; empty where only a neighbour's run has written the summary.
    making: str = ""
    #: ``JudgedDay.versions`` that it speaks of.
    versions: str = ""
    state: str
    sealed: bool
    completeness: float | None
    quality: float | None
    consistency: float | None = None
    #: The product of the parts.
    overall: float | None = None
    feeds: tuple[FeedSummary, ...]

    @property
    def left_out(self) -> tuple[str, ...]:
        """The feeds that are not accepted."""
        return tuple(feed.feed for feed in self.feeds if not feed.accepted)


@dataclass(frozen=True, slots=True)
class MonthReport:
    """Everything that the page of a month shows."""

    month: str
    days: tuple[str, ...]
    feeds: tuple[str, ...]
    #: By day; a day that was not run is not in it.
    summaries: dict[str, DaySummary]
    #: Days that have a page of their own.
    pages: frozenset[str]

    def cell(self, feed: str, day: str) -> FeedSummary | None:
        """The feed on that day; None where it was not expected or the day was not run."""
        summary = self.summaries.get(day)
        return next((f for f in summary.feeds if f.feed == feed), None) if summary else None


def making_of(settings: Settings) -> str:
    """Twelve hex digits that change with whatever else than the files decides what a day's run makes."""
    versions = (SCHEMA_VERSION, PROFILE_VERSION, RULES_VERSION, PARTIALS_VERSION, MEASURES_VERSION)
    parts = {"candles", "comparison", "ohlcv", "overall", "thresholds", "warehouse"}
    text = f"{versions}:{settings.model_dump_json(include=parts)}"
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def summarize(judged: JudgedDay, overall: Overall, making: str = "") -> DaySummary:
    """The judged day as its summary."""
    return DaySummary(
        day=judged.day,
        making=making,
        versions=judged.versions,
        state=judged.scores.state,
        sealed=judged.sealed,
        completeness=judged.scores.completeness,
        quality=judged.scores.quality,
        consistency=judged.scores.consistency,
        overall=overall.product,
        feeds=tuple(
            FeedSummary(
                feed=str(f.feed),
                outcome=f.verdict.outcome,
                accepted=f.accepted is not None,
                completeness=f.verdict.completeness,
                completeness_state=f.verdict.completeness_state,
                quality=f.verdict.quality,
            )
            for f in judged.feeds
        ),
    )


def days_of(month: str) -> list[str]:
    """The days of ``YYYY-MM``; anything else is a ``PermanentFailure``."""
    first = parse_day(f"{month}-01")
    last = calendar.monthrange(first.year, first.month)[1]
    return day_range(f"{month}-01", f"{month}-{last:02d}")


def month_report(store: Store, settings: Settings, month: str, *, fresh: bool = False) -> MonthReport:
    """Read the month from the lake; ``fresh`` judges each day that was run instead of reading its summary."""
    days = days_of(month)

    def summary_of(day: str) -> DaySummary | None:
        stored, _ = documents.load(store, paths.day_summary(day), DaySummary)
        if (stored is not None and not fresh) or load_day_record(store, day) is None:
            return stored
        judged = judged_day(store, settings, day)
        making = stored.making if stored is not None else ""
        return summarize(judged, day_overall(store, judged, settings.overall), making)

    found = [s for s in gather(summary_of, days, store.parallel_reads) if s is not None and s.feeds]
    pages = gather(lambda s: store.exists(paths.day_report(s.day)), found, store.parallel_reads)
    return MonthReport(
        month=month,
        days=tuple(days),
        feeds=tuple(sorted({f.feed for s in found for f in s.feeds})),
        summaries={s.day: s for s in found},
        pages=frozenset(s.day for s, there in zip(found, pages, strict=True) if there),
    )
