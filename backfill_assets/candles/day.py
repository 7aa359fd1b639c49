"""A day of candles from the lake: partials made where they are missing, then merged.

Partials are kept per version of the ticks and per way of making them, so whatever becomes accepted later
already has its candles or gets them on the spot, and the merge of a day depends on nothing but which
versions are accepted.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from backfill_assets.candles.consistency import mismatches_with_ticks
from backfill_assets.candles.merge import day_of_candles
from backfill_assets.candles.partials import SPOT, Contract, partial_candles
from backfill_assets.candles.schemas import PARTIAL_SCHEMA
from backfill_assets.days import shift
from backfill_assets.feeds import Feed
from backfill_assets.lake import paths
from backfill_assets.lake.gather import gather
from backfill_assets.lake.listing import InstrumentsManifest, load_instruments, read_table
from backfill_assets.lake.manifests import (
    Partial,
    Version,
    add_partial,
    load_day_record,
    load_manifest,
    load_partials,
    valid_partial,
)
from backfill_assets.lake.store import Store
from backfill_assets.quality.profiles import profile_of
from backfill_assets.settings import Settings

#: Raised when the kernels' results or the partials' columns change.
PARTIALS_VERSION: Final = 1
#: Feeds whose ticks are read at once; the kernels release the GIL and the machine has few processors.
WORKERS: Final = 2


@dataclass(frozen=True, slots=True)
class FileOfTrades:
    """One version of one feed's trades on one day, with what its partials depend on besides."""

    feed: Feed
    day: str
    version: Version
    #: Ids that the accepted file of the day before holds too; they count there.
    repeated: frozenset[int]
    contracts: dict[str, Contract]
    seam_window_seconds: int

    @property
    def key(self) -> str:
        """Names the partials in their manifest: the ticks' content and a hash of everything else."""
        contracts = sorted((s, c.multiplier, c.inverse) for s, c in self.contracts.items())
        text = f"{PARTIALS_VERSION}:{self.seam_window_seconds}:{contracts}:{sorted(self.repeated)}"
        return f"{self.version.content}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"

    @property
    def numeric_ids(self) -> bool:
        """Whether every row has an integer id."""
        profile = profile_of(self.version)
        return all(s.numeric_ids == s.rows for s in profile.symbols)


def accepted_files(store: Store, day: str, settings: Settings) -> list[FileOfTrades]:
    """The accepted files of trades of one day, in the order of the feeds."""
    record = load_day_record(store, day)
    expected = {Feed.parse(e.feed): dict(e.symbols) for e in record.expected} if record else {}
    trades = [feed for feed in expected if feed.data_type == "trades"]
    versions = gather(lambda feed: load_manifest(store, feed, day).accepted, trades, store.parallel_reads)
    return [
        file_of_trades(store, feed, day, version, expected[feed], settings)
        for feed, version in zip(trades, versions, strict=True)
        if version is not None
    ]


def file_of_trades(
    store: Store, feed: Feed, day: str, version: Version, symbols: Mapping[str, str], settings: Settings
) -> FileOfTrades:
    """Collect what the partials of this version depend on."""
    return FileOfTrades(
        feed=feed,
        day=day,
        version=version,
        repeated=_repeated_ids(store, feed, day, version),
        contracts=_contracts(store, feed, day, symbols),
        seam_window_seconds=settings.thresholds.seam_window_seconds,
    )


def ensure_partials(store: Store, file: FileOfTrades) -> Partial:
    """The file's partials, computed from its ticks if the lake does not have them."""
    return _made_before(store, file) or _make_partials(store, file)


def _made_before(store: Store, file: FileOfTrades) -> Partial | None:
    found = load_partials(store, file.feed, file.day).partials.get(file.key)
    return found if found is not None and valid_partial(store, file.feed, file.day, found) else None


def _make_partials(store: Store, file: FileOfTrades) -> Partial:
    with store.local_copy(paths.ticks_data(file.feed, file.day, file.version.content)) as ticks:
        table = partial_candles(
            ticks,
            exchange=file.feed.exchange,
            day=file.day,
            seam_window_seconds=file.seam_window_seconds,
            numeric_ids=file.numeric_ids,
            contracts=file.contracts,
            exclude_ids=file.repeated,
        )
    with tempfile.TemporaryDirectory(prefix="backfill-") as folder:
        target = Path(folder) / "partials.parquet"
        pq.write_table(table, target, compression="zstd")
        content = hashlib.sha256(target.read_bytes()).hexdigest()
        partial = Partial(content=content, rows=table.num_rows, bytes=target.stat().st_size)
        store.put_file(target, paths.candles_data(file.feed, file.day, content))
    add_partial(store, file.feed, file.day, file.key, partial)
    return partial


def read_partials(store: Store, file: FileOfTrades) -> pa.Table:
    """The file's partials as a table of ``PARTIAL_SCHEMA``."""
    return _stored_partials(store, file.feed, file.day, ensure_partials(store, file))


