"""The content of a day's page as plain values, read from the lake alone.

Nothing here knows HTML. The same lake gives the same report, so that a page is written only after a change;
the time of writing is not part of the report.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from backfill_assets.candles.query import of_timeframe, read_made
from backfill_assets.candles.schemas import CANDLE_SCHEMA
from backfill_assets.failures import PermanentFailure, Unreadable
from backfill_assets.feeds import Feed
from backfill_assets.lake.evidence import Restatement
from backfill_assets.lake.manifests import Dropped, FeedManifest, load_manifest, with_reasons
from backfill_assets.lake.parallel import parallel_map
from backfill_assets.lake.store import Store
from backfill_assets.quality.scores import Overall
from backfill_assets.quality.settled import Day, SettledFeed, load_day
from backfill_assets.quality.verdict import Outcome
from backfill_assets.references.day import load_comparison
from backfill_assets.report.actions import Action, actions_of
from backfill_assets.report.comparisons import (
    AgreementLine,
    DifferenceLine,
    agreements_of,
    differences_of,
    ways_of,
)
from backfill_assets.report.evidence import CHART_TIMEFRAMES, FeedReport, day_candles, feed_report
from backfill_assets.settings import (
    OverallSettings,
    RestatementSettings,
    Settings,
)
from backfill_assets.warehouse import ledger
from backfill_assets.warehouse.catalog import CANDLES, COVERAGE, INSTRUMENTS, QUALITY, TICKS
from backfill_assets.warehouse.overall import day_overall, tick_tables

#: Worst first.
SEVERITY: Final[dict[Outcome, int]] = {"missing": 0, "quarantine": 1, "no_evidence": 2, "publish": 3}


@dataclass(frozen=True, slots=True)
class ScoreLine:
    """A score of the day with its threshold; null means no evidence, and is not passed."""

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
    """A pending version: it is neither merged nor published."""

    feed: Feed
    content: str
    rows: int
    fetched_at: datetime
    outcome: str
    reasons: tuple[str, ...]
    #: Whether an accepted version stays published meanwhile.
    replaces: bool
    #: The change from that version to the pending one; null where they were not compared.
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
    #: Weights of the parts of the overall score.
    weights: OverallSettings
    #: The remedies, most urgent first.
    actions: tuple[Action, ...]
    #: Worst first, then by name.
    feeds: tuple[FeedReport, ...]
    agreements: tuple[AgreementLine, ...]
    #: The first minutes of each market in which our candle and a source's differ.
    differences: tuple[DifferenceLine, ...]
    #: Why sources could not be compared, why only in part, and the markets that they do not have.
    reference_failures: tuple[str, ...]
    partly_compared: tuple[str, ...]
    not_compared: tuple[str, ...]
    #: How the sources make their candles.
    ways: tuple[str, ...]
    publications: tuple[PublicationLine, ...]
    pending: tuple[PendingLine, ...]
    not_listed: tuple[str, ...]
    dropped: tuple[Dropped, ...]
    awaiting_export: tuple[str, ...]
    #: Whether the data come from the stand-in and not from a market.
    generated: bool
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
    found = load_day(store, day)
    if found is None:
        msg = f"the lake {store.uri} has nothing of {day}: run the day first"
        raise PermanentFailure(msg)
    publications = _publications(store, found)
    made = found.measures if found.measures is not None and found.measures.candles is not None else None
    table = read_made(store, day, "candles") if made else CANDLE_SCHEMA.empty_table()
    candles = day_candles({name: of_timeframe(table, day, name) for name in CHART_TIMEFRAMES}, day)
    compared = load_comparison(store, day)
    manifests = parallel_map(lambda f: _manifest(store, f.feed, day), found.feeds, store.parallel_reads)
    feeds = [
        feed_report(
            feed,
            manifest,
            day,
            settings.thresholds,
            candles,
            made.minutes.get(str(feed.feed)) if made else None,
            _published(feed, found, publications),
        )
        for feed, manifest in zip(found.feeds, manifests, strict=True)
    ]
    feeds.sort(key=lambda f: (SEVERITY[f.verdict.outcome], f.feed))
    held = found.scores.state == "held"
    absent = [(p.table, p.failure or "is not published") for p in publications if p.state != "done"]
    return DayReport(
        day=day,
        state=found.scores.state,
        sealed=found.is_sealed,
        reasons=found.scores.reasons,
        scores=_scores(found),
        overall=day_overall(store, found, settings.overall),
        weights=settings.overall,
        actions=actions_of(
            day,
            feeds,
            [] if held else absent,
            found.settled.limits.day_completeness,
            generated=found.is_generated,
        ),
        feeds=tuple(feeds),
        agreements=agreements_of(made, compared, settings.comparison) if made else (),
        differences=differences_of(compared),
        reference_failures=compared.failures if compared else (),
        partly_compared=compared.partly if compared else (),
        not_compared=compared.not_compared if compared else (),
        ways=ways_of(compared),
        publications=publications,
        pending=tuple(
            line for feed in found.feeds for line in _pending(feed, settings.thresholds.restatement)
        ),
        not_listed=tuple(with_reasons(found.settled.not_listed, found.settled.why_not_listed)),
        dropped=found.settled.dropped,
        awaiting_export=found.settled.awaiting_export,
        generated=found.is_generated,
        rules=found.settled.rules,
    )


def _manifest(store: Store, feed: Feed, day: str) -> FeedManifest:
    """The feed's manifest; an empty one if it cannot be read, which the day's document reports."""
    try:
        return load_manifest(store, feed, day)
    except Unreadable:
        return FeedManifest(feed=str(feed), day=day)


def _published(feed: SettledFeed, day: Day, publications: Sequence[PublicationLine]) -> str:
    if feed.accepted is None or day.scores.state == "held":
        return "no"
    done = {p.table for p in publications if p.state == "done"}
    return "yes" if TICKS[feed.feed.data_type].name in done else "not yet"


def _scores(day: Day) -> tuple[ScoreLine, ...]:
    found, thresholds = day.scores, day.settled.limits

    def line(name: str, value: float | None, threshold: float, meaning: str) -> ScoreLine:
        passed = value > threshold if value is not None else not day.feeds
        return ScoreLine(name, value, threshold, passed, meaning)

    share, least = found.accepted_share, thresholds.hold_below
    return (
        line("Completeness", found.completeness, thresholds.day_completeness, "how much of it is present"),
        line("Quality", found.quality, thresholds.day_quality, "how sound the accepted rows are"),
        line("Consistency", found.consistency, thresholds.day_consistency, "candles agree with their ticks"),
        # Unlike a score, the share may equal its threshold.
        ScoreLine("Accepted feeds", share, least, share >= least, "with fewer the day is held"),
    )


def _publications(store: Store, day: Day) -> tuple[PublicationLine, ...]:
    lines = []
    for table in (INSTRUMENTS, *tick_tables(store, day), CANDLES, COVERAGE, QUALITY):
        entry = ledger.entry(store, table.name, day.day)
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


def _pending(feed: SettledFeed, limits: RestatementSettings) -> list[PendingLine]:
    candidate, verdict = feed.candidate, feed.candidate_verdict
    if candidate is None:
        return []
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
