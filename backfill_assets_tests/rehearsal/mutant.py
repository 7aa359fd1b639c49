"""Runs Dagster, the daemon or the service with one component of the pipeline broken.

``mutant.py NAME asset materialize …``, ``mutant.py NAME daemon run …`` or ``mutant.py NAME service serve …``.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any

import yarl
from dagster import _time as dagster_time
from dagster._cli import main
from dagster._core.remote_representation.external import RemoteSchedule

from backfill_assets.alerts import channel
from backfill_assets.automation import run_process
from backfill_assets.failures import PermanentFailure, TransientFailure
from backfill_assets.lake import paths
from backfill_assets.progress import problems, tracking
from backfill_assets.progress.service import Backfills
from backfill_assets.rehearsal import quick
from backfill_assets.tardis import attempts
from backfill_assets.ticks import fetch
from backfill_assets.warehouse import bigquery_failures

_TAKEN: list[bytes] = []
#: More than the hours from 09:00 to noon, when the daemon of the scenario comes back.
_HOURS_SECONDS = 4 * 3_600


def _around_run(do: Callable[[], object]) -> None:
    """Call the function when the run begins."""
    execute = run_process._RunExecutor.execute

    def changed(self: Any, *words: Any) -> Any:
        do()
        return execute(self, *words)

    run_process._RunExecutor.execute = changed  # type: ignore[method-assign]


def ends_with_0_whatever_happens() -> Callable[[], object]:
    def run() -> None:
        with suppress(BaseException):
            main()

    return run


def leaves_a_process() -> None:
    _around_run(lambda: subprocess.Popen(["sleep", "100"]))


def forgets_what_it_has() -> None:
    fetch._kept = lambda *_, **__: None  # type: ignore[assignment]


def takes_memory() -> None:
    _around_run(lambda: _TAKEN.append(b"x" * (700 * 2**20)))


def dawdles() -> None:
    _around_run(lambda: time.sleep(10))


def logs_the_key() -> None:
    _around_run(lambda: print("key:", os.environ["TARDIS_API_KEY"], flush=True))


def carries_the_key_everywhere() -> None:
    """Keep the key on a redirect; aiohttp removes it on a redirect to another origin."""
    yarl.URL.origin = lambda self: yarl.URL("http://127.0.0.1")  # type: ignore[method-assign]


def asks_without_waiting() -> None:
    attempts._wait_asked = lambda *_: None


def asks_again_for_the_same_bytes() -> None:
    fetch._given_up = lambda outcome, before, *, is_passing: replace(outcome, state="failed")


def takes_every_load_error_for_passing() -> None:
    bigquery_failures._by_reason = lambda what, reason, text: TransientFailure(f"{what}: {reason}: {text}")


def tells_nobody() -> None:
    channel.send = lambda *_, **__: (True, "")  # type: ignore[assignment]


def is_ready_whatever_is_missing() -> None:
    Backfills.troubles = lambda _: []  # type: ignore[method-assign]


def gives_up_where_nobody_answers() -> None:
    attempts._broken = lambda url, error, key: PermanentFailure(f"cannot reach {url}")


def keeps_rejected_files_outside_of_their_feeds() -> None:
    vars(paths).update(rejected=lambda feed, day, _: f"rejected/{feed.dataset_symbol}-{day}.csv.gz")


def says_no_time_to_ask_again() -> None:
    vars(problems).update(RETRY_AFTER_SECONDS="later")


def goes_by_the_clock_alone() -> None:
    """Ask, at each look at the schedules, for every day that was due within some hours."""
    # These modules import each other: the daemon's must be imported first.
    from dagster._daemon import controller  # noqa: F401
    from dagster._scheduler.scheduler import ScheduleIterationTimes

    since = RemoteSchedule.execution_time_iterator
    RemoteSchedule.execution_time_iterator = (  # type: ignore[method-assign]
        lambda self, _: since(self, dagster_time.get_current_timestamp() - _HOURS_SECONDS)
    )
    ScheduleIterationTimes.should_run_next_iteration = lambda *_: True  # type: ignore[method-assign]


def counts_down() -> None:
    percent = tracking._percent
    tracking._percent = lambda days, *, over: 100.0 if over else 99 - percent(days, over=over)


if __name__ == "__main__":
    run = globals()[sys.argv.pop(1)]() or main
    if sys.argv[1] in ("daemon", "service"):
        run = getattr(quick, sys.argv.pop(1))
    run()
