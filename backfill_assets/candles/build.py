"""Builds a day of candles and its coverage, and measures both: once, in the asset ``candles``.

The files lie in the lake, named by content, in folders that Parquet readers know as partitions
(``candles/date=2024-01-01/``). The day's document (``quality.measures``) names the files that count and holds
the measurements. It carries a hash of its inputs: if nothing has changed, no file is opened. Another run may
settle a neighboring day meanwhile; that run then rebuilds this day.

Lost data of a neighboring day stops no day. Candles made from that data stay until the neighbor's own run
restores it; a day whose own files have changed is built without it.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from backfill_assets.candles.comparison import (
    across_symbols,
    across_venues,
    odd_volumes,
)
from backfill_assets.candles.consistency import mismatches_between_timeframes
from backfill_assets.candles.coverage import coverage_rows
from backfill_assets.candles.findings import look_at_day
from backfill_assets.candles.merge import day_of_candles
from backfill_assets.candles.minutes import minutes_of_day
from backfill_assets.candles.trade_files import (
    AcceptedFile,
    Partials,
    accepted_files,
    has_partials,
    make_all_partials,
    mismatches,
    read_partials,
)
from backfill_assets.contracts import currencies_of
from backfill_assets.days import shift
from backfill_assets.failures import DamagedFile, PermanentFailure
from backfill_assets.feeds import Feed
from backfill_assets.lake import documents, paths
from backfill_assets.lake.store import Store
from backfill_assets.lake.tables import DataFile, market_layout, store_table
from backfill_assets.logs import bound
from backfill_assets.quality.findings import plain_rows
from backfill_assets.quality.measures import DayMeasures, LastTrade, TradesFile, load_measures
from backfill_assets.quality.settled import SettledDay, SettledFeed, is_lost, load_settled, versions_hash
from backfill_assets.rule_set import ComparisonRules
from backfill_assets.settings import BASE_TIMEFRAME, Settings
from backfill_assets.tardis.metadata import dataset_symbol

if TYPE_CHECKING:
    import polars as pl

LOGGER: Final = logging.getLogger(__name__)
#: Incremented when the contents or the method of building or measuring change.
MEASURES_VERSION: Final = 6
#: Days whose candles or coverage depend on the files of a day: its neighbors, and the one after them, since
#: the last price before a day may come from a file of two days before.
REACH: Final = (-1, 1, 2)

Market = tuple[str, str]


def build_candles(store: Store, day: str, settings: Settings) -> DayMeasures:
    """Build the day's candles and coverage, and rebuild those of nearby days that depend on its files.

    Raises
    ------
    PermanentFailure
        The day was never settled.
    """
    maker = _Maker(store, settings)
    others = [shift(day, days) for days in REACH]
    # Read before the day is made: making it may replace a lost document with one that has no candles yet.
    lost = {other for other in others if maker.has_lost_candles(other)}
    made = maker.make(day)
    for other in others:
        # Documents are read again for every day: other runs may have changed them.
        maker = _Maker(store, settings)
        if maker.settled(other) is None:
            continue
        found = maker.measures(other)
        if other in lost or (found is not None and found.candles is not None):
            try:
                with bound(day=other):
                    maker.make(other)
            except PermanentFailure as failure:
                LOGGER.warning("candles of %s are not made again beside %s: %s", other, day, failure)
    return made


@dataclass(slots=True)
class _Maker:
    """Makes one day; each document is read once."""

    store: Store
    settings: Settings
    #: Those of the day that is made, which merging and comparing need.
    partials: Partials = field(init=False)
    _settled: dict[str, SettledDay | None] = field(default_factory=dict)
    _measures: dict[str, DayMeasures | None] = field(default_factory=dict)
    #: Damaged tick files of other days; days are built without their rows.
    _damaged: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.partials = Partials(self.store)

    def settled(self, day: str) -> SettledDay | None:
        if day not in self._settled:
            self._settled[day] = load_settled(self.store, day)
        return self._settled[day]

    def measures(self, day: str) -> DayMeasures | None:
        if day not in self._measures:
            self._measures[day] = load_measures(self.store, day)
        return self._measures[day]

    def has_lost_candles(self, day: str) -> bool:
        """Whether candles of the day were made but their document is missing or unreadable."""
        if self.settled(day) is None or self.measures(day) is not None:
            return False
        return any(self.store.list(paths.made_prefix("candles", day)))

    def make(self, day: str) -> DayMeasures:
        while True:
            try:
                return self._make(day)
            except DamagedFile as found:
                # Partial candles can be rebuilt from their ticks; ticks can only be fetched again.
                if paths.is_partials(found.path) and self.store.exists(found.path):
                    self.store.set_aside(found.path)
                elif found.path in self._damaged or f"/{day}/" in found.path:
                    raise
                else:
                    LOGGER.warning("candles of %s: %s", day, found)
                    self._damaged.add(found.path)

    def _make(self, day: str) -> DayMeasures:
        settled = self.settled(day)
        if settled is None:
            msg = f"nothing is settled of {day}: materialize its ticks first"
            raise PermanentFailure(msg)
        beside = (shift(day, -1), shift(day, 1))
        around = [d for d in (beside[0], day, beside[1]) if self.settled(d) is not None]
        for file_day in around:
            self._ensure_files(file_day)
        if self.has_lost_candles(shift(day, -2)):  # this day may have the last price before the day
            self._ensure_files(shift(day, -2))
        replaced: list[DataFile | None] = []

        def change(current: DayMeasures | None) -> DayMeasures:
            files = {d: (current if d == day else self.measures(d)) for d in around}
            work = _Work(self, settled, files, self._closes(day, current))
            if current is not None and self._is_whole(current):
                is_own = current.versions.get(day) == trades_versions(settled)
                is_own = is_own and current.method in ("", work.method)
                if current.inputs == work.inputs or (is_own and any(map(self._lacks, beside))):
                    return current
            made = work.made()
            replaced[:] = [current.candles, current.coverage] if current is not None else []
            return made

        made = documents.update(self.store, paths.measures(day), DayMeasures, change)
        self._measures[day] = made
        self._tidy(made)
        return made

    def _lacks(self, day: str) -> bool:
        """Whether trades of the day's accepted files are unavailable."""
        if self.settled(day) is None:
            return is_lost(self.store, day)
        return any(f"/{day}/" in path for path in self._damaged)

    def accepted(self, day: str) -> list[AcceptedFile]:
        """Return the day's accepted files of trades, with the overlaps for which both files exist."""
        settled = self.settled(day)
        if settled is None:
            return []
        seam = self.settings.thresholds.seam_window_seconds
        files = accepted_files(settled, self.settled(shift(day, -1)), seam)
        if not self._damaged:
            return files
        return [
            replace(f, overlaps=tuple(o for o in f.overlaps if self.is_there(o.feed, o.day, o.content)))
            for f in files
        ]

    def is_there(self, feed: Feed, day: str, content: str) -> bool:
        """Whether the file of ticks has not been found damaged."""
        return paths.ticks_data(feed, day, content) not in self._damaged

    def _ensure_files(self, day: str) -> None:
        """Make the day's document hold the partials of exactly the accepted files of trades."""
        files = self.accepted(day)
        present = self.measures(day)
        known = present.files if present else {}
        there = [f for f in files if self.is_there(f.feed, day, f.content)]
        missing = [f for f in there if not has_partials(self.store, f, known.get(str(f.feed)))]
        if not missing and {str(f.feed) for f in there} <= known.keys() <= {str(f.feed) for f in files}:
            return
        made = make_all_partials(self.partials, missing)
        fresh = {str(file.feed): found for file, found in zip(missing, made, strict=True)}

        def change(current: DayMeasures | None) -> DayMeasures:
            document = current or DayMeasures(day=day)
            held = {**document.files, **fresh}
            kept = {str(f.feed): held[str(f.feed)] for f in files if str(f.feed) in held}
            return document.model_copy(update={"files": kept})

        self._measures[day] = documents.update(self.store, paths.measures(day), DayMeasures, change)

    def renamed(self, other: str, day: str) -> dict[Market, str]:
        """Markets that this day names differently from another day, with this day's names for them.

        From day to day the vendor may change the currencies of an instrument, or let two instruments share a
        pair.
        """
        ours, theirs = (self._names(self.settled(d)) for d in (day, other))
        names: dict[Market, set[str]] = {}
        for (exchange, symbol), name in theirs.items():
            names.setdefault((exchange, name), set()).add(ours.get((exchange, symbol), name))
        only = {market: found.pop() for market, found in names.items() if len(found) == 1}
        return {market: name for market, name in only.items() if name != market[1]}

    def _names(self, settled: SettledDay | None) -> dict[Market, str]:
        """Names of the day's markets by exchange and data set symbol."""
        if settled is None:
            return {}
        return {
            (feed.feed.exchange, dataset_symbol(own)): name
            for feed in settled.feeds
            if feed.feed.type.makes_candles
            for own, name in settled.counted_symbols(feed)
        }

    def _closes(self, day: str, current: DayMeasures | None) -> dict[Market, float]:
        """The last price of each market on the day before, from the accepted files of three days."""
        before, found = shift(day, -1), dict[Market, LastTrade]()
        for file_day in (shift(day, -2), before, day):
            settled = self.settled(file_day)
            measures = current if file_day == day else self.measures(file_day)
            names = self.renamed(file_day, day)
            for feed in settled.feeds if settled else ():
                file = measures.files.get(str(feed.feed)) if measures else None
                if file is None or feed.accepted is None or file.content != feed.accepted.content:
                    continue
                for symbol, last in file.last_trades.get(before, {}).items():
                    market = (feed.feed.exchange, names.get((feed.feed.exchange, symbol), symbol))
                    known = found.get(market)
                    if known is None or last.is_after(known):
                        found[market] = last
        return {market: last.price for market, last in found.items()}

    def _is_whole(self, made: DayMeasures) -> bool:
        files = (("candles", made.candles), ("coverage", made.coverage))
        return all(
            file is not None and self.store.size(paths.made_data(table, made.day, file.content)) == file.bytes
            for table, file in files
        )

    def _tidy(self, made: DayMeasures) -> None:
        """Delete files of the day that its document does not name: readers take every file of the folder."""
        for table, file in (("candles", made.candles), ("coverage", made.coverage)):
            for path in list(self.store.list(paths.made_prefix(table, made.day))):
                if file is not None and path == paths.made_data(table, made.day, file.content):
                    continue
                named = load_measures(self.store, made.day)
                now = getattr(named, table) if named is not None else None
                if now is None or path != paths.made_data(table, made.day, now.content):
                    self.store.delete(path)


