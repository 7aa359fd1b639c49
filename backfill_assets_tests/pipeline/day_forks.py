"""Run days in forks of one process that has imported every module, so that killing many of them is cheap.

A line of input is ``SETTINGS DAY WRITE SIGNAL``: a fork in a process group of its own runs the day. With
WRITE above 0 it sends itself the signal (SIGKILL or SIGSTOP) at that step of writing, counted from 1, where a
step is a file beside the settings that is renamed or opened for writing: before the rename, and while the
opened file is still empty.
Two lines answer: the fork's process id when it has started, and at its end its exit code (minus the signal
that ended it) and how many steps it took.
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
from backfill_assets.instruments.schemas import instrument_schema

for module in pkgutil.walk_packages(backfill_assets.__path__, "backfill_assets."):
    if module.name != "backfill_assets.automation.ray_launcher":  # needs the extra ``ray``
        importlib.import_module(module.name)
instrument_schema()  # pandera imports half of its modules at its first use


def run_day(settings: str, day: str) -> bool:
    """Run the ``day`` job."""
    job = build_definitions(settings).resolve_job_def("day")
    with dg.DagsterInstance.ephemeral() as instance:
        result = job.execute_in_process(
            partition_key=day,
            run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
            instance=instance,
            raise_on_error=False,
        )
    return result.success


def die_at(write: int, number_of_signal: int, folder: str, steps: mmap.mmap) -> None:
    """Count the steps of writing below ``folder`` in memory that the parent reads, and end at one of them."""
    numbers = itertools.count(1)

    def end(*_: object) -> None:
        sys.setprofile(None)
        os.kill(os.getpid(), number_of_signal)

    def end_at_next_call(frame: object, event: str, call: object) -> None:
        if event == "c_call":
            end()

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        opened = event == "open" and arguments[1] in ("w", "wb")
        if not (opened or event == "os.rename") or not str(arguments[0]).startswith(folder):
            return
        number = next(numbers)
        steps[:4] = number.to_bytes(4)
        if number == write:
            # An open is announced before it happens; the next call would fill the file.
            sys.setprofile(end_at_next_call) if opened else end()

    sys.addaudithook(hook)


def main() -> None:
    """Serve until the input ends."""
    for line in sys.stdin:
        settings, day, write, name = line.split()
        steps = mmap.mmap(-1, 4)
        pid = os.fork()
        if pid == 0:
            os.setpgid(0, 0)
            code = 3
            try:
                die_at(int(write), signal.Signals[name], str(Path(settings).parent), steps)
                code = 0 if run_day(settings, day) else 1
            finally:
                os._exit(code)
        os.setpgid(pid, pid)
        print(pid, flush=True)
        _, status = os.waitpid(pid, 0)
        print(os.waitstatus_to_exitcode(status), int.from_bytes(steps[:4]), flush=True)


if __name__ == "__main__":
    main()
