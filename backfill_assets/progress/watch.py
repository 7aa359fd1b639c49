"""The look for problems: by a sensor of Dagster's daemon and by the service, every five minutes.

Days are read from the lake, runs and backfills from Dagster's records. Only the service can tell that the
daemon is gone; when both are gone, only a missing heartbeat tells. A failed look is logged and says nothing
about the rules that it could not check, so it ends no incident of those rules.
"""

from __future__ import annotations

import hashlib
import logging
import platform
import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final

from backfill_assets.alerts import channel
from backfill_assets.alerts.incidents import (
    FOLLOWED,
    Incident,
    Incidents,
    Problem,
    Rule,
    load_incidents,
    message,
    record,
)
from backfill_assets.automation.due import look_back
from backfill_assets.days import day_range, is_day, shift, utc_now
from backfill_assets.failures import BackfillError, PermanentFailure, SettingsError, Unreadable
from backfill_assets.lake import documents, paths
from backfill_assets.lake.manifests import load_day_record
from backfill_assets.lake.store import Store
from backfill_assets.logs import bound
from backfill_assets.progress.facts import Records, RunFact, RunLog
from backfill_assets.progress.model import Job, StoredDay
from backfill_assets.progress.restated import RULE as RESTATED
from backfill_assets.progress.restated import restated_problems
from backfill_assets.progress.stored_days import stored_day
from backfill_assets.quality.remedies import ASK_THE_EXCHANGE, approve_command, run_day
from backfill_assets.readable_numbers import bytes_text, plural
from backfill_assets.settings import Settings, resolve
from backfill_assets.warehouse import ledger
from backfill_assets.warehouse.presence import LATE_AT, OF_EVERY_DAY

if TYPE_CHECKING:
    from backfill_assets.progress.service import Backfills

LOGGER: Final = logging.getLogger(__name__)
#: Seconds between two looks; each reads the documents of the last days.
SECONDS: Final = 300
#: Prefix of disks of this machine.
_HERE: Final = f"{platform.node()}:"
#: Most days checked of those left out during a long absence of the daemon; the newest are checked.
_MOST_LEFT_OUT: Final = 31
#: A load that was claimed longer ago and has not ended is no longer running.
_LOADING: Final = timedelta(hours=2)
_LOAD_STEPS: Final = ("bigquery__", "ohlcv")
_OF_DAYS: Final[tuple[Rule, ...]] = (
    "day_late",
    "day_held",
    "day_unreadable",
    "feed_left_out",
    "version_pending",
)
_OF_RUNS: Final[tuple[Rule, ...]] = ("run_failed", "load_failed", "check_not_run")


def look(
    store: Store,
    settings: Settings,
    clock: Callable[[], datetime],
    records: Callable[[], Records],
) -> Incidents:
    """Look for all problems, store them, alert the services in the settings, and ping the heartbeat.

    Raises
    ------
    BackfillError
        The incidents cannot be read or written.
    """
    now, known = clock(), load_incidents(store)
    days = _Days.read(store, settings, now, known)
    problems = [*days.problems(now), *disk_problems(settings)]
    rules: set[str] = {"disk_low"}
    run_days: Sequence[str] = ()
    try:
        found = records()
    except BackfillError as failure:
        LOGGER.warning("Dagster's records cannot be checked: %s", failure)
    else:
        rules |= {*_OF_RUNS, "backfill_failed"}
        # The run of a held day fails on purpose; the state of a day that was not read is unknown.
        problems += [
            run_problem(run, log)
            for run, log in found.failed_runs
            if not days.is_held(run.day) and run.day not in days.unread
        ]
        problems += backfill_problems(found.failed_backfills, now)
        if found.daemon is not None:
            rules.add("daemon_lost")
            problems += [Problem("daemon_lost", found.daemon)] if found.daemon else []
        run_days = found.run_days
    restated, read = restated_problems(store, (*days.stored, *run_days), known, now)
    problems += restated
    alerts, urls = settings.alerts, _address(settings.alerts.urls)

    def is_seen(incident: Incident) -> bool:
        if incident.rule in _OF_DAYS:
            return days.sees(incident)
        if incident.rule == RESTATED:
            return incident.day in read
        if incident.rule in _OF_RUNS and incident.day in days.unread:
            return False
        # Another machine has other disks.
        return incident.rule in rules and (incident.rule != "disk_low" or incident.subject.startswith(_HERE))

    def send(due: Sequence[Incident]) -> tuple[bool, str]:
        title, text = message(settings.name, due, clock(), lambda day: report_link(store, settings, day))
        try:
            return channel.send(alerts, title, text, ended=due[0].due == "closed")
        except BackfillError as failure:
            return False, str(failure)

    after = record(
        store,
        problems,
        is_seen,
        clock,
        remind=timedelta(hours=alerts.remind_hours),
        send=send if urls else None,
        addresses=hashlib.sha256(urls.encode()).hexdigest()[:12],
    )
    return _ping(store, settings, now, after, days)


