"""Applies a small function to many objects of the lake at once.

On a bucket every read waits tens of milliseconds, and a day has three documents per feed and neighbor.
Threads are enough for work that mostly waits; ``Store.parallel_reads`` gives their number.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from backfill_assets.logs import with_fields

Item = TypeVar("Item")
Result = TypeVar("Result")


def parallel_map(
    function: Callable[[Item], Result],
    items: Iterable[Item],
    workers: int,
    stop: Callable[[], None] = lambda: None,
) -> list[Result]:
    """Return the results of ``function`` in the order of the items; the first failure is raised in its turn.

    ``stop`` is called when a failure or a signal ends the waiting, before this function waits for the running
    calls; it may end them.
    """
    work = list(items)
    if min(len(work), workers) < 2:
        return [function(item) for item in work]
    with ThreadPoolExecutor(min(workers, len(work))) as pool:
        try:
            return list(pool.map(with_fields(function), work))
        except BaseException:  # Signals and interrupts of Dagster also end the waiting.
            stop()
            raise
