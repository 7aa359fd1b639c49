"""What a reader wants first: is the day good; if not, which feed, why, since when, and what to do about it.

Pure: made of what the report shows anyway. Each kind of finding has one remedy, so that nobody has to know
the pipeline to mend a day.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from backfill_assets.quality.bucket_states import MINUTES
from backfill_assets.report.evidence import FeedReport
from backfill_assets.report.minutes import NOTABLE, Minutes

Urgency = Literal["bad", "warn", "note"]
#: Most urgent first.
URGENCIES: Final[tuple[Urgency, ...]] = ("bad", "warn", "note")

#: Below this an accepted feed has lost something that a reader may want to know of.
NEARLY_COMPLETE: Final = 0.99
RUN_AGAIN: Final = "dagster asset materialize -m backfill_assets.definitions --select '*' --partition {day}"
APPROVE: Final = 'backfill-assets approve --date {day} --feed {feed} --reason "…"'

_REMEDIES: Final = {
    "missing": "Run the day again once the vendor has the file; only what is missing is fetched.",
    "quarantine": (
        "Run the day with a refresh of this feed when the vendor has mended the file; or, if you know that "
        "its rows are usable as they are, approve them."
    ),
    "no_evidence": (
        "Nothing, if a neighbouring day is still to come: its ids may prove this one. Otherwise look at the "
        "file and approve it."
    ),
}


@dataclass(frozen=True, slots=True)
class Finding:
    """What it is about, what is wrong, and when."""

    #: The feed's place among the report's feeds; null where it is about a table.
    index: int | None
    title: str
    what: str
    when: str


@dataclass(frozen=True, slots=True)
class Action:
    """What is to be done, and the findings that it mends."""

    urgency: Urgency
    remedy: str
    findings: tuple[Finding, ...]
    commands: tuple[str, ...]


#: Urgency, remedy, finding, command.
_Found = tuple[Urgency, str, Finding, str]


def clock_range(first: int, after: int) -> str:
    """Minutes of a day as ``10:02`` or ``10:02–10:05``, both included."""
    begins, last = f"{first // 60:02d}:{first % 60:02d}", after - 1
    return begins if first == last else f"{begins}–{last // 60:02d}:{last % 60:02d}"


def actions_of(
    day: str, feeds: Sequence[FeedReport], tables: Iterable[tuple[str, str]]
) -> tuple[Action, ...]:
    """What is to be done about a day, most urgent first.

    Parameters
    ----------
    tables
        Tables that should hold the day and do not, with what is known of it.
    """
    found = [_left_out(day, i, feed) for i, feed in enumerate(feeds) if not feed.accepted]
    found += [_unpublished(day, table, what) for table, what in tables]
    found += [_replacing(day, i, feed) for i, feed in enumerate(feeds) if feed.accepted and feed.pending]
    found += [_thin(i, feed) for i, feed in enumerate(feeds) if feed.accepted and is_thin(feed)]
    grouped: dict[tuple[Urgency, str], list[tuple[Finding, str]]] = {}
    for urgency, remedy, finding, command in found:
        grouped.setdefault((urgency, remedy), []).append((finding, command))
    actions = [
        Action(
            urgency,
            remedy,
            tuple(finding for finding, _ in group),
            tuple(dict.fromkeys(command for _, command in group if command)),
        )
        for (urgency, remedy), group in grouped.items()
    ]
    return tuple(sorted(actions, key=lambda action: URGENCIES.index(action.urgency)))


def is_thin(feed: FeedReport) -> bool:
    """Whether an accepted feed is known to have lost something."""
    verdict = feed.verdict
    return verdict.completeness_state == "degraded" or (verdict.completeness or 0.0) < NEARLY_COMPLETE


def _left_out(day: str, index: int, feed: FeedReport) -> _Found:
    verdict = feed.verdict
    missing = verdict.outcome == "missing"
    when = "the whole day" if missing else _when(feed.waiting)
    command = RUN_AGAIN if missing else APPROVE
    return (
        "warn" if verdict.outcome == "no_evidence" else "bad",
        _REMEDIES.get(verdict.outcome, _REMEDIES["quarantine"]),
        Finding(index, str(feed.feed), "; ".join(verdict.reasons), when),
        command.format(day=day, feed=feed.feed),
    )


def _unpublished(day: str, table: str, what: str) -> _Found:
    return "bad", "Run the day again.", Finding(None, table, what, ""), RUN_AGAIN.format(day=day)


def _replacing(day: str, index: int, feed: FeedReport) -> _Found:
    return (
        "warn",
        "See under Pending what it changes. Approve it or leave it: the accepted version stays published.",
        Finding(index, str(feed.feed), "a newer file waits", ""),
        APPROVE.format(day=day, feed=feed.feed),
    )


def _thin(index: int, feed: FeedReport) -> _Found:
    what = "; ".join(feed.verdict.warnings) or "published, but not all of it is there"
    when = ", ".join(clock_range(mark.first, mark.after) for mark in feed.marks[:2])
    return (
        "note",
        "Nothing has to be done: they are good enough to be published.",
        Finding(index, str(feed.feed), what, _when(feed.minutes) or when),
        "",
    )


def _when(minutes: Minutes | None) -> str:
    """From the first to the last minute in which something is lost."""
    runs = minutes.runs(*NOTABLE) if minutes is not None else []
    if not runs:
        return ""
    first, after = runs[0][0], runs[-1][1]
    return "the whole day" if (first, after) == (0, MINUTES) else clock_range(first, after)
