"""Creates, reads, cancels and retries backfills for the API, the page and the command line.

``api`` maps each method to a route; the command line calls the same methods in its own process. Every
backfill is one of Dagster's, and nothing is kept outside Dagster, so any number of services may work side by
side, and a killed service leaves nothing to repair.

The caller passes in the graph of assets, since only the code location knows all of them.
"""

from __future__ import annotations

import re
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING, Final

from backfill_assets.alerts.incidents import Incidents, load_incidents
from backfill_assets.automation.backfills import (
    add_backfill,
    cancel_backfill,
    end_runs,
    new_backfill_id,
    repeat_backfill,
)
from backfill_assets.automation.history import measured_runs
from backfill_assets.automation.run_order import backfill_places, insist_on_limit, priority_tags
from backfill_assets.days import utc_now
from backfill_assets.failures import BadInput, PermanentFailure, SettingsError, TransientFailure
from backfill_assets.frames.conditions import (
    MarketCoverage,
    QualityAnswer,
    feed_quality,
    market_coverage,
    open_tables,
)
from backfill_assets.lake import paths
from backfill_assets.lake.parallel import parallel_map
from backfill_assets.lake.store import Store, open_store
from backfill_assets.orchestration import (
    SET_HOME,
    TAG_ATTEMPT,
    TAG_JOB,
    dagster_home,
    database_failures,
    open_instance,
)
from backfill_assets.progress import tracking
from backfill_assets.progress.day_cache import DayCache, ReadDay
from backfill_assets.progress.facts import Records, RunFact, RunLog
from backfill_assets.progress.model import (
    FINAL_JOB_STATES,
    UNFINISHED_DAY_STATES,
    BackfillRequest,
    CalendarDay,
    InvalidField,
    Job,
    JobDayState,
    JobState,
    JobStatus,
    StoredDay,
)
from backfill_assets.progress.plan import Plan, make_plan, plan_days
from backfill_assets.progress.reader import Reader
from backfill_assets.progress.records import JobRecords
from backfill_assets.progress.request import InvalidRequest, requested_days
from backfill_assets.progress.request_tags import as_kept, attempt_id, request_tags
from backfill_assets.progress.statuses import Statuses, UnknownJob
from backfill_assets.progress.stored_days import calendar, stored_day, summarized_day
from backfill_assets.report.publish import current_page
from backfill_assets.settings import Settings, current_settings

if TYPE_CHECKING:
    from backfill_assets.automation.backfills import AssetGraph, DagsterInstance

UNFINISHED: Final[tuple[JobState, ...]] = ("queued", "running", "canceling")
#: How many jobs are searched for those in one state: first a few, then more.
_LOOKED_THROUGH: Final = (50, 200, 1_000)
#: How many of the newest jobs are counted by state.
_COUNTED: Final = 50
#: How many days back failed runs outside backfills are reported.
DAYS_OF_RUNS: Final = 7
#: The form of an id; text in any other form names no job and must not reach the database driver.
_JOB_ID: Final = re.compile(r"[a-z0-9-]{1,32}")
#: Seconds that the process waits at its end for the runs that it is canceling.
_SECONDS_TO_CLOSE: Final = 10


@contextmanager
def _as_request() -> Iterator[None]:
    """Report invalid values as those of a request."""
    try:
        yield
    except InvalidRequest:
        raise
    except BadInput as failure:
        raise InvalidRequest([InvalidField(pointer="", detail=str(failure))]) from failure


class Conflict(PermanentFailure):
    """Raised when the job's state, or another request with the same id, forbids the operation."""


