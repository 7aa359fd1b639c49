"""The content of a month's page: every feed on every day, from the summaries beside the day pages.

A summary is a small document, so that calendars of years are read quickly. ``fresh`` reads the days' own
documents, which an approval changes before the next run writes the summary.
"""

from __future__ import annotations

import calendar
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import AliasChoices, Field

from backfill_assets.candles.build import MEASURES_VERSION
from backfill_assets.days import day_range, parse_month
from backfill_assets.lake import documents, paths
from backfill_assets.lake.documents import Derived, Document
from backfill_assets.lake.manifests import FeedText
from backfill_assets.lake.parallel import parallel_map
from backfill_assets.lake.store import Store
from backfill_assets.quality.scores import Overall
from backfill_assets.quality.settled import Day, load_day
from backfill_assets.quality.verdict import RULES_VERSION, Outcome
from backfill_assets.settings import OverallSettings, Settings
from backfill_assets.ticks.fetch import SCHEMA_VERSION
from backfill_assets.ticks.partials import PARTIALS_VERSION
from backfill_assets.ticks.profile import PROFILE_VERSION
from backfill_assets.warehouse.overall import day_overall
from backfill_assets.warehouse.presence import data_files


class FeedSummary(Document):
    """A feed's verdict on one day."""

    feed: FeedText
    outcome: Outcome
    accepted: bool
    completeness: float | None
    completeness_state: str
    quality: float | None


class DaySummary(Derived):
    """A short summary of a day."""

    day: str
    #: ``build_version`` of the day's own run; empty where only a neighbor's run has written the summary.
    build_version: str = ""
    #: The ``SettledDay.versions`` that it summarizes.
    versions: str = ""
    #: Hash of everything on which the page depends.
    inputs: str = ""
    #: ``documents_hash`` of the documents from which it was made.
    documents: str = ""
    state: str
    sealed: bool
    #: Whether a file of the day has generated data.
    generated: bool = False
    completeness: float | None
    quality: float | None
    consistency: float | None = None
    #: The product of the parts.
    overall: float | None = None
    feeds: tuple[FeedSummary, ...]
    #: Bytes and sha256 of the day's page; null and empty in older summaries.
    page_bytes: int | None = None
    page_content: str = ""
    #: ``presence.data_files``; older summaries name the ticks only.
    data_files: dict[str, int] = Field({}, validation_alias=AliasChoices("data_files", "tick_files"))

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
    #: By day; days that were not run are left out.
    summaries: dict[str, DaySummary]
    #: Days that have a page of their own.
    pages: frozenset[str]

    @property
    def generated(self) -> bool:
        """Whether data of a day come from the stand-in and not from a market."""
        return any(summary.generated for summary in self.summaries.values())

    def cell(self, feed: str, day: str) -> FeedSummary | None:
        """The feed on the day; None where it was not expected or the day was not run."""
        summary = self.summaries.get(day)
        return next((f for f in summary.feeds if f.feed == feed), None) if summary else None


def build_version(settings: Settings) -> str:
    """Twelve hex digits that change with everything but the files that decides the result of a run."""
    versions = (SCHEMA_VERSION, PROFILE_VERSION, RULES_VERSION, PARTIALS_VERSION, MEASURES_VERSION)
    parts = {"candles", "comparison", "ohlcv", "overall", "thresholds", "warehouse"}
    text = f"{versions}:{settings.model_dump_json(include=parts)}"
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def summarize(
    store: Store,
    found: Day,
    overall: Overall | None,
    built: str = "",
    inputs: str = "",
    documents: str = "",
) -> DaySummary:
    """The day as its summary."""
    return DaySummary(
        day=found.day,
        build_version=built,
        versions=found.settled.versions,
        inputs=inputs,
        documents=documents,
        state=found.scores.state,
        sealed=found.is_sealed,
        generated=found.is_generated,
        completeness=found.scores.completeness,
        quality=found.scores.quality,
        consistency=found.scores.consistency,
        overall=overall.product if overall is not None else None,
        feeds=tuple(
            FeedSummary(
                feed=str(f.feed),
                outcome=f.verdict.outcome,
                accepted=f.accepted is not None,
                completeness=f.verdict.completeness,
                completeness_state=f.verdict.completeness_state,
                quality=f.verdict.quality,
            )
            for f in found.feeds
        ),
        data_files=data_files(store, found),
    )


