"""Reads Dagster's records of backfills: the backfills, their runs, and the runs' events, taken together.

A backfill's own status ignores failed checks, and a check that never ran looks green, so neither is trusted
alone. This module only reads; ``automation.backfills`` launches and cancels. Successful runs are read in
bulk, one query for hundreds; the log of each other run is read by itself, since SQLite has a file per run.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from operator import attrgetter
from typing import Any, Final, Literal

import dagster as dg
import sqlalchemy as sa
from dagster._core.events import JobFailureData
from dagster._core.execution.backfill import BulkActionsFilter, BulkActionStatus, PartitionBackfill
from dagster._core.storage.dagster_run import IN_PROGRESS_RUN_STATUSES
from dagster._core.storage.event_log.schema import AssetCheckExecutionsTable
from dagster._core.storage.tags import BACKFILL_ID_TAG, PARTITION_NAME_TAG, WILL_RETRY_TAG
from dagster._serdes import deserialize_value
from dagster_shared.error import SerializableErrorInfo
from pydantic import ValidationError

from backfill_assets.automation.lost_runs import lost, why_lost
from backfill_assets.automation.run_order import backfill_places
from backfill_assets.orchestration import STEP_RETRIES, TAG_CANCELED, TAG_USER, live_key
from backfill_assets.progress.facts import BackfillFact, BackfillState, RunFact, RunLog, RunState
from backfill_assets.progress.model import AssetState, DayProgress, FailedCheck
from backfill_assets.progress.request_tags import attempt_of, request_of

_RUN_STATES: Final[dict[dg.DagsterRunStatus, RunState]] = {
    dg.DagsterRunStatus.QUEUED: "queued",
    dg.DagsterRunStatus.NOT_STARTED: "queued",
    dg.DagsterRunStatus.MANAGED: "queued",
    dg.DagsterRunStatus.STARTING: "running",
    dg.DagsterRunStatus.STARTED: "running",
    dg.DagsterRunStatus.CANCELING: "running",
    dg.DagsterRunStatus.SUCCESS: "succeeded",
    dg.DagsterRunStatus.FAILURE: "failed",
    dg.DagsterRunStatus.CANCELED: "canceled",
}
_NOT_SUCCEEDED: Final = [status for status in _RUN_STATES if status is not dg.DagsterRunStatus.SUCCESS]
_BACKFILL_STATES: Final[dict[BulkActionStatus, BackfillState]] = {
    BulkActionStatus.REQUESTED: "active",
    BulkActionStatus.CANCELING: "canceling",
    BulkActionStatus.CANCELED: "canceled",
    BulkActionStatus.FAILING: "active",
    BulkActionStatus.FAILED: "failed",
    BulkActionStatus.COMPLETED: "completed",
    BulkActionStatus.COMPLETED_SUCCESS: "completed",
    BulkActionStatus.COMPLETED_FAILED: "completed",
}
_UNFINISHED: Final = [BulkActionStatus.REQUESTED, BulkActionStatus.CANCELING, BulkActionStatus.FAILING]
_EVENTS: Final = {
    dg.DagsterEventType.ASSET_MATERIALIZATION_PLANNED,
    dg.DagsterEventType.ASSET_MATERIALIZATION,
    dg.DagsterEventType.ASSET_CHECK_EVALUATION,
    dg.DagsterEventType.STEP_START,
    dg.DagsterEventType.STEP_FAILURE,
    dg.DagsterEventType.ENGINE_EVENT,
    dg.DagsterEventType.RUN_FAILURE,
}
#: The daemon that works on backfills, and the greatest age of its sign of life, given twice a minute.
_DAEMON: Final = "BACKFILL"
DAEMON_SECONDS: Final = 120
#: Runs changed this shortly before the newest seen run are read again, since they may have been written later
#: than their time says.
_OVERLAP: Final = timedelta(seconds=5)
#: Most values in one query; SQLite's limit is 32,766.
_MOST_VALUES: Final = 10_000
_MOST_BACKFILLS: Final = 1_000
#: Most runs searched for failed runs without a backfill, and for later runs of their days.
_MOST_RUNS: Final = 200
_FAILED_OR_LOST: Final = [
    dg.DagsterRunStatus.FAILURE,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
]
_ENDED: Final = [dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE]
_INTERRUPTED: Final = dg.DagsterExecutionInterruptedError.__name__
_DAY: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")


class Reader:
    """A reader of one instance; safe to share among threads."""

    def __init__(self, instance: dg.DagsterInstance) -> None:
        self._instance = instance
        #: Backfills as first read: reading the request and the days, which do not change, takes milliseconds.
        #: None for a backfill that is not of days.
        self._first_read: dict[str, BackfillFact | None] = {}

    def backfills(self, backfill_ids: Sequence[str]) -> list[BackfillFact]:
        """Return the backfills that exist."""
        return list(self._facts(self._instance.get_backfills(BulkActionsFilter(backfill_ids=backfill_ids))))

    def unfinished(self) -> list[BackfillFact]:
        """Return all backfills of days that Dagster still works on."""
        return list(self._facts(self._instance.get_backfills(BulkActionsFilter(statuses=_UNFINISHED))))

    def newest(self, pages_of: int) -> Iterator[BackfillFact]:
        """Yield all backfills of days, the newest first, read page by page on demand."""
        page = self._instance.get_backfills(limit=pages_of)
        yield from self._facts(page)
        while len(page) == pages_of:
            page = self._instance.get_backfills(cursor=page[-1].backfill_id, limit=pages_of)
            yield from self._facts(page)

    def runs(self, backfill: BackfillFact, since: datetime | None = None) -> list[RunFact]:
        """Return the backfill's runs of days, oldest first; with ``since``, only those changed since then."""
        of_backfill = {BACKFILL_ID_TAG: backfill.backfill_id}
        if since is not None:
            changed = dg.RunsFilter(tags=of_backfill, updated_after=since - _OVERLAP)
            return self._run_facts(changed)
        # A record costs half a millisecond, and most runs of a long backfill have succeeded. For a canceled
        # backfill, the creation time of each run matters, which the short form does not give.
        succeeded = dg.RunsFilter(tags=of_backfill, statuses=[dg.DagsterRunStatus.SUCCESS])
        short = [] if backfill.canceled else self._instance.run_storage.get_run_partition_data(succeeded)
        facts = [_succeeded(data.run_id, data.partition, data.start_time, data.end_time) for data in short]
        if not facts or None in facts:
            return self._run_facts(dg.RunsFilter(tags=of_backfill))
        others = self._run_facts(dg.RunsFilter(tags=of_backfill, statuses=_NOT_SUCCEEDED))
        return sorted([*others, *(fact for fact in facts if fact)], key=lambda fact: fact.created)

    def failed_alone(self, since: datetime, now: datetime) -> list[RunFact]:
        """Return the latest run of each day if it belongs to no backfill and has failed or lost its process.

        The newest days come first; only a limited number of runs made ``since`` are read.
        """
        suspected = dg.RunsFilter(statuses=_FAILED_OR_LOST, created_after=since)
        records = self._instance.get_run_records(suspected, limit=_MOST_RUNS)
        runs = [record.dagster_run for record in records]
        days = {run.tags.get(PARTITION_NAME_TAG, "") for run in runs if BACKFILL_ID_TAG not in run.tags}
        if not (days := {day for day in days if _DAY.fullmatch(day)}):
            return []
        of_days = dg.RunsFilter(tags={PARTITION_NAME_TAG: sorted(days)}, created_after=since)
        latest: dict[str, dg.RunRecord] = {}
        for record in self._instance.get_run_records(of_days, limit=_MOST_RUNS):
            latest.setdefault(record.dagster_run.tags[PARTITION_NAME_TAG], record)
        failed = [record for record in latest.values() if self._failed_alone(record, now)]
        are_decided = not self._instance.run_retries_enabled
        facts = [_run_fact(record, are_decided=are_decided) for record in failed]
        return sorted((fact for fact in facts if fact), key=attrgetter("day"), reverse=True)

    def days_run(self, since: datetime) -> list[str]:
        """Return the days of runs that ended ``since``, among a limited number of the newest runs."""
        ended = dg.RunsFilter(statuses=_ENDED, updated_after=since)
        runs = self._instance.get_runs(ended, limit=_MOST_RUNS)
        days = {run.tags.get(PARTITION_NAME_TAG, "") for run in runs}
        return sorted(day for day in days if _DAY.fullmatch(day))

    def _failed_alone(self, record: dg.RunRecord, now: datetime) -> bool:
        run = record.dagster_run
        if BACKFILL_ID_TAG in run.tags or run.tags.get(WILL_RETRY_TAG) == "true":
            return False
        if run.status is dg.DagsterRunStatus.FAILURE:
            return True
        return run.status in _FAILED_OR_LOST and bool(why_lost(self._instance, record, now))

    def read_on(self, run: RunFact, log: RunLog) -> None:
        """Add the run's newest events to its log."""
        while True:
            page = self._instance.get_records_for_run(run.run_id, log.cursor, of_type=_EVENTS, limit=1_000)
            for record in page.records:
                entry = record.event_log_entry
                if entry.dagster_event is not None:
                    _take_in(log, entry.dagster_event)
                    log.at = _moment(entry.timestamp)
            log.cursor = page.cursor
            if not page.has_more:
                log.is_whole = run.state not in ("queued", "running")
                return

    def failed_checks(
        self, run_ids: Sequence[str], assets: Iterable[str]
    ) -> dict[str, tuple[FailedCheck, ...]]:
        """Return the failed checks of the assets in each of the runs; empty if none failed.

        Dagster's calls are for one run or one check, so this reads its table. Each asset's query names the
        asset's checks, since the table's index begins with asset and check.
        """
        table = AssetCheckExecutionsTable.c
        found: dict[str, list[FailedCheck]] = {run_id: [] for run_id in run_ids}
        with self._instance.event_log_storage.index_connection() as connection:  # type: ignore[attr-defined]
            for asset in assets:
                key = dg.AssetKey.from_user_string(asset).to_string()
                of_asset = (table.asset_key == key, table.check_name.in_(_check_names(connection, key)))
                for some in _batches(run_ids):
                    failed = (table.run_id.in_(some), table.execution_status == "FAILED")
                    query = sa.select(table.run_id, table.evaluation_event).where(*of_asset, *failed)
                    for run_id, event in connection.execute(query):
                        if event:
                            entry = deserialize_value(event, dg.EventLogEntry)
                            found[run_id].append(_failed_check(entry.get_dagster_event()))
        return {run_id: tuple(sorted(checks, key=attrgetter("check"))) for run_id, checks in found.items()}

    def live(self, run_ids: Iterable[str]) -> dict[str, DayProgress]:
        """Return the furthest progress written by each run; the totals if it has fetched all feeds."""
        keys = {
            live_key(run_id, attempt): run_id for run_id in run_ids for attempt in range(STEP_RETRIES + 1)
        }
        found: dict[str, str] = {}
        for some in _batches(list(keys)):
            found |= self._instance.daemon_cursor_storage.get_cursor_values(set(some))
        progress: dict[str, DayProgress] = {}
        for key, text in sorted(found.items()):
            try:
                written = DayProgress.model_validate_json(text)
            except ValidationError:  # of another version of this package
                continue
            before = progress.get(keys[key])
            if before is None or before.share <= written.share:
                progress[keys[key]] = written
        return progress

    def daemon_seen(self) -> datetime | None:
        """Return the last sign of life of the daemon that works on backfills."""
        heartbeat = self._instance.get_daemon_heartbeats().get(_DAEMON)
        return datetime.fromtimestamp(heartbeat.timestamp, UTC) if heartbeat else None

    def full_queue(self, now: datetime) -> tuple[int, int]:
        """Return the queue's places if all are taken, otherwise 0; and how many of them lost runs hold."""
        places = backfill_places(self._instance)
        at_work = dg.RunsFilter(statuses=IN_PROGRESS_RUN_STATUSES)
        if places is None or self._instance.get_runs_count(at_work) < places:
            return 0, 0
        return places, len(lost(self._instance, now))

    def _facts(self, backfills: Iterable[PartitionBackfill]) -> Iterator[BackfillFact]:
        for backfill in backfills:
            name = backfill.backfill_id
            if name not in self._first_read:
                if len(self._first_read) >= _MOST_BACKFILLS:
                    self._first_read.clear()
                self._first_read[name] = _first_read(backfill)
            fact = self._first_read[name]
            if fact is not None:
                yield _as_now(fact, backfill)

    def _run_facts(self, filters: dg.RunsFilter) -> list[RunFact]:
        are_decided = not self._instance.run_retries_enabled
        found = (_run_fact(r, are_decided=are_decided) for r in self._instance.get_run_records(filters))
        return sorted((fact for fact in found if fact), key=lambda fact: fact.created)