def _address(text: str) -> str:
    """Return a setting's address, as written if its variable is missing; empty if none is set."""
    try:
        return resolve(text).strip()
    except SettingsError:
        # The process that uses the address fails and names the variable.
        return text


@dataclass(frozen=True, slots=True)
class _Days:
    """The stored days of a look: those that the schedule covers, and those of open incidents."""

    #: Stored days by day.
    stored: dict[str, StoredDay]
    #: Why each missing day is missing.
    reasons: dict[str, str]
    #: Days that could not be read.
    unread: frozenset[str]
    #: Days whose tables are being loaded again.
    loading: frozenset[str]
    #: The first publication that any look has seen.
    in_service: datetime | None

    @classmethod
    def read(cls, store: Store, settings: Settings, now: datetime, known: Incidents) -> _Days:
        """Read the days; log a day that cannot be read."""
        today = now.astimezone(UTC).date()
        back = look_back(today, settings)
        days = {*back, *_left_out(store, back[0]), *(i.day for i in known.open if i.rule in _OF_DAYS)} - {""}
        stored: dict[str, StoredDay] = {}
        reasons: dict[str, str] = {}
        unread: set[str] = set()
        loading: set[str] = set()
        published = [known.in_service] if known.in_service else []
        for day in sorted(days | set(_stored_before(store, min(days)))):
            with bound(day=day):
                try:
                    entries = [e for table in OF_EVERY_DAY if (e := ledger.entry(store, table.name, day))]
                    published += [entry.published.published_at for entry in entries if entry.published]
                    if day in days:
                        stored[day] = stored_day(store, settings, day)
                        if stored[day].outcome == "missing":
                            reasons[day] = _why_missing(store, day, stored[day])
                        if any(_is_loading(entry, now) for entry in entries):
                            loading.add(day)
                except BackfillError as failure:
                    LOGGER.warning("%s cannot be checked: %s", day, failure)
                    unread.add(day)
        first = min(published, default=None)
        return cls(stored, reasons, frozenset(unread), frozenset(loading), first)

    def problems(self, now: datetime) -> list[Problem]:
        """Return the problems of the days."""
        late = {day: reason for day, reason in self.reasons.items() if self._is_late(day, now)}
        return [
            problem
            for day, found in self.stored.items()
            for problem in day_problems(day, found, late=late.get(day, ""))
        ]

    def _is_late(self, day: str, now: datetime) -> bool:
        if day in self.loading:
            return False
        due = datetime.combine(date.fromisoformat(shift(day, 1)), LATE_AT, UTC)
        # If nothing was published by then, the pipeline was not in service.
        return now >= due and self.in_service is not None and self.in_service < due

    def sees(self, incident: Incident) -> bool:
        """Whether the look would have found the incident."""
        found = self.stored.get(incident.day)
        if found is None:
            return False
        # A damaged document says nothing about its feeds, and a table being loaded nothing about the day.
        if found.outcome == "unreadable":
            return incident.rule == "day_unreadable"
        return incident.rule != "day_late" or incident.day not in self.loading

    def is_held(self, day: str) -> bool:
        """Whether the day is held, so that its run fails on purpose."""
        return day in self.stored and self.stored[day].outcome == "held"


