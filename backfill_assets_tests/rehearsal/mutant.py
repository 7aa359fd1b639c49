"""Runs Dagster with one component of the pipeline broken: ``mutant.py NAME asset materialize …``."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from dagster._cli import main

from backfill_assets.automation import run_process
from backfill_assets.ticks import fetch


def _around_run(do: Callable[[], object]) -> None:
    """Have something done when the run begins."""
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


def logs_the_key() -> None:
    _around_run(lambda: print("key:", os.environ["TARDIS_API_KEY"], flush=True))


if __name__ == "__main__":
    run = globals()[sys.argv.pop(1)]() or main
    run()
