"""Number of files that a run decodes at once, by the resources that the machine or container gives it.

Python counts the processors of the machine (``os.cpu_count``), and psutil its memory. Neither sees the limits
of a container, so this module reads its control group. ``fetch`` and the client set the order and the number
of downloads.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

#: Twice the measured memory for decoding a file of any size, with its Parquet encoder and profile.
_BYTES_PER_FILE: Final = 256 * 2**20
#: Share of the memory that decoding may take; libraries and the steps after decoding need the rest.
_MEMORY_SHARE: Final = 0.5
#: A limit from this size on means no limit: version 1 of control groups writes a number near 2**63.
_NO_LIMIT: Final = 2**60


def decode_workers(root: Path = Path("/")) -> int:
    """Files to decode at once: one per processor, fewer if memory does not suffice, at least one.

    Parameters
    ----------
    root
        Folder of ``proc`` and ``sys``, for tests.
    """
    by_memory = int(memory_bytes(root) * _MEMORY_SHARE // _BYTES_PER_FILE)
    return max(1, min(processors(root), by_memory))


def processors(root: Path = Path("/")) -> int:
    """Processors that this process may use, by its affinity and by the quota of its control group."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min([allowed, *(round(quota) for quota in _quotas(root))]))


def memory_bytes(root: Path = Path("/")) -> int:
    """Memory that this process may use: that of the machine, or the limit of its control group."""
    limits = [
        int(text)
        for folder, version in _groups(root, "memory")
        for text in [_text(folder / ("memory.max" if version == 2 else "memory.limit_in_bytes"))]
        if text.isdecimal() and int(text) < _NO_LIMIT
    ]
    import psutil

    return min([psutil.virtual_memory().total, *limits])


def _quotas(root: Path) -> Iterator[float]:
    """Processors that each control group around this process grants."""
    for folder, version in _groups(root, "cpu"):
        if version == 2:
            quota, _, period = _text(folder / "cpu.max").partition(" ")
        else:
            quota, period = _text(folder / "cpu.cfs_quota_us"), _text(folder / "cpu.cfs_period_us")
        # "max" and -1 mean no limit.
        if quota.isdecimal() and period.isdecimal() and int(period):
            yield int(quota) / int(period)


def _groups(root: Path, controller: str) -> Iterator[tuple[Path, int]]:
    """Folders of this process's control groups, innermost first, each with its version, 1 or 2.

    A process in a container sees its own group as the topmost folder, for any path of the group outside.
    """
    mount = root / "sys/fs/cgroup"
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers and controller not in controllers.split(","):
            continue
        top, version = (mount / controller, 1) if controllers else (mount, 2)
        inner = top / path.strip("/")
        yield from ((folder, version) for folder in [inner, *inner.parents] if folder.is_relative_to(top))


def _text(file: Path) -> str:
    """The file's text; empty if it is missing or cannot be read."""
    try:
        return file.read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return ""
