"""The look for problems: by a sensor of Dagster's daemon and by the service, every five minutes.

Days are read from the lake, runs and backfills from Dagster's records. The service alone can tell that the
daemon is gone; when both are, only the heartbeat tells, by its absence. A look that fails is logged and says
nothing of the rules that it could not look at, so no incident ends by it.
"""

from __future__ import annotations

import logging
import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final

from backfill_assets.alerts import channel
from backfill_assets.alerts.incidents import (
    TITLES,
    Incident,
    Incidents,
    Problem,
    Rule,
    load_incidents,
    message,
    record,
)
from backfill_assets.automation.due import look_back
from backfill_assets.days import shift, utc_now
from backfill_assets.failures import BackfillError, PermanentFailure, SettingsError, Unreadable
from backfill_assets.lake import documents, paths
from backfill_assets.lake.manifests import load_day_record
from backfill_assets.lake.store import Store
from backfill_assets.progress.facts import Records, RunFact, RunLog
from backfill_assets.progress.model import Job, StoredDay
from backfill_assets.progress.stored_days import stored_day
from backfill_assets.quality.remedies import approve_command, run_day
from backfill_assets.readable_numbers import bytes_text, plural
from backfill_assets.settings import Settings, resolve
from backfill_assets.warehouse.presence import LATE_AT

if TYPE_CHECKING:
    from backfill_assets.progress.service import Backfills

LOGGER: Final = logging.getLogger(__name__)
#: Between two looks; each reads the documents of the last days.
SECONDS: Final = 300
#: Failed backfills that ended longer ago are history.
_DAYS_OF_BACKFILLS: Final = 7
_LOAD_STEPS: Final = ("bigquery__", "ohlcv")
_OF_DAYS: Final[tuple[Rule, ...]] = (
    "day_late",
    "day_held",
    "day_unreadable",
    "feed_left_out",
    "version_pending",
)
_OF_RUNS: Final[tuple[Rule, ...]] = ("run_failed", "load_failed", "check_not_run")


def look(store: Store, settings: Settings, now: datetime, records: Callable[[], Records]) -> Incidents:
    """Look for everything, store it, tell whom the settings name, and ping the heartbeat.

    Raises
    ------
    BackfillError
        The incidents cannot be read or written.
    """
    problems: list[Problem] = []
    rules: list[Rule] = []

    def of(those: Sequence[Rule], find: Callable[[], Sequence[Problem]]) -> None:
        try:
            problems.extend(find())
        except BackfillError as failure:
            LOGGER.warning("not looked for %s: %s", TITLES[those[0]], failure)
        else:
            rules.extend(those)

    known = load_incidents(store)
    stored: dict[str, StoredDay] = {}
    of(_OF_DAYS, lambda: _of_days(store, settings, now, known, stored))
    of(("disk_low",), lambda: disk_problems(settings))
    try:
        found = records()
    except BackfillError as failure:
        LOGGER.warning("Dagster's records are not looked at: %s", failure)
    else:
        # The run of a held day fails on purpose.
        held = {day for day, of_day in stored.items() if of_day.outcome == "held"}
        failed = [(run, log) for run, log in found.failed_runs if run.day not in held]
        of(_OF_RUNS, lambda: [run_problem(run, log) for run, log in failed])
        of(("backfill_failed",), lambda: [*backfill_problems(found.failed_backfills, now)])
        if found.daemon is not None:
            daemon = found.daemon
            of(("daemon_lost",), lambda: [Problem("daemon_lost", daemon)] if daemon else [])
    alerts = settings.alerts

    def send(due: Sequence[Incident]) -> tuple[bool, str]:
        title, text = message(settings.name, due, now, lambda day: report_link(store, settings, day))
        try:
            return channel.send(alerts, title, text)
        except BackfillError as failure:
            return False, str(failure)

    after = record(
        store,
        problems,
        rules,
        now,
        remind=timedelta(hours=alerts.remind_hours),
        send=send if _is_set(alerts.urls) else None,
    )
    _ping(store, settings, now, after, stored)
    return after


