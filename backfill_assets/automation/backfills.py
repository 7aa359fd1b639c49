"""Launching a backfill on the instance.

Dagster has no public Python call for it; the private one it uses itself passes through here only, and the
minor version of Dagster is pinned.
"""

from __future__ import annotations

from dagster import DagsterInstance
from dagster._core.definitions.assets.graph.asset_graph import AssetGraph
from dagster._core.execution.backfill import PartitionBackfill
from dagster._core.utils import make_new_backfill_id

from backfill_assets.days import day_range, parse_day, utc_now
from backfill_assets.failures import PermanentFailure
from backfill_assets.partitions import daily


def checked_days(start: str, end: str) -> list[str]:
    """All days of the range; a ``PermanentFailure`` says which of them cannot be run, and why."""
    first, last = parse_day(start), parse_day(end)
    if last < first:
        msg = f"the range ends ({end}) before it starts ({start}): swap them"
        raise PermanentFailure(msg)
    known = daily.get_partition_keys()
    days = day_range(start, end)
    for day in (days[0], days[-1]):
        if not known[0] <= day <= known[-1]:
            msg = f"{day} cannot be run: days go from {known[0]} to {known[-1]}"
            raise PermanentFailure(msg)
    return days


def launch_backfill(instance: DagsterInstance, asset_graph: AssetGraph, start: str, end: str) -> str:
    """Ask for one run per day of the range, of all assets; returns the backfill's id."""
    days = checked_days(start, end)
    backfill = PartitionBackfill.from_asset_partitions(
        backfill_id=make_new_backfill_id(),
        asset_graph=asset_graph,
        partition_names=days,
        asset_selection=sorted(asset_graph.materializable_asset_keys),
        backfill_timestamp=utc_now().timestamp(),
        dynamic_partitions_store=instance,
        all_partitions=False,
        tags={"backfill_assets/range": f"{start}..{end}"},
        title=f"{start} to {end}",
        description=None,
        run_config=None,
    )
    instance.add_backfill(backfill)
    return backfill.backfill_id
