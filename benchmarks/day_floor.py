"""The floor of ``day.py``: a graph with the keys of the package's assets and checks, whose bodies do nothing.

Apart from ``day.py`` because the process that runs it imports Dagster and nothing else. Dagster reads the
annotations of bodies, so they are not strings here.
"""

import warnings
from collections.abc import Iterator
from typing import Any

import dagster as dg

daily = dg.DailyPartitionsDefinition(start_date="2019-03-30", timezone="UTC")


def floor(graph: dict[str, Any]) -> dg.Definitions:
    """Definitions with the job ``day``, from the description that ``day.describe`` prints."""
    warnings.simplefilter("ignore", dg.PreviewWarning)
    return dg.Definitions(
        assets=[_asset(of) for of in graph["assets"]],
        asset_checks=[_checks(of) for of in graph["checks"]],
        jobs=[dg.define_asset_job("day", selection=dg.AssetSelection.all())],
        executor=dg.in_process_executor,
    )


def _asset(of: dict[str, Any]) -> dg.AssetsDefinition:
    @dg.asset(
        key=of["key"],
        deps=[dg.AssetKey(path) for path in of["deps"]],
        group_name=of["group"],
        description=of["description"],
        partitions_def=daily,
    )
    def nothing() -> dg.MaterializeResult[None]:
        return dg.MaterializeResult()

    return nothing


def _checks(of: list[dict[str, Any]]) -> dg.AssetChecksDefinition:
    specs = [
        dg.AssetCheckSpec(
            spec["name"], asset=dg.AssetKey(spec["asset"]), blocking=spec["blocking"], partitions_def=daily
        )
        for spec in of
    ]

    @dg.multi_asset_check(specs=specs, name=f"{'_'.join(of[0]['asset'])}_checks")
    def nothing() -> Iterator[dg.AssetCheckResult]:
        for spec in specs:
            yield dg.AssetCheckResult(passed=True, asset_key=spec.asset_key, check_name=spec.name)

    return nothing
