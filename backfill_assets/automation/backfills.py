"""Launches and cancels backfills on the instance.

Dagster has no public Python call for backfills. Only this module uses Dagster's private calls for them, and
the minor version of Dagster is pinned.
"""

from __future__ import annotations

import hashlib
import logging
import string
import threading
from collections.abc import Mapping, Sequence
from typing import Any, Final

from dagster import AssetKey, DagsterError, DagsterInstance, DagsterRunStatus, RunRequest, RunsFilter
from dagster._core.definitions.assets.graph.asset_graph import AssetGraph
from dagster._core.definitions.assets.graph.asset_graph_subset import AssetGraphSubset
from dagster._core.definitions.automation_tick_evaluation_context import (
    build_run_requests_with_backfill_policies,
)
from dagster._core.definitions.events import AssetKeyPartitionKey
from dagster._core.execution.asset_backfill import AssetBackfillData
from dagster._core.execution.backfill import (
    BULK_ACTION_TERMINAL_STATUSES,
    BulkActionStatus,
    PartitionBackfill,
)
from dagster._core.storage.dagster_run import NOT_FINISHED_STATUSES
from dagster._core.storage.tags import BACKFILL_ID_TAG
from dagster._core.utils import make_new_backfill_id, make_new_run_id
from sqlalchemy.exc import IntegrityError

from backfill_assets.days import day_range, insist_on_order, parse_day, utc_now
from backfill_assets.failures import BadInput
from backfill_assets.logs import bound
from backfill_assets.orchestration import TAG_CANCELED, TAG_NEWEST_FIRST, database_errors
from backfill_assets.partitions import daily

__all__ = [
    "AssetGraph",
    "DagsterInstance",
    "add_backfill",
    "cancel_backfill",
    "checked_days",
    "end_runs",
    "new_backfill_id",
    "repeat_backfill",
    "stop_run",
]

LOGGER: Final = logging.getLogger(__name__)
_LETTERS_OF_REQUEST_ID: Final = 12
#: Dagster's daemon looks twice a minute, and needs two looks to see that a canceled backfill has ended.
_SECONDS_OF_ENDING: Final = 120


def checked_days(start: str, end: str) -> list[str]:
    """Return all days of the range; raise ``BadInput`` for a day that cannot be run, with the reason."""
    for day in (start, end):
        parse_day(day)
    insist_on_order(start, end)
    known = daily.get_partition_keys()
    for day in (start, end):
        if not known[0] <= day <= known[-1]:
            msg = f"{day} cannot be run: days go from {known[0]} to {known[-1]}"
            raise BadInput(msg)
    return day_range(start, end)


def new_backfill_id(request_id: str | None = None) -> str:
    """Return an id in Dagster's form; a ``request_id`` always gives the same id, so it launches once."""
    if request_id is None:
        return str(make_new_backfill_id())
    number = int.from_bytes(hashlib.sha256(request_id.encode()).digest())
    letters = []
    for _ in range(_LETTERS_OF_REQUEST_ID):
        number, index = divmod(number, 26)
        letters.append(string.ascii_lowercase[index])
    return "".join(letters)


def add_backfill(
    instance: DagsterInstance,
    asset_graph: AssetGraph,
    backfill_id: str,
    days: Sequence[str],
    tags: Mapping[str, str],
    title: str,
    *,
    description: str = "",
    assets: Sequence[AssetKey] = (),
    run_config: Mapping[str, Any] | None = None,
) -> bool:
    """Request one run per day, of all assets or some, unless a backfill with this id exists.

    Dagster's storage takes an id only once, so only one of several simultaneous requests succeeds. A backfill
    without days succeeds at once. The daemon makes the runs from the oldest day on, or from the newest where
    the tags have ``TAG_NEWEST_FIRST``.

    Returns
    -------
    bool
        Whether the backfill is new.
    """
    if instance.get_backfill(backfill_id) is not None:
        return False
    now = utc_now().timestamp()
    selection = list(assets) or sorted(asset_graph.materializable_asset_keys)
    data = (
        AssetBackfillData.from_asset_partitions(
            asset_graph=asset_graph,
            partition_names=list(days),
            asset_selection=selection,
            dynamic_partitions_store=instance,
            all_partitions=False,
            backfill_start_timestamp=now,
        )
        if days
        else AssetBackfillData.empty(AssetGraphSubset.create_empty_subset(), now, instance)
    )
    requests = []
    if days and tags.get(TAG_NEWEST_FIRST) == "true":
        requests = _newest_first(instance, asset_graph, days, selection, run_config)
        data = data.with_requested_runs_for_target_roots(True).with_latest_storage_id(
            instance.event_log_storage.get_maximum_record_id() or 0
        )
    backfill = PartitionBackfill(
        backfill_id=backfill_id,
        status=BulkActionStatus.REQUESTED if days else BulkActionStatus.COMPLETED_SUCCESS,
        from_failure=False,
        tags=tags,
        backfill_timestamp=now,
        backfill_end_timestamp=None if days else now,
        asset_selection=selection,
        asset_backfill_data=data,
        title=title,
        description=description or None,
        run_config=run_config,
        submitting_run_requests=requests,
        reserved_run_ids=[make_new_run_id() for _ in requests],
    )
    try:
        instance.add_backfill(backfill)
    except IntegrityError:
        if instance.get_backfill(backfill_id) is None:
            raise
        return False
    return True


