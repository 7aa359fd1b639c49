"""How fast the vendor is asked: one limit over all processes that share Dagster's records.

Only when the next request may start; what is asked, and what happens to the answer, is the client's business.
``leases`` is the part in the database. Without records the limit holds for this process, shared by every
client and thread of it.
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
#: Requests of one lease: enough for a day of a few feeds, few enough to be lost with a killed process.
LEASED_REQUESTS: Final = 16
#: The largest share of the limit in one lease, so that all who wait get some.
LARGEST_SHARE: Final = 8
#: A database that is away is asked again after so long.
AWAY_SECONDS: Final = 5.0
#: Runs at once by the package's ``dagster.yaml``: what to divide by where the database never answered.
PROCESSES_UNKNOWN: Final = 4
_POLL_SECONDS: Final = 0.02
_SHARE_POLL_SECONDS: Final = 0.25

_log = logging.getLogger(__name__)


class Pacing(Protocol):
    """Says when the next request may start."""

    async def start(self) -> float:
        """Wait until the next request may start; returns for how many seconds."""


class Pace:
    """At most ``starts`` starts in any window of 60 seconds.

    A window that slides, not a bucket that refills: a bucket lets up to twice the number through in a minute
    that begins with a full one.
    """

    def __init__(self, starts: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._recent: deque[float] = deque(maxlen=starts)
        self._clock = clock
        self._lock = threading.Lock()

    def reserve(self) -> float:
        """Take the next start; returns how many seconds to wait before using it."""
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

    While the database is away, starts are taken from a share of the limit: that of the processes which were
    seen last. A process that had a lease first lets a window pass, because others may have used up the limit
    in it; a brief absence costs a wait and exceeds nothing.

    Parameters
    ----------
    starts
        Starts in a minute, of all processes.
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
        """Until it is worth looking again."""
        if self._is_asking:
            return _POLL_SECONDS
        until_asked = max(_POLL_SECONDS, self._ask_at - self._clock())
        return until_asked if self._share is None else min(until_asked, _SHARE_POLL_SECONDS)

    def _ask(self) -> None:
        """Ask the database once, in a thread; who else waits does not ask meanwhile."""
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
        """Go on without the database."""
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
    """Give the process's one pace for this limit at this host."""
    environment = ProcessEnvironment()
    home, address = environment.dagster_home, environment.dagster_postgres_url
    if not address and not (home and Path(home).expanduser().is_dir()):
        return _pace(requests_per_minute, source, "", "")
    return _pace(requests_per_minute, source, home or "", address or "")


@lru_cache(maxsize=8)
def _pace(requests_per_minute: int, source: str, home: str, address: str) -> Pacing:
    """``home`` and ``address`` are those of Dagster's records; both are empty where there are none."""
    if not home and not address:
        return Pace(requests_per_minute)
    # SQLAlchemy is loaded by those who need it, as the vendor's client is.
    from backfill_assets.tardis.leases import Leases

    return LeasedPace(requests_per_minute, Leases(source))


# A lease is of one process: a fork takes its own.
os.register_at_fork(after_in_child=_pace.cache_clear)
