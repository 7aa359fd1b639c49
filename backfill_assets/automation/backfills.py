"""Launching and cancelling backfills on the instance.

Dagster has no public Python call for them; the private ones it uses itself pass through here only, and the
minor version of Dagster is pinned.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Final

from dagster import DagsterError, DagsterInstance, DagsterRunStatus
from dagster._core.definitions.assets.graph.asset_graph import AssetGraph
from dagster._core.execution.backfill import BulkActionStatus, PartitionBackfill
from dagster._core.utils import make_new_backfill_id
from sqlalchemy.exc import IntegrityError

from backfill_assets.days import day_range, parse_day, utc_now
from backfill_assets.failures import PermanentFailure
from backfill_assets.orchestration import TAG_RANGE
from backfill_assets.partitions import daily

__all__ = [
    "AssetGraph",
    "DagsterInstance",
    "cancel_backfill",
    "checked_days",
    "ensure_backfill",
    "launch_backfill",
    "new_backfill_id",
    "stop_run",
]

LOGGER: Final = logging.getLogger(__name__)
_CANCELABLE: Final = (BulkActionStatus.REQUESTED,)


def checked_days(start: str, end: str) -> list[str]:
    """All days of the range; a ``PermanentFailure`` says which of them cannot be run, and why."""
    first, last = parse_day(start), parse_day(end)
    if last < first:
        msg = f"the range ends ({end}) before it starts ({start}): swap them"
        raise PermanentFailure(msg)
    known = daily.get_partition_keys()
    for day in (start, end):
        if not known[0] <= day <= known[-1]:
            msg = f"{day} cannot be run: days go from {known[0]} to {known[-1]}"
            raise PermanentFailure(msg)
    return day_range(start, end)


def new_backfill_id() -> str:
    """An id as Dagster makes them."""
    return str(make_new_backfill_id())


def launch_backfill(instance: DagsterInstance, asset_graph: AssetGraph, start: str, end: str) -> str:
    """Ask for one run per day of the range, of all assets; returns the backfill's id."""
    days, backfill_id = checked_days(start, end), new_backfill_id()
    tags = {TAG_RANGE: f"{start}..{end}"}
    ensure_backfill(instance, asset_graph, backfill_id, days, tags, f"{start} to {end}")
    return backfill_id


def ensure_backfill(
    instance: DagsterInstance,
    asset_graph: AssetGraph,
    backfill_id: str,
    days: Sequence[str],
    tags: Mapping[str, str],
    title: str,
) -> None:
    """Ask for one run per day, of all assets, unless there is a backfill with this id.

    Dagster's storage takes an id only once, so of several that ask together one is heard.
    """
    if instance.get_backfill(backfill_id) is not None:
        return
    backfill = PartitionBackfill.from_asset_partitions(
        backfill_id=backfill_id,
        asset_graph=asset_graph,
        partition_names=list(days),
        asset_selection=sorted(asset_graph.materializable_asset_keys),
        backfill_timestamp=utc_now().timestamp(),
        dynamic_partitions_store=instance,
        all_partitions=False,
        tags=dict(tags),
        title=title,
        description=None,
        run_config=None,
    )
    try:
        instance.add_backfill(backfill)
    except IntegrityError:
        if instance.get_backfill(backfill_id) is None:
            raise


def cancel_backfill(instance: DagsterInstance, backfill_id: str) -> None:
    """Ask Dagster's daemon to cancel the backfill and its runs; nothing happens if it has ended."""
    backfill = instance.get_backfill(backfill_id)
    if backfill is not None and backfill.status in _CANCELABLE:
        canceling = backfill.with_status(BulkActionStatus.CANCELING)  # type: ignore[no-untyped-call]
        instance.update_backfill(canceling)


def stop_run(instance: DagsterInstance, run_id: str) -> bool:
    """Take the run out of the queue, or end it; returns whether it was told to end.

    The daemon does so too, but one run after the other, and only when it is through with launching: seconds
    per run where the machine is busy. A run on its way into the queue or to its worker cannot be ended at
    that moment: what is tried then leaves it cancelling for minutes.
    """
    run = instance.get_run_by_id(run_id)
    if run is None or run.status not in (DagsterRunStatus.QUEUED, DagsterRunStatus.STARTED):
        return False
    try:
        return bool(instance.run_coordinator.cancel_run(run_id))
    except DagsterError as error:
        LOGGER.info("run %s is left to the daemon to end: %s", run_id, " ".join(str(error).split())[:200])
        return True
