"""Settings of the whole test run."""

from __future__ import annotations

import atexit
import gc
import os


def pytest_xdist_auto_num_workers() -> int:
    """One worker more than processors, because many tests wait for processes that they have started."""
    affinity = getattr(os, "sched_getaffinity", None)  # not on macOS
    return 1 + (len(affinity(0)) if affinity else os.cpu_count() or 1)


def pytest_collection_finish() -> None:
    """Exclude modules and collected tests from every later garbage collection: they cost a second of each."""
    gc.collect()
    gc.freeze()
    # They are freed as usual when the interpreter ends, because libraries report objects that are left.
    atexit.register(gc.unfreeze)
