"""Selects the rows of the lake for a day of each table, and publishes the day with its dependents.

The gate is here: the accepted versions of a day that is not ``held`` are published, for every run. Only the
quality table is also written for held days. A day that is published again also publishes its published
neighbors, whose candles or verdicts it may have changed; a partition that is up to date is not touched.

A partition is identified by a fingerprint of content hashes, read from the day's documents. Files are opened
only when a load is due.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from backfill_assets.candles.build import trades_versions
from backfill_assets.candles.query import open_made
from backfill_assets.days import shift
from backfill_assets.failures import (
    DamagedFile,
    DayHeld,
    PermanentFailure,
    Superseded,
    TransientFailure,
    Unreadable,
)
from backfill_assets.feeds import Feed
from backfill_assets.files import temporary_folder
from backfill_assets.lake import paths
from backfill_assets.lake.listing import InstrumentsManifest, load_instruments
from backfill_assets.lake.manifests import ColumnTotals, load_manifest
from backfill_assets.lake.parallel import parallel_map
from backfill_assets.lake.store import GCS_SCHEME, Store
from backfill_assets.quality.measures import DataFile
from backfill_assets.quality.schemas import quality_rows, quality_values
from backfill_assets.quality.scores import Overall
from backfill_assets.quality.settled import Day, HeldVersion, load_day
from backfill_assets.settings import Settings
from backfill_assets.warehouse import ledger
from backfill_assets.warehouse.catalog import CANDLES, COVERAGE, INSTRUMENTS, OHLCV, QUALITY
from backfill_assets.warehouse.overall import day_overall, tick_tables
from backfill_assets.warehouse.parquet import write_without
from backfill_assets.warehouse.protocol import LoadFile, Warehouse
from backfill_assets.warehouse.publish import (
    Load,
    Partition,
    Publication,
    already_there,
    changes,
    publish,
)
from backfill_assets.warehouse.tables import Table
from backfill_assets.warehouse.totals import GroupTotals, compare_totals, file_totals

if TYPE_CHECKING:
    import pyarrow as pa

#: Days whose rows a day's files may change: its neighbors, and for the coverage also the day after them,
#: since the last price before a day may come from a file of two days before.
_REACH = (-1, 1)
_REACH_OF_COVERAGE = (-1, 1, 2)


@dataclass(frozen=True, slots=True)
class PublishedDay:
    """The result of publishing one partition."""

    table: str
    day: str
    publication: Publication


@dataclass(frozen=True, slots=True)
class Publisher:
    """Publishes days from one lake into one warehouse."""

    store: Store
    warehouse: Warehouse
    settings: Settings

    def tick_tables(self, day: str) -> list[Table]:
        """The tables of the data types that the day should have, and those that have its rows."""
        return tick_tables(self.store, self.settled(day))

    def publish(self, table: Table, day: str) -> list[PublishedDay]:
        """Publish the day, then its neighbors if they are out and differ from the lake.

        The quality rows of a day say whether all its other tables are published, so they follow if they are
        already out.

        Raises
        ------
        DayHeld
            The day's verdict forbids it; nothing was written.
        """
        if table is OHLCV:
            # ``publish`` first makes the table; a held day must not need the database.
            self.partition(table, day)
        outcomes = [PublishedDay(table.name, day, self._publish_one(table, day))]
        for days in _REACH_OF_COVERAGE if table is COVERAGE else _REACH:
            neighbour = shift(day, days)
            try:
                if self._is_outdated(table, neighbour):
                    outcomes.append(PublishedDay(table.name, neighbour, self._publish_one(table, neighbour)))
            except (DamagedFile, DayHeld, NotMade, Unreadable):
                # The neighbor's rows stay as they are until its own run decides.
                continue
        if table not in (QUALITY, OHLCV):
            outcomes += [done for touched in list(outcomes) for done in self._follow(touched.day)]
        return outcomes

    def overall(self, day: str) -> Overall:
        """The day's overall score and its parts, from the current lake and ledger."""
        return day_overall(self.store, self.settled(day), self.settings.overall)

    def differences(self, table: Table, day: str) -> list[str]:
        """Return the differences of the warehouse from the last publication, one line each; empty if none.

        The last publication is the lake as it is now, unless a neighbor's run has changed it since; then the
        neighbor publishes this day again. The totals of a publication were compared with the lake's when it
        was made, so no file of the lake is opened. A day that was never published differs by every row that
        it should have.
        """
        partition = self.partition(table, day)
        entry = ledger.entry(self.store, table.name, day)
        if entry is not None and entry.published is not None:
            return changes(self.warehouse, table, day, entry.published)
        with partition.load() as load:
            return compare_totals(load.totals, self.warehouse.totals(table, day), table=table)

    def settled(self, day: str) -> Day:
        """The day as it was settled, with its final scores.

        Raises
        ------
        NotMade
            The day was never settled.
        """
        found = load_day(self.store, day)
        if found is None:
            msg = f"nothing is settled of {day}: materialize its instruments and ticks first"
            raise NotMade(msg)
        return found

    def partition(self, table: Table, day: str) -> Partition:
        """The content that the day of the table must have now, according to the lake."""
        if table is OHLCV:
            return self._ohlcv(self.partition(CANDLES, day))
        found = self.settled(day)
        if table is QUALITY:
            return self._quality(found)
        if found.scores.state == "held" and not self._takes_back(table, found):
            msg = f"{day} is held, nothing is published: {'; '.join(found.scores.reasons)}"
            raise DayHeld(msg)
        if table is CANDLES or table is COVERAGE:
            # Coverage is held like the candles that it describes: its runs never describe missing candles.
            return self._made(table, found)
        if table is INSTRUMENTS:
            return self._instruments(found)
        return self._ticks(table, found)

    def _takes_back(self, table: Table, found: Day) -> bool:
        """Whether a held day is out and a part of it was retracted.

        Holding a day keeps bad rows from coming out; it must not keep withdrawn rows from being removed.
        """
        return is_withdrawn(self.store, found) and ledger.entry(self.store, table.name, found.day) is not None

    def _is_outdated(self, table: Table, day: str) -> bool:
        """Whether the day is published and its rows differ from the lake's.

        One ledger serves every database that ``ohlcv.url`` has named, so for the OHLCV table the rows of the
        database decide.
        """
        if table is OHLCV:
            if not self.warehouse.totals(table, day):
                return False
            return already_there(self.store, self.warehouse, table, day, self.partition(table, day)) is None
        entry = ledger.entry(self.store, table.name, day)
        if entry is None:
            return False
        return entry.state != "done" or entry.fingerprint != self.partition(table, day).fingerprint

    def _publish_one(self, table: Table, day: str) -> Publication:
        return publish(self.store, self.warehouse, table, day, partial(self.partition, table, day))

    def _follow(self, day: str) -> list[PublishedDay]:
        """Publish the day's quality rows again if they are out and differ from the lake."""
        entry = ledger.entry(self.store, QUALITY.name, day)
        if entry is None or entry.fingerprint == self.partition(QUALITY, day).fingerprint:
            return []
        return [PublishedDay(QUALITY.name, day, self._publish_one(QUALITY, day))]

    def _ticks(self, table: Table, found: Day) -> Partition:
        accepted = [(f.feed, v, found.settled.left_out_of(f)) for f, v in found.accepted_feeds(table.name)]

        @contextmanager
        def load() -> Iterator[Load]:
            with ExitStack() as stack:
                # A warehouse that reads buckets takes all files of a partition from there, or none.
                is_whole = not any(left_out for _, _, left_out in accepted)
                files = [
                    self._load_file(stack, path, version.rows)
                    if is_whole
                    else self._load_part(stack, path, version.rows, left_out)
                    for feed, version, left_out in accepted
                    for path in (paths.ticks_data(feed, found.day, version.content),)
                ]
                totals = parallel_map(
                    lambda one: self._tick_totals(table, found.day, *one), accepted, self.store.parallel_reads
                )
                yield Load(files, tuple(sorted((t for of_feed in totals for t in of_feed), key=_group)))

        return Partition(ticks_fingerprint(table, found), load)

    def _tick_totals(
        self, table: Table, day: str, feed: Feed, version: HeldVersion, left_out: Sequence[str]
    ) -> list[GroupTotals]:
        totals = self._file_totals(table, day, feed, version)
        return [of_symbol for of_symbol in totals if of_symbol.group[1] not in left_out]

    def _file_totals(
        self, table: Table, day: str, feed: Feed, version: HeldVersion
    ) -> tuple[GroupTotals, ...]:
        """Totals of the written rows; for a version of an earlier layout, read from its file."""
        held = None
        with suppress(Unreadable):
            held = load_manifest(self.store, feed, day).version(version.content)
        if held is not None and held.stored is not None:
            return tuple(_group_totals(table, totals) for totals in held.stored.totals)
        with self.store.local_copy(paths.ticks_data(feed, day, version.content)) as path:
            return file_totals(table, [path])

    def _instruments(self, found: Day) -> Partition:
        listings = [
            manifest
            for exchange in found.settled.exchanges
            if (manifest := load_instruments(self.store, exchange, found.day)) is not None
        ]
        entry = ledger.entry(self.store, INSTRUMENTS.name, found.day)
        published = {t.group[0] for t in entry.published.totals} if entry and entry.published else set()
        there = {manifest.exchange for manifest in listings}
        if lost := [e for e in found.settled.exchanges if e in published - there]:
            msg = f"materialize instruments of {found.day} first: those of {', '.join(lost)} are gone"
            raise NotMade(msg)
        contents = [manifest.content for manifest in listings]
        return Partition(fingerprint(INSTRUMENTS, contents), partial(self._load_listings, listings))

    @contextmanager
    def _load_listings(self, listings: Sequence[InstrumentsManifest]) -> Iterator[Load]:
        with ExitStack() as stack:
            stored = [(paths.instruments_data(m.exchange, m.day, m.content), m.rows) for m in listings]
            files = [self._load_file(stack, path, rows) for path, rows in stored]
            local = [stack.enter_context(self.store.local_copy(path)) for path, _ in stored]
            yield Load(files, file_totals(INSTRUMENTS, local))

    def _made(self, table: Table, found: Day) -> Partition:
        measures, day = found.measures, found.day
        made: DataFile | None = getattr(measures, table.name) if measures is not None else None
        if measures is None or made is None:
            msg = f"materialize candles of {day} first: none were made"
            raise NotMade(msg)
        if measures.versions.get(day) != trades_versions(found.settled):
            msg = f"materialize candles of {day} first: their files of trades no longer count"
            raise NotMade(msg)

        planned = fingerprint(table, [made.content])

        @contextmanager
        def load() -> Iterator[Load]:
            # Another run that makes the day again deletes the file, even while it is being read.
            try:
                with open_made(self.store, day, table.name) as (file, path):
                    if file.content == made.content:
                        yield Load(
                            (LoadFile(uri=None, path=path, rows=file.rows),), file_totals(table, [path])
                        )
                        return
            except (FileNotFoundError, PermanentFailure):
                if made_fingerprint(table, self.settled(day)) == planned:
                    raise
            msg = f"{table.name} of {day} were made again meanwhile: run again"
            raise Superseded(msg)

        return Partition(planned, load)

    def _ohlcv(self, candles: Partition) -> Partition:
        timeframes = self.settings.ohlcv.timeframes or self.settings.candles.timeframes

        @contextmanager
        def load() -> Iterator[Load]:
            import pyarrow.parquet as pq

            with candles.load() as made:
                rows = pq.read_table(
                    [file.path for file in made.files],
                    columns=OHLCV.schema.names,
                    filters=[("timeframe", "in", list(timeframes))],
                    partitioning=None,
                )
            with _load_rows(OHLCV, rows) as chosen:
                yield chosen

        return Partition(fingerprint(OHLCV, [candles.fingerprint, *timeframes]), load)

    def _quality(self, found: Day) -> Partition:
        overall = day_overall(self.store, found, self.settings.overall)
        text = json.dumps(quality_values(found, overall), sort_keys=True, default=str)
        content = hashlib.sha256(text.encode()).hexdigest()
        return Partition(
            fingerprint(QUALITY, [content]), lambda: _load_rows(QUALITY, quality_rows(found, overall))
        )

    def _load_file(self, stack: ExitStack, path: str, rows: int) -> LoadFile:
        """A file of the lake at a place that the warehouse can reach; the block ends with the stack."""
        uri = self.store.uri_of(path)
        if self.warehouse.reads_buckets and uri.startswith(GCS_SCHEME):
            return LoadFile(uri=uri, path=None, rows=rows)
        return self._load_part(stack, path, rows, ())

    def _load_part(self, stack: ExitStack, path: str, rows: int, left_out: Sequence[str]) -> LoadFile:
        """Return a local file of the rows of the other data set symbols."""
        local = stack.enter_context(self.store.local_copy(path))
        if not left_out:
            return LoadFile(uri=None, path=local, rows=rows)
        part = stack.enter_context(temporary_folder(None, "TMPDIR")) / "part.parquet"
        return LoadFile(uri=None, path=part, rows=write_without(left_out, local, part))


