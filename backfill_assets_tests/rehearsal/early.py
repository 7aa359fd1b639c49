"""The code location with a schedule that asks for days a quarter of an hour too early."""

from __future__ import annotations

from backfill_assets.automation.schedules import daily_0900_utc
from backfill_assets.definitions import defs

__all__ = ["defs"]

daily_0900_utc._cron_schedule = "45 8 * * *"
