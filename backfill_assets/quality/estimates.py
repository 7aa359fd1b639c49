"""How much of a feed's day is present where no ids prove it: by silences, and by counts against its history.

Silences find missing stretches of time and never thinned-out data. Counts find thinned-out data, but only
roughly, because markets have quiet days. A score of this kind is never called proven.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from backfill_assets.days import MICROSECONDS_PER_DAY, MICROSECONDS_PER_SECOND
from backfill_assets.quality.profiles import Silence
from backfill_assets.quality.window import Range, Window
from backfill_assets.settings import ThresholdSettings


@dataclass(frozen=True, slots=True)
class UnexcusedSilences:
    """Unexcused microseconds between rows, before the first and after the last row, and in outages."""

    inner_us: int
    edges_us: tuple[int, int]
    in_outages_us: int

    @property
    def total_us(self) -> int:
        """All unexcused time that counts, without the outages."""
        return self.inner_us + sum(self.edges_us)


def unexcused_silences(
    rows: int, silences: Iterable[Silence], edges: Range, window: Window, thresholds: ThresholdSettings
) -> UnexcusedSilences:
    """Silences beyond the usual length; the edges of the window count as silences, too.

    Parameters
    ----------
    silences
        With the mean of the silences around each; at the window's edges the mean of the whole file is used.
    edges
        Arrival time of the first and the last row.
    """
    usual_us = window.owed_us(*edges) / max(1, rows - 1)
    at_edges = ((window.start_us, edges[0]), (edges[1], window.end_us))
    inner = [((g.start_us, g.end_us), g.usual_us) for g in silences]
    head, tail = (_unexcused(window.owed_us(*edge), usual_us, thresholds) for edge in at_edges)
    return UnexcusedSilences(
        inner_us=sum(_unexcused(window.owed_us(*times), usual, thresholds) for times, usual in inner),
        edges_us=(head, tail),
        in_outages_us=sum(
            end - start - window.owed_us(start, end)
            for (start, end), usual in (*inner, *((edge, usual_us) for edge in at_edges))
            if _unexcused(end - start, usual, thresholds)
        ),
    )


def longest_silence_us(silences: Iterable[Silence], edges: Range, window: Window) -> int:
    """The longest time in the window without a row, the edges of the window included."""
    at_edges = ((window.start_us, edges[0]), (edges[1], window.end_us))
    return max(window.owed_us(*times) for times in (*((s.start_us, s.end_us) for s in silences), *at_edges))


def silence_score(silence_us: int, window: Window) -> float:
    """Share of the window outside unexcused silences; 1 for a window without length."""
    return max(0.0, 1 - silence_us / window.length_us) if window.length_us else 1.0


def usual_share(rows: int, usual_rows: float | None, window: Window) -> float | None:
    """The file's rows as a share of the usual rows in a window of this length; null without history."""
    if not usual_rows or not window.length_us:
        return None
    return rows / (usual_rows * window.length_us / MICROSECONDS_PER_DAY)


def thinning_score(share: float | None, thresholds: ThresholdSettings) -> float | None:
    """1 at the share of a quiet day or more, below it in proportion down to 0; null without history."""
    return None if share is None else min(1.0, share / thresholds.history.share)


def allowed_silence_us(usual_us: float, thresholds: ThresholdSettings) -> float:
    """The longest silence that is excused where rows usually come ``usual_us`` apart."""
    return max(thresholds.silence_seconds * MICROSECONDS_PER_SECOND, thresholds.silence_factor * usual_us)


def _unexcused(length_us: int, usual_us: float, thresholds: ThresholdSettings) -> int:
    return max(0, round(length_us - allowed_silence_us(usual_us, thresholds)))
