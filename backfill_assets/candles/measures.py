"""What is measured about a day's candles and kept in the lake: that they agree, and what each bucket shows.

Both rest on the accepted files of three days. A record names a hash of them, so whoever needs the measures
makes sure of them first, and nothing is computed twice for the same files.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import pyarrow.compute as pc

from backfill_assets.candles.consistency import mismatches_between_timeframes
from backfill_assets.candles.day import (
    FileOfTrades,
    accepted_files,
    ensure_partials,
    merged_candles,
    mismatches,
    read_partials,
)
from backfill_assets.candles.partials import BASE_TIMEFRAME
from backfill_assets.days import MICROSECONDS_PER_MINUTE, end_us, shift, start_us
from backfill_assets.feeds import Feed
from backfill_assets.lake.gather import gather
from backfill_assets.lake.listing import load_instruments
from backfill_assets.lake.manifests import Partial, load_day_record, load_manifest
from backfill_assets.lake.snapshot import snapshot
from backfill_assets.lake.store import Store
from backfill_assets.quality.completeness import evidence_class
from backfill_assets.quality.consistency import ConsistencyRecord, load_consistency, save_consistency
from backfill_assets.quality.coverage import (
    CoverageRecord,
    Evidence,
    Range,
    encode,
    evidence_of,
    load_coverage,
    minute_states,
    save_coverage,
)
from backfill_assets.quality.day import JudgedFeed, judge
from backfill_assets.quality.profiles import Spike, profile_of
from backfill_assets.quality.spikes import spike_evidence, unconfirmed_of
from backfill_assets.settings import Settings

if TYPE_CHECKING:
    import polars as pl
    import pyarrow as pa

#: Raised when what is measured, or how, changes.
MEASURES_VERSION: Final = 2

Rows = list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Agreement:
    """The buckets that differ: K1 with their feed, K2 with their timeframe; files and rows compared."""

    against_ticks: Rows
    between_timeframes: Rows
    files: int


def ensure_measures(store: Store, day: str, settings: Settings) -> None:
    """Measure the day if accepted files of it or its neighbours are others than when it was last measured."""
    with snapshot(store) as lake:
        inputs = measured_inputs(lake, day, settings)
        measured = gather(
            lambda feed: load_coverage(lake, feed, day), _trades(lake, day), lake.parallel_reads
        )
        if any(record is None or record.inputs != inputs for record in measured):
            _measure(lake, day, settings, anew=False)


def measure_day(store: Store, day: str, settings: Settings) -> Agreement:
    """Compare the day's candles with their ticks and with each other, and keep what came of it."""
    with snapshot(store) as lake:
        return _measure(lake, day, settings, anew=True)


def _measure(store: Store, day: str, settings: Settings, *, anew: bool) -> Agreement:
    """Without ``anew``, files that were found equal to their ticks before are not read again."""
    import polars as pl

    # First: if the lake changes meanwhile, the records are found out of date and made again.
    inputs = measured_inputs(store, day, settings)
    files = accepted_files(store, day, settings)
    merged = merged_candles(store, day, settings)
    frame = pl.DataFrame(merged)
    between = mismatches_between_timeframes(frame, settings.candles.timeframes)
    against: Rows = []
    for file in files:
        kept = ensure_partials(store, file)
        found = mismatches(store, file) if anew or not _agreed(store, file, kept) else []
        against += [{"feed": str(file.feed), **row} for row in found]
        ours = _candles_of(store, file, frame)
        # Told apart by feed only where there is something to tell.
        wrong = mismatches_between_timeframes(ours, settings.candles.timeframes) if between else []
        record = ConsistencyRecord(
            feed=str(file.feed),
            day=day,
            content=file.version.content,
            partials=kept.content,
            inputs=inputs,
            buckets_against_ticks=kept.rows,
            misses_against_ticks=len(found),
            buckets_between_timeframes=ours.filter(pl.col("timeframe") != BASE_TIMEFRAME).height,
            misses_between_timeframes=len(wrong),
        )
        save_consistency(store, file.feed, record)
    # Last: a feed's coverage tells that the day was measured whole.
    _save_coverage(store, day, settings, frame, inputs)
    return Agreement(against, between, len(files))


def _agreed(store: Store, file: FileOfTrades, kept: Partial) -> bool:
    """Whether just these partials were compared with just these ticks, and none differed."""
    earlier = load_consistency(store, file.feed, file.day)
    if earlier is None or earlier.misses_against_ticks:
        return False
    return (earlier.content, earlier.partials) == (file.version.content, kept.content)


def measured_inputs(store: Store, day: str, settings: Settings) -> str:
    """Hash of what the measures of a day rest on: accepted trades of three days, and the settings."""
    parts = [f"{MEASURES_VERSION}:{settings.candles.timeframes}:{settings.thresholds.seam_window_seconds}"]
    for file_day in (shift(day, -1), day, shift(day, 1)):
        feeds = _trades(store, file_day)

        def content(feed: Feed, file_day: str = file_day) -> str:
            manifest = load_manifest(store, feed, file_day)
            content = manifest.accepted.content if manifest.accepted else ""
            evidence = spike_evidence(store, feed, file_day, manifest).get(content)
            return f"{file_day}:{feed}:{content}:{evidence.inputs if evidence else ''}"

        parts += gather(content, feeds, store.parallel_reads)
    parts += [f"{exchange}:{o}" for exchange, o in _outages(store, day)]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _trades(store: Store, day: str) -> list[Feed]:
    record = load_day_record(store, day)
    feeds = [Feed.parse(e.feed) for e in record.expected] if record else []
    return [feed for feed in feeds if feed.data_type == "trades"]


