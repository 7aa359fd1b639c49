"""A file's two midnights: whether its ids join those of the days beside it, and how long it is silent there.

A neighbor only adds trust. Ids that join prove that nothing was lost at that midnight; ids that do not join
prove nothing, because the neighbor's file may be the wrong one. A loss at midnight is therefore found in the
file itself: a silence at its edge that is longer than usual counts as lost until ids join over it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from backfill_assets.quality.estimates import unexcused_silences
from backfill_assets.quality.profiles import SymbolProfile
from backfill_assets.quality.window import Range, Window
from backfill_assets.settings import ThresholdSettings


@dataclass(frozen=True, slots=True)
class Seams:
    """The midnights before and after, in this order.

    Attributes
    ----------
    between
        Ids missing between the file's and the neighbor's nearest id; negative where both have the same ids,
        None where the neighbor shows no id.
    joins
        Whether the ids continue over midnight.
    silence_us
        Unexcused silence at an edge that does not join; 0 elsewhere.
    lost_us
        The part of that silence that counts as lost: longer than the silences within the market's own day.
    anew
        The first id after a midnight at which the venue started its count over; None where it continued, or
        where nothing shows that it starts its count over.
    """

    between: tuple[int | None, int | None]
    joins: tuple[bool, bool]
    silence_us: tuple[int, int]
    lost_us: tuple[int, int]
    anew: tuple[int | None, int | None] = (None, None)

    @property
    def excused_ids(self) -> int:
        """Ids missing at midnights that join: no more than the venue itself leaves out."""
        return sum(n for n, joins in zip(self.between, self.joins, strict=True) if joins and n and n > 0)


def seams_of(
    profile: SymbolProfile,
    window: Window,
    edges: Range,
    previous: Sequence[int],
    following: Sequence[int],
    allowed: int,
    thresholds: ThresholdSettings,
) -> Seams:
    """Judge both midnights of a symbol with ids.

    Parameters
    ----------
    edges
        Arrival time of the symbol's first and last row, in microseconds.
    previous, following
        Last ids of the files of the day before and first ids of those of the day after; empty without them.
    allowed
        The longest run of missing ids that the venue itself leaves.
    """
    low, high = profile.id_min, profile.id_max
    if low is None or high is None:
        return Seams((None, None), (False, False), (0, 0), (0, 0))
    lows = (low, profile.earlier_ids[0]) if profile.earlier_ids else (low,)
    between = (
        _nearest(first - i - 1 for i in previous for first in lows),
        _nearest(i - high - 1 for i in following),
    )
    head, tail = (n is not None and -thresholds.repeated_ids <= n <= allowed for n in between)
    found = unexcused_silences(profile.rows, (), edges, window, thresholds).edges_us
    silent = (0 if head else found[0], 0 if tail else found[1])
    anew = (
        low if profile.earlier_ids or _begins_lower(profile, between[0], previous, thresholds) else None,
        next((i for i in following if not tail and 2 * i < high and i <= low), None),
    )
    return Seams(between, (head, tail), silent, _lost(silent, profile, window, edges, thresholds), anew)


def _begins_lower(
    profile: SymbolProfile, between: int | None, previous: Sequence[int], thresholds: ThresholdSettings
) -> bool:
    """Whether the file's ids begin below half of the previous day's last id, and are other trades.

    Rows that are stamped on the file's own day are not trades of the day before.
    """
    if -(between or 0) <= thresholds.repeated_ids + profile.seam_rows:
        return False
    return all(2 * (profile.id_first or 0) < last for last in previous)


def _nearest(between: Iterable[int]) -> int | None:
    """Ids missing up to the neighbor's version with the nearest ids; None without one."""
    return min(between, key=lambda n: (abs(n), n), default=None)


def _lost(
    silent: tuple[int, int],
    profile: SymbolProfile,
    window: Window,
    edges: Range,
    thresholds: ThresholdSettings,
) -> tuple[int, int]:
    """The part of the unexcused silences that is longer than the silences within the file.

    Trades come in bursts, so an edge is also compared with the longest silence between two rows. A market
    that trades in few minutes of the day may well be silent for the rest of it.
    """
    if not any(silent) or sum(1 for rows in profile.minute_rows if rows) < thresholds.edge_minutes:
        return 0, 0
    longest = max((window.owed_us(s.start_us, s.end_us) for s in profile.silences), default=0)
    usual = round(thresholds.edge_factor * longest)
    head, tail = window.owed_us(window.start_us, edges[0]), window.owed_us(edges[1], window.end_us)
    return min(silent[0], max(0, head - usual)), min(silent[1], max(0, tail - usual))
