"""Reads the materialized days from Dagster's records, and reports stored days to them."""

from __future__ import annotations

from collections.abc import Iterable

import dagster as dg

from backfill_assets.partitions import daily


def materialized_days(instance: dg.DagsterInstance, assets: Iterable[str]) -> dict[str, frozenset[str]]:
    """Return the materialized days of each asset, by its key as text."""
    known = frozenset(daily.get_partition_keys())
    return {
        asset: known & instance.get_materialized_partitions(dg.AssetKey.from_user_string(asset))
        for asset in assets
    }


def report_materialization(instance: dg.DagsterInstance, asset: str, day: str) -> None:
    """Report an existing partition to Dagster, as its documentation advises for work done elsewhere."""
    key = dg.AssetKey.from_user_string(asset)
    description = "found by backfill-assets reconcile"
    instance.report_runless_asset_event(dg.AssetMaterialization(key, description, partition=day))