def _outages(store: Store, day: str) -> list[tuple[str, Range]]:
    """(exchange, time range) of every known outage."""
    found = []
    for exchange in sorted({feed.exchange for feed in _trades(store, day)}):
        manifest = load_instruments(store, exchange, day)
        found += [(exchange, (o.start_us, o.end_us - 1)) for o in (manifest.outages if manifest else ())]
    return found


def _save_coverage(store: Store, day: str, settings: Settings, candles: pl.DataFrame, inputs: str) -> None:
    import polars as pl

    start, outages = start_us(day), _outages(store, day)
    whole: Range = (start, end_us(day) - 1)
    minute = ((pl.col("open_time").dt.epoch("us") - start) // MICROSECONDS_PER_MINUTE).alias("minute")
    base = candles.filter(pl.col("timeframe") == BASE_TIMEFRAME).select(
        "exchange", "symbol", minute, "low", "high"
    )
    traded = {
        (exchange, symbol): {row[0]: (row[1], row[2]) for row in group.select("minute", "low", "high").rows()}
        for (exchange, symbol), group in base.group_by(["exchange", "symbol"])
    }
    for judged in judge(store, day, settings.thresholds).feeds:
        feed = judged.feed
        if feed.data_type != "trades":
            continue
        out = tuple(times for exchange, times in outages if exchange == feed.exchange)
        symbols, flagged = {}, {}
        spikes = _unconfirmed(store, feed, day)
        for symbol in sorted({name for _, name in judged.symbols}):
            lost, proven = _evidence(judged, symbol, day, whole, settings)
            lost += _neighbours_losses(store, feed, symbol, day, whole, settings)
            states = minute_states(
                traded.get((feed.exchange, symbol), ()), Evidence(lost, proven, out), start
            )
            symbols[symbol] = encode(states)
            minutes = _set_by(spikes.get(symbol, ()), traded.get((feed.exchange, symbol), {}), start)
            if minutes:
                flagged[symbol] = minutes
        save_coverage(
            store,
            feed,
            CoverageRecord(feed=str(feed), day=day, inputs=inputs, symbols=symbols, flagged=flagged),
        )


def _unconfirmed(store: Store, feed: Feed, day: str) -> dict[str, list[Spike]]:
    """By canonical symbol, what nobody confirmed in any of the three files that the day's candles rest on."""
    found: dict[str, list[Spike]] = {}
    for file_day in (shift(day, -1), day, shift(day, 1)):
        for symbol, spike in unconfirmed_of(store, feed, file_day):
            if symbol is not None:
                found.setdefault(symbol, []).append(spike)
    return found


def _set_by(
    spikes: Sequence[Spike], candles: Mapping[int, tuple[float, float]], start: int
) -> tuple[int, ...]:
    """Minutes of the day whose low or high is the price of a spike in them."""
    of_minutes = {((spike.time_us - start) // MICROSECONDS_PER_MINUTE, spike.price) for spike in spikes}
    return tuple(sorted({m for m, price in of_minutes if price in candles.get(m, ())}))


def _evidence(
    judged: JudgedFeed, symbol: str, day: str, whole: Range, settings: Settings
) -> tuple[tuple[Range, ...], tuple[Range, ...]]:
    """What is lost and what is proven of one symbol of a feed."""
    if judged.accepted is None:
        return (whole,), ()
    if judged.verdict.rows == 0:
        return ((), (whole,)) if judged.verdict.completeness_state == "proven" else ((), ())
    profile = profile_of(judged.accepted)
    found = [s for s in profile.symbols if s.symbol == symbol]
    if len(found) != 1:
        return (), ()
    name, context = found[0].dataset_symbol, judged.verdict.context
    previous, following = context.previous.get(name), context.following.get(name)
    return evidence_of(
        evidence_class(judged.feed.exchange, day, found[0]),
        found[0],
        whole,
        previous_id=previous[0] if previous else None,
        following_id=following[0] if following else None,
        legitimate_hole=settings.thresholds.legitimate_hole,
    )


def _neighbours_losses(
    store: Store, feed: Feed, symbol: str, day: str, whole: Range, settings: Settings
) -> tuple[Range, ...]:
    """Holes of the neighbours' files that reach into the day: files are split by arrival."""
    lost: list[Range] = []
    for neighbour in (shift(day, -1), shift(day, 1)):
        accepted = load_manifest(store, feed, neighbour).accepted
        profiles = profile_of(accepted).symbols if accepted else ()
        for profile in profiles:
            if profile.symbol == symbol:
                kind = evidence_class(feed.exchange, neighbour, profile)
                limit = settings.thresholds.legitimate_hole
                holes, _ = evidence_of(
                    kind, profile, whole, previous_id=None, following_id=None, legitimate_hole=limit
                )
                lost += [(first, last) for first, last in holes if first <= whole[1] and last >= whole[0]]
    return tuple(lost)


def _candles_of(store: Store, file: FileOfTrades, candles: pl.DataFrame) -> pl.DataFrame:
    """The merged candles of the markets that the file has trades of."""
    import polars as pl

    partials: pa.Table = read_partials(store, file)
    symbols = pc.unique(partials["symbol"]).to_pylist()
    return candles.filter((pl.col("exchange") == file.feed.exchange) & pl.col("symbol").is_in(symbols))
