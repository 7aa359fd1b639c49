"""The code location: lists every asset, check, job, schedule and resource, and defines none of them.

Importing it reads no secret and no network; ``build_definitions`` makes the same for another environment.
"""

from __future__ import annotations

import dagster as dg

from backfill_assets import logs
from backfill_assets.automation.jobs import JOBS
from backfill_assets.automation.lost_runs import SENSORS as LOST_RUN_SENSORS
from backfill_assets.automation.run_process import run_executor
from backfill_assets.automation.schedules import SCHEDULES
from backfill_assets.candles.assets import candles
from backfill_assets.candles.checks import candles_checks
from backfill_assets.instruments.assets import instruments
from backfill_assets.instruments.checks import instruments_checks
from backfill_assets.lake.resource import LakeResource
from backfill_assets.progress.sensor import SENSORS as INCIDENT_SENSORS
from backfill_assets.references.assets import reference
from backfill_assets.references.checks import reference_checks
from backfill_assets.report.assets import report
from backfill_assets.tardis.resource import TardisResource
from backfill_assets.ticks.assets import ticks
from backfill_assets.ticks.checks import ticks_checks
from backfill_assets.warehouse.assets import ASSETS as WAREHOUSE_ASSETS
from backfill_assets.warehouse.checks import CHECKS as WAREHOUSE_CHECKS
from backfill_assets.warehouse.resource import WarehouseResource


def build_definitions(environment: str = "") -> dg.Definitions:
    """Return everything that Dagster loads; ``environment`` (a name or a file) overrides ``BACKFILL_ENV``."""
    logs.install(environment)
    return dg.Definitions(
        assets=[instruments, ticks, candles, *WAREHOUSE_ASSETS, reference, report],
        asset_checks=[instruments_checks, ticks_checks, candles_checks, *WAREHOUSE_CHECKS, reference_checks],
        jobs=JOBS,
        schedules=SCHEDULES,
        sensors=[*LOST_RUN_SENSORS, *INCIDENT_SENSORS],
        resources={
            "lake": LakeResource(environment=environment),
            "tardis": TardisResource(environment=environment),
            "warehouse": WarehouseResource(environment=environment),
        },
        # A process per step costs more than the steps: 22 s a day against 1.7 s. Steps are concurrent inside.
        executor=run_executor,
    )


defs = build_definitions()