def merged_candles(
    store: Store,
    day: str,
    settings: Settings,
    timeframes: Sequence[str] | None = None,
    exchange: str | None = None,
) -> pa.Table:
    """The day's candles of every timeframe (or of those given), from the accepted files of three days.

    Parameters
    ----------
    exchange
        Only this one's; by default every market.

    Returns
    -------
    pyarrow.Table
        ``CANDLE_SCHEMA``; the same bytes whenever the same versions are accepted.
    """
    files = [
        file
        for file_day in (shift(day, -1), day, shift(day, 1))
        for file in accepted_files(store, file_day, settings)
        if exchange in (None, file.feed.exchange)
    ]
    stored = gather(lambda file: _made_before(store, file), files, store.parallel_reads)
    missing = [file for file, partial in zip(files, stored, strict=True) if partial is None]
    made = iter(gather(lambda file: _make_partials(store, file), missing, WORKERS))
    partials = [partial or next(made) for partial in stored]
    named = tuple((file.feed, file.day, partial) for file, partial in zip(files, partials, strict=True))
    configured = settings.candles.timeframes
    wanted = tuple(timeframes or configured)
    # Usually one merge serves every wish: whoever asks for some of the day asks for all of it soon.
    merged = _merged(store, day, (*configured, *(t for t in wanted if t not in configured)), named)
    return merged.filter(pc.field("timeframe").isin(wanted)) if timeframes else merged


#: A run asks for the same day many times: for its checks, its tables, its report, and as a neighbour.
@lru_cache(maxsize=4)
def _merged(
    store: Store, day: str, timeframes: tuple[str, ...], named: tuple[tuple[Feed, str, Partial], ...]
) -> pa.Table:
    partials = gather(lambda file: _stored_partials(store, *file), named, workers=WORKERS)
    return day_of_candles(day, partials, timeframes)


def _stored_partials(store: Store, feed: Feed, day: str, partial: Partial) -> pa.Table:
    with store.local_copy(paths.candles_data(feed, day, partial.content)) as path:
        return pq.read_table(path, schema=PARTIAL_SCHEMA)


def mismatches(store: Store, file: FileOfTrades) -> list[dict[str, object]]:
    """K1 for one file: partials that another engine computes differently from the same ticks."""
    with store.local_copy(paths.ticks_data(file.feed, file.day, file.version.content)) as ticks:
        return mismatches_with_ticks(
            ticks,
            read_partials(store, file),
            day=file.day,
            seam_window_seconds=file.seam_window_seconds,
            numeric_ids=file.numeric_ids,
            contracts=file.contracts,
            exclude_ids=file.repeated,
        )


def _repeated_ids(store: Store, feed: Feed, day: str, version: Version) -> frozenset[int]:
    """Ids of an ordinary feed that the accepted file of the day before has too.

    The profiles' id ranges tell whether there can be any; only then are the two files read again.
    """
    before = load_manifest(store, feed, shift(day, -1)).accepted
    if before is None or feed.is_grouped:
        return frozenset()
    ours, theirs = (profile_of(v).symbols for v in (version, before))
    if len(ours) != 1 or len(theirs) != 1:
        return frozenset()
    low, high = ours[0].id_min, theirs[0].id_max
    numeric = all(s.numeric_ids == s.rows for s in (ours[0], theirs[0]))
    if low is None or high is None or low > high or not numeric:
        return frozenset()
    return _ids_between(store, feed, day, version, low, high) & _ids_between(
        store, feed, shift(day, -1), before, low, high
    )


def _ids_between(store: Store, feed: Feed, day: str, version: Version, low: int, high: int) -> frozenset[int]:
    found: set[int] = set()
    with (
        store.local_copy(paths.ticks_data(feed, day, version.content)) as ticks,
        pq.ParquetFile(ticks) as file,
    ):
        for batch in file.iter_batches(columns=["id"]):
            ids = pc.cast(batch["id"], pa.int64())
            found.update(
                ids.filter(pc.and_(pc.greater_equal(ids, low), pc.less_equal(ids, high))).to_pylist()
            )
    return frozenset(found)


def _contracts(store: Store, feed: Feed, day: str, symbols: Mapping[str, str]) -> dict[str, Contract]:
    """By canonical symbol, the contracts of the feed whose amounts are not base units."""
    manifest = load_instruments(store, feed.exchange, day)
    if manifest is None:
        return {}
    return {symbols[name]: c for name, c in _derivatives(store, manifest) if name in symbols}


@lru_cache(maxsize=64)
def _derivatives(store: Store, manifest: InstrumentsManifest) -> tuple[tuple[str, Contract], ...]:
    """By either name, the contracts of an exchange whose amounts are not base units."""
    columns = ["instrument_id", "dataset_symbol", "contract_multiplier", "inverse"]
    found = []
    for row in read_table(store, manifest).select(columns).to_pylist():
        contract = Contract(multiplier=row["contract_multiplier"] or 1.0, inverse=bool(row["inverse"]))
        if contract != SPOT:
            found += [(name, contract) for name in (row["instrument_id"].upper(), row["dataset_symbol"])]
    return tuple(found)
