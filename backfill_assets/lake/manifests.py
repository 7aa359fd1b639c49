"""The documents by which data becomes visible: feeds' manifests and day records.

No manifest, no data. A fetch adds a version to the manifest of its feed and day. ``quality.settle`` decides
which version counts and writes it in the day's document, so a bad refresh never takes back good data. The
models are frozen and their methods pure: they serve as the ``change`` of a compare-and-swap. The profile is
carried as plain JSON because its model lies downstream.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any, ClassVar, Final, Self

from pydantic import AfterValidator, AwareDatetime, model_validator

from backfill_assets.failures import Unreadable
from backfill_assets.feeds import DATA_TYPES, ExpectedFeed, Feed, FeedChoice
from backfill_assets.lake import documents, paths
from backfill_assets.lake.documents import Document
from backfill_assets.lake.evidence import (
    Approval,
    BesideTrades,
    Decision,
    Decisions,
    HealedRows,
    Receipt,
    Restatement,
    Retraction,
    SpikeEvidence,
)
from backfill_assets.lake.parallel import parallel_map
from backfill_assets.lake.store import Store
from backfill_assets.lake.tables import DataFile

#: Fields that a new version resets.
_FOUND: Final[dict[str, None]] = {"absent": None, "failed": None}
#: Versions of a feed's day that are kept besides the newest and the accepted one.
EARLIER_VERSIONS: Final = 4


def checked_feed(text: str) -> str:
    """Return the text if it names a feed, else raise ``ValueError``."""
    if Feed.parse(text).data_type not in DATA_TYPES:
        msg = f"{text} has no known data type"
        raise ValueError(msg)
    return text


#: A feed's name, ``exchange/data_type/SYMBOL``.
FeedText = Annotated[str, AfterValidator(checked_feed)]


class Source(Document):
    """The vendor's file that a version was decoded from.

    Attributes
    ----------
    generated
        Whether the file says that its content is generated rather than a market's.
    paced_seconds
        Time that its requests waited for ``tardis.requests_per_minute``.
    """

    url: str
    raw_bytes: int
    raw_sha256: str
    generated: bool = False
    paced_seconds: float = 0.0


class ColumnTotals(Document):
    """Control totals of the rows of one exchange and symbol: times in microseconds, sums by column.

    Integer sums are exact; float sums depend on the order of addition in their last bits.
    """

    exchange: str
    dataset_symbol: str
    rows: int
    first_timestamp_us: int
    last_timestamp_us: int
    exact: dict[str, int]
    floats: dict[str, float]


class StoredFile(Document):
    """Facts about the Parquet file of a version.

    Attributes
    ----------
    rows
        Number of rows, from the file's footer.
    columns
        ``name:type`` of each column.
    totals
        Totals of the written rows, by symbol, in order.
    """

    rows: int
    columns: tuple[str, ...]
    totals: tuple[ColumnTotals, ...]


class DecodedCandles(Document):
    """Partial candles that were made in the pass that decoded a file of trades.

    They count every row that has a canonical symbol, with amounts as base units.

    Attributes
    ----------
    version, seam_window_seconds, by_id
        Their inputs besides the rows: ``ticks.partials.PARTIALS_VERSION``, how far beyond the day they reach,
        and whether ids break ties of time.
    file
        The file in which they are stored.
    """

    version: int
    seam_window_seconds: int
    by_id: bool
    file: DataFile


class Version(Document):
    """One decoding of a feed's day: a data file and the evidence about it.

    Attributes
    ----------
    content
        sha256 of the Parquet file, which is also its name.
    rows, bytes
        Rows and bytes of the Parquet file.
    profile
        ``quality.profiles.FeedProfile`` as JSON values.
    schema_version
        Version of the Parquet file's columns.
    profile_parameters
        Hash of the parameters under which the profile was counted.
    stored
        Facts from the file itself; null in versions of an earlier layout.
    symbol
        Canonical symbol of the rows; empty if there are several, and in versions of an earlier layout.
    candles
        Null if the file has no trades to make them of, or its ids turned out not to be an order.
    healed
        The rows that were added to the vendor's file, which ``source`` describes; null if none were.
    minute_numbers
        The file of the numbers by minute that are compared with other files; null if the data type has none,
        if no row gives any, and in versions of an earlier layout.
    """

    content: str
    rows: int
    bytes: int
    source: Source
    profile: dict[str, Any]
    schema_version: int
    profile_parameters: str
    fetched_at: AwareDatetime
    stored: StoredFile | None = None
    symbol: str = ""
    candles: DecodedCandles | None = None
    healed: HealedRows | None = None
    minute_numbers: DataFile | None = None

    def is_same_evidence(self, other: Version) -> bool:
        """Whether only the fetch differs: same rows, counted in the same way."""
        return (
            self.content,
            self.schema_version,
            self.profile_parameters,
            self.profile,
            self.minute_numbers,
        ) == (
            other.content,
            other.schema_version,
            other.profile_parameters,
            other.profile,
            other.minute_numbers,
        )


class Absence(Document):
    """Why there is no file: the vendor confirmed that it has none, or the last fetch failed."""

    reason: str
    seen_at: AwareDatetime


class FeedManifest(Document):
    """The lake's versions of one feed on one day. The day's document says which version counts.

    Attributes
    ----------
    versions
        Decodings of the feed's file in the order of their fetching, the newest last. Versions that do not
        count are kept because a neighbor that comes later may let them count.
    absent
        The vendor's answer that it has no such file.
    failed
        Why the last fetch brought no file although a retry may; null once there is a version or an absence.
    decisions
        Approvals and retractions in the order in which they were made.
    compared
        The changes from older to newer versions, ordered by the contents of both.
    spikes
        Witnesses' evidence on the spikes of each version, by ``spikes_key``.
    beside_trades
        Comparison of the prices of each version of a ticker or of liquidations with the trades, by content.
    receipts
        Answers of second sources about missing ids, in the order of the requests.
    decided
        Whether a document of an earlier layout also holds decisions; ``read_manifest`` puts them first.
    """

    remedy: ClassVar[str] = (
        "the feed stays as it was published; a backfill of the day that fetches the feed again begins another"
    )

    feed: FeedText
    day: str
    decided: bool = False
    versions: tuple[Version, ...] = ()
    absent: Absence | None = None
    failed: Absence | None = None
    decisions: tuple[Decision, ...] = ()
    compared: tuple[Restatement, ...] = ()
    spikes: dict[str, SpikeEvidence] = {}
    beside_trades: dict[str, BesideTrades] = {}
    receipts: tuple[Receipt, ...] = ()

    @model_validator(mode="before")
    @classmethod
    def _of_an_earlier_layout(cls, content: Any) -> Any:
        """Read a manifest that also named the version that counts, with decisions in a separate document."""
        former = ("accepted", "candidate", "earlier")
        if isinstance(content, dict) and content.keys() & {*former}:
            rest = {k: v for k, v in content.items() if k not in former}
            held = [*content.get("earlier", ()), content.get("accepted"), content.get("candidate")]
            versions = [Version.model_validate(v) for v in held if v is not None]
            return {**rest, "versions": sorted(versions, key=lambda v: v.fetched_at)}
        return content

    @property
    def newest(self) -> Version | None:
        """The version that was fetched last."""
        return self.versions[-1] if self.versions else None

    @property
    def is_missing(self) -> bool:
        """Whether the vendor has no file and the lake has none of an earlier fetch."""
        return self.absent is not None and not self.versions

    @property
    def why_missing(self) -> str:
        """The reason why there is no version."""
        known = self.absent or self.failed
        return known.reason if known else "not fetched yet"

    def version(self, content: str | None) -> Version | None:
        """The version with this content, if it is held."""
        return next((v for v in self.versions if v.content == content), None)

    def decision(self, content: str) -> Decision | None:
        """The latest decision on this content."""
        return next((d for d in reversed(self.decisions) if d.content == content), None)

    def approval(self, content: str, judged_by: str) -> Approval | None:
        """The approval of this content that holds if these rules judge the feed."""
        last = self.decision(content)
        return last if isinstance(last, Approval) and last.judged_by in ("", judged_by) else None

    def void_approval(self, content: str, judged_by: str) -> Approval | None:
        """The approval that is the latest decision on this content but does not hold under these rules."""
        last = self.decision(content)
        return last if isinstance(last, Approval) and last.judged_by not in ("", judged_by) else None

    def retraction(self, content: str) -> Retraction | None:
        """The retraction of this content, unless it was approved since."""
        last = self.decision(content)
        return last if isinstance(last, Retraction) else None

    def restatement(self, before: str | None, after: str | None) -> Restatement | None:
        """The comparison of these two contents, if it was made."""
        return next((r for r in self.compared if (r.before, r.after) == (before, after)), None)

    def with_version(self, version: Version, accepted: str | None) -> Self:
        """Return the manifest after a fetch.

        A fetch that brings the accepted rows again drops the versions after them: the vendor has returned to
        the version that counts. A fetch that brings the newest version again leaves it. Rows that are already
        held take over the new evidence if it was counted under other parameters. ``EARLIER_VERSIONS`` are
        kept besides the newest and the accepted one. An approved version is never dropped, even if it was
        approved during this fetch.

        Parameters
        ----------
        accepted
            Content of the version that counts, by the day's document; None if none does.
        """
        held = list(self.versions)
        known = next((i for i, v in enumerate(held) if v.content == version.content), None)
        decided = {decision.content: decision.kind for decision in self.decisions}
        after = held[known + 1 :] if known is not None else ()
        returns = version.content == accepted and all(decided.get(v.content) != "approval" for v in after)
        if known is not None and (returns or not after):
            kept = held[known] if held[known].is_same_evidence(version) else version
            return self.model_copy(update={"versions": (*held[:known], kept), **_FOUND})
        if held and version.fetched_at < held[-1].fetched_at:
            # Clocks of machines differ; this fetch ends later than those that it finds here.
            version = version.model_copy(update={"fetched_at": held[-1].fetched_at})
        older = [v for v in held if v.content != version.content]
        spare = [v for v in older if v.content != accepted and decided.get(v.content) != "approval"]
        spare = spare[:-EARLIER_VERSIONS]
        kept_versions = tuple(v for v in older if v not in spare)
        return self.model_copy(update={"versions": (*kept_versions, version), **_FOUND})

    def with_receipts(self, receipts: Iterable[Receipt]) -> Self:
        """Return the manifest with these receipts; one that is there already is not added again."""
        known = {(r.source, r.first_id, r.last_id, r.name) for r in self.receipts}
        new = [r for r in receipts if (r.source, r.first_id, r.last_id, r.name) not in known]
        return self.model_copy(update={"receipts": (*self.receipts, *new)}) if new else self

    def with_absence(self, absence: Absence) -> Self:
        """Return the manifest after the vendor's answer that there is no file; earlier versions are kept.

        The first sighting of the same reason stays, so another request changes nothing.
        """
        if self.absent is not None and self.absent.reason == absence.reason:
            return self
        return self.model_copy(update={"absent": absence, "failed": None})

    def with_failure(self, failure: Absence) -> Self:
        """Return the manifest after a fetch that failed, perhaps for now; unchanged if more is known.

        The first sighting of the same reason stays.
        """
        if self.versions or self.absent or (self.failed is not None and self.failed.reason == failure.reason):
            return self
        return self.model_copy(update={"failed": failure})


class ExpectedSymbols(Document):
    """A feed that the day must have, with pairs (data set symbol, canonical symbol)."""

    feed: FeedText
    symbols: tuple[tuple[str, str], ...]


class Awaited(Document):
    """An exchange without which the day was run, and why; ``is_passing`` if a retry may be enough."""

    exchange: str
    reason: str
    is_passing: bool = True


class Dropped(ExpectedSymbols):
    """A feed that a person has removed from the day's expected feeds."""

    reason: str
    dropped_at: AwareDatetime


