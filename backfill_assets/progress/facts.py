"""Dagster's records of backfills and runs as plain values: ``reader`` returns them, ``tracking`` computes.

Separate from both, so that the computing needs no Dagster.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from typing import Literal

from backfill_assets.progress.model import (
    AssetState,
    AssetStatus,
    BackfillRequest,
    DayProgress,
    FailedCheck,
    Job,
    JobDayState,
    StoredDay,
)

RunState = Literal["queued", "running", "succeeded", "failed", "canceled"]
BackfillState = Literal["active", "canceling", "canceled", "completed", "failed"]


@dataclass(frozen=True, slots=True)
class BackfillFact:
    """One of Dagster's backfills: an attempt of a job."""

    backfill_id: str
    #: The id of the first attempt's backfill.
    job_id: str
    attempt: int
    state: BackfillState
    request: BackfillRequest
    requester: str
    #: The days that it runs, in order.
    days: tuple[str, ...]
    #: Days of the request that it does not run.
    skipped: tuple[str, ...]
    assets: tuple[str, ...]
    created: datetime
    #: When Dagster saw its end.
    ended: datetime | None = None
    #: When this package asked Dagster to cancel it; None as well if Dagster's UI did.
    canceled: datetime | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class RunFact:
    """One run of one day."""

    run_id: str
    day: str
    state: RunState
    #: Whether Dagster will start the day again, since the worker died; None until Dagster has decided.
    will_retry: bool | None
    created: datetime
    updated: datetime
    started: datetime | None
    ended: datetime | None


@dataclass(slots=True)
class RunLog:
    """The events of one run so far; ``cursor`` is where to read on."""

    cursor: str | None = None
    #: Of the newest event.
    at: datetime | None = None
    #: Whether the run had ended before its events were read: there are no more.
    is_whole: bool = False
    steps: dict[str, str] = field(default_factory=dict)
    assets: dict[str, AssetState] = field(default_factory=dict)
    #: The failure of each check that was evaluated, None if it passed.
    checks: dict[str, FailedCheck | None] = field(default_factory=dict)
    #: Steps that have failed, in order.
    failed: list[str] = field(default_factory=list)
    #: The message of the last step that failed, or else why Dagster has ended the run.
    failure: str | None = None
    #: The last error that Dagster itself has met with the run.
    trouble: str | None = None


@dataclass(frozen=True, slots=True)
class Records:
    """What Dagster's records have for somebody to look at.

    Attributes
    ----------
    failed_runs
        The latest run of each day of the last week where it is of no backfill, has failed, and is not run
        again; with its events.
    failed_backfills
        The newest jobs that have failed.
    daemon
        Why no day will be run; empty where the daemon is alive, None where that cannot be told.
    run_days
        The days of the runs that have ended in the last 24 hours, of the newest runs.
    """

    failed_runs: Sequence[tuple[RunFact, RunLog]]
    failed_backfills: Sequence[Job]
    daemon: str | None = None
    run_days: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class DayEvents:
    """The events of all runs of a day."""

    assets: tuple[AssetStatus, ...] = ()
    failed_checks: tuple[FailedCheck, ...] = ()
    failure: str | None = None
    at: datetime | None = None


@dataclass(slots=True)
class DayFact:
    """A day that is run: its backfill, the runs of it that count, and the records of these runs."""

    day: str
    backfill: BackfillFact
    #: The oldest first; the last one gives the day its state.
    runs: list[RunFact]
    #: Whether the last run has ended the day.
    over: bool
    #: The state of the day if it has no run.
    state_without_run: JobDayState = "waiting"
    #: None where it is not known.
    stored: StoredDay | None = None
    events: DayEvents | None = None
    #: The furthest that the runs have written.
    progress: DayProgress | None = None

    @property
    def run(self) -> RunFact | None:
        """The run that gives the day its state."""
        return self.runs[-1] if self.runs else None

    def parts(self) -> tuple[object, ...]:
        """Everything that ``tracking.day_status`` uses."""
        fate = (self.backfill.state, self.state_without_run)
        return *fate, self.run, self.over, self.stored, self.events, self.progress


def day_events(logs: Sequence[RunLog]) -> DayEvents:
    """Merge the logs of a day's runs, the oldest first: a later run replaces the results that it has too."""
    assets: dict[str, AssetState] = {}
    checks: dict[str, FailedCheck | None] = {}
    failure = None
    for log in logs:
        assets |= log.assets
        checks |= log.checks
        failure = log.failure or failure
    failed = tuple(check for _, check in sorted(checks.items()) if check is not None)
    times = [log.at for log in logs if log.at is not None]
    return DayEvents(_assets(assets, failed), failed, failure, max(times, default=None))


def succeeded_events(assets: Sequence[str], failed: tuple[FailedCheck, ...]) -> DayEvents:
    """The events of a run that succeeded, of which only the failed checks were read."""
    return DayEvents(_assets(dict.fromkeys(assets, "materialized"), failed), failed)


def _assets(states: Mapping[str, AssetState], failed: Sequence[FailedCheck]) -> tuple[AssetStatus, ...]:
    checks: dict[str, tuple[str, ...]] = {}
    for check in failed:
        asset = check.check.rpartition(":")[0]
        checks[asset] = (*checks.get(asset, ()), check.check)
    return tuple(_asset(asset, state, checks.get(asset, ())) for asset, state in sorted(states.items()))


@lru_cache(maxsize=10_000)
def _asset(asset: str, state: AssetState, failed_checks: tuple[str, ...]) -> AssetStatus:
    """One object for all days that have it: most are alike, and there are many."""
    return AssetStatus(asset=asset, state=state, failed_checks=failed_checks)