def _is_set(address: str) -> bool:
    """Whether an address is given; one whose variable is missing is, and fails by name when it is used."""
    try:
        return bool(resolve(address).strip())
    except SettingsError:
        return True


def _of_days(
    store: Store, settings: Settings, now: datetime, known: Incidents, stored: dict[str, StoredDay]
) -> list[Problem]:
    """Of the days that the schedule answers for, and of those with an open incident."""
    today = now.astimezone(UTC).date()
    days = {*look_back(today, settings), *(i.day for i in known.open if i.rule in _OF_DAYS)}
    for day in sorted(days):
        stored[day] = stored_day(store, settings, day)
    # Where nothing was ever run nothing is late.
    first = min((day for day, found in stored.items() if found.feeds), default="")
    return [
        problem
        for day, found in stored.items()
        for problem in day_problems(day, found, is_late=bool(first) and day > first and _is_late(day, now))
        or ()
        for problem in [_with_reason(store, problem)]
    ]


def _is_late(day: str, now: datetime) -> bool:
    return now >= datetime.combine(date.fromisoformat(shift(day, 1)), LATE_AT, UTC)


def day_problems(day: str, found: StoredDay, *, is_late: bool) -> Iterator[Problem]:
    """What is wrong with a stored day.

    Parameters
    ----------
    is_late
        Whether it should be in the tables by now.
    """
    reasons = "; ".join(found.reasons)
    if found.outcome == "unreadable":
        yield Problem("day_unreadable", reasons, day, command=found.command)
    elif found.outcome == "missing" and is_late:
        yield Problem("day_late", reasons, day, command=run_day(day))
    elif found.outcome == "held":
        out = f"{len(found.quarantined)} of {plural(found.feeds, 'feed')} left out"
        text = "; ".join([*found.reasons, out, *(f"{name}={score:.3f}" for name, score in _scores(found))])
        yield Problem("day_held", text, day, command=found.command)
    for feed in found.notable:
        if feed.outcome != "publish" and not feed.accepted:
            yield Problem(
                "feed_left_out", "; ".join((feed.outcome, *feed.reasons)), day, feed.feed, found.command
            )
        if feed.pending and feed.accepted:
            text = "; ".join(feed.reasons) or "a newer version changes more than a restatement may"
            command = approve_command(day, feed.feed, feed.content)
            yield Problem("version_pending", text, day, feed.feed, command)


def _scores(found: StoredDay) -> list[tuple[str, float]]:
    named = {"completeness": found.completeness, "quality": found.quality, "consistency": found.consistency}
    return [(name, score) for name, score in named.items() if score is not None]


def _with_reason(store: Store, problem: Problem) -> Problem:
    """A late day with what it waits for."""
    if problem.rule != "day_late" or problem.text:
        return problem
    try:
        record = load_day_record(store, problem.day)
    except Unreadable as failure:
        return Problem("day_late", str(failure), problem.day, command=problem.command)
    if record is None:
        text = f"no run has recorded it by {LATE_AT:%H:%M} UTC"
    elif record.awaiting_export:
        text = "; ".join(record.why_awaited)
    else:
        text = f"not in the tables by {LATE_AT:%H:%M} UTC"
    return Problem("day_late", text, problem.day, command=problem.command)


def disk_problems(settings: Settings) -> list[Problem]:
    """Disks of this machine that are nearly full, each once."""
    folders = [resolve(settings.lake.scratch)]
    if "://" not in (lake := resolve(settings.lake.uri)):
        folders.append(lake)
    if settings.warehouse.kind == "duckdb":
        folders.append(resolve(settings.warehouse.folder))
    found: dict[int, Problem] = {}
    for folder in filter(None, folders):
        place = Path(folder).absolute()
        try:
            place = next(p for p in (place, *place.parents) if p.exists())
            usage, device = shutil.disk_usage(place), place.stat().st_dev
        except OSError as error:
            LOGGER.warning("%s: its disk cannot be looked at (%s)", place, error.strerror)
            continue
        percent = 100 * usage.free / usage.total
        if percent < settings.alerts.disk_free_percent:
            free = f"{percent:.1f} % free, {bytes_text(usage.free)} of {bytes_text(usage.total)}"
            found.setdefault(device, Problem("disk_low", f"{place}: {free}", subject=str(place)))
    return list(found.values())


