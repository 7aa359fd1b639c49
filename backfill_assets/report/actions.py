"""The answers that a reader wants first: which feeds are not good, why, when, and the remedies.

Pure functions of the report's other content. Each kind of finding has one remedy, so that readers can mend a
day without knowing the pipeline.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from backfill_assets.quality.bucket_states import MINUTES
from backfill_assets.quality.remedies import (
    ASK_THE_EXCHANGE,
    approve_command,
    can_heal,
    heal_command,
    run_day,
)
from backfill_assets.report.evidence import FeedReport
from backfill_assets.report.minutes import NOTABLE, Minutes

Urgency = Literal["bad", "warn", "note"]
#: Most urgent first.
URGENCIES: Final[tuple[Urgency, ...]] = ("bad", "warn", "note")

#: Below this completeness an accepted feed has a loss that a reader may want to know of.
NEARLY_COMPLETE: Final = 0.99

_REMEDIES: Final = {
    "missing": "Run the day again once the vendor has the file. Only missing files are fetched.",
    "quarantine": (
        "Fetch the file again: the vendor may have mended it. If its rows are usable as they are, approve it."
    ),
    "no_evidence": (
        "Wait if a neighboring day is still to come: its ids may prove this one. Otherwise fetch the file "
        "again, or look at it and approve it."
    ),
}

_REMEDY_OF_THE_LACKING: Final = (
    "They are published, but their completeness is not above day_completeness. Fetch them again: the "
    "vendor may have mended them."
)

#: Follows another remedy, or stands alone.
_ASK: Final = f"{ASK_THE_EXCHANGE}, and run the day again: that publishes the trades it has."

_REMEDY_OF_THE_UNKNOWN: Final = (
    "They are published, and nothing tells whether they are complete: a busy market of the venue in the "
    "universe would show that the capture ran."
)


@dataclass(frozen=True, slots=True)
class Finding:
    """A feed or table, its problem, and the time of the problem."""

    #: Index of the feed among the report's feeds; null for a table.
    index: int | None
    title: str
    what: str
    when: str


@dataclass(frozen=True, slots=True)
class Action:
    """A remedy, and the findings that it mends."""

    urgency: Urgency
    remedy: str
    findings: tuple[Finding, ...]
    #: In the order in which to try the commands.
    commands: tuple[str, ...]


#: Urgency, remedy, finding, commands.
_Found = tuple[Urgency, str, Finding, tuple[str, ...]]


def clock_range(first: int, after: int) -> str:
    """Minutes of a day as ``10:02`` or ``10:02–10:05``, both included."""
    begins, last = f"{first // 60:02d}:{first % 60:02d}", after - 1
    return begins if first == last else f"{begins}–{last // 60:02d}:{last % 60:02d}"


def actions_of(
    day: str,
    feeds: Sequence[FeedReport],
    tables: Iterable[tuple[str, str]],
    enough: float,
    *,
    generated: bool = False,
) -> tuple[Action, ...]:
    """The remedies of a day, most urgent first.

    Parameters
    ----------
    tables
        Tables that lack the day although they should have it, each with the reason.
    enough
        ``day_completeness``: a feed that is not above it is published, but is not complete.
    generated
        Whether the day's data come from the stand-in, which a run then needs.
    """
    again = {
        outcome: run_day(
            day,
            [str(f.feed) for f in feeds if outcome != "missing" and not f.accepted and _kind(f) == outcome],
            generated=generated,
        )
        for outcome in _REMEDIES
    }
    healable = [str(f.feed) for f in feeds if _is_healable(f)]
    ask = heal_command(day, *healable)
    found = [
        _left_out(day, i, feed, again[_kind(feed)], ask) for i, feed in enumerate(feeds) if not feed.accepted
    ]
    found += [_unpublished(again["missing"], table, what) for table, what in tables]
    found += [_replacing(day, i, feed) for i, feed in enumerate(feeds) if feed.accepted and feed.pending]
    thin = [(i, feed) for i, feed in enumerate(feeds) if feed.accepted and is_thin(feed)]
    lacking = [str(feed.feed) for _, feed in thin if _lacks(feed, enough)]
    refresh = run_day(day, lacking, generated=generated)
    found += [_thin(i, feed, (refresh,) if str(feed.feed) in lacking else (), ask) for i, feed in thin]
    grouped: dict[tuple[Urgency, str], list[tuple[Finding, tuple[str, ...]]]] = {}
    for urgency, remedy, finding, commands in found:
        grouped.setdefault((urgency, remedy), []).append((finding, commands))
    actions = [
        Action(
            urgency,
            remedy,
            tuple(finding for finding, _ in group),
            tuple(dict.fromkeys(command for _, commands in group for command in commands)),
        )
        for (urgency, remedy), group in grouped.items()
    ]
    return tuple(sorted(actions, key=lambda action: URGENCIES.index(action.urgency)))


def is_thin(feed: FeedReport) -> bool:
    """Whether an accepted feed is known to have a loss."""
    verdict = feed.verdict
    return verdict.completeness_state == "degraded" or (verdict.completeness or 0.0) < NEARLY_COMPLETE


def _kind(feed: FeedReport) -> str:
    """The kind of remedy; a retracted version is left out even if its verdict was ``publish``."""
    return feed.verdict.outcome if feed.verdict.outcome in _REMEDIES else "quarantine"


def _is_healable(feed: FeedReport) -> bool:
    return can_heal(feed.feed, feed.verdict.evidence_class, feed.verdict.missing_ids)


def _left_out(day: str, index: int, feed: FeedReport, again: str, ask: str) -> _Found:
    verdict = feed.verdict
    missing = verdict.outcome == "missing"
    approval = (approve_command(day, str(feed.feed), feed.pending),) if feed.pending else ()
    remedy, asking = _REMEDIES[_kind(feed)], (ask,) if _is_healable(feed) else ()
    return (
        "warn" if verdict.outcome == "no_evidence" else "bad",
        f"{remedy} {_ASK}" if asking else remedy,
        Finding(
            index,
            str(feed.feed),
            "; ".join(verdict.reasons),
            "the whole day" if missing else _when(feed.waiting),
        ),
        (again, *asking, *approval),
    )


def _unpublished(again: str, table: str, what: str) -> _Found:
    return "bad", "Run the day again.", Finding(None, table, what, ""), (again,)


def _replacing(day: str, index: int, feed: FeedReport) -> _Found:
    return (
        "warn",
        "See under Pending what it changes. Approve it or leave it: the accepted version stays published.",
        Finding(index, str(feed.feed), "a newer file is pending", ""),
        (approve_command(day, str(feed.feed), feed.pending),),
    )


def _lacks(feed: FeedReport, enough: float) -> bool:
    """Whether the feed's completeness is not above ``enough``, and no person has approved it."""
    score = feed.verdict.completeness
    return feed.approval is None and score is not None and score <= enough


def _thin(index: int, feed: FeedReport, refresh: tuple[str, ...], ask: str) -> _Found:
    what = "; ".join(feed.verdict.warnings) or "published, but not complete"
    when = ", ".join(clock_range(mark.first, mark.after) for mark in feed.marks[:2])
    finding = Finding(index, str(feed.feed), what, _when(feed.minutes) or when)
    asking, then = ((ask,), f" {_ASK}") if _is_healable(feed) else ((), "")
    if refresh:
        return "warn", f"{_REMEDY_OF_THE_LACKING}{then}", finding, (*refresh, *asking)
    if feed.verdict.completeness is None:
        return "note", _REMEDY_OF_THE_UNKNOWN, finding, ()
    if asking:
        return "note", f"They are good enough to be published.{then}", finding, asking
    return "note", "Nothing has to be done: they are good enough to be published.", finding, ()


def _when(minutes: Minutes | None) -> str:
    """The time from the first to the last minute with a loss; empty without one."""
    runs = minutes.runs(*NOTABLE) if minutes is not None else []
    if not runs:
        return ""
    first, after = runs[0][0], runs[-1][1]
    return "the whole day" if (first, after) == (0, MINUTES) else clock_range(first, after)
