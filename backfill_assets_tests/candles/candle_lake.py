"""Candles of a real lake: files of trades stored as a run stores them, and the candles made of them."""

from __future__ import annotations

import gzip
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from backfill_assets.candles.build import build_candles
from backfill_assets.candles.query import read_made
from backfill_assets.candles.trade_files import AcceptedFile, accepted_files
from backfill_assets.days import shift
from backfill_assets.feeds import ExpectedFeed, Feed
from backfill_assets.lake import documents, paths
from backfill_assets.lake.manifests import DayRecord, Source, Version, expected_symbols, update_manifest
from backfill_assets.lake.store import Store
from backfill_assets.quality.measures import TradesFile, load_measures
from backfill_assets.quality.settle import settle
from backfill_assets.quality.settled import load_settled
from backfill_assets.settings import (
    DuckDBWarehouse,
    LakeSettings,
    Settings,
    ThresholdSettings,
    UniverseEntry,
)
from backfill_assets.tardis.columns import csv_header
from backfill_assets.ticks.decode import decode
from backfill_assets.ticks.fetch import candles_to_fill, store_candles
from backfill_assets.ticks.profile import ProfileParameters
from backfill_assets_tests.candles.candle_samples import Trade

FEED = Feed("binance", "trades", "BTCUSDT")
NOW = datetime(2024, 1, 10, tzinfo=UTC)
SETTINGS = Settings(
    name="test",
    universe=(UniverseEntry(exchanges=("binance",), symbols=("BTC-USDT",)),),
    lake=LakeSettings(uri="unused"),
    warehouse=DuckDBWarehouse(kind="duckdb", folder="unused"),
    thresholds=ThresholdSettings(silence_factor=1e9),
)


def bring(
    store: Store,
    day: str,
    trades: Sequence[tuple[int, Trade]],
    feed: Feed = FEED,
    *,
    candles: bool = False,
    market: str | None = None,
) -> None:
    """Decode, store and settle a file of (arrival, trade), as a run does with a file of the vendor.

    With ``candles`` they are made while the file is decoded, as a run does, else later from the file.
    """
    parameters = ProfileParameters()
    made = candles_to_fill(feed, day, parameters, SETTINGS.thresholds.id_laws) if candles else None
    symbol = feed.dataset_symbol
    lines = [csv_header("trades")] + [
        f"{feed.exchange},{symbol},{t.us},{arrived},{t.id or ''},{t.side},{t.price!r},{t.amount!r}"
        for arrived, t in trades
    ]
    canonical = {symbol: market or f"{symbol.replace('-', '')[:-4]}-USDT"}
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, f"{symbol}.csv.gz"), Path(folder, "ticks.parquet")
        source.write_bytes(gzip.compress(("\n".join(lines) + "\n").encode(), 1, mtime=0))
        decoded = decode(
            source, target, feed=feed, day=day, symbols=canonical, parameters=parameters, candles=made
        )
        store.put_file(target, paths.ticks_data(feed, day, decoded.content))
    version = Version(
        content=decoded.content,
        rows=decoded.rows,
        bytes=decoded.bytes,
        source=Source(url="http://127.0.0.1/x", raw_bytes=1, raw_sha256=decoded.raw_sha256),
        profile=decoded.profile.model_dump(mode="json"),
        schema_version=1,
        profile_parameters="p",
        fetched_at=NOW,
        candles=store_candles(store, feed, day, made, decoded.profile, parameters),
    )
    settled = load_settled(store, day)
    found = settled.feed(feed) if settled else None
    accepted = found.accepted.content if found and found.accepted else None
    update_manifest(store, feed, day, lambda manifest: manifest.with_version(version, accepted))
    expected = expected_symbols([ExpectedFeed(feed, tuple(canonical.items()))])

    def record(found: DayRecord | None) -> DayRecord:
        others = [e for e in found.expected if e.feed != str(feed)] if found else []
        feeds = tuple(sorted([*others, *expected], key=lambda e: e.feed))
        return DayRecord(day=day, expected=feeds, recorded_at=NOW)

    documents.update(store, paths.day_record(day), DayRecord, record)
    settle(store, day, SETTINGS.thresholds)


def expect_nothing_yet(store: Store, day: str) -> None:
    """Record and settle the day while its file is still to come."""
    expected = expected_symbols([ExpectedFeed(FEED, (("BTCUSDT", "BTC-USDT"),))])
    record = DayRecord(day=day, expected=expected, recorded_at=NOW)
    documents.update(store, paths.day_record(day), DayRecord, lambda _: record)
    settle(store, day, SETTINGS.thresholds)


def is_accepted(store: Store, day: str, feed: Feed = FEED) -> bool:
    settled = load_settled(store, day)
    found = settled.feed(feed) if settled else None
    return found is not None and found.accepted is not None


def made(store: Store, day: str, timeframes: Sequence[str] | None = None) -> pa.Table:
    """The day's candles as its run makes them, of these timeframes or of all."""
    build_candles(store, day, SETTINGS)
    whole = read_made(store, day, "candles")
    if timeframes is None:
        return whole
    assert set(timeframes) <= set(SETTINGS.candles.timeframes)
    return whole.filter(pc.field("timeframe").isin(list(timeframes)))


def files(store: Store, day: str, seam_window_seconds: int = 300) -> list[AcceptedFile]:
    settled = load_settled(store, day)
    assert settled is not None
    return accepted_files(settled, load_settled(store, shift(day, -1)), seam_window_seconds)


def partials_of(store: Store, day: str, feed: Feed = FEED) -> TradesFile:
    measures = load_measures(store, day)
    assert measures is not None
    return measures.files[str(feed)]
