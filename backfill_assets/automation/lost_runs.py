"""Finds runs that cannot continue by themselves, with a sensor: no process runs, queues or retries them.

Dagster does not notice that a run's process was killed (the machine went down, memory ran out, a person ended
the command). Such a run would count as started until its longest time is over, and hold its place in the
queue. The sensor ends it as failed; Dagster's run retries start it again if the daemon had launched it. A
daemon that is killed between making a run and queueing it leaves a run that no process starts; the sensor
queues it. Dagster stores a failure first and the run's failed state later; a daemon that looks in between
skips the failure and never makes the retry, so the sensor reports the failure again.

Only processes of this machine are checked. The launcher, or a run itself, writes where a run is
(``run_process``). Runs of a launcher that reports by itself whether they are alive (Ray, Kubernetes) are left
to Dagster's run monitoring. The monitoring asks only for runs that have begun, so the sensor also finds those
that never began.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from datetime import datetime
from typing import Final

import dagster as dg
from dagster._core.launcher.base import WorkerStatus
from dagster._core.run_coordinator import QueuedRunCoordinator, SubmitRunContext
from dagster._core.storage.dagster_run import RunRecord
from dagster._core.storage.tags import (
    AUTO_RETRY_RUN_ID_TAG,
    BACKFILL_ID_TAG,
    WILL_RETRY_TAG,
)

from backfill_assets.automation.run_launcher import ForkingRunLauncher
from backfill_assets.automation.run_process import RunProcess
from backfill_assets.days import utc_now

#: Longest time from dequeuing a run to writing where it was launched.
LAUNCH_SECONDS: Final = 45.0
#: Most failures that are checked for a missing retry, and their greatest age.
_LATEST_FAILURES: Final = 100
_LATEST_SECONDS: Final = 3_600
#: A retry that is missing after this many reports cannot be made.
_MOST_REPORTS: Final = 3
_AT_WORK: Final = (dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED)


@dg.sensor(
    name="lost_runs",
    minimum_interval_seconds=30,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Ends runs whose process is gone, queues unqueued runs, and requests missing retries.",
)
def lost_runs(context: dg.SensorEvaluationContext) -> dg.SkipReason:
    """Look for lost runs; new runs come only from the run retries of ``dagster.yaml``."""
    ended = end_lost_runs(context.instance, utc_now())
    free_slots(context.instance, utc_now())
    seen = json.loads(context.cursor or "[]")
    queued, waiting = queue_forgotten_runs(context.instance, seen)
    told, without_retry = tell_failures_again(context.instance, seen, utc_now())
    ended += end_runs_that_never_began(context.instance, utc_now())
    context.update_cursor(json.dumps([*waiting, *without_retry]))
    words = {"ended as failed": ended, "queued": queued, "reported again, for its retry": told}
    said = "; ".join(f"{done}: {', '.join(runs)}" for done, runs in words.items() if runs)
    return dg.SkipReason(said or "no run is lost")


def end_lost_runs(instance: dg.DagsterInstance, now: datetime) -> list[str]:
    """End every lost run as failed; return their ids."""
    ended = []
    for run_id, why in lost(instance, now).items():
        run = instance.get_run_by_id(run_id)
        # Check once more: it may have ended during the search.
        if run is not None and run.status in _AT_WORK:
            instance.report_run_failed(run, why)
            ended.append(run.run_id)
    return ended


def end_runs_that_never_began(instance: dg.DagsterInstance, now: datetime) -> list[str]:
    """End the runs that, by their launcher, failed before they reported anything; return their ids.

    Dagster asks launchers only for runs that have begun. A node without the package, or a node lost in the
    seconds in which Python starts, would keep a place in the queue for minutes.
    """
    launcher, ended = instance.run_launcher, []
    if not launcher.supports_check_run_worker_health:
        return []
    starting = dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTING])
    for record in instance.get_run_records(starting):
        run = record.dagster_run
        if (now - record.update_timestamp).total_seconds() <= LAUNCH_SECONDS:
            continue
        try:
            health = launcher.check_run_worker_health(run)
        except OSError:
            break  # The cluster does not answer: the next look asks again.
        again = instance.get_run_by_id(run.run_id)
        is_failed = health.status in (WorkerStatus.FAILED, WorkerStatus.NOT_FOUND)
        if is_failed and again is not None and again.status is dg.DagsterRunStatus.STARTING:
            instance.report_run_failed(run, f"it never began: {health.msg}")
            ended.append(run.run_id)
    return ended


def free_slots(instance: dg.DagsterInstance, now: datetime) -> None:
    """Free the pool slots held by runs that no longer need them, because the runs have ended or are lost.

    Dagster's daemon does so too, a minute after the end. Where no daemon runs, killed commands would fill a
    pool for good, and the next command would wait without a message; so each run checks when it begins.
    """
    storage = instance.event_log_storage
    if not storage.supports_global_concurrency_limits:
        return
    pools = [storage.get_concurrency_info(pool) for pool in storage.get_concurrency_keys()]
    holders = {run for pool in pools for run in (pool.active_run_ids | pool.pending_run_ids)}
    holders |= {run for pool in pools for run in pool.assigned_run_ids}
    for record in instance.get_run_records(dg.RunsFilter(run_ids=list(holders))) if holders else ():
        if record.dagster_run.is_finished or why_lost(instance, record, now):
            storage.free_concurrency_slots_for_run(record.dagster_run.run_id)


def lost(instance: dg.DagsterInstance, now: datetime) -> dict[str, str]:
    """Return the ids of runs that count as running but are not, each with the reason."""
    at_work = instance.get_run_records(dg.RunsFilter(statuses=list(_AT_WORK)))
    reasons = {record.dagster_run.run_id: why_lost(instance, record, now) for record in at_work}
    return {run_id: why for run_id, why in reasons.items() if why}


def queue_forgotten_runs(instance: dg.DagsterInstance, seen: Collection[str]) -> tuple[list[str], list[str]]:
    """Queue runs made for the queue that were not in it half a minute ago and are not in it now.

    A run whose backfill has since been canceled is canceled. A run that a command made for itself and did not
    begin is ended as failed. Both would otherwise count as about to start forever.

    Parameters
    ----------
    seen
        Ids of the runs that the previous look found unqueued: Dagster queues a run within a second of making
        it. The time of making cannot be used, since Postgres returns it in the server's own time zone.

    Returns
    -------
    tuple[list[str], list[str]]
        The runs queued now, and those to check again.
    """
    if not isinstance(instance.run_coordinator, QueuedRunCoordinator):
        return [], []
    from dagster._core.execution.backfill import BulkActionStatus

    canceled = (BulkActionStatus.CANCELING, BulkActionStatus.CANCELED)
    queued, waiting = [], []
    for run in instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.NOT_STARTED])):
        backfill_id = run.tags.get(BACKFILL_ID_TAG)
        backfill = instance.get_backfill(backfill_id) if backfill_id else None
        if run.run_id not in seen:
            waiting.append(run.run_id)
        elif backfill is not None and backfill.status in canceled:
            instance.report_run_canceled(run, "its backfill was canceled before it was queued")
        elif run.remote_job_origin is None:
            instance.report_run_failed(run, "the command that made it ended before it began")
        else:
            # This coordinator does not use a workspace, and a sensor has none.
            instance.run_coordinator.submit_run(SubmitRunContext(run, workspace=None))  # type: ignore[arg-type]
            queued.append(run.run_id)
    return queued, waiting


def tell_failures_again(
    instance: dg.DagsterInstance, seen: Collection[str], now: datetime
) -> tuple[list[str], list[str]]:
    """Report the failures whose retry was missing half a minute ago and is missing now.

    Dagster's daemon acts on each report and makes at most one retry. Failures older than an hour are left
    alone, so that a run not retried then does not begin by surprise.

    Parameters
    ----------
    seen
        Ids of the runs without a retry at the previous look.

    Returns
    -------
    tuple[list[str], list[str]]
        The runs whose failures were reported, and those to check again.
    """
    if not instance.run_retries_enabled:
        return [], []
    told, waiting = [], []
    failures = dg.RunsFilter(statuses=[dg.DagsterRunStatus.FAILURE])
    for record in instance.get_run_records(failures, limit=_LATEST_FAILURES):
        run = record.dagster_run
        is_recent = record.end_time is not None and now.timestamp() - record.end_time < _LATEST_SECONDS
        is_settled = run.tags.get(WILL_RETRY_TAG) == "false" or AUTO_RETRY_RUN_ID_TAG in run.tags
        if not is_recent or is_settled or not _may_be_retried(instance, run):
            continue
        if run.run_id not in seen:
            waiting.append(run.run_id)
        elif len(instance.all_logs(run.run_id, of_type=dg.DagsterEventType.RUN_FAILURE)) <= _MOST_REPORTS:
            instance.report_run_failed(run, "its retry was not made: the failure is reported again")
            told.append(run.run_id)
    return told, waiting


def _may_be_retried(instance: dg.DagsterInstance, run: dg.DagsterRun) -> bool:
    """Whether the daemon can make the run again and its backfill continues."""
    from dagster._core.execution.backfill import BULK_ACTION_TERMINAL_STATUSES

    backfill_id = run.tags.get(BACKFILL_ID_TAG)
    backfill = instance.get_backfill(backfill_id) if backfill_id else None
    is_over = backfill_id and (backfill is None or backfill.status in BULK_ACTION_TERMINAL_STATUSES)
    return run.remote_job_origin is not None and not is_over


def why_lost(instance: dg.DagsterInstance, record: RunRecord, now: datetime) -> str:
    """Return why the run cannot continue by itself; empty if it may, or if that cannot be known."""
    run, launcher = record.dagster_run, instance.run_launcher
    if launcher.supports_check_run_worker_health and run.remote_job_origin is not None:
        return ""
    process = RunProcess.of(run)
    if process is not None:
        is_lost = process.is_of_this_machine and process.is_gone()
        return f"its process {process.pid} is gone" if is_lost else ""
    # The launcher writes where a run is as soon as its process exists.
    is_local = isinstance(launcher, ForkingRunLauncher)
    age = (now - record.update_timestamp).total_seconds()
    return "the daemon ended while it launched it" if is_local and age > LAUNCH_SECONDS else ""


SENSORS: Final = (lost_runs,)