class DayRecord(Document):
    """The expectations of a day when it was run; later changes of the universe do not change them.

    Attributes
    ----------
    expected
        Feeds with their symbols, in order.
    not_listed
        ``exchange/data_type/SYMBOL`` with the canonical symbol, configured but not listed on that day.
    why_not_listed
        For each of these, when it was listed, if known.
    awaiting_export
        Exchanges that the vendor had not exported yet, or whose contents it did not list.
    awaited
        The same exchanges, each with its reason; empty in records of earlier versions.
    dropped
        Feeds that the day need not have, though the universe names them.
    """

    remedy: ClassVar[str] = "a run of the day makes it again from what was settled, and the universe"

    day: str
    expected: tuple[ExpectedSymbols, ...]
    not_listed: tuple[str, ...] = ()
    why_not_listed: dict[str, str] = {}
    awaiting_export: tuple[str, ...] = ()
    awaited: tuple[Awaited, ...] = ()
    dropped: tuple[Dropped, ...] = ()
    recorded_at: AwareDatetime

    @property
    def expected_feeds(self) -> tuple[ExpectedFeed, ...]:
        """``expected`` as the ground type."""
        return tuple(ExpectedFeed(Feed.parse(e.feed), e.symbols) for e in self.expected)

    @property
    def why_awaited(self) -> tuple[str, ...]:
        """One sentence for each exchange that the day waits for."""
        return tuple(a.reason for a in self.awaited) or tuple(
            f"{exchange} is not exported yet" for exchange in self.awaiting_export
        )

    @property
    def exchanges(self) -> tuple[str, ...]:
        """Every requested exchange, including those that listed none of its symbols on that day; in order."""
        named = (*(e.feed for e in self.expected), *self.not_listed)
        return tuple(sorted({name.split("/")[0] for name in named}))

    def knows(self, exchange: str, data_type: str, symbol: str) -> bool:
        """Whether the day has settled this combination of the universe, which may have grown since."""
        if f"{exchange}/{data_type}/{symbol}" in self.not_listed:
            return True
        only = FeedChoice((exchange,), (symbol,), (data_type,))
        known = (*self.expected, *self.dropped)
        return any(only.has(Feed.parse(e.feed), [name for _, name in e.symbols]) for e in known)


