"""What the page of a day shows, as plain values: a pure reading of the lake.

Nothing here knows HTML. The same lake gives the same report, so that a page is only written when something
has changed; the time of writing is no part of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Final

from backfill_assets.candles.day import merged_candles
from backfill_assets.candles.measures import ensure_measures
from backfill_assets.failures import PermanentFailure
from backfill_assets.feeds import Feed
from backfill_assets.lake import documents, paths
from backfill_assets.lake.gather import gather
from backfill_assets.lake.store import Store
from backfill_assets.quality.coverage import load_coverage
from backfill_assets.quality.day import FeedVerdicts, JudgedDay, JudgedFeed, judge
from backfill_assets.quality.restatement import Restatement
from backfill_assets.quality.scores import Overall
from backfill_assets.quality.verdict import Outcome
from backfill_assets.report.evidence import CHART_TIMEFRAMES, FeedReport, candles_by_market, feed_report
from backfill_assets.report.others import AgreementLine, agreements_of
from backfill_assets.report.todo import Task, tasks_of
from backfill_assets.settings import (
    OverallSettings,
    RestatementSettings,
    Settings,
    ThresholdSettings,
)
from backfill_assets.warehouse import ledger
from backfill_assets.warehouse.catalog import CANDLES, COVERAGE, INSTRUMENTS, QUALITY, TICKS
from backfill_assets.warehouse.overall import day_overall, tick_tables

if TYPE_CHECKING:
    pass

#: Worst first.
SEVERITY: Final[dict[Outcome, int]] = {"missing": 0, "quarantine": 1, "no_evidence": 2, "publish": 3}


@dataclass(frozen=True, slots=True)
class ScoreLine:
    """A score of the day against its threshold; null is without evidence, and not passed."""

    name: str
    value: float | None
    threshold: float
    passed: bool
    meaning: str


@dataclass(frozen=True, slots=True)
class PublicationLine:
    """The ledger's entry of one table."""

    table: str
    state: str
    rows: int | None
    generation: int
    published_at: datetime | None
    failure: str | None


@dataclass(frozen=True, slots=True)
class PendingLine:
    """A version that waits: it is neither merged nor published."""

    feed: Feed
    content: str
    rows: int
    fetched_at: datetime
    outcome: str
    reasons: tuple[str, ...]
    #: Whether an accepted version stays published meanwhile.
    replaces: bool
    #: What it would change against that version; null where they were not compared.
    restatement: Restatement | None
    #: The limits of a restatement that it exceeds.
    beyond: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class DayReport:
    """Everything that the page of a day shows."""

    day: str
    state: str
    sealed: bool
    reasons: tuple[str, ...]
    scores: tuple[ScoreLine, ...]
    overall: Overall
    #: Of the parts of the overall score.
    weights: OverallSettings
    #: What is to be done, most urgent first.
    tasks: tuple[Task, ...]
    #: Worst first, then by name.
    feeds: tuple[FeedReport, ...]
    agreements: tuple[AgreementLine, ...]
    #: Why candles could not be held against the reference, if they could not.
    reference_failure: str
    publications: tuple[PublicationLine, ...]
    pending: tuple[PendingLine, ...]
    not_listed: tuple[str, ...]
    awaiting_export: tuple[str, ...]
    #: Hash of the thresholds and rules of the verdicts.
    rules: str

    @property
    def rows(self) -> int:
        """Rows of the accepted files."""
        return sum(f.verdict.rows for f in self.feeds if f.accepted)


