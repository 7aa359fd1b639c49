"""Keeping the stored progress of unfinished jobs fresh: read, compute, store what has changed; heal.

``Refresher.refresh`` does all unfinished jobs once; the service calls it about once a second from a thread of
its own, the command line while it waits. What is kept in memory between two calls only saves reading: it is
made again from the store whenever another process was faster, so any number may refresh the same jobs, and
one that was killed leaves nothing to repair.

Healing: a job whose backfill is not there (its maker died in between) is launched with the same id, one that
is to be cancelled and is not is asked for again. The runs of such a job are ended here as well.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from backfill_assets.days import MICROSECONDS_PER_SECOND, shift, utc_now
from backfill_assets.failures import BackfillError
from backfill_assets.progress import tracking
from backfill_assets.progress.facts import BackfillFact, RunFact
from backfill_assets.progress.model import (
    FINAL_JOB_STATES,
    UNFINISHED_DAY_STATES,
    DayStatus,
    DayTruth,
    Job,
)
from backfill_assets.progress.reader import DAEMON_SECONDS, Reader
from backfill_assets.progress.store import DayRow, JobRow, JobStore

LOGGER: Final = logging.getLogger(__name__)
#: Unfinished jobs that are kept fresh; each costs some reads a second.
MOST_JOBS: Final = 200
#: What reading the lake may take of one refresh; the other days that have ended wait for the next.
TRUTH_SECONDS: Final = 1.0
#: In between only the runs that have changed are read: 800 take a quarter of a second.
SECONDS_BETWEEN_ALL: Final = 60.0


def job_row(job: Job, row: JobRow | None = None) -> JobRow:
    """The job as stored; its snapshot already carries the revision that storing it will give."""
    revision = job.revision if row is None else row.revision
    stored = job.model_copy(update={"revision": revision if row is None else revision + 1})
    return JobRow(
        job_id=job.job_id,
        request_id=job.request.request_id,
        request=job.request.model_dump_json(),
        requester=job.requester,
        created_us=_us(job.created),
        updated_us=_us(job.updated),
        state=job.state,
        attempt=job.attempt,
        revision=revision,
        percent=job.percent,
        snapshot=stored.model_dump_json(),
    )


def day_row(day: DayStatus) -> DayRow:
    """The day as stored."""
    return DayRow(day=day.day, attempt=day.attempt, state=day.state, snapshot=day.model_dump_json())


def _us(moment: datetime) -> int:
    return int(moment.timestamp() * MICROSECONDS_PER_SECOND)


@dataclass(slots=True)
class _Tracked:
    """What is known of one job between two refreshes."""

    row: JobRow
    job: Job
    days: dict[str, DayStatus]
    #: Runs of the current attempt by day, oldest first.
    runs: dict[str, list[RunFact]] = field(default_factory=dict)
    seen: datetime | None = None
    #: When all of them were read, by the monotonic clock.
    all_read: float | None = None
    #: Days that have ended and are to be asked about again, since a neighbour has ended.
    stale: set[str] = field(default_factory=set)
    #: Runs that were told to end, since the job is to be cancelled.
    stopped: set[str] = field(default_factory=set)

    def add(self, facts: list[RunFact]) -> None:
        """Take in runs that are new or have changed."""
        for fact in facts:
            self.seen = fact.updated if self.seen is None else max(self.seen, fact.updated)
            if fact.attempt != self.job.attempt or fact.day not in self.days:
                continue
            others = [run for run in self.runs.get(fact.day, []) if run.run_id != fact.run_id]
            self.runs[fact.day] = sorted([*others, fact], key=lambda run: run.created)


class Refresher:
    """Keeps the unfinished jobs of one store fresh; for one thread at a time."""

    def __init__(
        self,
        jobs: JobStore,
        reader: Reader,
        *,
        truth: Callable[[str], DayTruth],
        launch: Callable[[Job, list[str]], None],
        cancel: Callable[[Job], None],
        stop_run: Callable[[str], bool],
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        self._jobs = jobs
        self._reader = reader
        self._truth = truth
        self._launch = launch
        self._cancel = cancel
        self._stop_run = stop_run
        self._now = now
        self._tracked: dict[str, _Tracked] = {}
        #: Whether the latest refresh has asked the lake about days.
        self.has_judged = False

    def refresh(self) -> int:
        """Bring every unfinished job up to date; returns how many there were."""
        self.has_judged = False
        unfinished = self._jobs.recent(MOST_JOBS, ("queued", "running", "canceling"))
        known = {row.job_id for row in unfinished}
        for job_id in self._tracked.keys() - known:
            del self._tracked[job_id]
        # The oldest first: it is the one that Dagster works on.
        for row in reversed(unfinished):
            self._refresh_job(row)
        return len(unfinished)

    def _refresh_job(self, row: JobRow) -> None:
        tracked = self._tracked.get(row.job_id)
        if tracked is None or tracked.row.revision != row.revision:
            tracked = self._load(row.job_id)
            if tracked is None or tracked.job.state in FINAL_JOB_STATES:
                return
        job = tracked.job
        backfill = self._reader.backfill(tracking.backfill_id(job.job_id, job.attempt))
        warnings = self._heal(tracked, backfill)
        tracked.add(self._reader.runs(job.job_id, None if self._is_time_for_all(tracked) else tracked.seen))
        self._stop_runs(tracked)
        days, troubles = self._days_after(tracked, backfill)
        changed_days = [d for d in days.values() if d is not (b := tracked.days[d.day]) and d != b]
        now = self._now()
        changed = tracking.job_after(job, list(days.values()), backfill, [*warnings, *troubles], now)
        if changed is job and not changed_days:
            return
        stored = self._jobs.change(job_row(changed, tracked.row), [day_row(day) for day in changed_days])
        if stored is None:
            # Another process was faster: its work counts, and is read at the next refresh.
            self._tracked.pop(job.job_id, None)
            return
        for day in changed_days:
            if (
                day.state not in UNFINISHED_DAY_STATES
                and tracked.days[day.day].state in UNFINISHED_DAY_STATES
            ):
                tracked.stale |= {shift(day.day, -1), shift(day.day, 1)} & days.keys()
                if day.run_id is not None:
                    self._reader.forget_live(day.run_id)
        tracked.row, tracked.job, tracked.days = stored, changed, days

    def _is_time_for_all(self, tracked: _Tracked) -> bool:
        """Whether to read all runs: their times of change come from two clocks, Dagster's and SQL's."""
        now = time.monotonic()
        if tracked.all_read is not None and now - tracked.all_read < SECONDS_BETWEEN_ALL:
            return False
        tracked.all_read = now
        return True

    def _load(self, job_id: str) -> _Tracked | None:
        self._tracked.pop(job_id, None)
        found = self._jobs.with_days(job_id)
        if found is None:
            return None
        row, rows = found
        job = Job.model_validate_json(row.snapshot).model_copy(update={"revision": row.revision})
        days = {r.day: DayStatus.model_validate_json(r.snapshot) for r in rows}
        # Whoever tracked it before may have ended before it asked about the neighbours.
        stale = {name for name, day in days.items() if day.truth is not None and not day.truth.sealed}
        self._tracked[job_id] = _Tracked(row, job, days, stale=stale)
        return self._tracked[job_id]

    def _heal(self, tracked: _Tracked, backfill: BackfillFact) -> list[str]:
        job = tracked.job
        if backfill.state == "absent":
            waiting = [d.day for d in tracked.days.values() if d.attempt == job.attempt and not d.skipped]
            if job.state == "canceling":
                return []
            self._launch(job, waiting)
        elif job.state == "canceling" and backfill.state == "active":
            self._cancel(job)
        return self._daemon_warnings()

    def _stop_runs(self, tracked: _Tracked) -> None:
        """End what a job that is to be cancelled has in the queue and at work, each run once.

        What could not be ended at that moment is told again at the next refresh.
        """
        if tracked.job.state != "canceling":
            return
        for runs in tracked.runs.values():
            run = runs[-1]
            is_left = run.state in ("queued", "running") and run.run_id not in tracked.stopped
            if is_left and self._stop_run(run.run_id):
                tracked.stopped.add(run.run_id)

    def _daemon_warnings(self) -> list[str]:
        seen = self._reader.daemon_seen()
        if seen is None:
            return [
                "no Dagster daemon has run yet: start dagster-daemon on the same DAGSTER_HOME or database"
            ]
        if (self._now() - seen).total_seconds() > DAEMON_SECONDS:
            moment = seen.isoformat(timespec="seconds")
            return [f"the Dagster daemon gave no sign of life since {moment}: start it"]
        return []

    def _days_after(
        self, tracked: _Tracked, backfill: BackfillFact
    ) -> tuple[dict[str, DayStatus], list[str]]:
        days, troubles = dict(tracked.days), []
        latest = {day: runs[-1] for day, runs in tracked.runs.items()}
        unfinished = [d for d in days.values() if d.state in UNFINISHED_DAY_STATES]
        live = self._reader.live(
            run.run_id for day in unfinished if (run := latest.get(day.day)) and run.state == "running"
        )
        absent = tracked.job.state == "canceling" and backfill.state == "absent"
        fact = BackfillFact("canceled") if absent else backfill
        deadline = time.monotonic() + TRUTH_SECONDS
        for day in unfinished:
            run = latest.get(day.day)
            over = run is not None and tracking.is_over(run, fact)
            if over and time.monotonic() > deadline:
                continue
            truth = None
            if over:
                truth, trouble = self._ask(day.day)
                troubles += trouble
            events = None
            if run is not None and (over or run.state == "running"):
                events = self._reader.events([r.run_id for r in tracked.runs[day.day]])
            facts = tracking.DayFacts(run, events, truth, live.get(run.run_id) if run else None)
            days[day.day] = tracking.day_after(day, facts, fact)
        for day in unfinished:
            if _has_ended(day, days[day.day]):
                tracked.stale |= {shift(day.day, -1), shift(day.day, 1)} & days.keys()
        is_last = all(day.state not in UNFINISHED_DAY_STATES for day in days.values())
        for name in sorted(tracked.stale):
            if time.monotonic() > deadline and not is_last:
                break
            tracked.stale.discard(name)
            if days[name].state not in UNFINISHED_DAY_STATES and days[name].truth is not None:
                truth, trouble = self._ask(name)
                troubles += trouble
                days[name] = tracking.day_after(days[name], tracking.DayFacts(truth=truth), fact)
        return days, troubles

    def _ask(self, day: str) -> tuple[DayTruth | None, list[str]]:
        self.has_judged = True
        try:
            return self._truth(day), []
        except BackfillError as failure:
            LOGGER.warning("what came of %s is not known yet: %s", day, failure)
            return None, [f"what came of {day} is not known yet: {failure}"]


def _has_ended(before: DayStatus, after: DayStatus) -> bool:
    return before.state in UNFINISHED_DAY_STATES and after.state not in UNFINISHED_DAY_STATES
