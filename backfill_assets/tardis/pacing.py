"""How fast the vendor is asked: one limit per process, shared by every client and thread.

Only when the next request may start; what is asked, and what happens to the answer, is the client's business.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from functools import lru_cache
from typing import Final

WINDOW_SECONDS: Final = 60.0


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


@lru_cache(maxsize=8)
def shared_pace(requests_per_minute: int) -> Pace:
    """Give the process's one pace for this limit."""
    return Pace(requests_per_minute)
