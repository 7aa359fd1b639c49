"""The sensor with which Dagster's daemon looks for problems and sends alerts; see ``watch``."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final, NoReturn

import dagster as dg

from backfill_assets.failures import BackfillError
from backfill_assets.lake.resource import LakeResource

if TYPE_CHECKING:
    from backfill_assets.progress.facts import Records


@dg.sensor(
    name="incidents",
    minimum_interval_seconds=300,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Looks for held, late and failed days and the like, and alerts through `alerts.urls`.",
)
def incidents(context: dg.SensorEvaluationContext, lake: LakeResource) -> dg.SkipReason:
    """Look once; a failed look is reported here and repeated, and fails no run."""
    # The modules of the service take longer to import than the rest of the code location.
    from backfill_assets.days import utc_now
    from backfill_assets.progress.service import Backfills
    from backfill_assets.progress.watch import look
    from backfill_assets.readable_numbers import plural

    # Only launching a backfill needs the graph.
    service = Backfills(context.instance, _no_graph, lake.settings)

    def records() -> Records:
        # The daemon runs this sensor, so it is alive; the service checks the daemon.
        return replace(service.records(), daemon=None)

    try:
        found = look(lake.store(), lake.settings(), utc_now, records)
    except BackfillError as failure:
        return dg.SkipReason(f"incidents cannot be checked: {failure}")
    told = f"; messages are not delivered: {found.trouble}" if found.trouble else ""
    return dg.SkipReason(f"{plural(len(found.open), 'open incident')}{told}")


def _no_graph() -> NoReturn:
    msg = "the sensor launches no backfill"
    raise RuntimeError(msg)


SENSORS: Final = (incidents,)
