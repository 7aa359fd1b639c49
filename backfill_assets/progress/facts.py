"""Dagster's records of backfills and runs as plain values: ``reader`` returns them, ``tracking`` computes.

The module is separate from both, so that the computation needs no Dagster.
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
    #: The days that the backfill runs, in order.
    days: tuple[str, ...]
    #: Days of the request that the backfill does not run.
    skipped: tuple[str, ...]
    assets: tuple[str, ...]
    created: datetime
    #: When Dagster saw the end of the backfill.
    ended: datetime | None = None
    #: When this package asked Dagster to cancel the backfill; None also if Dagster's UI did.
    canceled: datetime | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class RunFact:
    """One run of one day."""

    run_id: str
    day: str
    state: RunState
    #: Whether Dagster will start the day again because the worker died; None until Dagster has decided.
    will_retry: bool | None
    created: datetime
    updated: datetime
    started: datetime | None
    ended: datetime | None


@dataclass(slots=True)
class RunLog:
    """The events of one run so far; reading continues at ``cursor``."""

    cursor: str | None = None
    #: Time of the newest event.
    at: datetime | None = None
    #: Whether the run had ended before its events were read, so that there are no more.
    is_whole: bool = False
    steps: dict[str, str] = field(default_factory=dict)
    assets: dict[str, AssetState] = field(default_factory=dict)
    #: The failure of each check that was evaluated, None if it passed.
    checks: dict[str, FailedCheck | None] = field(default_factory=dict)
    #: Steps that have failed, in order.
    failed: list[str] = field(default_factory=list)
    #: The message of the last failed step, or otherwise why Dagster ended the run.
    failure: str | None = None
    #: The last error that Dagster itself had with the run.
    trouble: str | None = None


@dataclass(frozen=True, slots=True)
class Records:
    """Failures and the state of the daemon from Dagster's records, for a person to review.

    Attributes
    ----------
    failed_runs
        The latest run of each day of the last week, with its events, if it belongs to no backfill, has failed
        and will not be run again.
    failed_backfills
        The newest failed jobs.
    daemon
        Why no day will be run; empty if the daemon is alive, None if that cannot be known.
    run_days
        The days of runs that ended in the last 24 hours, among the newest runs.
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
    """A day that is run: its backfill, its counted runs, and the records of these runs."""

    day: str
    backfill: BackfillFact
    #: The oldest first; the last run gives the day its state.
    runs: list[RunFact]
    #: Whether the last run has ended the day.
    over: bool
    #: The day's state if it has no run.
    state_without_run: JobDayState = "waiting"
    #: None where it is not known.
    stored: StoredDay | None = None
    events: DayEvents | None = None
    #: The furthest progress that the runs have written.
    progress: DayProgress | None = None

    @property
    def run(self) -> RunFact | None:
        """The run that gives the day its state."""
        return self.runs[-1] if self.runs else None

    def parts(self) -> tuple[object, ...]:
        """All inputs of ``tracking.day_status``."""
        fate = (self.backfill.state, self.state_without_run)
        return *fate, self.run, self.over, self.stored, self.events, self.progress


def day_events(logs: Sequence[RunLog]) -> DayEvents:
    """Merge the logs of a day's runs, the oldest first: a later run's results replace earlier ones."""
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
    """The events of a successful run of which only the failed checks were read."""
    return DayEvents(_assets(dict.fromkeys(assets, "materialized"), failed), failed)


def _assets(states: Mapping[str, AssetState], failed: Sequence[FailedCheck]) -> tuple[AssetStatus, ...]:
    checks: dict[str, tuple[str, ...]] = {}
    for check in failed:
        asset = check.check.rpartition(":")[0]
        checks[asset] = (*checks.get(asset, ()), check.check)
    return tuple(_asset(asset, state, checks.get(asset, ())) for asset, state in sorted(states.items()))


@lru_cache(maxsize=10_000)
def _asset(asset: str, state: AssetState, failed_checks: tuple[str, ...]) -> AssetStatus:
    """Return one object for all days with these values: there are many, and most are alike."""
    return AssetStatus(asset=asset, state=state, failed_checks=failed_checks)
