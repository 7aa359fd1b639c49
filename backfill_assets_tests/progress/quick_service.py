"""The real service with a quicker clock: it looks for problems, and misses a daemon, sooner."""

from __future__ import annotations

from backfill_assets.cli import main
from backfill_assets.progress import statuses, watch

#: Longer than a daemon takes to start.
watch.SECONDS = 10  # type: ignore[misc]
#: A living daemon gives a sign twice a minute.
statuses.DAEMON_SECONDS = 45  # type: ignore[misc]

if __name__ == "__main__":
    main()