def _stored_before(store: Store, day: str) -> list[str]:
    """Return the latest stored day before the day, if there is one."""
    prefix = paths.day_summary(day).removesuffix(f"{day}.json")
    names = (path.removeprefix(prefix).removesuffix(".json") for path in store.list(prefix))
    return sorted(name for name in names if is_day(name) and name < day)[-1:]


def _left_out(store: Store, first: str) -> list[str]:
    """Return days between the latest stored one and the look-back: after an absence no schedule runs them."""
    stored = _stored_before(store, first)
    return day_range(shift(stored[0], 1), shift(first, -1))[-_MOST_LEFT_OUT:] if stored else []


def _is_loading(entry: ledger.Entry, now: datetime) -> bool:
    """Whether a published table is being loaded again by a process that may still be running."""
    at_work = entry.state == "intent" and entry.failure is None and now - entry.claimed_at < _LOADING
    return at_work and entry.published is not None


def _why_missing(store: Store, day: str, found: StoredDay) -> str:
    """Return why a day is missing."""
    if found.reasons:
        return "; ".join(found.reasons)
    try:
        record = load_day_record(store, day)
    except Unreadable as failure:
        return str(failure)
    if record is None:
        return f"no run has recorded it by {LATE_AT:%H:%M} UTC"
    return "; ".join(record.why_awaited) or f"not in the tables by {LATE_AT:%H:%M} UTC"


def day_problems(day: str, found: StoredDay, *, late: str) -> Iterator[Problem]:
    """Yield the problems of a stored day.

    Parameters
    ----------
    late
        Why the day is not in the tables although it is due; empty if it is not due.
    """
    if found.outcome == "unreadable":
        yield Problem("day_unreadable", "; ".join(found.reasons), day, command=found.command)
    elif found.outcome == "missing" and late:
        yield Problem("day_late", late, day, command=run_day(day))
    elif found.outcome == "held":
        out = f"{len(found.quarantined)} of {plural(found.feeds, 'feed')} left out"
        text = "; ".join([*found.reasons, out, *(f"{name}={score:.3f}" for name, score in _scores(found))])
        yield Problem("day_held", text, day, command=found.command)
    for feed in found.notable:
        if feed.outcome != "publish" and not feed.accepted:
            again = run_day(day, () if feed.outcome == "missing" else (feed.feed,))
            text = "; ".join((feed.outcome, *feed.reasons))
            text += f". {ASK_THE_EXCHANGE}: {feed.heal}" if feed.heal else ""
            yield Problem("feed_left_out", text, day, feed.feed, again)
        if feed.pending and feed.accepted:
            text = "; ".join(feed.reasons) or "a newer version changes more than a restatement may"
            command = approve_command(day, feed.feed, feed.content)
            yield Problem("version_pending", text, day, feed.feed, command)


def _scores(found: StoredDay) -> list[tuple[str, float]]:
    named = {"completeness": found.completeness, "quality": found.quality, "consistency": found.consistency}
    return [(name, score) for name, score in named.items() if score is not None]


def disk_problems(settings: Settings) -> list[Problem]:
    """Return disks of this machine that are nearly full, each once."""
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
            LOGGER.warning("%s: its disk cannot be checked (%s)", place, error.strerror)
            continue
        percent = 100 * usage.free / usage.total
        if percent < settings.alerts.disk_free_percent:
            free = f"{percent:.1f} % free, {bytes_text(usage.free)} of {bytes_text(usage.total)}"
            found.setdefault(device, Problem("disk_low", free, subject=f"{_HERE}{place}"))
    return list(found.values())


