"""A code location with the shipped schedules, whose only asset waits until the test releases its day."""

import os
import time
from pathlib import Path

import dagster as dg

from backfill_assets.automation.run_process import run_executor
from backfill_assets.automation.schedules import SCHEDULES
from backfill_assets.lake.resource import LakeResource
from backfill_assets.partitions import daily

GATES = "GATED_DAYS"


@dg.asset(partitions_def=daily, pool="tardis")
def ticks(context: dg.AssetExecutionContext) -> None:
    gate = Path(os.environ[GATES], context.partition_key)
    while not gate.exists():
        time.sleep(0.05)


defs = dg.Definitions(
    assets=[ticks], schedules=SCHEDULES, resources={"lake": LakeResource()}, executor=run_executor
)