def _first_read(backfill: PartitionBackfill) -> BackfillFact | None:
    """Return the backfill as first read; None for a backfill that is not of days."""
    days = _days(backfill)
    try:
        request, skipped = request_of(backfill.backfill_id, backfill.tags, backfill.description, days)
    except ValueError:
        return None
    job_id, attempt = attempt_of(backfill.backfill_id, backfill.tags)
    return BackfillFact(
        backfill_id=backfill.backfill_id,
        job_id=job_id,
        attempt=attempt,
        state=_BACKFILL_STATES[backfill.status],
        request=request,
        requester=backfill.tags.get(TAG_USER, ""),
        # Many backfills have the same days.
        days=tuple(map(sys.intern, days)),
        skipped=tuple(map(sys.intern, skipped)),
        assets=tuple(key.to_user_string() for key in backfill.asset_selection or ()),
        created=datetime.fromtimestamp(backfill.backfill_timestamp, UTC),
    )


def _as_now(fact: BackfillFact, backfill: PartitionBackfill) -> BackfillFact:
    """Return the backfill with the parts that Dagster or a cancellation changes."""
    canceled = backfill.tags.get(TAG_CANCELED)
    return replace(
        fact,
        state=_BACKFILL_STATES[backfill.status],
        ended=_moment(backfill.backfill_end_timestamp),
        canceled=_written_moment(canceled) if canceled else None,
        error=" ".join(backfill.error.message.split())[:300] if backfill.error else None,
    )