def run_problem(run: RunFact, log: RunLog) -> Problem:
    """A run that has failed and is not run again, by what failed in it."""
    text = log.failure or log.trouble or "no reason is known"
    rule: Rule = "run_failed"
    if log.failed and all(step.endswith("_checks") for step in log.failed):
        rule = "check_not_run"
    elif log.failed and log.failed[0].startswith(_LOAD_STEPS):
        rule = "load_failed"
    steps = f"{', '.join(log.failed)}: " if log.failed else ""
    return Problem(rule, f"{steps}{text}", run.day, command=run_day(run.day))


def backfill_problems(jobs: Sequence[Job], now: datetime) -> Iterator[Problem]:
    """Jobs that have failed lately, each with its days by state."""
    for job in jobs:
        if now - (job.finished or job.updated) <= timedelta(days=_DAYS_OF_BACKFILLS):
            days = ", ".join(f"{count} {state}" for state, count in job.days_by_state.items() if count)
            text = f"{job.request.start} to {job.request.end}: {days}"
            if job.failure:
                text += f"; {job.failure}"
            yield Problem(
                "backfill_failed", text, subject=job.job_id, command=f"backfill-assets retry {job.job_id}"
            )


def report_link(store: Store, settings: Settings, day: str) -> str:
    """Where the page of a day is."""
    base = settings.alerts.page_url.rstrip("/")
    return f"{base}/days/{day}/report" if base else store.uri_of(paths.day_report(day))


def _ping(
    store: Store, settings: Settings, now: datetime, found: Incidents, stored: dict[str, StoredDay]
) -> None:
    """Tell the heartbeat once that yesterday is in the tables."""
    yesterday = shift(now.astimezone(UTC).date().isoformat(), -1)
    day = stored.get(yesterday)
    is_good = day is not None and day.outcome in ("published", "degraded")
    if not is_good or found.pinged == yesterday or not _is_set(settings.alerts.heartbeat_url):
        return
    try:
        failure = channel.ping(settings.alerts)
    except BackfillError as wrong:
        failure = str(wrong)
    if failure:
        LOGGER.warning("%s", failure)
        return
    documents.update(
        store,
        paths.incidents(),
        Incidents,
        lambda current: (current or Incidents()).model_copy(update={"pinged": yesterday}),
        anew=True,
    )


def send_test(settings: Settings) -> str:
    """Send one message that says that it is a test; returns to what.

    Raises
    ------
    PermanentFailure
        No address is set, or a service did not take the message.
    """
    named = [name for name, _ in channel.services(settings.alerts)]
    if not named:
        msg = "alerts.urls is empty: set SLACK_WEBHOOK_URL, or write addresses of Apprise into the settings"
        raise PermanentFailure(msg)
    text = "Messages about held days, failed runs and the like will come here."
    _, failure = channel.send(settings.alerts, f"[{settings.name}] test of backfill-assets", text)
    if failure:
        msg = f"alerts.urls: {failure}: look at the address and at what the service says of it"
        raise PermanentFailure(msg)
    return ", ".join(named)


@contextmanager
def watching(service: Backfills) -> Iterator[None]:
    """Look every minute in a thread of its own, for a ``with`` block."""
    stopping = threading.Event()

    def run() -> None:
        while not stopping.wait(SECONDS):
            try:
                look(service.store, service.settings, utc_now(), service.records)
            except BackfillError as failure:
                LOGGER.warning("incidents are not looked at: %s", failure)

    thread = threading.Thread(target=run, name="incidents", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stopping.set()
        thread.join(timeout=5)
