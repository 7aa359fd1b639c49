"""Fills the lake with a day's ticks: fetches missing feeds, decodes them on arrival, and records them.

A feed is done when its manifest names its file, so every interruption leaves finished feeds finished, and a
rerun fetches the others. One feed's failure never hides or blocks another.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from queue import SimpleQueue
from typing import Final

from backfill_assets.days import MICROSECONDS_PER_SECOND, shift, utc_now
from backfill_assets.failures import (
    CorruptFeed,
    FeedAbsent,
    PermanentFailure,
    TransientFailure,
    Unreadable,
)
from backfill_assets.feeds import PERPETUAL, Feed
from backfill_assets.files import temporary_folder
from backfill_assets.id_laws import ID_LAWS, IdLaw, law_of
from backfill_assets.lake import documents, paths
from backfill_assets.lake.manifests import (
    Absence,
    DayRecord,
    DecodedCandles,
    FeedManifest,
    Source,
    StoredFile,
    Version,
    has_minute_numbers,
    load_day_record,
    load_manifest,
    update_manifest,
    valid,
)
from backfill_assets.lake.parallel import parallel_map
from backfill_assets.lake.store import Store
from backfill_assets.logs import bound, with_fields
from backfill_assets.quality.minute_numbers import store_numbers
from backfill_assets.quality.profiles import FeedProfile, profile_of
from backfill_assets.quality.settle import settle
from backfill_assets.quality.settled import SettledDay, is_lost, load_settled
from backfill_assets.settings import Settings, ThresholdSettings, own_files_command, resolve
from backfill_assets.tardis.client import Download, TardisClient
from backfill_assets.tardis.generated import is_generated
from backfill_assets.ticks.decode import Decoded, decode
from backfill_assets.ticks.grids import price_grids
from backfill_assets.ticks.partials import (
    PARTIALS_VERSION,
    MinuteCandles,
    of_exchange,
    seam_window,
    store_partials,
)
from backfill_assets.ticks.prices import Grids
from backfill_assets.ticks.profile import ProfileParameters, profile_parameters_hash
from backfill_assets.ticks.stored import stored_file
from backfill_assets.ticks.workers import decode_workers

#: Increase it when the stored columns or their meaning change; older versions are fetched again.
SCHEMA_VERSION: Final = 1
#: Downloads of a file that arrives damaged, before the step itself is retried.
DOWNLOAD_ROUNDS: Final = 2
#: Files per decoding thread: one that it decodes, and one that is ready next.
FILES_PER_THREAD: Final = 2


@dataclass(frozen=True, slots=True)
class FeedOutcome:
    """The outcome for one feed.

    The feed was ``fetched`` or ``kept`` (already stored), is ``absent``, was ``rejected`` or ``failed``, or
    its manifest is ``unreadable``. For a failed feed, ``is_passing`` tells whether another try may succeed,
    and ``wait_seconds`` how long to wait first. ``raw_sha256`` is the hash of a damaged file. ``manifest`` is
    the feed's manifest after the fetch; None if it cannot be read.
    """

    feed: Feed
    state: str
    rows: int = 0
    raw_bytes: int = 0
    reason: str = ""
    is_passing: bool = True
    wait_seconds: float = 0.0
    raw_sha256: str = ""
    manifest: FeedManifest | None = None


@dataclass(slots=True)
class FetchReport:
    """All outcomes of a day, in the order in which the feeds finished."""

    outcomes: list[FeedOutcome] = field(default_factory=list)

    def of(self, state: str) -> list[FeedOutcome]:
        """The outcomes with this state."""
        return [o for o in self.outcomes if o.state == state]

    @property
    def manifests(self) -> dict[Feed, FeedManifest]:
        """The manifests that can be read, ordered by feed."""
        found = {o.feed: o.manifest for o in self.outcomes if o.manifest is not None}
        return dict(sorted(found.items()))

    @property
    def summary(self) -> str:
        """Number of feeds in each state, such as ``2 absent, 498 fetched``."""
        counts = sorted(Counter(o.state for o in self.outcomes).items())
        return ", ".join(f"{count} {state}" for state, count in counts) or "no feed is expected"


Progress = Callable[[FeedOutcome, int, int], None]


def recorded_day(store: Store, day: str) -> DayRecord:
    """Return the record of the day's expected feeds.

    Raises
    ------
    PermanentFailure
        The day was never recorded, or it waits for every exchange.
    """
    record = load_day_record(store, day)
    if record is None or (record.awaiting_export and not record.expected):
        msg = f"nothing is recorded of {day}: materialize its instruments first"
        raise PermanentFailure(msg)
    return record


def fetch_day(
    store: Store,
    client: TardisClient,
    record: DayRecord,
    settings: Settings,
    *,
    refresh: Iterable[Feed] = (),
    progress: Progress | None = None,
) -> FetchReport:
    """Fetch every expected feed of the day that the lake does not have, and those to be refreshed.

    Parameters
    ----------
    refresh
        Feeds to fetch again although the lake has them; new bytes become a candidate.
    progress
        Called with each outcome, the number of feeds done and their total.

    Raises
    ------
    PermanentFailure
        A cause that fails every feed alike: no key, no permission, a full disk.
    """
    day = record.day
    expected = {e.feed: dict(e.symbols) for e in record.expected_feeds}
    parameters = ProfileParameters.of(settings.thresholds)
    again = set(refresh)
    report = FetchReport()

    def done(outcome: FeedOutcome) -> None:
        if outcome.state == "failed":
            outcome = replace(outcome, manifest=_record_failure(store, outcome, day))
        report.outcomes.append(outcome)
        if progress is not None:
            progress(outcome, len(report.outcomes), len(expected))

    known = load_settled(store, day)
    counting = {f.feed: f.accepted.content for f in known.feeds if f.accepted} if known else {}
    kept = parallel_map(
        lambda feed: (
            None if feed in again else _kept(store, feed, day, expected[feed], parameters, counting.get(feed))
        ),
        expected,
        store.parallel_reads,
    )
    is_unreadable = any(o and o.state == "unreadable" for o in kept)
    unsettled = is_unreadable and known is None and _never_settled(store, day)
    wanted = []
    for feed, outcome in zip(expected, kept, strict=True):
        if outcome is None or (outcome.state == "unreadable" and unsettled):
            wanted.append(feed)
        else:
            done(outcome)
    wanted = _largest_first(store, day, wanted)
    # Without a file to decode, neither price steps nor the versions that count are needed.
    grids = price_grids(store, day, expected) if wanted else {}
    settled = known or (_settled(store, day, settings.thresholds, wanted) if wanted else None)
    accepted = {f.feed: f.accepted.content for f in settled.feeds if f.accepted} if settled else {}
    anew = {feed: _begun(feed, day, settled) for feed in wanted}
    # The user's own file is the same at every request.
    rounds, is_passing = (1, False) if own_files_command(settings) else (DOWNLOAD_ROUNDS, True)
    laws = settings.thresholds.id_laws
    worker = _Worker(store, day, expected, accepted, anew, parameters, grids, client.redacted, laws)
    threads = settings.decode_threads or decode_workers()
    with temporary_folder(scratch_folder(settings), "lake.scratch") as folder:
        before: dict[Feed, str] = {}
        for attempt in range(rounds):
            damaged: dict[Feed, str] = {}
            for outcome in _fetch_round(client, wanted, day, folder, worker, threads):
                if outcome.state != "damaged":
                    done(outcome)
                elif attempt + 1 < rounds:
                    damaged[outcome.feed] = outcome.raw_sha256
                else:
                    done(_given_up(outcome, before.get(outcome.feed), is_passing=is_passing))
            wanted, before = list(damaged), damaged
            if not wanted:
                break
    return report


def _largest_first(store: Store, day: str, feeds: Sequence[Feed]) -> list[Feed]:
    """The feeds, those with the largest files of the day before first, so that no large one is last.

    Feeds that the day before lacks come first, since they may be large.
    """
    if len(feeds) < 2:
        return list(feeds)
    before, _ = documents.look(store, paths.settled_day(shift(day, -1)), SettledDay)
    sizes = {f.feed: f.accepted.raw_bytes for f in before.feeds if f.accepted} if before else {}
    return sorted(feeds, key=lambda feed: sizes.get(feed, math.inf), reverse=True)


def _settled(
    store: Store, day: str, thresholds: ThresholdSettings, wanted: Sequence[Feed]
) -> SettledDay | None:
    """Make the day's missing document: a fetch must not drop the versions that count."""
    if _never_settled(store, day):
        return None
    # An earlier version of this package has judged the day, or its document is lost.
    try:
        return settle(store, day, thresholds)
    except Unreadable:
        manifests = [paths.ticks_manifest(feed, day) for feed in wanted]
        if not all(documents.damage(store, path, FeedManifest) for path in manifests):
            raise
        return None


