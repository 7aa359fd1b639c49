"""Writes a request to Dagster's backfill, and reads it back.

The days are the backfill's partitions, the reason is its description, and all else is tags, which Dagster
copies to the runs. A backfill started elsewhere has none of these tags and is read as a request for its days.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from backfill_assets.automation.run_order import priority_tags
from backfill_assets.days import day_range
from backfill_assets.feeds import FeedChoice
from backfill_assets.orchestration import (
    AT_ONCE_TAGS,
    TAG_ALL_DAYS,
    TAG_ATTEMPT,
    TAG_JOB,
    TAG_NEWEST_FIRST,
    TAG_RANGE,
    TAG_REQUEST,
    TAG_USER,
    refresh_of,
    refresh_tags,
)
from backfill_assets.progress.model import BackfillRequest

_REASON_LENGTH = 500


def choice_of(request: BackfillRequest) -> FeedChoice:
    """Return the feeds to fetch again."""
    return FeedChoice(request.exchanges, request.symbols, request.data_types)


def as_kept(request: BackfillRequest) -> BackfillRequest:
    """Return the request as ``request_of`` reads it back: a choice of feeds implies ``refresh``."""
    return request.model_copy(update={"refresh": request.refresh or request.is_subset})


def request_tags(request: BackfillRequest, requester: str, job_id: str) -> dict[str, str]:
    """Return the tags of a job's first attempt."""
    tags = {TAG_JOB: job_id, TAG_ATTEMPT: "1", TAG_RANGE: f"{request.start}..{request.end}"}
    tags |= priority_tags("awaited" if request.start == request.end else "backfill")
    if request.at_once is not None:
        tags[f"{AT_ONCE_TAGS}{request.at_once}"] = job_id
    if request.order == "newest":
        tags[TAG_NEWEST_FIRST] = "true"
    if requester:
        tags[TAG_USER] = requester
    if request.request_id:
        tags[TAG_REQUEST] = request.request_id
    if request.all_days:
        tags[TAG_ALL_DAYS] = "true"
    if request.refresh or request.is_subset:
        tags |= refresh_tags(choice_of(request))
    return tags


def attempt_of(backfill_id: str, tags: Mapping[str, str]) -> tuple[str, int]:
    """Return the job and the attempt that the backfill is.

    Dagster's UI copies the tags when it runs a backfill again, so only the id identifies our attempts.
    """
    job_id, attempt = tags.get(TAG_JOB, ""), tags.get(TAG_ATTEMPT, "")
    if attempt.isdecimal() and backfill_id == attempt_id(job_id, int(attempt)):
        return job_id, int(attempt)
    return backfill_id, 1


def attempt_id(job_id: str, attempt: int) -> str:
    """Return the id of Dagster's backfill of that attempt: the job's own id for the first."""
    return job_id if attempt == 1 else f"{job_id}-{attempt}"


def request_of(
    backfill_id: str, tags: Mapping[str, str], description: str | None, days: Sequence[str]
) -> tuple[BackfillRequest, tuple[str, ...]]:
    """Return the request, and its days that are not in ``days``, the partitions of the backfill.

    Raises
    ------
    ValueError
        No day is known, so the backfill is not of days.
    """
    start, end = (days[0], days[-1]) if days else ("", "")
    if tags.get(TAG_JOB) == backfill_id:
        start, _, end = tags.get(TAG_RANGE, "").partition("..")
    reason = (description or "")[:_REASON_LENGTH]
    choice = refresh_of(tags)
    fields: dict[str, Any] = {
        "start": start,
        "end": end,
        "exchanges": choice.exchanges if choice else (),
        "symbols": choice.symbols if choice else (),
        "data_types": choice.data_types if choice else (),
        "refresh": choice is not None,
        # Only a job's own first backfill leaves days out.
        "all_days": tags.get(TAG_JOB) != backfill_id or tags.get(TAG_ALL_DAYS) == "true",
        "at_once": next(
            (tag.removeprefix(AT_ONCE_TAGS) for tag in tags if tag.startswith(AT_ONCE_TAGS)), None
        ),
        "order": "newest" if tags.get(TAG_NEWEST_FIRST) == "true" else "oldest",
        "reason": reason,
        "request_id": tags.get(TAG_REQUEST),
    }
    run = set(days)
    try:
        request = BackfillRequest.model_validate(fields)
    except ValidationError:
        # The tags are those of another program, or of another version of this one.
        first, last = (days[0], days[-1]) if days else ("", "")
        return BackfillRequest.model_validate({"start": first, "end": last, "all_days": True}), ()
    everything = day_range(start, end) if tags.get(TAG_JOB) == backfill_id else days
    return request, tuple(day for day in everything if day not in run)