def with_reasons(names: Iterable[str], reasons: Mapping[str, str]) -> list[str]:
    """Return the names, each with its reason if one is known."""
    return [f"{name} ({reasons[name]})" if name in reasons else name for name in names]


def expected_symbols(feeds: Iterable[ExpectedFeed]) -> tuple[ExpectedSymbols, ...]:
    """Return the record's form of expected feeds, ordered so that the same feeds make the same bytes."""
    return tuple(ExpectedSymbols(feed=str(e.feed), symbols=e.symbols) for e in sorted(feeds))


def read_manifest(store: Store, feed: Feed, day: str) -> tuple[FeedManifest, str]:
    """Return the feed's manifest, an empty one if there is none, and the sha256 of its document."""
    path = paths.ticks_manifest(feed, day)
    found, digest = documents.load_hashed(store, path, FeedManifest)
    if found is not None and found.decided:
        former = documents.load(store, paths.decisions(feed, day), Decisions)
        earlier = former.decisions if former else ()
        found = found.model_copy(update={"decisions": (*earlier, *found.decisions), "decided": False})
    return found or FeedManifest(feed=str(feed), day=day), digest


def load_manifest(store: Store, feed: Feed, day: str) -> FeedManifest:
    """Return the feed's manifest; an empty one if there is none."""
    return read_manifest(store, feed, day)[0]