def _never_settled(store: Store, day: str) -> bool:
    """Whether a day without a document cannot have decisions about its files."""
    return not store.exists(paths.accepted_versions(day)) and not is_lost(store, day)


def _begun(feed: Feed, day: str, settled: SettledDay | None) -> FeedManifest:
    """The manifest to begin with if the stored one cannot be read, with the decisions that hold."""
    found = settled.feed(feed) if settled is not None else None
    decisions = [d for d in (found.approval, found.retraction) if d is not None] if found else []
    return FeedManifest(feed=str(feed), day=day, decisions=tuple(decisions))


@dataclass(frozen=True, slots=True)
class _Worker:
    """Turns one download into a version in the lake; runs in a thread."""

    store: Store
    day: str
    symbols: dict[Feed, dict[str, str]]
    #: Contents that count, by the day's document.
    accepted: dict[Feed, str]
    #: By feed the manifest to begin with if there is none or it cannot be read, with the decisions of people
    #: from the day's document.
    anew: dict[Feed, FeedManifest]
    parameters: ProfileParameters
    grids: dict[Feed, Grids]
    #: Removes the key from texts that quote a file.
    redact: Callable[[str], str]
    laws: Sequence[IdLaw] = ID_LAWS

    def __call__(self, feed: Feed, download: Download) -> FeedOutcome:
        with bound(day=self.day, feed=str(feed)):
            return self._outcome(feed, download)

    def _outcome(self, feed: Feed, download: Download) -> FeedOutcome:
        target = download.path.with_suffix(".parquet")
        candles = candles_to_fill(feed, self.day, self.parameters, self.laws)
        try:
            decoded = decode(
                download.path,
                target,
                feed=feed,
                day=self.day,
                symbols=self.symbols[feed],
                parameters=self.parameters,
                grids=self.grids[feed],
                candles=candles,
            )
            stored = stored_file(target, decoded.totals)
        except CorruptFeed as failure:
            return self._reject(feed, download, self.redact(str(failure)))
        except (ArithmeticError, LookupError, RecursionError, ValueError) as failure:
            # An unforeseen file must not stop the other feeds.
            shown = " ".join(f"{type(failure).__name__}: {failure}".split())[:300]
            reason = self.redact(f"{feed} {self.day}: cannot be read ({shown}); report it")
            return self._reject(feed, download, reason)
        except TransientFailure as failure:
            content = _sha256(download.path)
            return FeedOutcome(feed, "damaged", reason=str(failure), raw_sha256=content)
        source = Source(
            url=download.url,
            raw_bytes=decoded.raw_bytes,
            raw_sha256=decoded.raw_sha256,
            generated=is_generated(download.path),
            paced_seconds=download.paced_seconds,
        )
        version = decoded_version(feed, decoded, source, stored, self.symbols[feed], self.parameters)
        made = store_candles(self.store, feed, self.day, candles, decoded.profile, self.parameters)
        numbers = store_numbers(self.store, feed, self.day, decoded.profile.numbers)
        version = version.model_copy(update={"candles": made, "minute_numbers": numbers})
        accepted = self.accepted.get(feed)
        self.store.put_file(target, paths.ticks_data(feed, self.day, version.content))
        instead = self.anew.get(feed)
        manifest = update_manifest(
            self.store, feed, self.day, lambda found: found.with_version(version, accepted), instead
        )
        target.unlink()
        download.path.unlink()
        return FeedOutcome(feed, "fetched", rows=decoded.rows, raw_bytes=decoded.raw_bytes, manifest=manifest)

    def _reject(self, feed: Feed, download: Download, reason: str) -> FeedOutcome:
        """Store a file that does not fit its feed, for inspection."""
        self.store.put_file(download.path, paths.rejected(feed, self.day, _sha256(download.path)))
        return self._without_file(FeedOutcome(feed, "rejected", raw_bytes=download.bytes, reason=reason))

    def absent(self, feed: Feed, reason: str) -> FeedOutcome:
        """Record that the vendor has no such file."""
        return self._without_file(FeedOutcome(feed, "absent", reason=reason))

    def _without_file(self, outcome: FeedOutcome) -> FeedOutcome:
        """Record the absence; with a damaged manifest, a version that counts stays."""
        feed = outcome.feed
        absence = Absence(reason=outcome.reason, seen_at=utc_now())
        instead = None if feed in self.accepted else self.anew.get(feed)
        try:
            manifest = update_manifest(
                self.store, feed, self.day, lambda found: found.with_absence(absence), instead
            )
        except Unreadable as failure:
            return replace(outcome, state="unreadable", reason=f"{outcome.reason}; {failure}")
        return replace(outcome, manifest=manifest)