def _newest_first(
    instance: DagsterInstance,
    asset_graph: AssetGraph,
    days: Sequence[str],
    selection: Sequence[AssetKey],
    run_config: Mapping[str, Any] | None,
) -> list[RunRequest]:
    """Return the runs that the daemon would request, the newest first.

    They are stored with the backfill, in the daemon's form for runs it has yet to make, so the daemon makes
    them in this order. Priorities cannot do this, because days are dequeued while others are being made.
    """
    made = build_run_requests_with_backfill_policies(
        [AssetKeyPartitionKey(asset, day) for asset in selection for day in days], asset_graph, instance
    )
    requests = [request._replace(run_config=run_config or {}) for request in made]
    return sorted(requests, key=lambda request: request.partition_key or "", reverse=True)


def repeat_backfill(
    instance: DagsterInstance,
    asset_graph: AssetGraph,
    first_id: str,
    backfill_id: str,
    days: Sequence[str],
    tags: Mapping[str, str],
) -> None:
    """Request days of a backfill again, with its assets, run configuration and tags, and the given tags."""
    first = instance.get_backfill(first_id)
    if first is None:
        return
    kept = {name: value for name, value in first.tags.items() if name != TAG_CANCELED}
    add_backfill(
        instance,
        asset_graph,
        backfill_id,
        days,
        {**kept, **tags},
        first.title or f"{days[0]} to {days[-1]}",
        description=first.description or "",
        assets=first.asset_selection or (),
        run_config=first.run_config,
    )


def cancel_backfill(instance: DagsterInstance, backfill_id: str) -> None:
    """Ask Dagster's daemon to cancel the backfill and its runs; do nothing if it is already canceled."""
    backfill = instance.get_backfill(backfill_id)
    over = (BulkActionStatus.CANCELING, BulkActionStatus.CANCELED, BulkActionStatus.FAILED)
    if backfill is not None and backfill.status not in over:
        tags = {**backfill.tags, TAG_CANCELED: utc_now().isoformat()}
        instance.update_backfill(backfill._replace(status=BulkActionStatus.CANCELING, tags=tags))


def end_runs(instance: DagsterInstance, backfill_id: str, closing: threading.Event) -> None:
    """End the queued and running runs of a canceled backfill, until Dagster says that it is canceled.

    The daemon does so too, but one run after the other, and only after it has finished launching. While it
    launches it may also overwrite the cancellation, which is then requested again. ``closing`` stops this
    function after the current look.
    """
    told: set[str] = set()
    errors = database_errors()
    for _ in range(_SECONDS_OF_ENDING):
        try:
            if _is_cancelled(instance, backfill_id, told):
                return
        except errors as error:
            LOGGER.warning("%s: runs were not ended: %s", backfill_id, " ".join(str(error).split())[:200])
        if closing.wait(1):
            return


def _is_cancelled(instance: DagsterInstance, backfill_id: str, told: set[str]) -> bool:
    """Whether Dagster says that it is canceled; if not, end the runs that were not yet told to end."""
    backfill = instance.get_backfill(backfill_id)
    if backfill is None or backfill.status in BULK_ACTION_TERMINAL_STATUSES:
        return True
    if backfill.status is BulkActionStatus.REQUESTED:
        cancel_backfill(instance, backfill_id)
    left = RunsFilter(tags={BACKFILL_ID_TAG: backfill_id}, statuses=NOT_FINISHED_STATUSES)
    told |= {run for run in instance.get_run_ids(left) if run not in told and stop_run(instance, run)}
    return False


def stop_run(instance: DagsterInstance, run_id: str) -> bool:
    """Take the run out of the queue, or end it; return whether it was told to end.

    A run on its way into the queue or to its worker cannot be ended at that moment; an attempt would leave it
    canceling for minutes.
    """
    run = instance.get_run_by_id(run_id)
    if run is None or run.status not in (DagsterRunStatus.QUEUED, DagsterRunStatus.STARTED):
        return False
    try:
        return bool(instance.run_coordinator.cancel_run(run_id))
    except DagsterError as error:
        with bound(run=run_id):
            LOGGER.info("the daemon will end run %s: %s", run_id, " ".join(str(error).split())[:200])
        return True
