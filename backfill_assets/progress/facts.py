"""What ``reader`` finds in Dagster's records, as plain values that ``tracking`` computes with.

Separate from both, so that the computing needs no Dagster.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from backfill_assets.progress.model import AssetStatus, FailedCheck

RunState = Literal["queued", "running", "succeeded", "failed", "canceled"]
BackfillState = Literal["absent", "active", "canceling", "canceled", "completed", "failed"]


@dataclass(frozen=True, slots=True)
class RunFact:
    """One run of one day."""

    run_id: str
    day: str
    attempt: int
    state: RunState
    #: Whether Dagster is about to start it again, since its worker died.
    will_retry: bool
    created: datetime
    updated: datetime
    started: datetime | None
    ended: datetime | None


@dataclass(frozen=True, slots=True)
class BackfillFact:
    """Dagster's backfill, and why it failed if it says so."""

    state: BackfillState
    error: str | None = None


@dataclass(frozen=True, slots=True)
class DayEvents:
    """What happened in the runs of a day, later ones after earlier ones."""

    assets: tuple[AssetStatus, ...] = ()
    failed_checks: tuple[FailedCheck, ...] = ()
    #: Of the day's tick files.
    rows: int | None = None
    #: Compressed bytes that were fetched.
    raw_bytes: int | None = None
    #: What the last failed step said.
    failure: str | None = None
