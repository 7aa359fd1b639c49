"""Words, signs and groups for the templates, made from the models; pure, without HTML.

Every state has a sign and words in addition to its color.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Final

from backfill_assets.progress.facts import RunFact
from backfill_assets.progress.model import (
    FINAL_JOB_STATES,
    RETRIED_DAY_STATES,
    AssetStatus,
    CalendarDay,
    DayStatus,
    Job,
    JobStatus,
    StoredDay,
)
from backfill_assets.progress.tracking import retried_days
from backfill_assets.quality.remedies import run_day
from backfill_assets.readable_numbers import plural

#: Sign and meaning of each state of a day. The first four are the report's.
STATES: Final = {
    "published": ("✓", "everything expected is in the tables"),
    "degraded": ("!", "published without the feeds that fell short"),
    "held": ("×", "too little is good, so nothing is published"),
    "missing": ("∅", "not in the tables"),
    "unreadable": ("?", "one of its documents is damaged"),
    "failed": ("‼", "its run or a blocking check failed"),
    "running": ("▸", "running now"),
    "queued": ("…", "its run waits for a place"),
    "waiting": ("·", "no run yet"),
    "canceled": ("–", "not run, because the backfill was canceled"),
}
#: Order of states in a table of days: those that need a look come first.
_ROW_ORDER: Final = (
    "failed",
    "unreadable",
    "held",
    "missing",
    "running",
    "degraded",
    "canceled",
    "queued",
    "published",
    "waiting",
)
JOB_STATES: Final = {
    "queued": "…",
    "running": "▸",
    "canceling": "–",
    "canceled": "–",
    "succeeded": "✓",
    "failed": "×",
}
ASSET_SIGNS: Final = {"waiting": "·", "running": "▸", "materialized": "✓", "failed": "×", "skipped": "–"}
_WAY: Final = ("instruments", "ticks", "candles")
#: A running job changes every few seconds; after this long without a change a person should look.
STILL: Final = timedelta(minutes=10)
#: Most recent jobs whose failure is shown at the top.
_FAILURES_TOLD: Final = 3
#: Most feeds of a day that are named at the top.
_FEEDS_TOLD: Final = 2
_WORST_FIRST: Final = ("unreadable", "held", "missing", "degraded")
#: Most days shown with their reasons at the top.
DAYS_TOLD: Final = 5
#: Most rows of a job's table; the API has all days of a long job.
MOST_ROWS: Final = 100


@dataclass(frozen=True, slots=True)
class Trouble:
    """A problem that waits for a person."""

    text: str
    job_id: str | None = None
    #: A day whose report says more.
    day: str = ""
    #: The command to try first, and its day.
    command: str = ""
    command_day: str = ""


@dataclass(frozen=True, slots=True)
class Now:
    """The top of the page: the running jobs and the problems."""

    headline: str
    lead: str
    active: tuple[Job, ...]
    recent: tuple[Job, ...]
    troubles: tuple[Trouble, ...]
    #: The value of ``ended``.
    ended: str
    #: The text for screen readers, in whole days, so that it does not change every second.
    said: str


def ended(active: Sequence[Job], recent: Sequence[Job]) -> str:
    """Return a text that changes when a day or a job has ended, so that the calendar is requested again."""
    return f"{sum(j.finished_days for j in active)}-{'-'.join(j.job_id + j.state for j in recent)}"


def now_view(
    active: Sequence[Job], recent: Sequence[Job], now: datetime, bad_days: Sequence[Trouble] = ()
) -> Now:
    """Return the top of the page.

    Parameters
    ----------
    active, recent
        Unfinished jobs, and the latest jobs of all states; both the newest first.
    bad_days
        Days that wait for a person, from ``day_troubles``.
    """
    # Dagster works on the oldest job first.
    jobs = tuple(reversed(active))
    finished, total = sum(j.finished_days for j in jobs), sum(j.total_days for j in jobs)
    if not jobs:
        headline, lead = "Nothing is running", _last_words(recent)
    else:
        at_work = [j for j in jobs if j.state != "queued"]
        waiting = len(jobs) - len(at_work)
        if at_work:
            days = sum(j.total_days for j in at_work)
            percent = sum(j.percent * j.total_days for j in at_work) / days
            headline = f"{plural(len(at_work), 'backfill')} running, {percent:.0f} % done"
        else:
            headline = f"{plural(waiting, 'backfill')} waiting to start"
        busy = plural(sum(len(j.running) for j in jobs), "day")
        behind = f"; {plural(waiting, 'backfill')} waiting behind" if waiting and at_work else ""
        lead = f"{finished:,} of {plural(total, 'day')} finished, {busy} running now{behind}."
    troubles = _troubles(jobs, recent, now, bad_days)
    stuck = f" {plural(len(troubles), 'thing')} to look at." if troubles else ""
    said = f"{plural(len(jobs), 'backfill')} running, {finished} of {plural(total, 'day')} finished.{stuck}"
    return Now(
        headline=headline,
        lead=lead,
        active=jobs,
        recent=tuple(recent),
        troubles=troubles,
        ended=ended(active, recent),
        said=said if jobs else f"Nothing is running.{stuck}",
    )


def _last_words(recent: Sequence[Job]) -> str:
    if not recent:
        return "No backfill has been started yet. Plan one below: the plan shows its cost before it starts."
    last = recent[0]
    return f"The last one, {last.request.start} to {last.request.end}, {_ended_as(last)}."


def _ended_as(job: Job) -> str:
    if job.state == "failed":
        bad = sum(job.days_by_state.get(state, 0) for state in RETRIED_DAY_STATES)
        return f"ended with {plural(bad, 'day')} that failed, are held or are missing" if bad else "failed"
    return {"succeeded": "succeeded", "canceled": "was canceled"}.get(job.state, job.state)


def _troubles(
    active: Sequence[Job], recent: Sequence[Job], now: datetime, days: Sequence[Trouble]
) -> tuple[Trouble, ...]:
    warnings = dict.fromkeys(warning for job in active for warning in job.warnings)
    still = [
        Trouble(
            f"{job.request.start} to {job.request.end}: nothing has changed since "
            f"{job.updated.astimezone(UTC):%H:%M} UTC",
            job.job_id,
        )
        for job in active
        if now - job.updated > STILL
    ]
    bad = [
        Trouble(
            f"{job.request.start} to {job.request.end}, day {day.day}: check {day.failing_check} failed",
            job.job_id,
        )
        for job in active
        for day in job.running
        if day.failing_check
    ]
    failed = [
        Trouble(f"{job.request.start} to {job.request.end} {job.state}: {_failed_as(job)}", job.job_id)
        for job in recent
        if job.state == "failed" or (job.state == "canceled" and _bad_days(job))
    ]
    told = failed[:_FAILURES_TOLD]
    if len(failed) > len(told):
        told.append(Trouble(f"{len(failed) - len(told)} more of the recent backfills failed"))
    return (*(Trouble(warning) for warning in warnings), *still, *bad, *days, *told)


def _bad_days(job: Job) -> dict[str, int]:
    bad = RETRIED_DAY_STATES - {"canceled"}
    return {state: number for state, number in job.days_by_state.items() if state in bad and number}


def _failed_as(job: Job) -> str:
    return job.failure or days_words(_bad_days(job)) or "no reason is known"


# Days that wait for a person


def days_to_look_at(days: Iterable[CalendarDay]) -> list[CalendarDay]:
    """Return days that were run and are not good, worst first, then latest first; without running days."""
    found = [
        d
        for d in days
        if d.outcome in _WORST_FIRST and not d.job_state and (d.feeds or d.outcome != "missing")
    ]
    found.sort(key=lambda d: d.day, reverse=True)
    return sorted(found, key=lambda d: _WORST_FIRST.index(d.outcome))


def day_troubles(days: Sequence[CalendarDay], stored: Mapping[str, StoredDay]) -> list[Trouble]:
    """Return advice for the days in ``stored``, and the number of further days."""
    told = [
        Trouble(_day_words(d, stored[d.day]), day=d.day, command=stored[d.day].command, command_day=d.day)
        for d in days
        if d.day in stored
    ]
    if len(days) > len(told):
        counts = days_words(Counter(d.outcome for d in days if d.day not in stored))
        told.append(Trouble(f"{counts} more, in the calendar below"))
    return told


def run_troubles(runs: Sequence[RunFact]) -> list[Trouble]:
    """Return advice for days whose last run failed outside a backfill, and the number of further days."""
    told = [
        Trouble(
            f"{run.day}: its last run, started {run.started or run.created:%Y-%m-%d %H:%M} UTC outside a "
            "backfill, failed",
            command=run_day(run.day),
            command_day=run.day,
        )
        for run in runs[:DAYS_TOLD]
    ]
    if len(runs) > len(told):
        told.append(Trouble(f"{plural(len(runs) - len(told), 'more day')} whose last single run failed"))
    return told


def _day_words(day: CalendarDay, stored: StoredDay) -> str:
    out = [f"{f.feed}: {'; '.join(f.reasons)}" for f in stored.notable if not f.accepted]
    more = [f"and {plural(len(out) - _FEEDS_TOLD, 'feed')} more"] if len(out) > _FEEDS_TOLD else []
    return f"{day.day} is {day.outcome}: {'. '.join([*stored.reasons, *out[:_FEEDS_TOLD], *more])}"


# One job


def needs_a_look(job: Job) -> bool:
    """Whether a retry would run any day."""
    if job.state not in FINAL_JOB_STATES:
        return False
    days = job.days if isinstance(job, JobStatus) else ()
    return any(job.days_by_state.get(s, 0) for s in RETRIED_DAY_STATES) or bool(retried_days(days))


def by_state(counts: dict[str, int]) -> list[tuple[str, str, int]]:
    """Return state, sign and number, in the order of ``STATES``."""
    return [(state, STATES[state][0], counts[state]) for state in STATES if counts.get(state)]


def steps(day: DayStatus) -> list[AssetStatus]:
    """Return the day's assets in the order in which data passes through them; other assets come after."""
    return sorted(day.assets, key=lambda a: (_WAY.index(a.asset) if a.asset in _WAY else len(_WAY), a.asset))


