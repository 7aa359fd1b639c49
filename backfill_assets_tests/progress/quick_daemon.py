"""Dagster's real daemon with a quicker clock: it looks for backfills every other second."""

from __future__ import annotations

import dagster._daemon.controller as controller
from dagster._daemon.cli import main

controller.DEFAULT_DAEMON_INTERVAL_SECONDS = 2

if __name__ == "__main__":
    main()
