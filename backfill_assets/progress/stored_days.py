"""Days by the lake and the ledger, read without Dagster and without regard to its runs.

``stored_day`` reads the day's own documents, after a run of the day or of a neighbor. ``summarized_day`` and
``calendar`` read one summary and the ledger per day, for ranges of any length.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from backfill_assets.days import day_range
from backfill_assets.lake import documents, paths
from backfill_assets.lake.parallel import parallel_map
from backfill_assets.lake.store import Store
from backfill_assets.progress.model import CalendarDay, FeedVerdict, StoredDay, StoredState
from backfill_assets.quality.remedies import can_heal, heal_command, run_day
from backfill_assets.quality.settled import Day, SettledDay, SettledFeed, load_day
from backfill_assets.report.month import DaySummary, current_summary
from backfill_assets.settings import Settings
from backfill_assets.warehouse import ledger
from backfill_assets.warehouse.presence import data_files, lost_files, unpublished_tables


def stored_day(store: Store, settings: Settings, day: str) -> StoredDay:
    """Return the settled day; if its verdict allows, it is published once its tables and files exist."""
    found = load_day(store, day)
    if found is None:
        return _unknown(day, documents.damage(store, paths.settled_day(day), SettledDay))
    scores = found.scores
    data_types = {f.feed.data_type for f in found.feeds}
    outcome, reasons = _outcome(store, settings, day, scores.state, data_types, data_files(store, found))
    return StoredDay(
        outcome=outcome,
        sealed=found.is_sealed,
        feeds=len(found.feeds),
        verdicts=dict(sorted(Counter(f.verdict.outcome for f in found.feeds).items())),
        completeness=scores.completeness,
        quality=scores.quality,
        consistency=scores.consistency,
        notable=tuple(_verdict(f) for f in found.feeds if _is_notable(f)),
        reasons=(*scores.reasons, *reasons),
        command=_first_remedy(found, outcome),
    )


def summarized_day(store: Store, settings: Settings, day: str) -> StoredDay:
    """Return the day from its summary, which does not include waiting versions."""
    summary = current_summary(store, day)
    if summary is None:
        return _unknown(day, documents.damage(store, paths.day_summary(day), DaySummary))
    outcome, reasons = _summarized(store, settings, summary)
    return StoredDay(
        outcome=outcome,
        sealed=summary.sealed,
        feeds=len(summary.feeds),
        verdicts=dict(sorted(Counter(feed.outcome for feed in summary.feeds).items())),
        completeness=summary.completeness,
        quality=summary.quality,
        consistency=summary.consistency,
        notable=tuple(
            FeedVerdict(feed=f.feed, outcome=f.outcome, accepted=f.accepted, pending=False)
            for f in summary.feeds
            if f.outcome != "publish"
        ),
        reasons=reasons,
    )


def calendar(store: Store, settings: Settings, first: str, last: str) -> list[CalendarDay]:
    """Return every day of the range; a day that was never judged is missing.

    A change of thresholds shows after the next run.
    """
    folders = {path(first).removesuffix(f"{first}.json") for path in (paths.day_summary, paths.settled_day)}
    stored = {path for folder in folders for path in store.list(folder)}

    def of_day(day: str) -> CalendarDay:
        was_run = {paths.day_summary(day), paths.settled_day(day)} & stored
        summary = current_summary(store, day) if was_run else None
        page = store.uri_of(paths.day_report(day)) if paths.day_report(day) in stored else None
        if summary is None:
            return CalendarDay(day=day, outcome="unreadable" if was_run else "missing", report=page)
        return CalendarDay(
            day=day,
            outcome=_summarized(store, settings, summary)[0],
            sealed=summary.sealed,
            quarantined=tuple(f.feed for f in summary.feeds if not f.accepted),
            feeds=len(summary.feeds),
            completeness=summary.completeness,
            quality=summary.quality,
            report=page,
        )

    return parallel_map(of_day, day_range(first, last), store.parallel_reads)


def _unknown(day: str, damage: str) -> StoredDay:
    """Return a day without a readable document."""
    if not damage:
        return StoredDay(outcome="missing")
    return StoredDay(outcome="unreadable", reasons=(damage,), command=run_day(day))


def _summarized(store: Store, settings: Settings, summary: DaySummary) -> tuple[StoredState, tuple[str, ...]]:
    data_types = {feed.feed.split("/")[1] for feed in summary.feeds}
    return _outcome(store, settings, summary.day, summary.state, data_types, summary.data_files)


def _outcome(
    store: Store, settings: Settings, day: str, verdict: str, data_types: set[str], files: Mapping[str, int]
) -> tuple[StoredState, tuple[str, ...]]:
    if verdict == "held":
        return "held", ()
    if verdict not in ("published", "degraded"):
        return "missing", ()
    tables = unpublished_tables(store, settings, day, data_types)
    if troubles := [t for table in tables if (t := ledger.damage(store, table, day))]:
        return "unreadable", tuple(troubles)
    lost = lost_files(store, day, files)
    if tables or lost:
        lacking = (("the warehouse", tables), ("the lake", lost))
        return "missing", tuple(f"not in {where}: {', '.join(names)}" for where, names in lacking if names)
    return ("published" if verdict == "published" else "degraded"), ()


def _first_remedy(found: Day, outcome: StoredState) -> str:
    """Return the first command of the day's report: a run brings missing files, a refresh others."""
    out = [f for f in found.feeds if f.accepted is None]
    if not out and outcome != "missing":
        enough = found.settled.limits.day_completeness
        thin = [str(f.feed) for f in found.feeds if f.approval is None and _completeness(f) <= enough]
        return run_day(found.day, thin, generated=found.is_generated) if thin else ""
    broken = [str(f.feed) for f in out if f.judged is not None]
    lacking = len(broken) < len(out)
    return run_day(found.day, () if lacking else broken, generated=found.is_generated)


def _completeness(feed: SettledFeed) -> float:
    return 1.0 if feed.verdict.completeness is None else feed.verdict.completeness


def _is_notable(feed: SettledFeed) -> bool:
    return feed.verdict.outcome != "publish" or feed.candidate is not None or bool(feed.unreadable)


def _can_heal(feed: SettledFeed) -> bool:
    return can_heal(feed.feed, feed.verdict.evidence_class, feed.verdict.missing_ids)


def _verdict(feed: SettledFeed) -> FeedVerdict:
    return FeedVerdict(
        feed=str(feed.feed),
        outcome=feed.verdict.outcome,
        accepted=feed.accepted is not None,
        pending=feed.candidate is not None,
        content=feed.candidate.content if feed.candidate else "",
        reasons=(*feed.verdict.reasons, *([feed.unreadable] if feed.unreadable else [])),
        heal=heal_command(feed.verdict.day, str(feed.feed)) if _can_heal(feed) else "",
    )