def rows(job: JobStatus) -> tuple[list[DayStatus], int]:
    """Return days for the table, those that need a look first, and how many are left out."""
    found = sorted(job.days, key=lambda day: (_ROW_ORDER.index(day.state), day.day))
    return found[:MOST_ROWS], max(0, len(found) - MOST_ROWS)


def eta_words(job: Job, now: datetime) -> str:
    """Return the time left in whole minutes, so that it does not change every second.

    It is empty if the job has ended, is being canceled, or is stuck.
    """
    if job.state not in ("queued", "running") or job.warnings:
        return ""
    if job.eta is None:
        return "time left: known when two days have ended"
    low, high = (max(1, round((t - now).total_seconds() / 60)) for t in (job.eta.earliest, job.eta.latest))
    return f"about {low} min left" if low == high else f"{low} to {high} min left"


# The calendar


@dataclass(frozen=True, slots=True)
class Cell:
    """One day of the heat map."""

    day: str
    state: str
    sign: str
    words: str
    href: str | None
    #: Its state in a job, queued or running, in addition to its state in the tables.
    at_work: str
    sealed: bool


@dataclass(frozen=True, slots=True)
class Month:
    """A block of the heat map; None stands for days of its first week in the previous month."""

    name: str
    key: str
    cells: tuple[Cell | None, ...]
    has_page: bool