def decoded_version(
    feed: Feed,
    decoded: Decoded,
    source: Source,
    stored: StoredFile,
    symbols: Mapping[str, str],
    parameters: ProfileParameters,
) -> Version:
    """The version of a file that was just decoded, without its candles and numbers by minute."""
    return Version(
        content=decoded.content,
        rows=decoded.rows,
        bytes=decoded.bytes,
        source=source,
        profile=decoded.profile.model_dump(mode="json"),
        schema_version=SCHEMA_VERSION,
        profile_parameters=profile_parameters_hash(parameters, feed.data_type),
        fetched_at=utc_now(),
        stored=stored,
        symbol=_only_symbol(symbols),
    )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def candles_to_fill(
    feed: Feed, day: str, parameters: ProfileParameters, laws: Sequence[IdLaw]
) -> MinuteCandles | None:
    """The candles to fill while a file is decoded; None if its data type makes none."""
    if not feed.type.makes_candles:
        return None
    law = law_of(laws, feed, day)
    window = seam_window(day, parameters.seam_window_us // MICROSECONDS_PER_SECOND)
    return MinuteCandles(by_id=law is not None and law.gives_order, window=window)


def store_candles(
    store: Store,
    feed: Feed,
    day: str,
    made: MinuteCandles | None,
    profile: FeedProfile,
    parameters: ProfileParameters,
) -> DecodedCandles | None:
    """Store the candles of a file; None without any, or if ids are the order and some are not integers."""
    if made is None or (made.by_id and not profile.has_numeric_ids):
        return None
    table = of_exchange(feed.exchange, made.table())
    file = store_partials(store, feed, day, table)
    seam_seconds = parameters.seam_window_us // MICROSECONDS_PER_SECOND
    return DecodedCandles(
        version=PARTIALS_VERSION, seam_window_seconds=seam_seconds, by_id=made.by_id, file=file
    )


def _given_up(outcome: FeedOutcome, before: str | None, *, is_passing: bool) -> FeedOutcome:
    """The failure of a file that was damaged in the last round; ``before`` is the hash of the round before.

    If the bytes are the same, they were not damaged in transit, so another try of the step would bring them
    again.
    """
    if outcome.raw_sha256 != before:
        return replace(outcome, state="failed", is_passing=is_passing)
    reason = f"{outcome.reason}; the same bytes came again"
    return replace(outcome, state="failed", is_passing=False, reason=reason)


def _record_failure(store: Store, outcome: FeedOutcome, day: str) -> FeedManifest | None:
    failure = Absence(reason=outcome.reason, seen_at=utc_now())
    # A damaged manifest is reported separately, and only a refresh replaces it.
    with suppress(Unreadable):
        return update_manifest(store, outcome.feed, day, lambda manifest: manifest.with_failure(failure))
    return None


def _fetch_round(
    client: TardisClient, feeds: Sequence[Feed], day: str, folder: Path, worker: _Worker, threads: int
) -> Iterable[FeedOutcome]:
    """Outcomes of one download of each feed; decoding runs while other files still arrive."""
    if not feeds:
        return
    with ThreadPoolExecutor(threads, thread_name_prefix="decode") as pool:
        finished: SimpleQueue[Future[FeedOutcome]] = SimpleQueue()
        running = 0
        for feed, result in client.fetch(feeds, day, folder):
            if isinstance(result, Download):
                pool.submit(with_fields(worker), feed, result).add_done_callback(finished.put)
                running += 1
            elif isinstance(result, FeedAbsent):
                yield worker.absent(feed, str(result))
            else:
                is_passing = isinstance(result, TransientFailure)
                asked = (result.retry_after_seconds or 0.0) if isinstance(result, TransientFailure) else 0.0
                yield FeedOutcome(
                    feed, "failed", reason=str(result), is_passing=is_passing, wait_seconds=asked
                )
            # Waiting files take room on the disk: take only as many as keep every thread busy.
            while running >= FILES_PER_THREAD * threads or not finished.empty():
                yield finished.get().result()
                running -= 1
        for _ in range(running):
            yield finished.get().result()


def _kept(
    store: Store,
    feed: Feed,
    day: str,
    symbols: Mapping[str, str],
    parameters: ProfileParameters,
    accepted: str | None,
) -> FeedOutcome | None:
    """The outcome of a feed that needs no fetch.

    None if a file of it is missing or of another build, or its rows have other canonical symbols than now.
    """
    try:
        manifest = load_manifest(store, feed, day)
    except Unreadable as failure:
        return FeedOutcome(feed, "unreadable", reason=str(failure))
    version, counting = manifest.newest, manifest.version(accepted)
    if (
        version is None
        or (counting is not None and not valid(store, feed, day, counting))
        or version.schema_version != SCHEMA_VERSION
        or version.profile_parameters != profile_parameters_hash(parameters, feed.data_type)
        or not valid(store, feed, day, version)
        or not has_minute_numbers(store, feed, day, version)
        or not _is_named(version, feed, symbols)
    ):
        return None
    return FeedOutcome(feed, "kept", rows=version.rows, raw_bytes=version.source.raw_bytes, manifest=manifest)


def _is_named(version: Version, feed: Feed, symbols: Mapping[str, str]) -> bool:
    """Whether the rows have these symbols, as far as the version shows."""
    if feed.type.makes_candles:
        with suppress(Unreadable):  # settling the day reports it
            return all(symbols.get(s.dataset_symbol) == s.symbol for s in profile_of(version).symbols)
        return True
    now = _only_symbol(symbols)
    # In versions of an earlier layout a perpetual has the symbol of its pair.
    return version.symbol == now if version.symbol else not now.endswith(PERPETUAL)


def _only_symbol(symbols: Mapping[str, str]) -> str:
    names = {*symbols.values()}
    return names.pop() if len(names) == 1 else ""


def scratch_folder(settings: Settings) -> Path | None:
    """Create and return the folder of ``lake.scratch``; None for the system's own."""
    scratch = resolve(settings.lake.scratch)
    if not scratch:
        return None
    folder = Path(scratch).expanduser()
    folder.mkdir(parents=True, exist_ok=True)
    return folder
