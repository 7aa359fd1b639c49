"""Asks other sources whether they saw the prices that a feed's profile lists as spikes.

This is done once per set of files, after a fetch and before the day is settled. Witnesses of a market are its
exchange's quotes and books, the exchange's own candles if the settings name any, and other venues' trades of
the pair. The newest version of each feed is asked, with any verdict, so that no feed's verdict depends on
another's. A confirmed spike stays confirmed when a worse version of the witness follows. Only the row groups
around the spikes are read.
"""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import pyarrow.parquet as pq

from backfill_assets.days import MICROSECONDS_PER_MINUTE, MICROSECONDS_PER_SECOND
from backfill_assets.failures import DamagedFile
from backfill_assets.feeds import Feed, pair_of
from backfill_assets.lake import paths
from backfill_assets.lake.evidence import SpikeEvidence
from backfill_assets.lake.manifests import DayRecord, FeedManifest, Version, update_manifest
from backfill_assets.lake.store import Store
from backfill_assets.quality.profiles import SymbolProfile, profile_of
from backfill_assets.quality.reference import ReferenceDirectory, directories_of
from backfill_assets.quality.spikes import spikes_key
from backfill_assets.settings import RowSettings, Settings

if TYPE_CHECKING:
    import numpy as np
    import polars as pl
    from numpy.typing import NDArray

LOGGER: Final = logging.getLogger(__name__)
#: Increased when the question, or the meaning of an answer, changes.
WITNESSES_VERSION: Final = 1

#: Lowest and highest price around a time; None without data there.
Answer = tuple[float, float] | None


@dataclass(frozen=True, slots=True)
class _Market:
    """The day's feeds: their newest versions, and the canonical symbols of each."""

    store: Store
    day: str
    newest: dict[Feed, Version]
    symbols: dict[Feed, frozenset[str]]
    directories: tuple[ReferenceDirectory, ...]
    limits: RowSettings

    def witnesses(self, feed: Feed, symbol: str) -> list[tuple[Feed, str]]:
        """Feeds whose files may show a price of the feed's symbol, with the symbol of their rows, in order.

        The exchange's own quotes and books are of the same market. At other venues the pair's spot market and
        its perpetual have one price, within the tolerance.
        """
        return [
            (other, name)
            for other in sorted(self.newest)
            if _is_witness(other, feed)
            for name in sorted(self.symbols[other])
            if name == symbol or (other.exchange != feed.exchange and pair_of(name) == pair_of(symbol))
        ]

    def tolerance(self, witness: Feed, feed: Feed) -> float:
        """How far a price may be from the witness's prices and still be the same."""
        same = witness.exchange == feed.exchange
        return self.limits.spike_market_tolerance if same else self.limits.spike_venue_tolerance


def ask_witnesses(
    store: Store, record: DayRecord, manifests: Mapping[Feed, FeedManifest], settings: Settings
) -> int:
    """Ask witnesses about the spikes of the day and store the answers; valid answers are not asked for again.

    Returns
    -------
    int
        How many versions were asked about.
    """
    day = record.day
    expected = {e.feed: frozenset(name for _, name in e.symbols) for e in record.expected_feeds}
    market = _Market(
        store=store,
        day=day,
        newest={feed: m.newest for feed, m in manifests.items() if m.newest is not None},
        symbols=expected,
        directories=directories_of(settings.comparison),
        limits=settings.thresholds.rows,
    )
    return sum(_ask_about(market, feed, manifest) for feed, manifest in manifests.items())


def _is_witness(other: Feed, feed: Feed) -> bool:
    if other.type.has_trades:
        return other.exchange != feed.exchange
    return other.exchange == feed.exchange and other.type.shows_prices


def _ask_about(market: _Market, feed: Feed, manifest: FeedManifest) -> int:
    """Ask about the versions of one feed that have spikes; return how many were asked about."""
    versions = {key: version for version in manifest.versions if (key := spikes_key(version)) is not None}
    if not versions:
        return 0
    known = manifest.spikes
    answers, asked = {}, 0
    for key, version in versions.items():
        symbols = [s for s in profile_of(version).symbols if s.spikes and s.symbol]
        inputs = _inputs(market, feed, symbols)
        former = known.get(key)
        if former is not None and former.inputs == inputs:
            answers[key] = former
            continue
        found = _evidence(market, feed, symbols, inputs)
        answers[key] = _with_confirmed(found, former) if former is not None else found
        asked += 1
    update_manifest(
        market.store, feed, market.day, lambda found: found.model_copy(update={"spikes": answers})
    )
    return asked


def _with_confirmed(found: SpikeEvidence, former: SpikeEvidence) -> SpikeEvidence:
    """The present answers, with the spikes that were confirmed before under the same settings."""
    if former.limits != found.limits:
        return found
    confirmed = {
        name: tuple(sorted({*found.confirmed.get(name, ()), *former.confirmed.get(name, ())}))
        for name in sorted({*found.confirmed, *former.confirmed})
    }
    refuted = {
        name: left
        for name, spikes in found.refuted.items()
        if (left := tuple(n for n in spikes if n not in confirmed.get(name, ())))
    }
    witnesses = tuple(sorted({*found.witnesses, *former.witnesses}))
    return found.model_copy(update={"witnesses": witnesses, "confirmed": confirmed, "refuted": refuted})


def _limits(limits: RowSettings) -> str:
    return (
        f"{WITNESSES_VERSION}:{limits.spike_window_seconds}:{limits.spike_market_tolerance}:"
        f"{limits.spike_venue_tolerance}"
    )


