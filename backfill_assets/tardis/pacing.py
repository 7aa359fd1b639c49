"""The rate of requests to the vendor: one limit over all processes that share Dagster's records.

This module only decides when the next request may start; the client makes the request and uses the answer.
``leases`` is the part in the database. Without records the limit holds for this process, shared by all its
clients and threads.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from backfill_assets.settings import ProcessEnvironment

if TYPE_CHECKING:
    from backfill_assets.tardis.leases import Lease, Leases

WINDOW_SECONDS: Final = 60.0
#: Requests of one lease: enough for a day of a few feeds, few enough to lose with a killed process.
LEASED_REQUESTS: Final = 16
#: The largest share of the limit in one lease, so that every waiting process gets a part.
LARGEST_SHARE: Final = 8
#: Seconds until a database that is away is asked again.
AWAY_SECONDS: Final = 5.0
#: Concurrent runs by the package's ``dagster.yaml``: the divisor if the database never answered.
PROCESSES_UNKNOWN: Final = 4
_POLL_SECONDS: Final = 0.02
_SHARE_POLL_SECONDS: Final = 0.25

_log = logging.getLogger(__name__)


class Pacing(Protocol):
    """Decides when the next request may start."""

    async def start(self) -> float:
        """Wait until the next request may start; return the seconds waited."""


class Pace:
    """At most ``starts`` starts in any window of 60 seconds.

    The window slides. A bucket that refills would let up to twice the number through in a minute that begins
    with a full bucket.
    """

    def __init__(self, starts: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._recent: deque[float] = deque(maxlen=starts)
        self._clock = clock
        self._lock = threading.Lock()

    def reserve(self) -> float:
        """Take the next start; return the seconds to wait before using it."""
        with self._lock:
            now = self._clock()
            start = now
            if len(self._recent) == self._recent.maxlen:
                start = max(now, self._recent[0] + WINDOW_SECONDS)
            self._recent.append(start)
            return start - now

    def take(self) -> bool:
        """Take a start now, if one is free."""
        with self._lock:
            now = self._clock()
            if len(self._recent) == self._recent.maxlen and now < self._recent[0] + WINDOW_SECONDS:
                return False
            self._recent.append(now)
            return True

    def recent(self) -> int:
        """Starts in the last window."""
        with self._lock:
            return sum(start > self._clock() - WINDOW_SECONDS for start in self._recent)

    async def start(self) -> float:
        """See ``Pacing``."""
        wait = self.reserve()
        await asyncio.sleep(wait)
        return wait


class LeasedPace:
    """Starts of all processes that lease from the same database.

    While the database is away, starts come from a share of the limit, divided by the number of processes last
    seen. A process that had a lease first waits for one window, because others may have used up the limit in
    it. A short outage costs a wait and exceeds nothing.

    Parameters
    ----------
    starts
        Starts per minute of all processes.
    """

    def __init__(self, starts: int, leases: Leases, clock: Callable[[], float] = time.monotonic) -> None:
        self._starts = starts
        self._leases = leases
        self._clock = clock
        self._process = uuid.uuid4().hex
        self._lock = threading.Lock()
        self._lease: Lease | None = None
        self._left, self._used, self._until = 0, 0, 0.0
        self._waiting, self._is_asking, self._ask_at = 0, False, 0.0
        self._share: Pace | None = None
        self._share_from = 0.0

    async def start(self) -> float:
        """See ``Pacing``."""
        began = self._clock()
        with self._lock:
            self._waiting += 1
        try:
            while True:
                with self._lock:
                    if self._take():
                        return self._clock() - began
                    asks = not self._is_asking and self._clock() >= self._ask_at
                    self._is_asking |= asks
                    pause = self._pause()
                if asks:
                    await asyncio.to_thread(self._ask)
                else:
                    await asyncio.sleep(pause)
        finally:
            with self._lock:
                self._waiting -= 1

    def _take(self) -> bool:
        now = self._clock()
        if self._share is not None:
            return now >= self._share_from and self._share.take()
        if self._left and now < self._until:
            self._left -= 1
            self._used += 1
            return True
        return False

    def _pause(self) -> float:
        """Return the seconds until it is worth checking again."""
        if self._is_asking:
            return _POLL_SECONDS
        until_asked = max(_POLL_SECONDS, self._ask_at - self._clock())
        return until_asked if self._share is None else min(until_asked, _SHARE_POLL_SECONDS)

    def _ask(self) -> None:
        """Ask the database once, in a thread; other waiters do not ask meanwhile."""
        from backfill_assets.tardis.leases import LEASE_SECONDS, REFUSALS, Sent

        with self._lock:
            former, share = self._lease, self._share
            # The rest is given back, so none of it may be taken while the database answers.
            self._left = 0
            most = max(1, self._starts // LARGEST_SHARE)
            wanted = min(most, max(LEASED_REQUESTS, 2 * self._waiting))
        asked_at = self._clock()
        try:
            sent = Sent(former.name if former else "", self._used, share.recent() if share else 0)
            lease = self._leases.renew(self._process, self._starts, wanted, sent)
        except REFUSALS as error:
            self._fall_back(former, error)
        else:
            with self._lock:
                self._lease, self._share = lease, None
                self._left, self._used, self._until = lease.requests, 0, asked_at + LEASE_SECONDS
                self._ask_at = self._clock() + lease.wait_seconds
        finally:
            with self._lock:
                self._is_asking = False

    def _fall_back(self, former: Lease | None, error: Exception) -> None:
        """Continue without the database."""
        processes = former.processes if former else PROCESSES_UNKNOWN
        with self._lock:
            self._ask_at = self._clock() + AWAY_SECONDS
            if self._share is not None:
                return
            share = max(1, self._starts // processes)
            self._share = Pace(share, self._clock)
            self._share_from = self._clock() + (WINDOW_SECONDS if former else 0)
        reason = " ".join(str(getattr(error, "orig", None) or error).split())[:200]
        _log.warning(
            "the limit of requests is not shared while Dagster's database is away (%s): this process sends "
            "%d of %d a minute",
            reason,
            share,
            self._starts,
        )


def shared_pace(requests_per_minute: int, source: str) -> Pacing:
    """Return the process's one pace for this limit at this host."""
    environment = ProcessEnvironment()
    home, address = environment.dagster_home, environment.dagster_postgres_url
    if not address and not (home and Path(home).expanduser().is_dir()):
        return _pace(requests_per_minute, source, "", "")
    return _pace(requests_per_minute, source, home or "", address or "")


@lru_cache(maxsize=8)
def _pace(requests_per_minute: int, source: str, home: str, address: str) -> Pacing:
    """Make the pace; ``home`` and ``address`` are those of Dagster's records, both empty without records."""
    if not home and not address:
        return Pace(requests_per_minute)
    # SQLAlchemy is imported only where it is needed, like the vendor's client.
    from backfill_assets.tardis.leases import Leases

    return LeasedPace(requests_per_minute, Leases(source))


# A lease belongs to one process: a fork takes its own.
os.register_at_fork(after_in_child=_pace.cache_clear)
