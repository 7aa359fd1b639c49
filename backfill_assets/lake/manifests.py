"""The documents by which data becomes visible: feeds' manifests, partial candles' manifests, day records.

No manifest, no data. A fetch writes a *candidate*; promotion makes it *accepted*; only accepted versions are
merged and published, so a bad refresh never takes back good data. The models are frozen and their methods
pure: they are meant as the ``change`` of a compare-and-swap. When to promote is decided by ``quality``, whose
profile is carried here as plain JSON because it lies downstream.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final, Self

from pydantic import AwareDatetime, BaseModel, ConfigDict

from backfill_assets.failures import Superseded
from backfill_assets.feeds import ExpectedFeed, Feed
from backfill_assets.lake import documents, paths
from backfill_assets.lake.store import Store

#: Versions of a feed's day that are held besides the newest and the accepted one.
EARLIER_VERSIONS: Final = 4


class _Document(BaseModel):
    # Without the last, a NaN in a profile would be written as null, silently; so it reaches the encoder,
    # which refuses it.
    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="constants")


class Source(_Document):
    """The vendor's file that a version was decoded from."""

    url: str
    raw_bytes: int
    raw_sha256: str


class Version(_Document):
    """One decoding of a feed's day: a data file and the evidence about it.

    Attributes
    ----------
    content
        sha256 of the Parquet file, which is named by it.
    rows, bytes
        Of the Parquet file.
    profile
        ``quality.profiles.FeedProfile`` as JSON values.
    schema_version
        Of the Parquet file's columns.
    profile_parameters
        Hash of the parameters under which the profile was counted.
    """

    content: str
    rows: int
    bytes: int
    source: Source
    profile: dict[str, Any]
    schema_version: int
    profile_parameters: str
    fetched_at: AwareDatetime

    def is_same_evidence(self, other: Version) -> bool:
        """Whether nothing but the fetch differs: same rows, counted in the same way."""
        return (self.content, self.schema_version, self.profile_parameters) == (
            other.content,
            other.schema_version,
            other.profile_parameters,
        )


class Absence(_Document):
    """The vendor said for good that it has no such file."""

    reason: str
    seen_at: AwareDatetime


class FeedManifest(_Document):
    """What the lake holds of one feed on one day.

    Attributes
    ----------
    candidate
        The newest version, unless it is the accepted one.
    accepted
        The version that counts.
    earlier
        Older versions that do not count, in the order of their fetching. They are held because what counts
        may turn out to be bad by a neighbour that comes later; the last ``EARLIER_VERSIONS`` are.
    decided
        Whether people have approved or retracted a version: only then judging reads their decisions.
    """

    feed: str
    day: str
    candidate: Version | None = None
    accepted: Version | None = None
    earlier: tuple[Version, ...] = ()
    decided: bool = False
    absent: Absence | None = None

    @property
    def current(self) -> Version | None:
        """The newest version: the candidate, else the accepted one."""
        return self.candidate or self.accepted

    @property
    def versions(self) -> tuple[Version, ...]:
        """Every version that is held, in the order of their fetching."""
        held = (*self.earlier, self.accepted, self.candidate)
        return tuple(sorted((v for v in held if v is not None), key=lambda v: v.fetched_at))

    @property
    def is_missing(self) -> bool:
        """Whether the vendor has no file and the lake has none of an earlier day."""
        return self.absent is not None and self.current is None

    def with_candidate(self, version: Version) -> Self:
        """After a fetch.

        Rows that are accepted already make no candidate: a pending one is dropped, for the vendor has
        returned to what counts. The accepted version stays as it is, or, counted under other parameters,
        takes over the new evidence about the same rows. A fetch that brings the pending candidate again
        leaves it. What a new one replaces is held among the earlier versions.
        """
        if self.accepted is not None and self.accepted.content == version.content:
            accepted = self.accepted if self.accepted.is_same_evidence(version) else version
            older = tuple(v for v in self.earlier if v.fetched_at <= self.accepted.fetched_at)
            return self.model_copy(
                update={"accepted": accepted, "candidate": None, "earlier": older, "absent": None}
            )
        if self.candidate is not None and self.candidate.content == version.content:
            kept = self.candidate if self.candidate.is_same_evidence(version) else version
            return self.model_copy(update={"candidate": kept, "absent": None})
        versions = self.versions
        if versions and version.fetched_at < versions[-1].fetched_at:
            # The clock of another machine; this fetch ends later than those that it finds here.
            version = version.model_copy(update={"fetched_at": versions[-1].fetched_at})
        replaced = () if self.candidate is None else (self.candidate,)
        earlier = tuple(v for v in (*self.earlier, *replaced) if v.content != version.content)
        return self.model_copy(
            update={"candidate": version, "earlier": earlier[-EARLIER_VERSIONS:], "absent": None}
        )

    def settle(self, judged: tuple[str, ...], accepted: str | None) -> Self:
        """Let one of the versions count, or none: the newest of the others is the candidate.

        Parameters
        ----------
        judged
            Contents of ``versions`` when they were judged.
        accepted
            The content that counts.

        Raises
        ------
        Superseded
            Other versions are held than were judged.
        """
        versions = self.versions
        if tuple(v.content for v in versions) != judged:
            msg = f"{self.feed} of {self.day}: other versions are held than were judged; judge the day again"
            raise Superseded(msg)
        chosen = next((v for v in versions if v.content == accepted), None)
        newest = versions[-1] if versions and versions[-1] is not chosen else None
        others = tuple(v for v in versions if v is not chosen and v is not newest)
        return self.model_copy(
            update={"accepted": chosen, "candidate": newest, "earlier": others[-EARLIER_VERSIONS:]}
        )

    def with_absence(self, absence: Absence) -> Self:
        """After the vendor's answer that there is no file; versions fetched before are kept.

        The first sighting of the same reason stays, so that asking again changes nothing.
        """
        if self.absent is not None and self.absent.reason == absence.reason:
            return self
        return self.model_copy(update={"absent": absence})


