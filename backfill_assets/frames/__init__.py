"""The data for its users: candles, ticks, coverage and quality of any range as frames.

``backfill_assets.open`` is the way in. Nothing here writes, judges or knows Dagster; the states of days come
from the quality rows.
"""