def run_problem(run: RunFact, log: RunLog) -> Problem:
    """Return the problem of a failed run that is not run again, by the steps that failed in it."""
    gone = "no reason is known" if run.state == "failed" else "its process is gone"
    text = log.failure or log.trouble or gone
    rule: Rule = "run_failed"
    if log.failed and all(step.endswith("_checks") for step in log.failed):
        rule = "check_not_run"
    elif log.failed and log.failed[0].startswith(_LOAD_STEPS):
        rule = "load_failed"
    steps = f"{', '.join(log.failed)}: " if log.failed else ""
    return Problem(rule, f"{steps}{text}", run.day, command=run_day(run.day))


def backfill_problems(jobs: Sequence[Job], now: datetime) -> Iterator[Problem]:
    """Yield recently failed jobs, each with its days by state."""
    for job in jobs:
        if now - (job.finished or job.updated) <= FOLLOWED:
            days = ", ".join(f"{count} {state}" for state, count in job.days_by_state.items() if count)
            text = f"{job.request.start} to {job.request.end}: {days}"
            if job.failure:
                text += f"; {job.failure}"
            yield Problem(
                "backfill_failed", text, subject=job.job_id, command=f"backfill-assets retry {job.job_id}"
            )


def report_link(store: Store, settings: Settings, day: str) -> str:
    """Return the address of a day's page."""
    base = settings.alerts.page_url.rstrip("/")
    return f"{base}/days/{day}/report" if base else store.uri_of(paths.day_report(day))


def _ping(store: Store, settings: Settings, now: datetime, found: Incidents, days: _Days) -> Incidents:
    """Tell the heartbeat once that yesterday is in the tables, and store the outcome."""
    yesterday = shift(now.astimezone(UTC).date().isoformat(), -1)
    day = days.stored.get(yesterday)
    is_good = day is not None and day.outcome in ("published", "degraded")
    pinged, failure = found.pinged, found.heartbeat_failure
    if not _address(settings.alerts.heartbeat_url):
        failure = ""
    elif is_good and pinged != yesterday:
        try:
            failure = channel.ping(settings.alerts)
        except BackfillError as wrong:
            failure = str(wrong)
        if failure:
            LOGGER.warning("%s", failure)
        pinged = pinged if failure else yesterday
    update = {"pinged": pinged, "heartbeat_failure": failure, "in_service": days.in_service}
    if all(getattr(found, name) == value for name, value in update.items()):
        return found

    def change(current: Incidents | None) -> Incidents:
        return (current or found).model_copy(update=update)

    return documents.update(store, paths.incidents(), Incidents, change)


def send_test(settings: Settings) -> str:
    """Send one message that says it is a test; return the services.

    Raises
    ------
    PermanentFailure
        No address is set, or a service did not accept the message.
    """
    named = [name for name, _ in channel.services(settings.alerts)]
    if not named:
        msg = "alerts.urls is empty: set SLACK_WEBHOOK_URL, or write Apprise addresses into the settings"
        raise PermanentFailure(msg)
    text = "Messages about held days, failed runs and the like will come here."
    _, failure = channel.send(settings.alerts, f"[{settings.name}] test of backfill-assets", text)
    if failure:
        msg = f"alerts.urls: {failure}: check the address and what the service says about it"
        raise PermanentFailure(msg)
    return ", ".join(named)


@contextmanager
def watching(service: Backfills) -> Iterator[None]:
    """Look every five minutes in a separate thread, for a ``with`` block."""
    stopping = threading.Event()

    def run() -> None:
        while not stopping.wait(SECONDS):
            try:
                look(service.store, service.settings, utc_now, service.records)
            except BackfillError as failure:
                LOGGER.warning("incidents cannot be checked: %s", failure)
            except Exception:
                # An ended thread would no longer look, and no message would say so.
                LOGGER.exception("incidents cannot be checked")

    thread = threading.Thread(target=run, name="incidents", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stopping.set()
        thread.join(timeout=5)
