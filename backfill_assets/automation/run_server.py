"""The process that ``run_launcher`` forks: ``python -m backfill_assets.automation.run_server SOCKET``.

Each line read from the socket is a command of ``dagster api`` in JSON. The answer is a line with the number
of the process that runs it, or the reason for a failure. The server ends when the other side is closed.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import json
import os
import signal
import socket
import sys
import threading
from typing import Final

#: Modules that a run imports, at its start or at first use. polars, and pandera, which imports polars, are
#: left out: polars starts threads at import, and a fork does not have them.
IMPORTED: Final = (
    "backfill_assets.definitions",
    "backfill_assets.automation.instance_storage",
    "backfill_assets.lake.local",
    "backfill_assets.tardis.attempts",
    "backfill_assets.ticks.kernels",
    "backfill_assets.ticks.parser",
    "backfill_assets.ticks.partial_kernels",
    "backfill_assets.ticks.price_kernels",
    "backfill_assets.ticks.profile_kernels",
    "backfill_assets.ticks.repeat_kernels",
    "backfill_assets.ticks.rowgroups",
    "backfill_assets.warehouse.ohlcv.warehouse",
    "alembic.command",
    "dagster._cli.api",
    "dagster._core.instance.factory",
    "dagster._core.storage.event_log",
    "dagster._core.storage.local_compute_log_manager",
    "dagster._core.storage.root",
    "dagster._core.storage.runs",
    "dagster._core.storage.schedules",
    "dagster_postgres",
    "duckdb",
    "fsspec.implementations.local",
    "isal.igzip",
    "jinja2",
    "numba.core.boxing",
    "numba.core.registry",
    "numba.cpython.charseq",
    "numba.core.typing.cffi_utils",
    "pandas",
    "psutil",
    "pyarrow.acero",
    "pyarrow.dataset",
    "pyarrow.parquet",
    "structlog",
    "upath.implementations.local",
    "watchdog.observers.polling",
)


def main() -> None:
    """Import, then fork until the requests end."""
    # The terminal's interrupt is for the runs, which end and report it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for module in (*IMPORTED, *_of_settings()):
        importlib.import_module(module)
    gc.collect()
    gc.freeze()
    with socket.socket(fileno=int(sys.argv[1])) as asked:
        words = _forked(asked)
    # A normal shutdown of an interpreter of this size would first copy its memory.
    os._exit(_run(words) if words else 0)


def _of_settings() -> list[str]:
    """Return further modules that runs import with these settings; runs report unreadable settings."""
    from backfill_assets.failures import SettingsError
    from backfill_assets.lake.store import GCS_SCHEME
    from backfill_assets.settings import BigQueryWarehouse, current_settings, resolve

    try:
        settings = current_settings()
        bucket = ["backfill_assets.lake.gcs", "dagster_gcp"]
        dataset = ["backfill_assets.warehouse.bigquery", "backfill_assets.warehouse.bigquery_views"]
        is_bucket = resolve(settings.lake.uri).startswith(GCS_SCHEME)
    except SettingsError:
        return []
    is_dataset = isinstance(settings.warehouse, BigQueryWarehouse)
    return [*(bucket if is_bucket else ()), *(dataset if is_dataset else ())]


def _forked(asked: socket.socket) -> list[str]:
    """Fork for each request until there are no more; in a fork, return the words of its command."""
    # The system removes ended forks, because their exit codes are not read.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with asked.makefile() as requests:
        for line in requests:
            try:
                pid = os.fork()
            except OSError as error:
                asked.sendall(f"{error}\n".encode())
                continue
            if pid == 0:
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                signal.signal(signal.SIGINT, signal.default_int_handler)
                words: list[str] = json.loads(line)
                return words
            asked.sendall(f"{pid}\n".encode())
    return []


def _run(words: list[str]) -> int:
    """Run ``dagster api`` with these words as an interpreter would; return its exit code."""
    from dagster._cli.api import api_cli

    sys.argv[:] = ["dagster", "api", *words]
    code: object = 0
    try:
        api_cli.main(args=words, standalone_mode=False)
    except SystemExit as end:
        code = end.code
    except BaseException:  # noqa: BLE001 - an interpreter reports it and ends
        sys.excepthook(*sys.exc_info())
        code = 1
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    return code if isinstance(code, int) else 1


if __name__ == "__main__":
    main()
