"""Heals the day of the tests in forks that kill themselves at the n-th write.

A line of the input is FOLDER ADDRESS NUMBER, one of the output the exit code of the fork, negative if a
signal has ended it. All modules are imported before the fork except polars, whose threads a fork would lack.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from backfill_assets.heal import exchange_trades  # noqa: F401 - takes a second to import
from backfill_assets.heal.healing import heal
from backfill_assets.heal.sources import Budget
from backfill_assets.lake.local import LocalStore
from backfill_assets.settings import HealSettings
from backfill_assets_tests.heal.healed_lake import COINBASE, DAY, filed_days


class Countdown:
    """Kills the process at the n-th call; 0 never kills it."""

    def __init__(self, left: int) -> None:
        self.left = left

    def before(self, write: Callable[..., Any]) -> Callable[..., Any]:
        """The same function with its calls counted."""

        def counted(*arguments: Any) -> Any:
            self.left -= 1
            if self.left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return write(*arguments)

        return counted


def run(folder: Path, url: str, number: int) -> None:
    """Heal until the n-th write."""
    countdown = Countdown(number)
    for name in ("replace", "put_file", "put_bytes"):
        setattr(LocalStore, name, countdown.before(getattr(LocalStore, name)))
    days = filed_days(folder)
    settings = days.settings.model_copy(
        update={"heal": HealSettings(exchange_endpoint=url, archive_endpoint=url, timeout_seconds=120)}
    )
    heal(days.store, settings, DAY, str(COINBASE), Budget(100))


if __name__ == "__main__":
    for line in sys.stdin:
        folder, url, number = line.split()
        child = os.fork()
        if not child:
            run(Path(folder), url, int(number))
            os._exit(0)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)
