"""The rows of a feed to expect from the day before and from the history."""

from __future__ import annotations

from backfill_assets.settings import HistorySettings


def unexpected(rows: int, *, before: int | None, usual: float | None, history: HistorySettings) -> list[str]:
    """The reasons why a day does not have the expected number of rows, as words.

    The limit is the product's own rule for too few rows (``history.share``); the limit for too many is its
    inverse. A feed below ``history.least_rows`` has days of any size.

    Parameters
    ----------
    before
        Rows of the day before; None if it has none.
    usual
        The median of the weekday by the baseline; None if the baseline has too few days.
    """
    said = []
    for other, about in ((before, "on the day before"), (usual, "usual on this weekday")):
        if other is None or other < history.least_rows:
            continue
        if not history.share <= rows / other <= 1 / history.share:
            said.append(f"{rows} rows, where {other:.0f} were {about}")
    return said
