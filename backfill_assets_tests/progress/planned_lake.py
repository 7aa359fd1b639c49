"""A lake whose days are recorded, fetched and published with a few words, for plans and their users."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from backfill_assets.feeds import ExpectedFeed, Feed
from backfill_assets.lake import documents, paths
from backfill_assets.lake.local import LocalStore
from backfill_assets.lake.manifests import (
    Absence,
    DayRecord,
    FeedManifest,
    Source,
    Version,
    expected_symbols,
    update_manifest,
)
from backfill_assets.progress.plan import Plan, make_plan
from backfill_assets.quality.day import AcceptedVersions
from backfill_assets.report.month import DaySummary, FeedSummary, making_of
from backfill_assets.settings import Settings
from backfill_assets.ticks.fetch import SCHEMA_VERSION
from backfill_assets.ticks.profile import ProfileParameters, profile_parameters_hash
from backfill_assets.warehouse import ledger

NOW = datetime(2024, 3, 1, 12, tzinfo=UTC)
TABLES = ("instruments", "trades", "candles", "coverage", "quality")
BTC, ETH = Feed("binance", "trades", "BTCUSDT"), Feed("binance", "trades", "ETHUSDT")
SYMBOLS = {BTC: "BTC-USDT", ETH: "ETH-USDT"}
#: Raw bytes of the two feeds' files in ``Lake.run``; half of it in the lake, a row for every ten bytes.
SIZES = {BTC: 3_000_000, ETH: 1_000_000}


class Lake:
    """A lake whose days are recorded, fetched and published with a few words."""

    def __init__(self, folder: Path, **changes: Any) -> None:
        self.store = LocalStore(folder)
        self.settings = Settings.model_validate(
            {
                "name": "test",
                "universe": [{"exchanges": ["binance"], "symbols": ["BTC-USDT", "ETH-USDT"]}],
                "lake": {"uri": str(folder)},
                "warehouse": {"kind": "duckdb", "folder": str(folder / "warehouse")},
                **changes,
            }
        )

    def run(
        self,
        day: str,
        *,
        state: str = "published",
        lacking: tuple[Feed, ...] = (),
        absent: tuple[Feed, ...] = (),
        tables: tuple[str, ...] = TABLES,
        scale: float = 1,
        fetched: datetime = NOW,
    ) -> None:
        """What a run of the day leaves behind."""
        expected = [ExpectedFeed(feed, ((feed.dataset_symbol, SYMBOLS[feed]),)) for feed in SIZES]
        record = DayRecord(day=day, expected=expected_symbols(expected), recorded_at=NOW)
        documents.update(self.store, paths.day_record(day), DayRecord, lambda _: record)
        for feed, size in SIZES.items():
            manifest = {"accepted": self._version(int(size * scale), fetched)}
            if feed in absent:
                manifest = {"absent": Absence(reason="404", seen_at=NOW)}
            if feed not in lacking:
                self._put(feed, day, manifest)
        feeds = tuple(
            FeedSummary(
                feed=str(feed),
                outcome="missing" if feed in (*lacking, *absent) else "publish",
                accepted=feed not in (*lacking, *absent),
                completeness=1.0,
                completeness_state="proven",
                quality=1.0,
            )
            for feed in SIZES
        )
        kept = AcceptedVersions(day=day, versions="v")
        documents.update(self.store, paths.accepted_versions(day), AcceptedVersions, lambda _: kept)
        summary = DaySummary(
            day=day,
            versions="v",
            making=making_of(self.settings),
            state=state,
            sealed=True,
            completeness=1.0,
            quality=1.0,
            feeds=feeds,
        )
        documents.update(self.store, paths.day_summary(day), DaySummary, lambda _: summary)
        for table in tables:
            mine = ledger.claim(self.store, table, day, "f")
            ledger.complete(self.store, table, day, mine, fingerprint="f", job="j", totals=())

    def plan(self, start: str = "2024-01-01", end: str = "2024-01-04", **more: Any) -> Plan:
        return make_plan(self.store, self.settings, start, end, now=NOW, **more)

    def _put(self, feed: Feed, day: str, values: dict[str, Any]) -> None:
        manifest = FeedManifest(feed=str(feed), day=day, **values)
        update_manifest(self.store, feed, day, lambda _: manifest)

    def _version(self, size: int, fetched: datetime) -> Version:
        parameters = profile_parameters_hash(ProfileParameters.of(self.settings.thresholds))
        return Version(
            content="c" * 64,
            rows=size // 10,
            bytes=size // 2,
            source=Source(url="http://x", raw_bytes=size, raw_sha256="s"),
            profile={},
            schema_version=SCHEMA_VERSION,
            profile_parameters=parameters,
            fetched_at=fetched,
        )
