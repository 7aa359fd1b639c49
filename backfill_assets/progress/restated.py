"""Incidents of files that the vendor has replaced and that were accepted: told once, shown for a day.

They need no action, so such an incident ends by itself and without a message. A restatement that waits for a
person is an incident of ``watch``.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from typing import Final

from backfill_assets.alerts.incidents import FOLLOWED, Incidents, Problem
from backfill_assets.failures import BackfillError
from backfill_assets.lake.parallel import parallel_map
from backfill_assets.lake.store import Store
from backfill_assets.logs import bound
from backfill_assets.quality.remedies import retract_command
from backfill_assets.quality.settled import SettledDay, SettledFeed, load_settled

LOGGER: Final = logging.getLogger(__name__)
RULE: Final = "feed_restated"
#: How long the incident is open.
_SHOWN: Final = timedelta(days=1)


def restated_problems(
    store: Store, days: Iterable[str], known: Incidents, now: datetime
) -> tuple[list[Problem], frozenset[str]]:
    """Return the restated feeds and the readable days, among these days and those of open incidents."""
    asked = sorted({*days, *(incident.day for incident in known.open if incident.rule == RULE)})

    def read(day: str) -> SettledDay | None:
        with bound(day=day):
            try:
                return load_settled(store, day)
            except BackfillError as failure:
                LOGGER.warning("%s is not checked for restated files: %s", day, failure)
                return None

    found = [settled for settled in parallel_map(read, asked, store.parallel_reads) if settled is not None]
    problems = [problem for settled in found for problem in _of_day(settled, known, now)]
    return problems, frozenset(settled.day for settled in found)


def _of_day(settled: SettledDay, known: Incidents, now: datetime) -> Iterator[Problem]:
    for feed in settled.feeds:
        accepted, restatement = feed.accepted, feed.restatement
        if accepted is None or restatement is None or restatement.after != accepted.content:
            continue
        if feed.verdict.healed_rows:
            continue  # a person added rows; the vendor's file is the same
        command = retract_command(settled.day, str(feed.feed), accepted.content)
        problem = Problem(RULE, f"{restatement.summary}; {_why(feed)}", settled.day, str(feed.feed), command)
        # A version fetched again with other parameters looks new; its command shows that it is not.
        told = [i.opened for i in known.incidents if i.key == problem.key and i.command == command]
        if now - _since(feed, accepted.fetched_at) <= FOLLOWED and now - max(told, default=now) < _SHOWN:
            yield problem


def _why(feed: SettledFeed) -> str:
    if feed.approval is not None:
        return f"it counts because it was approved: {feed.approval.reason}"
    return "it counts because it changes no more than the limits allow"


def _since(feed: SettledFeed, fetched_at: datetime) -> datetime:
    """Return when the version began to count, as far as that is stored."""
    return fetched_at if feed.approval is None else max(fetched_at, feed.approval.approved_at)