def load_manifests(store: Store, record: DayRecord) -> dict[Feed, FeedManifest]:
    """Return the manifests of the day's expected feeds; unreadable manifests are left out."""
    feeds = [e.feed for e in record.expected_feeds]

    def load(feed: Feed) -> FeedManifest | None:
        try:
            return load_manifest(store, feed, record.day)
        except Unreadable:
            return None

    read = parallel_map(load, feeds, store.parallel_reads)
    return {feed: manifest for feed, manifest in zip(feeds, read, strict=True) if manifest is not None}


def update_manifest(
    store: Store,
    feed: Feed,
    day: str,
    change: Callable[[FeedManifest], FeedManifest],
    instead: FeedManifest | None = None,
) -> FeedManifest:
    """Change the feed's manifest by compare-and-swap; ``change`` gets an empty one if there is none.

    An empty manifest that stays empty is not written.

    Parameters
    ----------
    instead
        The change to make if the stored manifest cannot be read; without it that is a failure.

    Raises
    ------
    Unreadable
        See ``instead``.
    """
    empty = instead or FeedManifest(feed=str(feed), day=day)

    def apply(found: FeedManifest | None) -> FeedManifest | None:
        changed = change(found or empty)
        return None if found is None and changed == empty else changed

    path = paths.ticks_manifest(feed, day)
    return documents.update(store, path, FeedManifest, apply, anew=instead is not None) or empty


def load_day_record(store: Store, day: str) -> DayRecord | None:
    """Return the day's expectations; None if it was never run."""
    return documents.load(store, paths.day_record(day), DayRecord)


def valid(store: Store, feed: Feed, day: str, version: Version) -> bool:
    """Whether the version's data file exists at full size."""
    return store.size(paths.ticks_data(feed, day, version.content)) == version.bytes


def has_minute_numbers(store: Store, feed: Feed, day: str, version: Version) -> bool:
    """Whether the version's file of numbers by minute exists at full size, if it has one."""
    file = version.minute_numbers
    return file is None or store.size(paths.partials_data(feed, day, file.content)) == file.bytes
