"""The order of runs and the limits of backfills: the tags that Dagster's queue reads.

All code that makes runs takes their priority from the table here. Runs without one, such as those of a
backfill started in Dagster's UI, count as 0. Dagster copies the tags of a run to the run that repeats it. The
limits of a backfill are tag limits of the queue (``concurrency.runs.tag_concurrency_limits`` of
``dagster.yaml``). Each holds one number: there is a key per number, limited for each of its values.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Final, Literal

from dagster._core.storage.tags import BACKFILL_ID_TAG, PRIORITY_TAG

from backfill_assets.failures import BadInput
from backfill_assets.orchestration import AT_ONCE_TAGS

if TYPE_CHECKING:
    from dagster import DagsterInstance

RunKind = Literal["daily", "catch_up", "awaited", "backfill"]

#: A higher priority goes first; runs of one priority go in the order of creation.
PRIORITIES: Final = MappingProxyType(
    {
        # Yesterday, which people expect at 09:00.
        "daily": 30,
        # Earlier days of the look-back, whose files or repairs came late.
        "catch_up": 20,
        # A single day requested by a person, the retry of a backfill, and the request for a backfill.
        "awaited": 10,
        "backfill": 0,
    }
)


def priority_tags(kind: RunKind) -> dict[str, str]:
    """Return the tag by which the queue sorts runs of this kind."""
    return {PRIORITY_TAG: str(PRIORITIES[kind])}


def backfill_places(instance: DagsterInstance) -> int | None:
    """Return how many runs of all backfills may run at once; None means no limit, 1 means no queue."""
    queue = instance.get_concurrency_config().run_queue_config
    if queue is None:
        return 1
    limits = [limit["limit"] for limit in queue.tag_concurrency_limits if _is_of_all_backfills(limit)]
    if queue.max_concurrent_runs >= 0:
        limits.append(queue.max_concurrent_runs)
    return min(limits, default=None)


def insist_on_limit(instance: DagsterInstance, at_once: int) -> None:
    """Refuse a number without a limit in the queue: the backfill would run as many days as any other.

    Raises
    ------
    BadInput
        The queue has no limit for the number; the message lists the numbers it has.
    """
    queue = instance.get_concurrency_config().run_queue_config
    limits = queue.tag_concurrency_limits if queue is not None else ()
    found = sorted(n for limit in limits if (n := _own_limit(limit)))
    if at_once in found:
        return
    key = f"{AT_ONCE_TAGS}{at_once}"
    some = f"has limits for {', '.join(map(str, found))}" if found else "has none"
    msg = f"at once: {at_once}: concurrency.runs.tag_concurrency_limits of dagster.yaml {some}: add {key}"
    raise BadInput(msg)


def _own_limit(limit: object) -> int:
    """Return the number of a limit that holds for each backfill by itself; 0 for any other limit."""
    match limit:
        case {"key": str(key), "value": {"applyLimitPerUniqueValue": True}, "limit": int(number)}:
            return number if key == f"{AT_ONCE_TAGS}{number}" else 0
    return 0


def _is_of_all_backfills(limit: object) -> bool:
    match limit:
        case {"key": key, **more}:
            return key == BACKFILL_ID_TAG and not more.get("value")
    return False
