"""The data for people who use it: candles, ticks, coverage and quality of any range as frames.

``backfill_assets.open`` is the way in. Nothing here writes, judges or knows Dagster; states of days are those
that the quality rows say.
"""
