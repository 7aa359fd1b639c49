"""The refresher at work: one refresh at a time, and a thread that goes on with it where one is wanted."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from datetime import datetime
from typing import Final

from backfill_assets.days import utc_now
from backfill_assets.progress.refresh import Refresher

LOGGER: Final = logging.getLogger(__name__)


class Keeper:
    """Keeps the unfinished jobs fresh; safe to share among threads.

    Parameters
    ----------
    pause
        Seconds between two refreshes, asked for each time.
    passing
        What may go wrong with databases and lakes that are out of reach for a while.
    """

    def __init__(
        self, refresher: Refresher, pause: Callable[[], float], passing: tuple[type[Exception], ...]
    ) -> None:
        self._refresher = refresher
        self._pause = pause
        self._passing = passing
        self._refreshing = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        #: When the jobs were last brought up to date.
        self.refreshed: datetime | None = None

    def refresh(self) -> int:
        """Bring the unfinished jobs up to date now; returns how many there are."""
        with self._refreshing:
            count = self._refresher.refresh()
            self.refreshed = utc_now()
            return count

    def start(self) -> None:
        """Refresh in a thread of its own until ``close``."""
        self._thread = threading.Thread(target=self._run, name="refresh", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the thread, if there is one."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout=30)

    @property
    def has_died(self) -> bool:
        """Whether the thread was started and is no more: something happened that must not."""
        return self._thread is not None and not self._thread.is_alive()

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self.refresh()
            except self._passing as error:
                # It is asked again; readiness and the age of the refresh tell.
                LOGGER.warning("progress was not refreshed: %s", " ".join(str(error).split())[:300])
            self._stop.wait(self._pause())