class Backfills:
    """The backfills of one Dagster instance and one lake; safe to share among threads.

    Parameters
    ----------
    graph
        Returns all assets of the code location; called only to launch days, since loading takes long.
    settings
        Read anew for every request, so that a changed file takes effect without a restart.
    dagster_url
        Address of the Dagster UI; overrides ``serve.dagster_url`` if given.
    """

    def __init__(
        self,
        instance: DagsterInstance,
        graph: Callable[[], AssetGraph],
        settings: Callable[[], Settings] = current_settings,
        *,
        dagster_url: str = "",
        read_day: ReadDay | None = None,
    ) -> None:
        self._instance = instance
        self._graph = graph
        self._settings = settings
        self._dagster_url = dagster_url
        self._reader = reader = Reader(instance)
        run_days = DayCache(
            self._store, read_day or (lambda store, day: stored_day(store, self._settings(), day))
        )
        skipped_days = DayCache(self._store, lambda store, day: summarized_day(store, self._settings(), day))
        self._statuses = Statuses(
            reader,
            lambda: JobRecords(reader, run_days, skipped_days),
            lambda: settings().serve.refresh_seconds,
            self._dagster,
        )
        self._closing = threading.Event()
        self._ending: list[threading.Thread] = []
        self._opened: tuple[Settings, Store] | None = None

    # For API, page and command line

    def create(self, request: BackfillRequest, requester: str = "") -> tuple[Job, bool]:
        """Start a backfill of the days that are not good yet; return the job and whether it is new.

        The same ``request_id`` with the same request always gives the same job: the job's id is made from it.

        Raises
        ------
        InvalidRequest
            Days, exchanges, symbols or data types cannot be run.
        Conflict
            The ``request_id`` was used for another request.
        """
        job_id = new_backfill_id(request.request_id)
        if request.request_id is not None and (known := self._same(job_id, request)):
            return known, False
        days = self._requested_days(request)
        good = self._good_days(request, days)
        graph = self._graph()
        with database_failures():
            is_new = add_backfill(
                self._instance,
                graph,
                job_id,
                [day for day in days if day not in good],
                request_tags(request, requester, job_id),
                f"{request.start} to {request.end}",
                description=request.reason,
            )
        if not is_new and (known := self._same(job_id, request)):
            return known, False
        return self._statuses.job(job_id, at_once=True), is_new

    def plan(self, request: BackfillRequest) -> Plan:
        """Return the cost of the request, and the days that are already good.

        Raises
        ------
        InvalidRequest
            As ``create``.
        """
        self._requested_days(request)
        with database_failures():
            runs, at_once = measured_runs(self._instance), backfill_places(self._instance)
        return make_plan(self._store(), self._settings(), request, runs=runs, runs_at_once=at_once)

    def status(self, job_id: str) -> JobStatus:
        """Return the job with each of its days."""
        job, days = self._statuses.with_days(_checked(job_id))
        return JobStatus.model_construct(**dict(job), days=days)

    def status_json(self, job_id: str) -> tuple[str, str]:
        """Return ``status`` as JSON, and a tag that changes with it."""
        return self._statuses.as_json(_checked(job_id))

    def job(self, job_id: str) -> Job:
        """Return the job without its days."""
        return self._statuses.job(_checked(job_id))

    def recent(self, limit: int = 20, state: JobState | None = None) -> list[Job]:
        """Return jobs, the newest first: all, or those in one state among the newest thousand."""
        jobs: list[Job] = []
        for most in (limit,) if state is None else _LOOKED_THROUGH:
            jobs = [job for job in self._statuses.newest(most) if state in (None, job.state)]
            if len(jobs) >= limit:
                break
        return jobs[:limit]

    def cancel(self, job_id: str) -> Job:
        """Stop the job: no further day starts, running days are ended; canceling twice is the same as once.

        Raises
        ------
        UnknownJob
        Conflict
            The job has already ended.
        """
        job = self._statuses.job(_checked(job_id), at_once=True)
        if job.state in ("canceling", "canceled"):
            return job
        if job.state in FINAL_JOB_STATES:
            msg = f"{job.job_id} has {job.state}: there is nothing to cancel"
            raise Conflict(msg)
        backfill_id = attempt_id(job_id, job.attempt)
        with database_failures():
            cancel_backfill(self._instance, backfill_id)
        ending = threading.Thread(
            target=end_runs, args=(self._instance, backfill_id, self._closing), name="cancel", daemon=True
        )
        ending.start()
        self._ending = [*(thread for thread in self._ending if thread.is_alive()), ending]
        return self._statuses.job(job_id, at_once=True)

    def retry(self, job_id: str) -> Job:
        """Run the failed, held, missing, unreadable and canceled days again, and those that lack a file.

        They are the job's next attempt.

        Raises
        ------
        UnknownJob
        Conflict
            The job is still running, or all its days are good.
        """
        job = self._statuses.job(_checked(job_id), at_once=True)
        if job.state not in FINAL_JOB_STATES:
            msg = f"{job.job_id} is {job.state}: cancel it, or wait for its end"
            raise Conflict(msg)
        _, days = self._statuses.with_days(job_id, in_full=False)
        again = [day.day for day in tracking.retried_days(days)]
        if not again:
            states = "failed, held, missing, unreadable, canceled or without a file"
            msg = f"{job.job_id}: no day is {states}: there is nothing to retry"
            raise Conflict(msg)
        attempt = job.attempt + 1
        tags, graph = {TAG_JOB: job_id, TAG_ATTEMPT: str(attempt)}, self._graph()
        tags |= priority_tags("awaited")
        with database_failures():
            repeat_backfill(self._instance, graph, job_id, attempt_id(job_id, attempt), again, tags)
        return self._statuses.job(job_id, at_once=True)

    def days(self, first: date, last: date) -> list[CalendarDay]:
        """Return the calendar: whether each day is published, degraded, held or missing, and its job.

        Raises
        ------
        InvalidRequest
            The range is reversed, or longer than ``serve.max_days``.
        """
        start, end = self._range(first, last)
        at_work: dict[str, tuple[str, JobDayState]] = {}
        for job in reversed(self.unfinished()):
            if job.request.start <= last and job.request.end >= first:
                _, found = self._statuses.with_days(job.job_id, in_full=False)
                left = (day for day in found if day.state in UNFINISHED_DAY_STATES)
                at_work |= {day.day: (job.job_id, day.state) for day in left}
        return [
            day.model_copy(update={"job_id": at_work[day.day][0], "job_state": at_work[day.day][1]})
            if day.day in at_work
            else day
            for day in calendar(self._store(), self._settings(), start, end)
        ]

    def coverage(self, exchange: str, symbol: str, first: date, last: date, timeframe: str) -> MarketCoverage:
        """Return condition, last change and bucket states of a market, day by day.

        Raises
        ------
        InvalidRequest
            The range or the timeframe is invalid, or no day that was run has the market.
        """
        with _as_request():
            days = self._range(first, last)
            return market_coverage(open_tables(self._settings()), exchange, symbol, *days, timeframe)

    def quality(self, first: date, last: date, exchange: str, symbol: str, data_type: str) -> QualityAnswer:
        """Return condition, last change and evidence of each feed, day by day.

        Raises
        ------
        InvalidRequest
            The range is invalid, no day that was run has such a feed, or the answer would be too large.
        """
        with _as_request():
            days = self._range(first, last)
            data = open_tables(self._settings())
            return feed_quality(data, *days, exchange=exchange, symbol=symbol, data_type=data_type)

    def _range(self, first: date, last: date) -> tuple[str, str]:
        start, end = first.isoformat(), last.isoformat()
        count, most = (last - first).days + 1, self._settings().serve.max_days
        if not 0 < count <= most:
            detail = f"{start} to {end} are {max(0, count)} days: ask for 1 to {most}"
            raise InvalidRequest([InvalidField(pointer="to", detail=detail)])
        return start, end

    # For the page

    @property
    def settings(self) -> Settings:
        """The current settings."""
        return self._settings()

    def unfinished(self) -> list[Job]:
        """Return all jobs that are queued, running or being canceled, the newest first."""
        return self._statuses.unfinished()

    def report(self, name: str) -> bytes | None:
        """Return the page of a day (``YYYY-MM-DD``) or a month (``YYYY-MM``); None if the lake has none."""
        page = current_page(self._store(), self._settings(), name)
        return None if page is None else page.encode()

    def stored(self, days: list[str]) -> dict[str, StoredDay]:
        """Return the stored state of each of a few days."""
        store = self._store()
        found = parallel_map(lambda day: stored_day(store, self._settings(), day), days, store.parallel_reads)
        return dict(zip(days, found, strict=True))

    def failed_runs(self, now: datetime) -> list[RunFact]:
        """Return recent failed runs outside backfills that no later run of their day has followed."""
        with database_failures():
            return self._reader.failed_alone(now - timedelta(days=DAYS_OF_RUNS), now)

    def years(self) -> list[int]:
        """Return years with days that were run or that a job is running, in order."""
        prefix = paths.day_summary("2024-01-01").removesuffix("2024-01-01.json")
        names = (path.removeprefix(prefix) for path in self._store().list(prefix))
        run = {int(name[:4]) for name in names if name[:4].isdecimal()}
        at_work = {
            year
            for job in self.unfinished()
            for year in range(job.request.start.year, job.request.end.year + 1)
        }
        return sorted(run | at_work)

    def close(self) -> None:
        """Wait briefly for the runs that are being canceled; Dagster's daemon ends the rest."""
        self._closing.set()
        for thread in self._ending:
            thread.join(timeout=_SECONDS_TO_CLOSE)

    # For incidents

    @property
    def store(self) -> Store:
        """Return the lake that the settings name now."""
        return self._store()

    def incidents(self) -> Incidents:
        """Return the incidents as the last look left them."""
        return load_incidents(self._store())

    def records(self) -> Records:
        """Return failures and the state of the daemon from Dagster's records."""
        now = utc_now()
        runs = self.failed_runs(now)
        logs = [RunLog() for _ in runs]
        with database_failures():
            run_days = self._reader.days_run(now - timedelta(days=1))
            for run, log in zip(runs, logs, strict=True):
                self._reader.read_on(run, log)
        failed = [job for job in self.recent(_COUNTED) if job.state == "failed"]
        daemon = self._statuses.daemon_trouble() or ""
        return Records(list(zip(runs, logs, strict=True)), failed, daemon, run_days)

    # For readiness and metrics

    def troubles(self) -> list[str]:
        """Check Dagster's database and daemon; return why the service is not ready, empty if it is."""
        try:
            trouble = self._statuses.daemon_trouble()
        except TransientFailure as failure:
            return [str(failure)]
        return [trouble] if trouble else []

    def counts(self) -> dict[str, int]:
        """Count by state the unfinished jobs, and the ended ones among the newest fifty."""
        jobs = {job.job_id: job.state for job in (*self.recent(_COUNTED), *self.unfinished())}
        return dict(Counter(jobs.values()))

    # Inside

    def _requested_days(self, request: BackfillRequest) -> list[str]:
        """Return the days of the request, after checking that settings and queue allow it."""
        days = requested_days(request, self._settings())
        if request.at_once is not None:
            try:
                with database_failures():
                    insist_on_limit(self._instance, request.at_once)
            except BadInput as failure:
                raise InvalidRequest([InvalidField(pointer="/at_once", detail=str(failure))]) from failure
        return days

    def _good_days(self, request: BackfillRequest, days: list[str]) -> set[str]:
        """Return the days that the request does not run."""
        if request.all_days:
            return set()
        return {plan.day for plan in plan_days(self._store(), self._settings(), days, request) if plan.good}

    def _same(self, job_id: str, request: BackfillRequest) -> Job | None:
        """Return the job that the same request already made, if any."""
        try:
            job = self._statuses.job(job_id)
        except UnknownJob:
            return None
        if job.request != as_kept(request):
            msg = f"request_id {request.request_id!r} was used for another request: job {job.job_id}"
            raise Conflict(msg)
        return job

    def _dagster(self) -> str:
        return self._dagster_url or self._settings().serve.dagster_url

    def _store(self) -> Store:
        settings = self._settings()
        if self._opened is None or self._opened[0] is not settings:
            self._opened = (settings, open_store(settings.lake))
        return self._opened[1]


@contextmanager
def open_backfills(graph: Callable[[], AssetGraph], *, dagster_url: str = "") -> Iterator[Backfills]:
    """Open the service over Dagster's instance in ``DAGSTER_HOME``, for a ``with`` block.

    Raises
    ------
    SettingsError
        ``DAGSTER_HOME`` is not set.
    PermanentFailure
        The instance cannot be opened; one line with the remedy.
    """
    need_home()
    with open_instance() as instance:
        service = Backfills(instance, graph, dagster_url=dagster_url)
        try:
            yield service
        finally:
            service.close()


def need_home() -> None:
    """Refuse to work without ``DAGSTER_HOME``: Dagster's records would be lost with the process."""
    if not dagster_home():
        msg = f"DAGSTER_HOME is not set: {SET_HOME}"
        raise SettingsError(msg)


def _checked(job_id: str) -> str:
    if not _JOB_ID.fullmatch(job_id):
        raise UnknownJob(job_id)
    return job_id
