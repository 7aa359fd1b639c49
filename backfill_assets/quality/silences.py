"""Times at which all busy feeds of a venue were silent together, though one alone might well be silent.

Independent markets that trade every ten seconds on average practically never all pause for a minute: then the
capture or the venue stopped. Files cannot tell which of the two it was, so it only warns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce

from backfill_assets.days import MICROSECONDS_PER_SECOND
from backfill_assets.feeds import Feed
from backfill_assets.lake.documents import Document
from backfill_assets.quality.profiles import FeedProfile
from backfill_assets.quality.window import Range
from backfill_assets.settings import RowSettings


class JointSilence(Document):
    """The time of a joint silence, by arrival, and the number of silent feeds."""

    start_us: int
    end_us: int
    feeds: int


@dataclass(frozen=True, slots=True)
class VenueSilences:
    """The busy feeds of a venue, and when all of them were silent."""

    busy: tuple[Feed, ...]
    silences: tuple[JointSilence, ...]

    def of_feed(self, feed: Feed, limits: RowSettings) -> tuple[JointSilence, ...]:
        """The joint silences of a feed that takes part in them; none where too few feeds do."""
        return self.silences if feed in self.busy and len(self.busy) >= limits.joint_silence_feeds else ()

    @property
    def are_none(self) -> bool:
        """Whether the busy feeds show that the capture never stopped."""
        return bool(self.busy) and not self.silences


def joint_silences(
    newest: Mapping[Feed, FeedProfile], windows: Mapping[Feed, Range], limits: RowSettings
) -> dict[str, VenueSilences]:
    """The joint silences of every exchange with a busy feed.

    Single-symbol feeds of trades with ``joint_silence_rows`` rows or more are busy; the edges of a feed's
    window count as silences.

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
    least = limits.joint_silence_seconds * MICROSECONDS_PER_SECOND
    return {
        exchange: VenueSilences(
            tuple(feeds),
            tuple(
                JointSilence(start_us=start, end_us=end, feeds=len(feeds))
                for start, end in reduce(_common, feeds.values())
                if end - start > least
            ),
        )
        for exchange, feeds in venues.items()
    }


def _silences(profile: FeedProfile, window: Range) -> list[Range] | None:
    """The silences of a file of one symbol, in order of time; None for other files."""
    first, last = profile.first_local_timestamp_us, profile.last_local_timestamp_us
    if len(profile.symbols) != 1 or first is None or last is None:
        return None
    inner = [(silence.start_us, silence.end_us) for silence in profile.symbols[0].silences]
    return [(a, b) for a, b in ((window[0], first), *inner, (last, window[1])) if a < b]


def _common(ours: Sequence[Range], theirs: Sequence[Range]) -> list[Range]:
    """The ranges that both lists cover; both lists are in order."""
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