class NotMade(TransientFailure):
    """An earlier asset has not made the data to publish; the run that makes it may be at work."""


def is_withdrawn(store: Store, found: Day) -> bool:
    """Whether rows of the day were retracted, including those of a feed that was dropped since."""
    if any(feed.retraction is not None for feed in found.feeds):
        return True
    dropped = [Feed.parse(one.feed) for one in found.settled.dropped]
    return any(_is_retracted(store, feed, found.day) for feed in dropped)


def _is_retracted(store: Store, feed: Feed, day: str) -> bool:
    try:
        decisions = load_manifest(store, feed, day).decisions
    except Unreadable:
        return False
    return any(decision.kind == "retraction" for decision in decisions)


def ticks_fingerprint(table: Table, found: Day) -> str:
    """Return the fingerprint that the day's partition of a tick table has if it equals the lake."""
    accepted = ((v.content, found.settled.left_out_of(f)) for f, v in found.accepted_feeds(table.name))
    return fingerprint(table, [f"{content} without {out}" if out else content for content, out in accepted])


def made_fingerprint(table: Table, found: Day) -> str:
    """Return the same for candles or coverage; empty if they were not made of the versions that count now."""
    measures = found.measures
    made: DataFile | None = getattr(measures, table.name) if measures is not None else None
    if measures is None or made is None or measures.versions.get(found.day) != trades_versions(found.settled):
        return ""
    return fingerprint(table, [made.content])


def fingerprint(table: Table, contents: Sequence[str]) -> str:
    """Hash the table's columns and the contents of a partition's files."""
    columns = [(c.name, c.type, c.required) for c in table.columns]
    return hashlib.sha256(f"{columns}:{list(contents)}".encode()).hexdigest()


@contextmanager
def _load_rows(table: Table, rows: pa.Table) -> Iterator[Load]:
    import pyarrow.parquet as pq

    with temporary_folder(None, "TMPDIR") as folder:
        path = folder / f"{table.name}.parquet"
        pq.write_table(rows, path, compression="zstd")
        yield Load((LoadFile(uri=None, path=path, rows=rows.num_rows),), file_totals(table, [path]))


def _group_totals(table: Table, totals: ColumnTotals) -> GroupTotals:
    return GroupTotals(
        group=(totals.exchange, totals.dataset_symbol),
        rows=totals.rows,
        first_time_us=totals.first_timestamp_us,
        last_time_us=totals.last_timestamp_us,
        exact=tuple(totals.exact[name] for name in table.exact_sums),
        floats=tuple(totals.floats[name] for name in table.float_sums),
    )


def _group(totals: GroupTotals) -> list[tuple[bool, str]]:
    return [(value is not None, value or "") for value in totals.group]