def _days(backfill: PartitionBackfill) -> tuple[str, ...]:
    """Return the days of all its assets together; in a retry from Dagster's UI each asset may have others."""
    data = backfill.asset_backfill_data
    if data is None:
        names = set(backfill.partition_names or ())
    else:
        subsets = []
        for subset in data.target_subset.partitions_subsets_by_asset_key.values():
            if subset not in subsets:
                subsets.append(subset)
        names = {key for subset in subsets for key in subset.get_partition_keys()}
    return tuple(sorted(name for name in names if _DAY.fullmatch(name)))


def _run_fact(record: dg.RunRecord, *, are_decided: bool) -> RunFact | None:
    run = record.dagster_run
    day = run.tags.get(PARTITION_NAME_TAG)
    if day is None or not _DAY.fullmatch(day):
        return None
    will_retry = run.tags.get(WILL_RETRY_TAG, "false" if are_decided else None)
    return RunFact(
        run_id=run.run_id,
        day=day,
        state=_RUN_STATES[run.status],
        will_retry=None if will_retry is None else will_retry == "true",
        created=_utc(record.create_timestamp),
        updated=_utc(record.update_timestamp),
        started=_moment(record.start_time),
        ended=_moment(record.end_time),
    )


def _succeeded(run_id: str, day: str, start: float | None, end: float | None) -> RunFact | None:
    """Return a successful run; None without times, which an in-memory instance omits in the short form."""
    started, ended = _moment(start), _moment(end)
    if started is None or ended is None:
        return None
    return RunFact(run_id, day, "succeeded", False, started, ended, started, ended)


