"""How the whole suite is run."""

from __future__ import annotations

import atexit
import gc
import os


def pytest_xdist_auto_num_workers() -> int:
    """One worker more than processors: many tests wait for processes that they have started."""
    affinity = getattr(os, "sched_getaffinity", None)  # not on macOS
    return 1 + (len(affinity(0)) if affinity else os.cpu_count() or 1)


def pytest_collection_finish() -> None:
    """Leave modules and collected tests out of every later garbage collection: they take a second of each."""
    gc.collect()
    gc.freeze()
    # At the interpreter's end they are taken down as ever: libraries tell of those that are left.
    atexit.register(gc.unfreeze)