def load_summary(store: Store, day: str) -> DaySummary | None:
    """Return the day's summary; None if no run has written one."""
    return documents.load(store, paths.day_summary(day), DaySummary)


def has_page(store: Store, summary: DaySummary) -> bool:
    """Whether the day's page exists in full size; true where the summary does not have its size."""
    return summary.page_bytes is None or store.size(paths.day_report(summary.day)) == summary.page_bytes


def page_problem(store: Store, day: str) -> str:
    """Why the day's page differs in any byte from the page that the last run wrote; empty if it does not."""
    summary, path = load_summary(store, day), paths.day_report(day)
    if summary is None:
        return ""
    known = summary.page_content
    if documents.digest(store, path) == known if known else store.size(path):
        return ""
    return f"{store.uri_of(path)} has changed since it was written: the next run of the day writes it again"


def documents_hash(digests: Sequence[str]) -> str:
    """Hash of the digests of a day's documents, in the order of ``documents_of``."""
    return hashlib.sha256("\n".join(digests).encode()).hexdigest()[:16]


def documents_of(day: str) -> tuple[str, str]:
    """Paths of the documents that decide the state of the day."""
    return paths.settled_day(day), paths.measures(day)


def current_summary(store: Store, day: str, weights: OverallSettings | None = None) -> DaySummary | None:
    """Return the day's summary by its present documents; None if the day was never settled.

    The summary is written with the day's page. A run of only some assets settles a day, makes its candles or
    publishes it without a page; then the documents themselves are read. Versions and build of the summary
    remain those of the day's own run.

    Parameters
    ----------
    weights
        Weights of the overall score; without them the score of a day whose documents were read is None.
    """
    summary = load_summary(store, day)
    now = documents_hash([documents.digest(store, path) for path in documents_of(day)])
    if summary is not None and summary.documents == now:
        return summary
    found = load_day(store, day)
    if found is None:
        return summary
    overall = day_overall(store, found, weights) if weights is not None else None
    made = summarize(store, found, overall)
    if summary is None:
        return made.model_copy(update={"versions": ""})
    names = ("build_version", "versions", "page_bytes", "page_content")
    kept = {name: getattr(summary, name) for name in names}
    return made.model_copy(update=kept)


def days_of(month: str) -> list[str]:
    """The days of ``YYYY-MM``; any other text raises ``PermanentFailure``."""
    first = parse_month(month)
    last = calendar.monthrange(first.year, first.month)[1]
    return day_range(f"{month}-01", f"{month}-{last:02d}")


def month_report(store: Store, settings: Settings, month: str, *, fresh: bool = False) -> MonthReport:
    """Read the month from the lake; ``fresh`` reads the days' own documents instead of their summaries."""
    days = days_of(month)

    def summary_of(day: str) -> DaySummary | None:
        found = load_day(store, day) if fresh else None
        if found is None:
            return current_summary(store, day, settings.overall)
        return summarize(store, found, day_overall(store, found, settings.overall))

    summaries = parallel_map(summary_of, days, store.parallel_reads)
    # A day without feeds is shown only where no feed is expected of it.
    found = [s for s in summaries if s is not None and (s.feeds or s.state == "published")]
    pages = parallel_map(lambda s: store.exists(paths.day_report(s.day)), found, store.parallel_reads)
    return MonthReport(
        month=month,
        days=tuple(days),
        feeds=tuple(sorted({f.feed for s in found for f in s.feeds})),
        summaries={s.day: s for s in found},
        pages=frozenset(s.day for s, there in zip(found, pages, strict=True) if there),
    )
