"""Reading Dagster's records of a job: its backfill, its runs, and what happened in them, taken together.

A backfill's own status ignores failed checks, and a check that never ran looks green, so neither is believed
alone. Only reading; launching and cancelling are ``automation.backfills``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final, Literal

import dagster as dg
from dagster._core.execution.backfill import BulkActionStatus
from pydantic import ValidationError

from backfill_assets.orchestration import TAG_ATTEMPT, TAG_JOB, live_key
from backfill_assets.progress.facts import BackfillFact, BackfillState, DayEvents, RunFact, RunState
from backfill_assets.progress.model import AssetState, AssetStatus, DayProgress, FailedCheck

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
_EVENTS: Final = {
    dg.DagsterEventType.ASSET_MATERIALIZATION_PLANNED,
    dg.DagsterEventType.ASSET_MATERIALIZATION,
    dg.DagsterEventType.ASSET_CHECK_EVALUATION,
    dg.DagsterEventType.STEP_START,
    dg.DagsterEventType.STEP_FAILURE,
}
#: The daemon that works on backfills, and how old its last sign of life may be: it gives one twice a minute.
_DAEMON: Final = "BACKFILL"
DAEMON_SECONDS: Final = 120
#: Runs changed this shortly before the newest one that was seen are read again: they may have been written
#: later than their time says.
_OVERLAP: Final = timedelta(seconds=5)
_ASSET_OF_BYTES: Final = "ticks"


def storage_errors() -> tuple[type[Exception], ...]:
    """What reading Dagster's records raises when the database is out of reach or busy."""
    from dagster_postgres.utils import DagsterPostgresException
    from sqlalchemy.exc import SQLAlchemyError

    return (SQLAlchemyError, DagsterPostgresException, dg.DagsterError)


class Reader:
    """Over one instance; safe to share among threads."""

    def __init__(self, instance: dg.DagsterInstance) -> None:
        self._instance = instance

    def backfill(self, backfill_id: str) -> BackfillFact:
        """The backfill's state; ``absent`` if Dagster does not know it."""
        found = self._instance.get_backfill(backfill_id)
        if found is None:
            return BackfillFact("absent")
        error = " ".join(found.error.message.split())[:300] if found.error else None
        return BackfillFact(_BACKFILL_STATES[found.status], error)

    def runs(self, job_id: str, since: datetime | None = None) -> list[RunFact]:
        """The job's runs, of all attempts, oldest first; only those changed since, where given."""
        filters = dg.RunsFilter(
            tags={TAG_JOB: job_id}, updated_after=since - _OVERLAP if since is not None else None
        )
        facts = [fact for record in self._instance.get_run_records(filters) if (fact := _fact(record))]
        return sorted(facts, key=lambda fact: fact.created)

    def events(self, run_ids: Sequence[str]) -> DayEvents:
        """What the runs of one day, oldest first, have done."""
        steps: dict[str, str] = {}
        states: dict[str, AssetState] = {}
        checks: dict[str, FailedCheck | None] = {}
        rows = raw_bytes = failure = None
        for run_id in run_ids:
            for event in self._events(run_id):
                kind, asset = event.event_type, _asset(event)
                if kind is dg.DagsterEventType.ASSET_MATERIALIZATION_PLANNED and asset:
                    steps[asset] = event.step_key or ""
                    states[asset] = "waiting"
                elif kind is dg.DagsterEventType.STEP_START:
                    _move(states, steps, event.step_key, "running")
                elif kind is dg.DagsterEventType.STEP_FAILURE:
                    _move(states, steps, event.step_key, "failed")
                    failure = _failure(event)
                elif kind is dg.DagsterEventType.ASSET_MATERIALIZATION and asset:
                    states[asset] = "materialized"
                    if asset == _ASSET_OF_BYTES:
                        metadata = event.step_materialization_data.materialization.metadata
                        rows = _number(metadata.get("dagster/row_count"))
                        raw_bytes = _number(metadata.get("fetched_bytes"))
                elif kind is dg.DagsterEventType.ASSET_CHECK_EVALUATION:
                    evaluation = event.asset_check_evaluation_data
                    name = f"{evaluation.asset_key.to_user_string()}:{evaluation.check_name}"
                    checks[name] = None if evaluation.passed else _failed_check(name, evaluation)
        failed = tuple(check for _, check in sorted(checks.items()) if check is not None)
        assets = tuple(
            AssetStatus(
                asset=asset,
                state=state,
                failed_checks=tuple(c.check for c in failed if c.check.rpartition(":")[0] == asset),
            )
            for asset, state in states.items()
        )
        return DayEvents(assets, failed, rows, raw_bytes, failure)

    def live(self, run_ids: Iterable[str]) -> dict[str, DayProgress]:
        """The live progress of those of the runs that have written some."""
        keys = {live_key(run_id): run_id for run_id in run_ids}
        if not keys:
            return {}
        found = self._instance.daemon_cursor_storage.get_cursor_values(set(keys))
        progress = {}
        for key, text in found.items():
            try:
                if text:
                    progress[keys[key]] = DayProgress.model_validate_json(text)
            except ValidationError:  # of another version of this package
                continue
        return progress

    def forget_live(self, run_id: str) -> None:
        """Empty the run's live progress, which nobody needs when it has ended."""
        if self.live([run_id]):
            self._instance.daemon_cursor_storage.set_cursor_values({live_key(run_id): ""})

    def daemon_seen(self) -> datetime | None:
        """The last sign of life of the daemon that works on backfills."""
        heartbeat = self._instance.get_daemon_heartbeats().get(_DAEMON)
        return datetime.fromtimestamp(heartbeat.timestamp, UTC) if heartbeat else None

    def _events(self, run_id: str) -> list[dg.DagsterEvent]:
        connection = self._instance.get_records_for_run(run_id, of_type=_EVENTS)
        entries = (record.event_log_entry for record in connection.records)
        return [entry.dagster_event for entry in entries if entry.dagster_event is not None]


