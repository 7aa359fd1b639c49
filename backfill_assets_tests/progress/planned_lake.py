"""A lake whose days are recorded, fetched and published by short calls, for plans and their users."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from backfill_assets.days import end_us, start_us
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
from backfill_assets.progress.model import BackfillRequest
from backfill_assets.progress.plan import Plan, make_plan
from backfill_assets.quality.scores import DayLimits
from backfill_assets.quality.settled import HeldVersion, SettledDay, SettledFeed, scores_of
from backfill_assets.quality.verdict import Context, Verdict, missing_verdict, rules_hash
from backfill_assets.report.month import DaySummary, FeedSummary, build_version, documents_hash, documents_of
from backfill_assets.settings import Settings
from backfill_assets.ticks.fetch import SCHEMA_VERSION
from backfill_assets.ticks.profile import ProfileParameters, profile_parameters_hash
from backfill_assets.warehouse import ledger
from backfill_assets.warehouse.duckdb import DATABASE

NOW = datetime(2024, 3, 1, 12, tzinfo=UTC)
TABLES = ("instruments", "trades", "candles", "coverage", "quality")
BTC, ETH = Feed("binance", "trades", "BTCUSDT"), Feed("binance", "trades", "ETHUSDT")
SYMBOLS = {BTC: "BTC-USDT", ETH: "ETH-USDT"}
#: Raw bytes of the two feeds' files in ``Lake.run``; half of it in the lake, a row for every ten bytes.
SIZES = {BTC: 3_000_000, ETH: 1_000_000}
#: How long each file waited for the rate limit.
PACED_SECONDS = 12.5


class Lake:
    """A lake whose days are recorded, fetched and published by short calls."""

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
        """Write everything that a run of the day leaves behind."""
        expected = [ExpectedFeed(feed, ((feed.dataset_symbol, SYMBOLS[feed]),)) for feed in SIZES]
        record = DayRecord(day=day, expected=expected_symbols(expected), recorded_at=NOW)
        documents.update(self.store, paths.day_record(day), DayRecord, lambda _: record)
        versions = {feed: self.version(int(size * scale), fetched) for feed, size in SIZES.items()}
        for feed, version in versions.items():
            if feed in absent:
                self._put(feed, day, {"absent": Absence(reason="404", seen_at=NOW)})
            elif feed not in lacking:
                self._put(feed, day, {"versions": (version,)})
        accepted = {f: version for f, version in versions.items() if f not in (*lacking, *absent)}
        settled = self.settle(day, accepted, state)
        feeds = tuple(
            FeedSummary(
                feed=str(feed),
                outcome="publish" if feed in accepted else "missing",
                accepted=feed in accepted,
                completeness=1.0,
                completeness_state="proven",
                quality=1.0,
            )
            for feed in SIZES
        )
        summary = DaySummary(
            day=day,
            build_version=build_version(self.settings),
            versions=settled.versions,
            state=state,
            sealed=True,
            completeness=1.0,
            quality=1.0,
            feeds=feeds,
        )
        for table in tables:
            mine = ledger.claim(self.store, table, day, "f")
            ledger.complete(self.store, table, day, mine, fingerprint="f", job="j", totals=())
            partition = self.partition(table, day)
            partition.parent.mkdir(parents=True, exist_ok=True)
            partition.touch()
            # Plans only check that it exists; no reader opens it.
            (partition.parents[1] / DATABASE).write_bytes(bytes(20_000))
        seen = documents_hash([documents.digest(self.store, path) for path in documents_of(day)])
        written = summary.model_copy(update={"documents": seen})
        documents.update(self.store, paths.day_summary(day), DaySummary, lambda _: written)

    def partition(self, table: str, day: str) -> Path:
        """The embedded warehouse's file of the table for the day."""
        return Path(self.store.uri) / "warehouse" / table / f"{day}.parquet"

    def settle(self, day: str, accepted: dict[Feed, Version], state: str = "published") -> SettledDay:
        """Write the day's document, in which these versions count and the other feeds are missing."""
        thresholds = self.settings.thresholds
        rules, limits = rules_hash(thresholds), DayLimits.of(thresholds)
        context = Context(window_start_us=start_us(day), window_end_us=end_us(day))
        feeds = tuple(_feed(feed, day, accepted.get(feed), context, rules) for feed in SIZES)
        scores = scores_of(feeds, limits, (0.0,) * len(feeds)).model_copy(update={"state": state})
        settled = SettledDay(
            day=day,
            inputs="i",
            rules=rules,
            baseline=0,
            neighbours=("", ""),
            is_sealed=True,
            exchanges=("binance",),
            not_listed=(),
            awaiting_export=(),
            instruments=None,
            limits=limits,
            notional=(0.0,) * len(feeds),
            scores=scores,
            feeds=feeds,
        )
        documents.update(self.store, paths.settled_day(day), SettledDay, lambda _: settled)
        return settled

    def plan(self, start: str = "2024-01-01", end: str = "2024-01-04", **more: Any) -> Plan:
        fields = {name: more.pop(name) for name in list(more) if name in BackfillRequest.model_fields}
        request = BackfillRequest.model_validate({"start": start, "end": end, **fields})
        return make_plan(self.store, self.settings, request, now=NOW, **more)

    def _put(self, feed: Feed, day: str, values: dict[str, Any]) -> None:
        manifest = FeedManifest(feed=str(feed), day=day, **values)
        update_manifest(self.store, feed, day, lambda _: manifest)

    def version(self, size: int, fetched: datetime = NOW, content: str = "c") -> Version:
        """A version of so many raw bytes, decoded under the current settings."""
        parameters = profile_parameters_hash(ProfileParameters.of(self.settings.thresholds))
        return Version(
            content=content * 64,
            rows=size // 10,
            bytes=size // 2,
            source=Source(url="http://x", raw_bytes=size, raw_sha256="s", paced_seconds=PACED_SECONDS),
            profile={},
            schema_version=SCHEMA_VERSION,
            profile_parameters=parameters,
            fetched_at=fetched,
        )


def _feed(feed: Feed, day: str, version: Version | None, context: Context, rules: str) -> SettledFeed:
    symbols = ((feed.dataset_symbol, SYMBOLS[feed]),)
    if version is None:
        missing = missing_verdict(feed, day, "404", context, rules)
        return SettledFeed(feed=feed, symbols=symbols, candidate_verdict=missing)
    verdict = Verdict(
        feed=str(feed),
        day=day,
        content=version.content,
        rules=rules,
        outcome="publish",
        completeness=1.0,
        completeness_state="proven",
        evidence_class="A",
        quality=1.0,
        rows=version.rows,
        valid_rows=version.rows,
        missing_ids=0,
        longest_gap=0,
        reasons=(),
        warnings=(),
        context=context,
    )
    return SettledFeed(feed=feed, symbols=symbols, accepted=HeldVersion.of(version), accepted_verdict=verdict)