def _inputs(market: _Market, feed: Feed, symbols: Iterable[SymbolProfile]) -> str:
    """Hash of everything that answers depend on besides the spikes."""
    parts = [_limits(market.limits)]
    for symbol in symbols:
        canonical = symbol.symbol or ""
        parts += [
            f"{name}:{witness}:{market.newest[witness].content}"
            for witness, name in market.witnesses(feed, canonical)
        ]
        candles = _candles(market, feed, canonical)
        if candles is not None:
            parts.append(f"{canonical}:{hashlib.sha256(candles.write_csv().encode()).hexdigest()}")
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def _evidence(market: _Market, feed: Feed, symbols: Iterable[SymbolProfile], inputs: str) -> SpikeEvidence:
    confirmed: dict[str, tuple[int, ...]] = {}
    refuted: dict[str, tuple[int, ...]] = {}
    there: set[str] = set()
    for symbol in symbols:
        seen: set[int] = set()
        asked: set[int] = set()
        for name, tolerance, answers in _answers(market, feed, symbol):
            if answers is None:
                inputs = ""  # to be asked again
                continue
            for n, (spike, answer) in enumerate(zip(symbol.spikes, answers, strict=True)):
                if answer is not None:
                    asked.add(n)
                    there.add(name)
                    if answer[0] * (1 - tolerance) <= spike.price <= answer[1] * (1 + tolerance):
                        seen.add(n)
        if seen:
            confirmed[symbol.dataset_symbol] = tuple(sorted(seen))
        if asked - seen:
            refuted[symbol.dataset_symbol] = tuple(sorted(asked - seen))
    return SpikeEvidence(
        inputs=inputs,
        limits=_limits(market.limits),
        witnesses=tuple(sorted(there)),
        confirmed=confirmed,
        refuted=refuted,
    )


def _answers(
    market: _Market, feed: Feed, symbol: SymbolProfile
) -> Iterator[tuple[str, float, list[Answer] | None]]:
    """Each witness with its tolerance and its answers on every spike; None for a damaged file."""
    canonical = symbol.symbol or ""
    times = [spike.time_us for spike in symbol.spikes]
    around = round(market.limits.spike_window_seconds * MICROSECONDS_PER_SECOND)
    candles = _candles(market, feed, canonical)
    if candles is not None:
        yield (
            "the exchange's own candles",
            market.limits.spike_market_tolerance,
            _in_candles(candles, times, around),
        )
    for witness, name in market.witnesses(feed, canonical):
        try:
            answers = _in_file(market, witness, name, times, around)
        except DamagedFile as failure:
            LOGGER.warning("%s is not asked about the spikes of %s: %s", witness, feed, failure)
            yield str(witness), 0.0, None
        else:
            yield str(witness), market.tolerance(witness, feed), answers


def _candles(market: _Market, feed: Feed, symbol: str) -> pl.DataFrame | None:
    found = (one.minutes(feed.exchange, symbol, market.day) for one in market.directories)
    return next((candles for candles in found if candles is not None), None)


def _in_candles(candles: pl.DataFrame, times: Sequence[int], around: int) -> list[Answer]:
    """Answers of candles: the prices of the minutes that touch the surroundings of each time."""
    import polars as pl

    opened = pl.col("open_time").dt.epoch("us")
    traded = candles.filter(pl.col("volume") > 0)
    answers: list[Answer] = []
    for time in times:
        near = traded.filter((opened + MICROSECONDS_PER_MINUTE > time - around) & (opened <= time + around))
        answers.append((float(near["low"].min()), float(near["high"].max())) if near.height else None)  # type: ignore[arg-type]
    return answers


def _in_file(market: _Market, witness: Feed, symbol: str, times: Sequence[int], around: int) -> list[Answer]:
    """Answers of a witness's file: the prices of the symbol's rows around each time."""
    import numpy as np

    columns = (witness.type.low_price, witness.type.high_price)
    lows, highs = [math.inf] * len(times), [-math.inf] * len(times)
    path = paths.ticks_data(witness, market.day, market.newest[witness].content)
    # With pre_buffer Arrow combines the columns of a group into few requests.
    with market.store.open_ranges(path) as ranges, pq.ParquetFile(ranges, pre_buffer=True) as file:
        for group in range(file.num_row_groups):
            first, last = _span(file, group)
            near = [n for n, time in enumerate(times) if first <= time + around and last >= time - around]
            if not near:
                continue
            stamps, low, high = _rows(file, group, symbol, columns)
            for n in near:
                inside = (stamps >= times[n] - around) & (stamps <= times[n] + around)
                lows[n] = float(np.min(low[inside], initial=lows[n]))
                highs[n] = float(np.max(high[inside], initial=highs[n]))
    return [(low, high) if low <= high else None for low, high in zip(lows, highs, strict=True)]


def _span(file: pq.ParquetFile, group: int) -> tuple[int, int]:
    """Lowest and highest ``timestamp`` of a row group, by the file's statistics."""
    meta = file.metadata.row_group(group)
    names = file.schema_arrow.names
    found = meta.column(names.index("timestamp")).statistics
    if found is None or not found.has_min_max:
        return (-(1 << 62), 1 << 62)
    return found.min_raw, found.max_raw


def _rows(
    file: pq.ParquetFile, group: int, symbol: str, columns: tuple[str, str]
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    """Times and prices of the symbol's rows that have both prices and, if the file has amounts, an amount."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    fills = ("amount",) if columns == ("price", "price") else ()
    table = file.read_row_group(group, columns=["timestamp", "symbol", *dict.fromkeys(columns), *fills])
    kept = pc.equal(table["symbol"], symbol)
    for name in (*dict.fromkeys(columns), *fills):
        kept = pc.and_(kept, pc.greater(table[name], 0.0))
    table = table.filter(kept)
    stamps = table["timestamp"].cast(pa.int64()).to_numpy()
    low, high = (np.asarray(table[name].to_numpy(), np.float64) for name in columns)
    return stamps, low, high
