"""Durations of day runs from Dagster's run records, as the basis of estimates."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

import dagster as dg

from backfill_assets.partitions import daily

#: The latest runs are enough for quartiles; older ones may be from another machine or universe.
RUNS_CONSIDERED: Final = 200


@dataclass(frozen=True, slots=True)
class MeasuredRun:
    """A successful run of one day."""

    day: str
    started: datetime
    ended: datetime

    @property
    def seconds(self) -> float:
        """Time from the first step's start to the end, without the time in the queue."""
        return (self.ended - self.started).total_seconds()


def measured_runs(instance: dg.DagsterInstance, limit: int = RUNS_CONSIDERED) -> list[MeasuredRun]:
    """Return the latest successful runs of days, newest first."""
    succeeded = dg.RunsFilter(statuses=[dg.DagsterRunStatus.SUCCESS])
    found = []
    for record in instance.get_run_records(succeeded, limit=limit):
        day = record.dagster_run.tags.get("dagster/partition")
        if day is None or not daily.has_partition_key(day) or not record.start_time or not record.end_time:
            continue
        started, ended = (datetime.fromtimestamp(t, tz=UTC) for t in (record.start_time, record.end_time))
        found.append(MeasuredRun(day, started, ended))
    return found
