"""Files that lie in two places: the same bytes under another symbol of the day, or under a neighbouring day.

No two markets and no two days have the same trades, so one of the places is wrong. Which one, the rows say
themselves: where they break a hard rule in one place and none in the other, the first is blamed; otherwise
both are, for nothing tells them apart. That depends on the files alone, not on which came first, and a wrong
file never takes back the good one that it is a copy of. A file without rows is nobody's twin.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from backfill_assets.feeds import Feed
from backfill_assets.lake.manifests import FeedManifest, Version
from backfill_assets.quality.profiles import profile_of
from backfill_assets.quality.rules import violations
from backfill_assets.settings import RowSettings


@dataclass(frozen=True, slots=True)
class Place:
    """A version of a feed's day."""

    feed: str
    day: str
    version: Version

    @property
    def name(self) -> str:
        """For people."""
        return f"{self.feed} of {self.day}"


#: The places of every hash of raw bytes and of every content.
Index = Mapping[str, Sequence[Place]]


def index_of(manifests: Iterable[FeedManifest]) -> Index:
    """Where each file lies, accepted or not; files without rows are left out."""
    found: dict[str, list[Place]] = {}
    for manifest in manifests:
        for version in _versions(manifest):
            place = Place(manifest.feed, manifest.day, version)
            for key in {version.source.raw_sha256, version.content}:
                found.setdefault(key, []).append(place)
    return found


def twins_of(
    manifest: FeedManifest, same_day: Index, neighbours: Iterable[FeedManifest], limits: RowSettings
) -> dict[str, tuple[str, ...]]:
    """For each version of the feed that is blamed for lying in two places, the other places.

    Parameters
    ----------
    manifest
        Of the feed's day.
    same_day
        ``index_of`` all feeds of the day; the feed's own versions are none of its twins.
    neighbours
        The feed's manifests of the days before and after.
    """
    index_beside = index_of(neighbours)
    found: dict[str, tuple[str, ...]] = {}
    for version in manifest.versions:
        if not version.rows:
            continue
        keys = (version.source.raw_sha256, version.content)
        others = {
            (place.name, place.version.content): place
            for key in keys
            for place in (*same_day.get(key, ()), *index_beside.get(key, ()))
            if (place.feed, place.day) != (manifest.feed, manifest.day)
        }
        own = Place(manifest.feed, manifest.day, version)
        blamed = {other.name for other in others.values() if _is_blamed(own, other, limits)}
        if blamed:
            found[version.content] = tuple(sorted(blamed))
    return found


def _versions(manifest: FeedManifest) -> list[Version]:
    return [v for v in (manifest.accepted, manifest.candidate) if v is not None and v.rows]


def _is_blamed(own: Place, other: Place, limits: RowSettings) -> bool:
    return not (_belongs(own, limits) and not _belongs(other, limits))


def _belongs(place: Place, limits: RowSettings) -> bool:
    """Whether the rows break no hard rule where they lie."""
    profile = profile_of(place.version)
    return not violations(profile, limits, grouped=Feed.parse(place.feed).is_grouped)