def _moment(seconds: float | None) -> datetime | None:
    return datetime.fromtimestamp(seconds, UTC) if seconds else None


def _written_moment(text: str) -> datetime | None:
    """Return the time in a tag; None if another program wrote another value."""
    try:
        return _utc(datetime.fromisoformat(text))
    except ValueError:
        return None


def _utc(moment: datetime) -> datetime:
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def _take_in(log: RunLog, event: dg.DagsterEvent) -> None:
    kind = event.event_type
    asset = event.asset_key.to_user_string() if event.asset_key is not None else None
    if kind is dg.DagsterEventType.ASSET_MATERIALIZATION_PLANNED and asset:
        log.steps[asset] = event.step_key or ""
        log.assets[asset] = "waiting"
    elif kind is dg.DagsterEventType.STEP_START:
        _move(log, event.step_key, "running")
    elif kind is dg.DagsterEventType.STEP_FAILURE:
        _move(log, event.step_key, "failed")
        log.failed.append(event.step_key or "")
        log.failure = _failure(event)
    elif kind is dg.DagsterEventType.ENGINE_EVENT:
        error = event.engine_event_data.error
        log.trouble = _error_line(error) if error is not None else log.trouble
    elif kind is dg.DagsterEventType.RUN_FAILURE:
        # A failed step says more. If no step failed, Dagster ended the run, and gives the reason itself or
        # gave it in an earlier error.
        log.failure = log.failure or _run_failure(event, log.trouble)
    elif kind is dg.DagsterEventType.ASSET_MATERIALIZATION and asset:
        log.assets[asset] = "materialized"
    elif kind is dg.DagsterEventType.ASSET_CHECK_EVALUATION:
        check = _failed_check(event)
        log.checks[check.check] = None if event.asset_check_evaluation_data.passed else check


