"""Numbers as people read them: counts with their noun, bytes and durations with their unit.

Pages, messages and the command line share them, so that a number looks the same everywhere.
"""

from __future__ import annotations

_UNITS = ("B", "kB", "MB", "GB", "TB", "PB")


def plural(count: int, one: str) -> str:
    """``1 run``, ``2 runs``."""
    return f"{count:,} {one}" if count == 1 else f"{count:,} {one}s"


def bytes_text(number: float) -> str:
    """``1.5 GB``: decimal units, three digits."""
    for unit in _UNITS:
        if number < 999.5 or unit == _UNITS[-1]:
            break
        number /= 1000
    return f"{number:.0f} {unit}" if unit == "B" or number >= 99.95 else f"{number:.1f} {unit}"


def seconds_text(seconds: float) -> str:
    """``40 s``, ``12 min``, ``3.5 h``, ``2.1 days``."""
    for limit, divisor, unit in ((100, 1, "s"), (5_940, 60, "min"), (172_800, 3_600, "h")):
        if seconds < limit:
            value = seconds / divisor
            return f"{value:.0f} {unit}" if unit != "h" or value >= 9.95 else f"{value:.1f} {unit}"
    return f"{seconds / 86_400:.1f} days"