@dataclass(slots=True)
class _Work:
    """One day with the documents that its candles are made from."""

    maker: _Maker
    settled: SettledDay
    #: The days before, of and after the day, if they were settled.
    measures: Mapping[str, DayMeasures | None]
    closes: dict[Market, float]
    method: str = ""
    inputs: str = ""

    def __post_init__(self) -> None:
        settings = self.maker.settings
        rules = settings.comparison.model_dump(mode="json", include=set(ComparisonRules.model_fields))
        method = [MEASURES_VERSION, settings.candles.timeframes, rules]
        self.method, self.inputs = _hash_of(method), _hash_of([*method, *self._rests_on()])

    @property
    def day(self) -> str:
        return self.settled.day

    def files(self, day: str) -> list[tuple[SettledFeed, TradesFile]]:
        """The day's counted feeds of trades with their files."""
        settled, measures = self.maker.settled(day), self.measures.get(day)
        return [
            (feed, file)
            for feed in (settled.feeds if settled else ())
            if measures is not None
            and feed.accepted is not None
            and (file := measures.files.get(str(feed.feed))) is not None
            and file.content == feed.accepted.content
            and self.maker.is_there(feed.feed, day, file.content)
        ]

    def made(self) -> DayMeasures:
        """Rebuild everything, but skip files that an earlier comparison with their ticks found equal."""
        import polars as pl

        store, settings, day = self.maker.store, self.maker.settings, self.day
        candles = day_of_candles(day, self._partials(), settings.candles.timeframes, self._currencies())
        frame = pl.DataFrame(candles)
        between = mismatches_between_timeframes(frame, settings.candles.timeframes)
        minutes = minutes_of_day(self.settled, self._neighbours(), frame)
        coverage = coverage_rows(
            day,
            minutes,
            frame,
            self.closes,
            settings.candles.timeframes,
            self.settled.sealed_feeds,
        )
        limits = settings.comparison
        made = DayMeasures(
            day=day,
            inputs=self.inputs,
            method=self.method,
            versions=self._versions(),
            files=self._compared(frame, between),
            candles=_stored(store, "candles", day, candles),
            coverage=_stored(store, "coverage", day, coverage),
            minutes=minutes,
            between_timeframes=plain_rows(between),
            venues=plain_rows(across_venues(frame, limits.venue_vwap)),
            symbols=plain_rows(across_symbols(frame, limits.venue_vwap, self._index())),
            volumes=plain_rows(odd_volumes(frame, limits.volume_multiple)),
        )
        findings = look_at_day(candles, coverage, self.settled, made, settings)
        return made.model_copy(update={"findings": findings})

    def _partials(self) -> list[pa.Table]:
        maker, found = self.maker, []
        for day in (shift(self.day, -1), self.day, shift(self.day, 1)):
            files = [(feed.feed, file.partials) for feed, file in self.files(day)]
            is_own = day == self.day
            table = maker.partials.of_day(day, files) if is_own else read_partials(maker.store, day, files)
            found.append(_renamed(table, maker.renamed(day, self.day)))
        return found

    def _currencies(self) -> dict[Market, tuple[str, str]]:
        """Currencies of volume and quote volume by market, from the contracts of the files."""
        return {
            (feed.feed.exchange, symbol): currencies_of(symbol, feed.contracts.get(symbol, ()))
            for settled in (*self._neighbours(), self.settled)
            for feed, _ in self.files(settled.day)
            for _, symbol in settled.counted_symbols(feed)
        }

    def _neighbours(self) -> list[SettledDay]:
        found = (self.maker.settled(shift(self.day, days)) for days in (-1, 1))
        return [settled for settled in found if settled is not None]

    def _tickers(self) -> list[tuple[Feed, str]]:
        """The day's counted feeds with index prices, each with the content of its accepted version."""
        return [
            (f.feed, f.accepted.content)
            for f in self.settled.feeds
            if f.feed.data_type == "derivative_ticker" and f.accepted is not None
        ]

    def _index(self) -> pl.DataFrame | None:
        """Mean index price of each market by minute; None where no file has one."""
        import polars as pl

        market = ["exchange", "symbol"]
        found = []
        for feed, content in self._tickers():
            try:
                with self.maker.store.local_copy(paths.ticks_data(feed, self.day, content)) as path:
                    rows = pl.scan_parquet(path, glob=False, hive_partitioning=False)
                    rows = rows.filter(pl.col("index_price") > 0)
                    minutes = rows.group_by(*market, pl.col("timestamp").dt.truncate("1m").alias("open_time"))
                    found.append(minutes.agg(pl.col("index_price").mean()).collect(engine="streaming"))
            except DamagedFile as failure:
                LOGGER.warning(
                    "candles of %s are not compared with the index of %s: %s", self.day, feed, failure
                )
        return pl.concat(found).unique([*market, "open_time"], keep="first") if found else None

    def _compared(self, frame: pl.DataFrame, between: Sequence[object]) -> dict[str, TradesFile]:
        """Compare each of the day's files with its ticks, and its candles with each other."""
        import polars as pl

        settings = self.maker.settings
        by_feed = {str(file.feed): file for file in self.maker.accepted(self.day)}
        larger = frame.lazy().filter(pl.col("timeframe") != BASE_TIMEFRAME)
        counted = larger.group_by("exchange", "symbol").len().collect()
        rolled_up = {(exchange, symbol): rows for exchange, symbol, rows in counted.iter_rows()}
        files = self.files(self.day)
        due = [(str(f.feed), file) for f, file in files if not file.is_compared or file.mismatches]
        rows = mismatches(self.maker.partials, [(by_feed[name], file) for name, file in due])
        fresh = {name: plain_rows(found) for (name, _), found in zip(due, rows, strict=True)}
        found = {}
        for feed, file in files:
            name = str(feed.feed)
            symbols = {name for _, name in feed.symbols}
            # Split by feed only if there are mismatches.
            wrong: Sequence[object] = ()
            if between:
                of_feed = frame.filter(
                    (pl.col("exchange") == feed.feed.exchange) & pl.col("symbol").is_in(symbols)
                )
                wrong = mismatches_between_timeframes(of_feed, settings.candles.timeframes)
            found[name] = file.model_copy(
                update={
                    "compared": file.partials.content,
                    "buckets": file.partials.rows,
                    "mismatches": fresh.get(name, ()),
                    "rolled_up": sum(rolled_up.get((feed.feed.exchange, s), 0) for s in symbols),
                    "rolled_up_misses": len(wrong),
                }
            )
        return found

    def _versions(self) -> dict[str, str]:
        found = {}
        for day in self.measures:
            settled = self.maker.settled(day)
            found[day] = trades_versions(settled) if settled is not None else ""
        return found

    def _rests_on(self) -> list[Any]:
        """The inputs of candles and coverage apart from the method."""
        parts: list[Any] = [
            sorted(self.settled.sealed_feeds),
            sorted((*market, price) for market, price in self.closes.items()),
            [
                (str(f.feed), f.symbols, f.verdict.context.outages, _evidence(f))
                for f in self.settled.feeds
                if f.feed.type.makes_candles
            ],
        ]
        if tickers := self._tickers():
            parts.append([(str(feed), content) for feed, content in tickers])
        for neighbour in self._neighbours():
            parts.append(
                [
                    (str(f.feed), {s: (e.reaching, e.unconfirmed) for s, e in f.evidence.items()})
                    for f in neighbour.feeds
                    if f.feed.type.makes_candles and f.accepted is not None
                ]
            )
        for day in sorted(self.measures):
            parts.append((day, [(str(f.feed), t.key, t.partials.content) for f, t in self.files(day)]))
            if names := self.maker.renamed(day, self.day):
                parts.append(sorted((*market, name) for market, name in names.items()))
        return parts


def _stored(store: Store, name: str, day: str, table: pa.Table) -> DataFile:
    layout = market_layout(table.schema)
    return store_table(store, table, lambda content: paths.made_data(name, day, content), **layout)


def _hash_of(parts: Sequence[Any]) -> str:
    return hashlib.sha256(json.dumps(parts, default=str).encode()).hexdigest()[:16]


def _renamed(partials: pa.Table, names: Mapping[Market, str]) -> pa.Table:
    for (exchange, symbol), name in names.items():
        is_it = pc.and_(pc.equal(partials["exchange"], exchange), pc.equal(partials["symbol"], symbol))
        index = partials.column_names.index("symbol")
        changed = pc.if_else(is_it, name, partials["symbol"])
        partials = partials.set_column(index, partials.schema.field(index), changed)
    return partials


def trades_versions(settled: SettledDay) -> str:
    """Hash the accepted files of trades of a day."""
    return versions_hash(f for f in settled.feeds if f.feed.type.makes_candles)


def _evidence(feed: SettledFeed) -> Any:
    return {symbol: evidence.model_dump(mode="json") for symbol, evidence in feed.evidence.items()}
