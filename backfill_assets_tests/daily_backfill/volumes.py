"""What the day before and the history let expect of the rows of a feed."""

from __future__ import annotations

from backfill_assets.settings import HistorySettings


def unexpected(rows: int, *, before: int | None, usual: float | None, history: HistorySettings) -> list[str]:
    """Why the rows of a day are not as many as expected, as words.

    Measured by the product's own rule (``history.share``), which is for too few rows; too many are as many
    times as much. A feed below ``history.least_rows`` has days of any size.

    Parameters
    ----------
    before
        Rows of the day before; None where it has none.
    usual
        The median of the weekday by the baseline; None where that has too few days.
    """
    said = []
    for other, about in ((before, "on the day before"), (usual, "usual on this weekday")):
        if other is None or other < history.least_rows:
            continue
        if not history.share <= rows / other <= 1 / history.share:
            said.append(f"{rows} rows, where {other:.0f} were {about}")
    return said
