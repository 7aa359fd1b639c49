"""What may be done with backfills: create, look, cancel, retry; for the API, the page and the command line.

``api`` maps each method to a route, the command line calls the same methods in its own process; whoever
waits calls ``start`` for a thread that keeps the progress fresh, or ``refresh`` now and then. Of several
services over one database each does the whole work; the store's revisions keep them from undoing each other.

The graph of assets comes from whoever makes the service, since only the code location knows all of them.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date, datetime
from typing import TYPE_CHECKING, Final, Self

from backfill_assets.automation.backfills import (
    cancel_backfill,
    checked_days,
    ensure_backfill,
    new_backfill_id,
    stop_run,
)
from backfill_assets.automation.history import measured_runs, runs_at_once
from backfill_assets.days import utc_now
from backfill_assets.failures import BackfillError, PermanentFailure
from backfill_assets.feeds import FeedChoice
from backfill_assets.lake import paths
from backfill_assets.lake.store import Store, open_store
from backfill_assets.orchestration import (
    TAG_ATTEMPT,
    TAG_JOB,
    TAG_RANGE,
    TAG_REQUEST,
    open_instance,
    refresh_tags,
)
from backfill_assets.progress import tracking
from backfill_assets.progress.database import open_jobs
from backfill_assets.progress.keeper import Keeper
from backfill_assets.progress.model import (
    FINAL_JOB_STATES,
    RETRIED_DAY_STATES,
    UNFINISHED_DAY_STATES,
    BackfillRequest,
    CalendarDay,
    DayStatus,
    DayTruth,
    InvalidField,
    Job,
    JobState,
    JobStatus,
)
from backfill_assets.progress.plan import Plan, make_plan, plan_days
from backfill_assets.progress.reader import DAEMON_SECONDS, Reader, storage_errors
from backfill_assets.progress.refresh import MOST_JOBS, Refresher, day_row, job_row
from backfill_assets.progress.selection import checked_choice, unknown_names
from backfill_assets.progress.store import DayRow, JobRow, JobStore, RequestIdTaken
from backfill_assets.progress.truth import calendar, day_truth, known_truth
from backfill_assets.settings import Settings, current_settings

if TYPE_CHECKING:
    from backfill_assets.automation.backfills import AssetGraph, DagsterInstance

UNFINISHED: Final[tuple[JobState, ...]] = ("queued", "running", "canceling")
#: Times that a change is tried again on what another process has just stored.
_ATTEMPTS: Final = 20
#: Statuses kept as they were told; one of 800 days is a megabyte.
_TOLD: Final = 20
#: What may be an id at all; anything else need not be looked for, nor may it reach the database's driver.
_JOB_ID: Final = re.compile(r"[a-z0-9-]{1,32}")


class InvalidRequest(PermanentFailure):
    """The request cannot be taken; ``errors`` says which parts and why."""

    def __init__(self, errors: list[InvalidField]) -> None:
        super().__init__("; ".join(error.detail for error in errors))
        self.errors = tuple(errors)


class UnknownJob(PermanentFailure):
    """There is no such job."""


class Conflict(PermanentFailure):
    """The job's state, or another request with the same id, does not allow it."""


