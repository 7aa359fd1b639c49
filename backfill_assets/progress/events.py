"""A job's changes as server-sent events.

Each event is the whole job as it then is, and its id is the job's revision. So a client that comes back with
its last id (``Last-Event-ID``) misses nothing that still matters, from whichever service; changes that follow
each other within one look are one event.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Final

from starlette.concurrency import run_in_threadpool

from backfill_assets.failures import TransientFailure
from backfill_assets.progress.model import FINAL_JOB_STATES
from backfill_assets.progress.service import Backfills
from backfill_assets.progress.statuses import UnknownJob

SECONDS_BETWEEN_LOOKS: Final = 0.5
#: Comments keep proxies from closing a silent connection; the usual limit is 60 s.
SECONDS_BETWEEN_HEARTBEATS: Final = 15.0


def seen_revision(last_event_id: str | None) -> int:
    """The revision of ``Last-Event-ID``; 0, which is before all, where it is none of ours."""
    text = last_event_id or ""
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 16 else 0


async def changes(service: Backfills, job_id: str, seen: int) -> AsyncIterator[str]:
    """Events newer than ``seen``, until the job has ended.

    An outage of the database is silence: a browser does not come back to a stream that was refused.
    """
    silent = 0.0
    yield "retry: 2000\n\n"
    while True:
        try:
            job = await run_in_threadpool(service.job, job_id)
        except TransientFailure:
            yield ": the database does not answer\n\n"
            await asyncio.sleep(SECONDS_BETWEEN_LOOKS)
            continue
        except UnknownJob:
            return
        is_over = job.state in FINAL_JOB_STATES
        # Revisions are times: of another service's clock, the end might be the earlier one.
        if job.revision > seen or is_over:
            seen, silent = job.revision, 0.0
            yield f"id: {job.revision}\nevent: job\ndata: {job.model_dump_json()}\n\n"
            if is_over:
                return
        elif silent >= SECONDS_BETWEEN_HEARTBEATS:
            silent = 0.0
            yield ": still here\n\n"
        await asyncio.sleep(SECONDS_BETWEEN_LOOKS)
        silent += SECONDS_BETWEEN_LOOKS
