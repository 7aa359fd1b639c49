"""Two small assets with two checks, run by Dagster's own engine in milliseconds."""

import signal
import time
from typing import Any

import dagster as dg
from dagster._core.execution.backfill import BulkActionStatus

from backfill_assets.partitions import daily


@dg.asset(partitions_def=daily)
def ticks(context: dg.AssetExecutionContext) -> dg.MaterializeResult[None]:
    if context.run.tags.get("break") == "ticks":
        raise dg.Failure(description="the disk is full:\nmake room")
    if context.run.tags.get("break") == "stop":
        signal.raise_signal(signal.SIGINT)
    return dg.MaterializeResult(metadata={"dagster/row_count": 5})


@dg.asset(partitions_def=daily, deps=[ticks])
def candles() -> None: ...


@dg.asset_check(asset=ticks, blocking=True, partitions_def=daily)
def sane(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(passed=context.run.tags.get("break") != "check", description="3 rows\nare bad")


@dg.asset_check(asset=ticks, partitions_def=daily)
def usual() -> dg.AssetCheckResult:
    return dg.AssetCheckResult(passed=False, severity=dg.AssetCheckSeverity.WARN)


DEFS = dg.Definitions(assets=[ticks, candles], asset_checks=[sane, usual], jobs=[dg.define_asset_job("all")])


def execute(
    instance: dg.DagsterInstance, backfill_id: str, day: str, select: tuple[str, ...] = (), **tags: str
) -> str:
    """Run a day of a backfill as the daemon does; returns the run's id."""
    more: dict[str, Any] = {"asset_selection": [dg.AssetKey(name) for name in select]} if select else {}
    return (
        DEFS.resolve_job_def("all")
        .execute_in_process(
            partition_key=day,
            instance=instance,
            raise_on_error=False,
            tags={"dagster/backfill": backfill_id, **tags},
            **more,
        )
        .run_id
    )


def end_backfill(instance: dg.DagsterInstance, backfill_id: str, status: BulkActionStatus) -> None:
    """Give the backfill the status that Dagster's daemon gives it at its end."""
    found = instance.get_backfill(backfill_id)
    assert found is not None
    instance.update_backfill(found.with_status(status).with_end_timestamp(time.time()))
