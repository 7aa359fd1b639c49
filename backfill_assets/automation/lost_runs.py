"""Runs whose process is gone: found by a sensor, ended as failed, and started again by Dagster's run retries.

Dagster's launcher of local processes cannot tell that one was killed (the machine went down, memory ran out),
so such a run would count as started until its longest time is over, and hold its place in the queue. Only
runs on this machine are looked at: those whose code location is served through a socket file, which is how
Dagster's services serve it unless it is given a host.
"""

from __future__ import annotations

import json
import socket
from datetime import datetime
from pathlib import Path
from typing import Final

import dagster as dg
from dagster._core.storage.dagster_run import RunRecord
from dagster._core.storage.tags import GRPC_INFO_TAG

from backfill_assets.days import utc_now

#: What a process that is about to run may take until it says that it is there.
START_SECONDS: Final = 15.0
#: A process that was made so long after its run began is another one with the same number; a machine counts
#: the age of processes by its own ticks.
_SLACK_SECONDS: Final = 2.0
_AT_WORK: Final = (dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED)


@dg.sensor(
    name="lost_runs",
    minimum_interval_seconds=30,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Ends runs whose process is gone as failed, so that they are started again.",
)
def lost_runs(context: dg.SensorEvaluationContext) -> dg.SkipReason:
    """Look for lost runs; asks for none itself, that is for the run retries of ``dagster.yaml``."""
    ended = end_lost_runs(context.instance, utc_now())
    return dg.SkipReason(f"ended as failed: {', '.join(ended)}" if ended else "no run is lost")


def end_lost_runs(instance: dg.DagsterInstance, now: datetime) -> list[str]:
    """End every lost run as failed; returns their ids."""
    ended = []
    for record in instance.get_run_records(dg.RunsFilter(statuses=list(_AT_WORK))):
        why = why_lost(instance, record, now)
        run = instance.get_run_by_id(record.dagster_run.run_id)
        # Once more: it may have ended while it was looked for.
        if why and run is not None and run.status in _AT_WORK:
            instance.report_run_failed(run, why)
            ended.append(run.run_id)
    return ended


def why_lost(instance: dg.DagsterInstance, record: RunRecord, now: datetime) -> str:
    """Why the run will not go on by itself; empty where it may, or where that cannot be known."""
    served = json.loads(record.dagster_run.tags.get(GRPC_INFO_TAG, "{}")).get("socket")
    if not served:
        return ""
    found = _process(instance, record.dagster_run.run_id)
    if found is not None:
        pid, since = found
        return "" if is_alive(pid, since) else f"its process {pid} is gone"
    age = (now - record.update_timestamp).total_seconds()
    return "its code server is gone" if age > START_SECONDS and not _listens(Path(served)) else ""


def is_alive(pid: int, since: float) -> bool:
    """Whether the process with that number runs, and is the one that ran at ``since``, in epoch seconds."""
    import psutil

    try:
        process = psutil.Process(pid)
        return process.status() != psutil.STATUS_ZOMBIE and process.create_time() <= since + _SLACK_SECONDS
    except psutil.NoSuchProcess:
        return False


def _process(instance: dg.DagsterInstance, run_id: str) -> tuple[int, float] | None:
    """Number of the run's process, and when it said so in seconds since the epoch."""
    for entry in reversed(instance.all_logs(run_id, of_type=dg.DagsterEventType.ENGINE_EVENT)):
        event = entry.dagster_event
        if event is not None and (event.message or "").startswith("Started process for run"):
            return int(str(event.engine_event_data.metadata["pid"].value)), entry.timestamp
    return None


def _listens(path: Path) -> bool:
    """Whether somebody serves the socket file."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(5)
        try:
            connection.connect(str(path))
        except TimeoutError:
            return True  # somebody who is busy
        except OSError:
            return False
    return True


SENSORS: Final = (lost_runs,)
