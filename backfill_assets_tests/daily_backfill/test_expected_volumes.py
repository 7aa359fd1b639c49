"""Volumes are red if a day has far fewer or far more rows than expected, and green on a near miss."""

from __future__ import annotations

import pytest

from backfill_assets.settings import HistorySettings
from backfill_assets_tests.daily_backfill.volumes import unexpected

HISTORY = HistorySettings()  # a share of 0.3, from 100 rows on


@pytest.mark.parametrize(
    ("rows", "before", "usual", "said"),
    [
        (300, 1_000, 1_000, []),
        (299, 1_000, None, ["299 rows, where 1000 were on the day before"]),
        (299, None, 1_000, ["299 rows, where 1000 were usual on this weekday"]),
        (3_333, 1_000, None, []),
        (3_334, 1_000, None, ["3334 rows, where 1000 were on the day before"]),
        (0, 99, 99.0, []),
        (0, 100, None, ["0 rows, where 100 were on the day before"]),
        (5, None, None, []),
    ],
)
def test_rows_are_compared_with_the_day_before_and_with_the_history(rows, before, usual, said) -> None:
    assert unexpected(rows, before=before, usual=usual, history=HISTORY) == said