def months(days: Iterable[CalendarDay]) -> list[Month]:
    """Return the days by month, Monday first."""
    found: dict[str, list[CalendarDay]] = {}
    for day in days:
        found.setdefault(day.day[:7], []).append(day)
    return [
        Month(
            name=f"{date.fromisoformat(f'{key}-01'):%B}",
            key=key,
            cells=(*[None] * date.fromisoformat(inside[0].day).weekday(), *(_cell(day) for day in inside)),
            has_page=any(day.report for day in inside),
        )
        for key, inside in sorted(found.items())
    ]


def _cell(day: CalendarDay) -> Cell:
    words = [f"{date.fromisoformat(day.day):%a} {day.day}: {day.outcome}"]
    if day.outcome not in ("missing", "unreadable"):
        words.append("sealed" if day.sealed else "not sealed")
        words.append(f"{day.feeds - len(day.quarantined)} of {plural(day.feeds, 'feed')}")
    if day.quarantined:
        more = len(day.quarantined) - 3
        shown = ", ".join(day.quarantined[:3])
        words.append(f"left out: {shown}{f' and {more} more' if more > 0 else ''}")
    if day.job_state:
        words.append(f"{day.job_state} in backfill {day.job_id}")
    href = f"/days/{day.day}/report" if day.report else f"/jobs/{day.job_id}" if day.job_id else None
    at_work = {"running": "running", "queued": "queued", "waiting": "queued"}.get(day.job_state or "", "")
    sign = STATES["running" if at_work == "running" else "queued"][0] if at_work else STATES[day.outcome][0]
    return Cell(day.day, day.outcome, sign, ", ".join(words), href, at_work, day.sealed)


def year_range(year: int, today: date, most: int) -> tuple[date, date]:
    """Return the first and last day of a year to show: up to today, and at most the last ``most`` days."""
    last = min(date(year, 12, 31), max(today, date(year, 1, 1)))
    return max(date(year, 1, 1), last - timedelta(days=most - 1)), last


# Words


def days_words(counts: dict[str, int]) -> str:
    """Return for example ``2 published, 1 held``."""
    return ", ".join(f"{number:,} {state}" for state, _, number in by_state(counts))


def span(day: DayStatus) -> float | None:
    """Return the seconds that the day's run took."""
    return (day.ended - day.started).total_seconds() if day.started and day.ended else None
