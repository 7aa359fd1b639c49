"""Run days in forks of one process that has imported everything, so that many of them can be killed cheaply.

A line of input is ``SETTINGS DAY RENAME``: a fork in a process group of its own runs the day. With RENAME
above 0 it kills itself with SIGKILL in place of that rename of a file, counted from 1. Two lines answer: the
fork's process id when it has started, and at its end its exit code (minus the signal that ended it) and how
many files it renamed.
"""

from __future__ import annotations

import importlib
import itertools
import mmap
import os
import pkgutil
import signal
import sys
from pathlib import Path
from typing import Any

import dagster as dg
import duckdb  # noqa: F401 - imported once, for all forks

import backfill_assets
from backfill_assets.definitions import build_definitions

for module in pkgutil.walk_packages(backfill_assets.__path__, "backfill_assets."):
    importlib.import_module(module.name)


def run_day(settings: str, day: str) -> bool:
    """Run the ``day`` job."""
    job = build_definitions(settings).resolve_job_def("day")
    with dg.DagsterInstance.ephemeral() as instance:
        result = job.execute_in_process(
            partition_key=day,
            run_config={"loggers": {"console": {"config": {"log_level": "ERROR"}}}},
            instance=instance,
            raise_on_error=False,
        )
    return result.success


def die_at(rename: int, renames: mmap.mmap) -> None:
    """Count this process's renames where its parent can read them, and end at the one asked for."""

    numbers = itertools.count(1)

    def hook(event: str, _: tuple[Any, ...]) -> None:
        if event == "os.rename":
            count = next(numbers)
            renames[:4] = count.to_bytes(4)
            if count == rename:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


def main() -> None:
    """Serve until the input ends."""
    for line in sys.stdin:
        settings, day, rename = line.split()
        renames = mmap.mmap(-1, 4)
        pid = os.fork()
        if pid == 0:
            os.setpgid(0, 0)
            code = 3
            try:
                die_at(int(rename), renames)
                code = 0 if run_day(str(Path(settings)), day) else 1
            finally:
                os._exit(code)
        os.setpgid(pid, pid)
        print(pid, flush=True)
        _, status = os.waitpid(pid, 0)
        print(os.waitstatus_to_exitcode(status), int.from_bytes(renames[:4]), flush=True)


if __name__ == "__main__":
    main()
