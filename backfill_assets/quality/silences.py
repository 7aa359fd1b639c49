"""Times at which all busy feeds of a venue were silent together, though each alone might well have been.

Independent markets that trade every ten seconds on average practically never pause for a minute at once: then
the capture stood still, or the venue did. Which of them it was, files cannot tell, so it only warns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import reduce

from backfill_assets.days import MICROSECONDS_PER_SECOND
from backfill_assets.feeds import Feed
from backfill_assets.lake.documents import Document
from backfill_assets.quality.profiles import FeedProfile
from backfill_assets.quality.window import Range
from backfill_assets.settings import RowSettings


class JointSilence(Document):
    """When, by arrival, and how many feeds were silent."""

    start_us: int
    end_us: int
    feeds: int


def joint_silences(
    newest: Mapping[Feed, FeedProfile], windows: Mapping[Feed, Range], limits: RowSettings
) -> dict[Feed, tuple[JointSilence, ...]]:
    """The joint silences of every feed that takes part in one.

    Only feeds of trades of one symbol with ``joint_silence_rows`` rows or more take part; the edges of a
    feed's window count as silences.

    Parameters
    ----------
    newest
        The profiles of the newest versions.
    """
    venues: dict[str, dict[Feed, list[Range]]] = {}
    for feed, profile in newest.items():
        if feed.type.has_trades and profile.rows >= limits.joint_silence_rows:
            silent = _silences(profile, windows[feed])
            if silent is not None:
                venues.setdefault(feed.exchange, {})[feed] = silent
    found: dict[Feed, tuple[JointSilence, ...]] = {}
    for feeds in venues.values():
        if len(feeds) < limits.joint_silence_feeds:
            continue
        shared = reduce(_common, feeds.values())
        least = limits.joint_silence_seconds * MICROSECONDS_PER_SECOND
        long = tuple(
            JointSilence(start_us=start, end_us=end, feeds=len(feeds))
            for start, end in shared
            if end - start > least
        )
        if long:
            found.update(dict.fromkeys(feeds, long))
    return found


def _silences(profile: FeedProfile, window: Range) -> list[Range] | None:
    """The silences of a file of one symbol, in order of time; None for other files."""
    first, last = profile.first_local_timestamp_us, profile.last_local_timestamp_us
    if len(profile.symbols) != 1 or first is None or last is None:
        return None
    inner = [(silence.start_us, silence.end_us) for silence in profile.symbols[0].silences]
    return [(a, b) for a, b in ((window[0], first), *inner, (last, window[1])) if a < b]


def _common(ours: Sequence[Range], theirs: Sequence[Range]) -> list[Range]:
    """The parts of two lists of ranges that both cover; both in order."""
    found, i, j = [], 0, 0
    while i < len(ours) and j < len(theirs):
        start, end = max(ours[i][0], theirs[j][0]), min(ours[i][1], theirs[j][1])
        if start < end:
            found.append((start, end))
        if ours[i][1] < theirs[j][1]:
            i += 1
        else:
            j += 1
    return found
