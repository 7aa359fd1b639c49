"""The real daemon and the real service, with intervals of seconds instead of minutes.

``python -m backfill_assets.rehearsal.quick daemon run …`` takes the words of ``dagster-daemon``, and ``…
quick service …`` those of ``backfill-assets``. Only the intervals differ, so that a rehearsal takes minutes.
"""

from __future__ import annotations

import functools
import runpy
import sys
from collections.abc import Iterator
from typing import Any, Final

from backfill_assets.settings import ProcessEnvironment

#: Intervals between checks of backfills, heartbeats of the daemon, and checks for incidents.
BACKFILL_SECONDS: Final = 2
#: Interval between checks of the schedules, which Dagster checks at the start of a minute; and the log line.
SCHEDULE_SECONDS: Final = 2
LOOKED: Final = "the schedules were looked at"
HEARTBEAT_SECONDS: Final = 2
LOOK_SECONDS: Final = 4
#: A daemon without a heartbeat for this long counts as lost.
DAEMON_SECONDS: Final = 15
#: Interval between loads of the code, if the database goes away: each takes seconds of a processor.
LOAD_SECONDS: Final = 20
#: Sensors have intervals of half a minute and more; a third is still longer than Dagster takes to queue a
#: run.
SENSORS_FASTER: Final = 3


def daemon() -> None:
    """Dagster's daemon."""
    from dagster._core.remote_representation.external import RemoteSensor
    from dagster._daemon import cli, controller
    from dagster._scheduler import scheduler

    look = scheduler.launch_scheduled_runs

    def told(*words: Any, **more: Any) -> Iterator[Any]:
        yield from look(*words, **more)
        print(LOOKED, flush=True)  # noqa: T201 - the log is where a scenario waits for it

    asked = vars(RemoteSensor)["min_interval_seconds"].fget
    started = functools.partial(
        controller.daemon_controller_from_instance, heartbeat_interval_seconds=HEARTBEAT_SECONDS
    )
    vars(controller).update(DEFAULT_DAEMON_INTERVAL_SECONDS=BACKFILL_SECONDS)
    if ProcessEnvironment().dagster_postgres_url:
        vars(controller).update(RELOAD_WORKSPACE_INTERVAL=LOAD_SECONDS)
    vars(scheduler).update(SECONDS_IN_MINUTE=SCHEDULE_SECONDS, launch_scheduled_runs=told)
    vars(cli).update(daemon_controller_from_instance=started)
    type.__setattr__(
        RemoteSensor, "min_interval_seconds", property(lambda self: asked(self) // SENSORS_FASTER)
    )
    cli.main()


def service() -> None:
    """``backfill-assets``."""
    from backfill_assets.progress import statuses, watch

    vars(watch).update(SECONDS=LOOK_SECONDS)
    vars(statuses).update(DAEMON_SECONDS=DAEMON_SECONDS)
    runpy.run_module("backfill_assets.cli", run_name="__main__")


if __name__ == "__main__":
    {"daemon": daemon, "service": service}[sys.argv.pop(1)]()
