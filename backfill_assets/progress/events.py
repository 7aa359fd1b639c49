"""A job's changes as server-sent events.

Each event is the whole job at that moment, and its id is the job's revision. A client that reconnects with
its last id (``Last-Event-ID``) misses nothing that still matters, from any service. Changes within one look
become one event.
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
    """Return the revision in ``Last-Event-ID``; 0, which precedes all, if it is not one of ours."""
    text = last_event_id or ""
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 16 else 0


async def changes(service: Backfills, job_id: str, seen: int) -> AsyncIterator[str]:
    """Yield events newer than ``seen`` until the job has ended.

    During a database outage the stream is silent: a browser does not reconnect to a stream that was refused.
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
        # Revisions are times: by another service's clock, the end might come earlier.
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
