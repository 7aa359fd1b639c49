"""Lakes with real files: the real code decodes the vendor's bytes, and manifests name the results."""

from __future__ import annotations

import gzip
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from backfill_assets.days import utc_now
from backfill_assets.feeds import ExpectedFeed, Feed
from backfill_assets.lake import documents, paths
from backfill_assets.lake.local import LocalStore
from backfill_assets.lake.manifests import (
    DayRecord,
    Source,
    Version,
    expected_symbols,
    load_day_record,
    load_manifests,
)
from backfill_assets.quality.beside_trades import compare_with_trades
from backfill_assets.quality.minute_numbers import store_numbers
from backfill_assets.quality.settle import settle
from backfill_assets.quality.settled import SettledFeed
from backfill_assets.quality.witnesses import ask_witnesses
from backfill_assets.settings import (
    ComparisonSettings,
    DuckDBWarehouse,
    LakeSettings,
    Settings,
    UniverseEntry,
)
from backfill_assets.tardis.columns import csv_header
from backfill_assets.ticks.decode import decode
from backfill_assets.ticks.fetch import candles_to_fill, store_candles
from backfill_assets.ticks.prices import Grids
from backfill_assets.ticks.profile import ProfileParameters
from backfill_assets_tests.quality.damaged_days import MARKET, Row, Sample
from backfill_assets_tests.quality.settled_lake import NOW, bring


@dataclass
class FiledDays:
    """A lake in a folder; ``reference`` is the directory of the exchanges' own candles."""

    folder: Path
    expected: dict[str, dict[Feed, tuple[tuple[str, str], ...]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.store = LocalStore(self.folder / "lake")
        self.reference = self.folder / "reference"
        self.settings = Settings(
            name="test",
            universe=(UniverseEntry(exchanges=("binance",), symbols=("BTC-USDT",)),),
            lake=LakeSettings(uri=self.store.uri),
            warehouse=DuckDBWarehouse(kind="duckdb", folder=str(self.folder / "warehouse")),
            comparison=ComparisonSettings(reference=str(self.reference)),
        )

    def bring(
        self,
        feed: Feed,
        day: str,
        raw: bytes,
        symbols: Mapping[str, str],
        grids: Grids | None = None,
        *,
        row_group_rows: int | None = None,
    ) -> str:
        """Expect the feed on the day and store these bytes as its newest version; returns the content."""
        feeds = self.expected.setdefault(day, {})
        feeds[feed] = tuple(symbols.items())
        record = DayRecord(
            day=day,
            expected=expected_symbols(ExpectedFeed(f, names) for f, names in feeds.items()),
            recorded_at=NOW,
        )
        documents.update(self.store, paths.day_record(day), DayRecord, lambda _: record)
        with tempfile.TemporaryDirectory() as folder:
            source, target = Path(folder) / "day.csv.gz", Path(folder) / "day.parquet"
            source.write_bytes(raw)
            parameters = ProfileParameters()
            candles = candles_to_fill(feed, day, parameters, self.settings.thresholds.id_laws)
            decoded = decode(
                source, target, feed=feed, day=day, symbols=symbols, grids=grids, candles=candles,
                parameters=parameters, row_group_rows=row_group_rows,
            )  # fmt: skip
            version = Version(
                content=decoded.content,
                rows=decoded.rows,
                bytes=decoded.bytes,
                source=Source(
                    url="http://127.0.0.1", raw_bytes=decoded.raw_bytes, raw_sha256=decoded.raw_sha256
                ),
                profile=decoded.profile.model_dump(mode="json"),
                schema_version=1,
                profile_parameters="p",
                fetched_at=utc_now(),
                candles=store_candles(self.store, feed, day, candles, decoded.profile, parameters),
                minute_numbers=store_numbers(self.store, feed, day, decoded.profile.numbers),
            )
            self.store.put_file(target, paths.ticks_data(feed, day, version.content))
        return bring(self.store, day, version, feed)

    def bring_rows(self, sample: Sample, day: str, rows: Sequence[Row], **options: int) -> str:
        """Store these rows as the sample's file of the day."""
        names = {sample.symbol: sample.canonical}
        return self.bring(sample.feed, day, raw_file(rows), names, sample.grids, **options)

    def bring_market(self, feed: Feed, day: str, sample: Sample) -> str:
        """Store the generated market's own file of the feed, for the sample's symbol."""
        return self.bring(feed, day, MARKET.dataset(feed, day), {sample.symbol: sample.canonical})

    def ask_witnesses(self, day: str, settings: Settings | None = None) -> int:
        """Ask about the spikes of the day as its run does; returns how many versions were asked about."""
        record = load_day_record(self.store, day)
        assert record is not None
        manifests = load_manifests(self.store, record)
        return ask_witnesses(self.store, record, manifests, settings or self.settings)

    def compare_with_trades(self, day: str) -> int:
        """Compare tickers and liquidations as the day's run does; returns how many versions were compared."""
        record = load_day_record(self.store, day)
        assert record is not None
        return compare_with_trades(self.store, record, load_manifests(self.store, record), self.settings)

    def settled(self, feed: Feed, day: str) -> SettledFeed:
        """Settle the day; returns the feed."""
        found = settle(self.store, day, self.settings.thresholds).feed(feed)
        assert found is not None
        return found


def raw_file(rows: Sequence[Row]) -> bytes:
    """The vendor's file of these trades."""
    text = "".join(f"{row.line()}\n" for row in rows)
    return gzip.compress(f"{csv_header('trades')}\n{text}".encode(), 1, mtime=0)