def _move(log: RunLog, step: str | None, state: AssetState) -> None:
    for asset, its_step in log.steps.items():
        if its_step == step and log.assets[asset] != "materialized":
            log.assets[asset] = state


def _failure(event: dg.DagsterEvent) -> str:
    data = event.step_failure_data
    text = data.user_failure_data.description if data.user_failure_data else None
    if not text and data.error is not None:
        # Dagster wraps the asset's own exception.
        return _error_line(data.error.cause or data.error)
    return _line(text or "")


def _run_failure(event: dg.DagsterEvent, trouble: str | None) -> str:
    data = event.event_specific_data
    error = data.error if isinstance(data, JobFailureData) else None
    return _error_line(error) if error is not None else trouble or _line(event.message or "")


def _error_line(error: SerializableErrorInfo) -> str:
    """Return the error's message; a cancellation or a signal gives only the name of a class."""
    return "stopped before its end" if error.cls_name == _INTERRUPTED else _line(error.message)


def _line(text: str) -> str:
    return " ".join(text.split())[:500]


def _failed_check(event: dg.DagsterEvent) -> FailedCheck:
    evaluation = event.asset_check_evaluation_data
    return _check(
        f"{evaluation.asset_key.to_user_string()}:{evaluation.check_name}",
        "ERROR" if evaluation.severity is dg.AssetCheckSeverity.ERROR else "WARN",
        bool(evaluation.blocking),
        " ".join((evaluation.description or "").split())[:300],
    )


@lru_cache(maxsize=10_000)
def _check(check: str, severity: Literal["WARN", "ERROR"], blocking: bool, description: str) -> FailedCheck:
    """Return one object for all days on which the check says the same."""
    return FailedCheck(check=check, severity=severity, blocking=blocking, description=description)


def _batches(values: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(values), _MOST_VALUES):
        yield values[start : start + _MOST_VALUES]


def _check_names(connection: Any, asset: str) -> list[str]:
    """Return the names of the asset's checks, with one step in the index for each."""
    table, names = AssetCheckExecutionsTable.c, [""]
    query = sa.select(sa.func.min(table.check_name)).where(table.asset_key == asset)
    while name := connection.execute(query.where(table.check_name > names[-1])).scalar():
        names.append(name)
    return names[1:]
