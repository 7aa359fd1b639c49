"""The sensor by which Dagster's daemon looks for problems and tells people; see ``watch``."""

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
    description="Looks for held, late and failed days and the like, and tells whom `alerts.urls` names.",
)
def incidents(context: dg.SensorEvaluationContext, lake: LakeResource) -> dg.SkipReason:
    """Look once; a look that fails is said here and tried again, and fails no run."""
    # What serves and reads backfills takes longer to import than all the rest of the code location.
    from backfill_assets.days import utc_now
    from backfill_assets.progress.service import Backfills
    from backfill_assets.progress.watch import look
    from backfill_assets.readable_numbers import plural

    # Only launching a backfill needs the graph.
    service = Backfills(context.instance, _no_graph, lake.settings)

    def records() -> Records:
        # Whoever asks here is alive; the service looks for the daemon.
        return replace(service.records(), daemon=None)

    try:
        found = look(lake.store(), lake.settings(), utc_now, records)
    except BackfillError as failure:
        return dg.SkipReason(f"incidents are not looked at: {failure}")
    told = f"; messages are not delivered: {found.trouble}" if found.trouble else ""
    return dg.SkipReason(f"{plural(len(found.open), 'open incident')}{told}")


def _no_graph() -> NoReturn:
    msg = "the sensor launches no backfill"
    raise RuntimeError(msg)


SENSORS: Final = (incidents,)