class Backfills:
    """Backfills of one Dagster instance and one lake; safe to share among threads.

    Parameters
    ----------
    graph
        All assets, as the code location has them; asked for only when days are launched: loading takes long.
    settings
        Read anew for every request, so that a changed file counts without a restart.
    dagster_url
        Where the Dagster UI is; overrides ``serve.dagster_url`` where given.
    """

    def __init__(
        self,
        jobs: JobStore,
        instance: DagsterInstance,
        graph: Callable[[], AssetGraph],
        settings: Callable[[], Settings] = current_settings,
        *,
        dagster_url: str = "",
    ) -> None:
        self._jobs = jobs
        self._instance = instance
        self._graph = graph
        self._settings = settings
        self._dagster_url = dagster_url
        self._reader = Reader(instance)
        self._storage_errors = storage_errors()
        refresher = Refresher(
            jobs,
            self._reader,
            truth=lambda day: day_truth(self._store(), day),
            launch=self._launch,
            cancel=self._cancel_in_dagster,
            stop_run=lambda run_id: stop_run(instance, run_id),
        )
        passing: tuple[type[Exception], ...] = (BackfillError, OSError, *self._storage_errors)
        self._keeper = Keeper(refresher, lambda: settings().serve.refresh_seconds, passing)
        #: Of the jobs that were told last: what their status rests on, and the status.
        self._told: dict[str, tuple[tuple[int, str], str]] = {}
        self._telling = threading.Lock()
        self._opened: tuple[Settings, Store] | None = None

    # What people ask for

    def create(self, request: BackfillRequest, requester: str = "") -> tuple[Job, bool]:
        """Start a backfill of the days that are not good yet; returns the job and whether it is new.

        The same ``request_id`` with the same request gives the same job, however often and from wherever it
        is asked for.

        Raises
        ------
        InvalidRequest
            Days, exchanges, symbols or data types that cannot be run.
        Conflict
            The ``request_id`` was used for another request.
        """
        if request.request_id is not None and (known := self._jobs.by_request_id(request.request_id)):
            return self._same(known, request), False
        days = self.check(request)
        good = self._good_days(request, days)
        job, statuses = tracking.new_job(new_backfill_id(), request, requester, days, utc_now(), good)
        try:
            self._jobs.insert(job_row(job), [day_row(day) for day in statuses])
        except RequestIdTaken:
            known = self._jobs.by_request_id(request.request_id or "")
            if known is None:
                raise
            return self._same(known, request), False
        # A process that dies here leaves a job without backfill: whoever refreshes it launches it.
        if len(good) < len(days):
            self._launch(job, [day for day in days if day not in good])
        return self._with_links(job), True

    def check(self, request: BackfillRequest) -> list[str]:
        """The days of the request.

        Raises
        ------
        InvalidRequest
            It cannot be taken; every part that is wrong is named.
        """
        errors, days = [], []
        most = self._settings().serve.max_days
        try:
            days = checked_days(request.start.isoformat(), request.end.isoformat())
        except PermanentFailure as failure:
            errors.append(InvalidField(pointer="/start", detail=str(failure)))
        if len(days) > most:
            detail = f"{len(days)} days are more than the {most} of serve.max_days: ask for fewer at a time"
            errors.append(InvalidField(pointer="/end", detail=detail))
        errors += self._unknown_names(request)
        if errors:
            raise InvalidRequest(errors)
        return days

    def plan(self, request: BackfillRequest) -> Plan:
        """What the request would fetch, load, store and take, and which of its days are good already.

        Raises
        ------
        InvalidRequest
            As ``check``.
        """
        self.check(request)
        return make_plan(
            self._store(),
            self._settings(),
            request.start.isoformat(),
            request.end.isoformat(),
            choice=_choice(request),
            refresh=request.refresh,
            all_days=request.all_days,
            runs=measured_runs(self._instance),
            runs_at_once=runs_at_once(self._instance),
        )

    def status(self, job_id: str) -> JobStatus:
        """The job with each of its days, as last refreshed."""
        return JobStatus.model_validate_json(self.status_json(job_id))

    def status_json(self, job_id: str) -> str:
        """``status`` as JSON, put together from what is stored: 800 days need no parsing."""
        # Whoever polls is one of many: the next asks for the same before anything has changed.
        known = self._told.get(job_id)
        if known is not None and known[0] == (self.revision(job_id), self._dagster()):
            return known[1]
        row, days = self._stored(job_id)
        job = self._job(row).model_dump_json()
        text = f'{job[:-1]},"days":[{",".join(day.snapshot for day in days)}]}}'
        with self._telling:
            self._told[job_id] = (row.revision, self._dagster()), text
            for oldest in list(self._told)[:-_TOLD]:
                del self._told[oldest]
        return text

    def job(self, job_id: str) -> Job:
        """The job without its days."""
        row = self._jobs.job(job_id) if _JOB_ID.fullmatch(job_id) else None
        if row is None:
            raise _unknown(job_id)
        return self._job(row)

    def revision(self, job_id: str) -> int:
        """The job's revision; cheap enough to be asked often."""
        found = self._jobs.revision(job_id) if _JOB_ID.fullmatch(job_id) else None
        if found is None:
            raise _unknown(job_id)
        return found

    def recent(self, limit: int = 20, state: JobState | None = None) -> list[Job]:
        """Jobs, the newest first; all, or those in one state."""
        return [self._job(row) for row in self._jobs.recent(limit, None if state is None else (state,))]

    def cancel(self, job_id: str) -> Job:
        """Stop the job: no further day starts, running ones are ended; cancelling twice is the same.

        Raises
        ------
        UnknownJob
        Conflict
            It has ended already.
        """

        def canceling(job: Job, _: list[DayStatus]) -> tuple[Job, list[DayStatus]] | None:
            if job.state in ("canceling", "canceled"):
                return None
            if job.state in FINAL_JOB_STATES:
                msg = f"{job.job_id} has {job.state}: there is nothing to cancel"
                raise Conflict(msg)
            return job.model_copy(update={"state": "canceling", "updated": utc_now()}), []

        job = self._change(job_id, canceling)
        if job.state == "canceling":
            self._cancel_in_dagster(job)
        return job

    def retry(self, job_id: str) -> Job:
        """Run the failed, held, missing and cancelled days again, as the job's next attempt.

        Raises
        ------
        UnknownJob
        Conflict
            It is still at work, or all its days are good.
        """
        again: list[str] = []

        def retried(job: Job, days: list[DayStatus]) -> tuple[Job, list[DayStatus]]:
            if job.state not in FINAL_JOB_STATES:
                msg = f"{job.job_id} is {job.state}: cancel it, or wait for its end"
                raise Conflict(msg)
            again[:] = [day.day for day in days if day.state in RETRIED_DAY_STATES]
            if not again:
                msg = f"{job.job_id}: no day is failed, held or missing: there is nothing to retry"
                raise Conflict(msg)
            changed, statuses = tracking.retried(job, days, utc_now())
            return changed, [day for day in statuses if day.state in UNFINISHED_DAY_STATES]

        job = self._change(job_id, retried)
        self._launch(job, again)
        return job

    def days(self, first: date, last: date) -> list[CalendarDay]:
        """The calendar: what is published, degraded, held or missing, and which job is at it.

        Raises
        ------
        InvalidRequest
            The range is turned round, or longer than ``serve.max_days``.
        """
        start, end = first.isoformat(), last.isoformat()
        count, most = (last - first).days + 1, self._settings().serve.max_days
        if not 0 < count <= most:
            detail = f"{start} to {end} are {max(0, count)} days: ask for 1 to {most}"
            raise InvalidRequest([InvalidField(pointer="to", detail=detail)])
        at_work = self._jobs.unfinished_days(start, end, UNFINISHED)
        return [
            day.model_copy(update={"job_id": at_work[day.day][0], "job_state": at_work[day.day][1]})
            if day.day in at_work
            else day
            for day in calendar(self._store(), start, end)
        ]

    # For the page

    @property
    def settings(self) -> Settings:
        """As they are now."""
        return self._settings()

    def unfinished(self) -> list[Job]:
        """Every job that is queued, running or being cancelled, the newest first."""
        return [self._job(row) for row in self._jobs.recent(MOST_JOBS, UNFINISHED)]

    def report(self, name: str) -> bytes | None:
        """The page of a day (``YYYY-MM-DD``) or a month (``YYYY-MM``) in the lake, or None."""
        path = paths.month_report(name) if len(name) == len("YYYY-MM") else paths.day_report(name)
        stored = self._store().read(path)
        return None if stored is None else stored.data

    def years(self) -> list[int]:
        """Years with days that were run or that a job is at, in order."""
        prefix = paths.day_summary("2024-01-01").removesuffix("2024-01-01.json")
        names = (path.removeprefix(prefix) for path in self._store().list(prefix))
        run = {int(name[:4]) for name in names if name[:4].isdecimal()}
        at_work = {
            year
            for job in self.unfinished()
            for year in range(job.request.start.year, job.request.end.year + 1)
        }
        return sorted(run | at_work)

    # Keeping it fresh

    def refresh(self) -> int:
        """Bring the unfinished jobs up to date now; returns how many there are."""
        return self._keeper.refresh()

    def start(self) -> Self:
        """Refresh in a thread of its own, every ``serve.refresh_seconds``, until ``close``."""
        self._keeper.start()
        return self

    def close(self) -> None:
        """End the thread and give the connections back."""
        self._keeper.close()
        self._jobs.close()

    # For readiness and metrics

    def troubles(self) -> list[str]:
        """Why the service is not ready; empty if it is. The jobs' database and the daemon are asked."""
        troubles = []
        try:
            self._jobs.ping()
            seen = self._reader.daemon_seen()
        except self._storage_errors as error:
            return [f"the database does not answer: {' '.join(str(error).split())[:200]}"]
        if seen is None or (utc_now() - seen).total_seconds() > DAEMON_SECONDS:
            when = "never" if seen is None else f"not since {seen.isoformat(timespec='seconds')}"
            troubles.append(f"the Dagster daemon was seen {when}")
        if self._keeper.has_died:
            troubles.append("progress is not refreshed any more: see the log, and restart the service")
        return troubles

    def counts(self) -> dict[str, int]:
        """Jobs by state."""
        return self._jobs.counts()

    @property
    def refreshed(self) -> datetime | None:
        """When the unfinished jobs were last brought up to date."""
        return self._keeper.refreshed

    # Inside

    def _good_days(self, request: BackfillRequest, days: list[str]) -> dict[str, DayTruth]:
        """Days that the request does not run, and what is known of them."""
        if request.all_days:
            return {}
        store = self._store()
        plans = plan_days(store, self._settings(), days, _choice(request), refresh=request.refresh)
        return {plan.day: known_truth(store, plan.day) for plan in plans if plan.good}

    def _unknown_names(self, request: BackfillRequest) -> list[InvalidField]:
        universe, choice = self._settings().universe, _choice(request)
        errors = [
            InvalidField(pointer=f"/{found.part}/{found.index}", detail=found.detail)
            for found in unknown_names(universe, choice)
        ]
        if errors:
            return errors
        try:
            checked_choice(universe, choice)
        except PermanentFailure as failure:
            return [InvalidField(pointer="", detail=str(failure))]
        return []

    def _same(self, row: JobRow, request: BackfillRequest) -> Job:
        job = self._job(row)
        if job.request != request:
            msg = f"request_id {request.request_id!r} was used for another request: job {job.job_id}"
            raise Conflict(msg)
        return job

    def _launch(self, job: Job, days: list[str]) -> None:
        request = job.request
        tags = {
            TAG_JOB: job.job_id,
            TAG_ATTEMPT: str(job.attempt),
            TAG_RANGE: f"{request.start}..{request.end}",
            **({TAG_REQUEST: request.request_id} if request.request_id else {}),
        }
        if request.refresh or request.is_subset:
            tags |= refresh_tags(_choice(request))
        title = f"{request.start} to {request.end}"
        backfill_id = tracking.backfill_id(job.job_id, job.attempt)
        ensure_backfill(self._instance, self._graph(), backfill_id, days, tags, title)

    def _cancel_in_dagster(self, job: Job) -> None:
        cancel_backfill(self._instance, tracking.backfill_id(job.job_id, job.attempt))

    def _change(
        self,
        job_id: str,
        change: Callable[[Job, list[DayStatus]], tuple[Job, list[DayStatus]] | None],
    ) -> Job:
        """Store what ``change`` makes of the job and its days; it gives None to leave both as they are."""
        for _ in range(_ATTEMPTS):
            row, rows = self._stored(job_id)
            job = self._job(row)
            days = [DayStatus.model_validate_json(r.snapshot) for r in rows]
            changed = change(job, days)
            if changed is None:
                return job
            stored = self._jobs.change(job_row(changed[0], row), [day_row(day) for day in changed[1]])
            if stored is not None:
                return self._job(stored)
        msg = f"{job_id}: other processes changed it {_ATTEMPTS} times meanwhile: ask again"
        raise Conflict(msg)

    def _stored(self, job_id: str) -> tuple[JobRow, list[DayRow]]:
        found = self._jobs.with_days(job_id) if _JOB_ID.fullmatch(job_id) else None
        if found is None:
            raise _unknown(job_id)
        return found

    def _job(self, row: JobRow) -> Job:
        return self._with_links(Job.model_validate_json(row.snapshot))

    def _with_links(self, job: Job) -> Job:
        return job.model_copy(update={"links": tracking.links(job.job_id, self._dagster(), job.attempt)})

    def _dagster(self) -> str:
        return self._dagster_url or self._settings().serve.dagster_url

    def _store(self) -> Store:
        settings = self._settings()
        if self._opened is None or self._opened[0] is not settings:
            self._opened = (settings, open_store(settings.lake))
        return self._opened[1]


@contextmanager
def open_backfills(graph: Callable[[], AssetGraph], *, dagster_url: str = "") -> Iterator[Backfills]:
    """The service over Dagster's instance in ``DAGSTER_HOME`` and the jobs beside it, for a ``with`` block.

    Raises
    ------
    PermanentFailure
        The instance or the jobs' database cannot be opened; one line with the remedy.
    """
    jobs = open_jobs()
    with open_instance() as instance:
        service = Backfills(jobs, instance, graph, dagster_url=dagster_url)
        try:
            yield service
        finally:
            service.close()


def _choice(request: BackfillRequest) -> FeedChoice:
    return FeedChoice(request.exchanges, request.symbols, request.data_types)


def _unknown(job_id: str) -> UnknownJob:
    return UnknownJob(f"there is no job {job_id[:50]!r}: /api/v1/backfill/recent lists them")
