"""Files of a day that lie in two places: the same bytes under another symbol.

No two markets have the same trades, so one of the places is wrong. The rows say which: if they break a hard
rule in one place and none in the other, the first place is blamed; otherwise nothing tells the places apart
and both are blamed. A group of one symbol may have the rows of the symbol's own file. The result depends on
the files alone, not on their order, and a wrong file never takes back the good file that it copies. A copy of
another day's file needs no rule of its own: its rows arrived on another day. A file without rows has no
duplicate.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from backfill_assets.feeds import Feed
from backfill_assets.lake.documents import Document


class Place(Document):
    """A version with rows, and the feed and day under which it is stored.

    Attributes
    ----------
    is_sound
        Whether its rows break no hard rule in this place.
    """

    feed: str
    day: str
    content: str
    raw_sha256: str
    is_sound: bool

    @property
    def name(self) -> str:
        """The place for people to read."""
        return f"{self.feed} of {self.day}"


#: The places of every hash of raw bytes and of every content.
Index = Mapping[str, Sequence[Place]]


def index_of(places: Iterable[Place]) -> Index:
    """Index places by both hashes."""
    found: dict[str, list[Place]] = {}
    for place in places:
        for key in {place.raw_sha256, place.content}:
            found.setdefault(key, []).append(place)
    return found


def duplicates_of(own: Place, index: Index) -> tuple[str, ...]:
    """The other places of the day for which a version is blamed, in order; empty if it is not blamed.

    The feed's own versions are not duplicates of each other.
    """
    others = {
        (place.name, place.content): place
        for key in (own.raw_sha256, own.content)
        for place in index.get(key, ())
        if place.feed != own.feed and not _are_group_and_symbol(place, own)
    }
    blamed = {other.name for other in others.values() if not (own.is_sound and not other.is_sound)}
    return tuple(sorted(blamed))


def _are_group_and_symbol(one: Place, other: Place) -> bool:
    a, b = Feed.parse(one.feed), Feed.parse(other.feed)
    return (a.exchange, a.data_type) == (b.exchange, b.data_type) and a.is_grouped != b.is_grouped
