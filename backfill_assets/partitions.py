"""The partition key of every asset: one UTC day, ``YYYY-MM-DD``.

Date arithmetic is in ``days``, which needs no Dagster.
"""

from __future__ import annotations

import dagster as dg

from backfill_assets.days import FIRST_DAY

daily = dg.DailyPartitionsDefinition(start_date=FIRST_DAY, timezone="UTC")