def day_report(store: Store, settings: Settings, day: str) -> DayReport:
    """Read the day from the lake.

    Raises
    ------
    PermanentFailure
        The lake has nothing of the day.
    """
    judged = judged_day(store, settings, day)
    if judged.record is None or not judged.feeds:
        msg = f"the lake {store.uri} has nothing of {day}: run the day first"
        raise PermanentFailure(msg)
    publications = _publications(store, judged)
    merged = merged_candles(store, day, settings, CHART_TIMEFRAMES)
    candles = candles_by_market(merged)
    coverage = gather(lambda f: load_coverage(store, f.feed, day), judged.feeds, store.parallel_reads)
    feeds = [
        feed_report(feed, day, settings.thresholds, candles, states, _published(feed, judged, publications))
        for feed, states in zip(judged.feeds, coverage, strict=True)
    ]
    feeds.sort(key=lambda f: (SEVERITY[f.verdict.outcome], f.feed))
    agreements, reference_failure = agreements_of(merged, day, settings.comparison)
    held = judged.scores.state == "held"
    absent = [(p.table, p.failure or "is not published") for p in publications if p.state != "done"]
    return DayReport(
        day=day,
        state=judged.scores.state,
        sealed=judged.sealed,
        reasons=judged.scores.reasons,
        scores=_scores(judged, settings.thresholds),
        overall=day_overall(store, judged, settings.overall),
        weights=settings.overall,
        tasks=tasks_of(day, feeds, [] if held else absent),
        feeds=tuple(feeds),
        agreements=agreements,
        reference_failure=reference_failure,
        publications=publications,
        pending=tuple(
            line
            for feed in judged.feeds
            for line in _pending(store, feed, day, settings.thresholds.restatement)
        ),
        not_listed=judged.record.not_listed,
        awaiting_export=judged.record.awaiting_export,
        rules=judged.feeds[0].verdict.rules,
    )


def judged_day(store: Store, settings: Settings, day: str) -> JudgedDay:
    """Judge the day as publishing does: with its candles compared, whichever run did that before."""
    ensure_measures(store, day, settings)
    return judge(store, day, settings.thresholds)


def _published(feed: JudgedFeed, judged: JudgedDay, publications: Sequence[PublicationLine]) -> str:
    if feed.accepted is None or judged.scores.state == "held":
        return "no"
    done = {p.table for p in publications if p.state == "done"}
    return "yes" if TICKS[feed.feed.data_type].name in done else "not yet"


def _scores(judged: JudgedDay, thresholds: ThresholdSettings) -> tuple[ScoreLine, ...]:
    found = judged.scores

    def line(name: str, value: float | None, threshold: float, meaning: str) -> ScoreLine:
        return ScoreLine(name, value, threshold, value is not None and value > threshold, meaning)

    share, least = found.accepted_share, thresholds.hold_below
    return (
        line("Completeness", found.completeness, thresholds.day_completeness, "how much of it is there"),
        line("Quality", found.quality, thresholds.day_quality, "how sound the accepted rows are"),
        line("Consistency", found.consistency, thresholds.day_consistency, "candles agree with their ticks"),
        # Unlike a score, the share may equal its threshold.
        ScoreLine("Accepted feeds", share, least, share >= least, "with fewer the day is held"),
    )


def _publications(store: Store, judged: JudgedDay) -> tuple[PublicationLine, ...]:
    lines = []
    for table in (INSTRUMENTS, *tick_tables(judged), CANDLES, COVERAGE, QUALITY):
        entry = ledger.entry(store, table.name, judged.day)
        done = entry.published if entry else None
        lines.append(
            PublicationLine(
                table=table.name,
                state="never" if entry is None else entry.state,
                rows=done.rows if done else None,
                generation=done.generation if done else entry.generation if entry else 0,
                published_at=done.published_at if done else None,
                failure=entry.failure if entry else None,
            )
        )
    return tuple(lines)


def _pending(store: Store, feed: JudgedFeed, day: str, limits: RestatementSettings) -> list[PendingLine]:
    candidate = feed.manifest.candidate
    if candidate is None:
        return []
    stored, _ = documents.load(store, paths.verdict(feed.feed, day), FeedVerdicts)
    verdict = stored.candidate if stored else None
    found = feed.restatement
    restated = found if found is not None and found.after == candidate.content else None
    return [
        PendingLine(
            feed=feed.feed,
            content=candidate.content,
            rows=candidate.rows,
            fetched_at=candidate.fetched_at,
            outcome=verdict.outcome if verdict else "not judged",
            reasons=verdict.reasons if verdict else (),
            replaces=feed.accepted is not None,
            restatement=restated,
            beyond=restated.beyond(limits) if restated else (),
        )
    ]
