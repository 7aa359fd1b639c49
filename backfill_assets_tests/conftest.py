"""How the whole suite is run."""

from __future__ import annotations

import os


def pytest_xdist_auto_num_workers() -> int:
    """One worker more than processors: many tests wait for processes that they have started."""
    affinity = getattr(os, "sched_getaffinity", None)  # not on macOS
    return 1 + (len(affinity(0)) if affinity else os.cpu_count() or 1)
