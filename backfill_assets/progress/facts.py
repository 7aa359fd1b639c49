"""Dagster's records of backfills and runs as plain values: ``reader`` returns them, ``tracking`` computes.

Separate from both, so that the computing needs no Dagster.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from typing import Literal

from backfill_assets.progress.model import AssetState, AssetStatus, BackfillRequest, FailedCheck

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
    #: The message of the last step that failed.
    failure: str | None = None


@dataclass(frozen=True, slots=True)
class DayEvents:
    """The events of all runs of a day."""

    assets: tuple[AssetStatus, ...] = ()
    failed_checks: tuple[FailedCheck, ...] = ()
    failure: str | None = None
    at: datetime | None = None


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