class Partial(_Document):
    """A Parquet file of partial candles, named by its sha256."""

    content: str
    rows: int
    bytes: int


class PartialManifest(_Document):
    """The partial candles of one feed on one day, by the content of the ticks they were made from."""

    feed: str
    day: str
    partials: dict[str, Partial] = {}

    def with_partial(self, ticks_content: str, partial: Partial) -> Self:
        """After computing the partial candles of one version of the ticks."""
        return self.model_copy(update={"partials": {**self.partials, ticks_content: partial}})


class ExpectedSymbols(_Document):
    """A feed that the day must have, with pairs (data set symbol, canonical symbol)."""

    feed: str
    symbols: tuple[tuple[str, str], ...]


class DayRecord(_Document):
    """What was expected of a day when it was run; later changes of the universe do not touch it.

    Attributes
    ----------
    expected
        Feeds with their symbols, in order.
    not_listed
        ``exchange/data_type/SYMBOL`` with the canonical symbol, configured but not listed on that day.
    awaiting_export
        Feeds that the vendor had not exported yet.
    """

    day: str
    expected: tuple[ExpectedSymbols, ...]
    not_listed: tuple[str, ...] = ()
    awaiting_export: tuple[str, ...] = ()
    recorded_at: AwareDatetime

    @property
    def expected_feeds(self) -> tuple[ExpectedFeed, ...]:
        """``expected`` as the ground type."""
        return tuple(ExpectedFeed(Feed.parse(e.feed), e.symbols) for e in self.expected)

    @property
    def exchanges(self) -> tuple[str, ...]:
        """Every exchange asked for, also one that listed none of its symbols on that day; in order."""
        named = (*(e.feed for e in self.expected), *self.not_listed)
        return tuple(sorted({name.split("/")[0] for name in named}))


def expected_symbols(feeds: Iterable[ExpectedFeed]) -> tuple[ExpectedSymbols, ...]:
    """Return the record's form of expected feeds, ordered so that the same feeds make the same bytes."""
    return tuple(ExpectedSymbols(feed=str(e.feed), symbols=e.symbols) for e in sorted(feeds))


def load_manifest(store: Store, feed: Feed, day: str) -> FeedManifest:
    """Return the feed's manifest; an empty one if there is none."""
    found, _ = documents.load(store, paths.ticks_manifest(feed, day), FeedManifest)
    return found or FeedManifest(feed=str(feed), day=day)


def update_manifest(
    store: Store, feed: Feed, day: str, change: Callable[[FeedManifest], FeedManifest]
) -> FeedManifest:
    """Change the feed's manifest by compare-and-swap; ``change`` gets an empty one where there is none.

    An empty manifest that stays empty is not written.
    """
    empty = FeedManifest(feed=str(feed), day=day)

    def apply(found: FeedManifest | None) -> FeedManifest | None:
        changed = change(found or empty)
        return None if found is None and changed == empty else changed

    return documents.update(store, paths.ticks_manifest(feed, day), FeedManifest, apply) or empty


def load_partials(store: Store, feed: Feed, day: str) -> PartialManifest:
    """Return the manifest of the feed's partial candles; an empty one if there is none."""
    found, _ = documents.load(store, paths.candles_manifest(feed, day), PartialManifest)
    return found or PartialManifest(feed=str(feed), day=day)


def add_partial(store: Store, feed: Feed, day: str, ticks_content: str, partial: Partial) -> PartialManifest:
    """Record the partial candles of one version of the ticks; those of other versions stay."""
    empty = PartialManifest(feed=str(feed), day=day)

    def apply(found: PartialManifest | None) -> PartialManifest:
        return (found or empty).with_partial(ticks_content, partial)

    return documents.update(store, paths.candles_manifest(feed, day), PartialManifest, apply) or empty


def load_day_record(store: Store, day: str) -> DayRecord | None:
    """Return what the day was expected to have; None if it was never run."""
    return documents.load(store, paths.day_record(day), DayRecord)[0]


def valid(store: Store, feed: Feed, day: str, version: Version) -> bool:
    """Whether the version's data file is there in full size."""
    return store.size(paths.ticks_data(feed, day, version.content)) == version.bytes


def valid_partial(store: Store, feed: Feed, day: str, partial: Partial) -> bool:
    """Whether the partial candles' data file is there in full size."""
    return store.size(paths.candles_data(feed, day, partial.content)) == partial.bytes