def _fact(record: dg.RunRecord) -> RunFact | None:
    run = record.dagster_run
    day = run.tags.get("dagster/partition")
    if day is None:
        return None
    return RunFact(
        run_id=run.run_id,
        day=day,
        attempt=int(run.tags.get(TAG_ATTEMPT, "1")),
        state=_RUN_STATES[run.status],
        will_retry=run.tags.get("dagster/will_retry") == "true",
        created=_utc(record.create_timestamp),
        updated=_utc(record.update_timestamp),
        started=datetime.fromtimestamp(record.start_time, UTC) if record.start_time else None,
        ended=datetime.fromtimestamp(record.end_time, UTC) if record.end_time else None,
    )


def _utc(moment: datetime) -> datetime:
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def _asset(event: dg.DagsterEvent) -> str | None:
    return event.asset_key.to_user_string() if event.asset_key is not None else None


def _move(states: dict[str, AssetState], steps: dict[str, str], step: str | None, state: AssetState) -> None:
    for asset, its_step in steps.items():
        if its_step == step and states[asset] != "materialized":
            states[asset] = state


def _failure(event: dg.DagsterEvent) -> str:
    data = event.step_failure_data
    text = data.user_failure_data.description if data.user_failure_data else None
    if not text and data.error is not None:
        # Dagster wraps what the asset raised.
        text = (data.error.cause or data.error).message
    return " ".join((text or "").split())[:500]


def _number(value: object) -> int | None:
    number = getattr(value, "value", value)
    return number if isinstance(number, int) else None


def _failed_check(name: str, evaluation: dg.AssetCheckEvaluation) -> FailedCheck:
    severity: Literal["WARN", "ERROR"] = (
        "ERROR" if evaluation.severity is dg.AssetCheckSeverity.ERROR else "WARN"
    )
    return FailedCheck(
        check=name,
        severity=severity,
        blocking=bool(evaluation.blocking),
        description=" ".join((evaluation.description or "").split())[:300],
    )
