"""Which rows of the lake a day of each table consists of, and publishing it with what depends on it.

The gate is here: what is published is the accepted versions of a day whose verdict is not ``held``, whoever
asks. The quality table alone is written for held days too. A day that is published again brings along its
published neighbours, whose candles or verdicts it may have changed; a partition that is as it should be is
not touched.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow.parquet as pq

from backfill_assets.candles.coverage import coverage_rows
from backfill_assets.candles.day import merged_candles
from backfill_assets.candles.measures import ensure_measures
from backfill_assets.days import shift
from backfill_assets.failures import DayHeld, PermanentFailure
from backfill_assets.lake import paths
from backfill_assets.lake.listing import load_instruments
from backfill_assets.lake.snapshot import snapshot
from backfill_assets.lake.store import GCS_SCHEME, Store
from backfill_assets.quality.day import JudgedDay, judge
from backfill_assets.quality.schemas import quality_rows
from backfill_assets.quality.scores import Overall
from backfill_assets.settings import Settings
from backfill_assets.warehouse import ledger
from backfill_assets.warehouse.catalog import CANDLES, COVERAGE, INSTRUMENTS, QUALITY
from backfill_assets.warehouse.overall import day_overall, tick_tables
from backfill_assets.warehouse.protocol import LoadFile, Warehouse
from backfill_assets.warehouse.publish import Outcome, Plan, publish
from backfill_assets.warehouse.tables import Table
from backfill_assets.warehouse.totals import GroupTotals, compare_totals, file_totals

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True, slots=True)
class Partition:
    """The files of one day of one table; equal fingerprints mean equal rows."""

    fingerprint: str
    files: tuple[LoadFile, ...]
    #: The same files where this process can read them.
    local: tuple[Path, ...]


@dataclass(frozen=True, slots=True)
class DayOutcome:
    """What publishing did to one partition."""

    table: str
    day: str
    outcome: Outcome


@dataclass(slots=True)
class Publisher:
    """Publishes days from one lake into one warehouse; made by ``open_publisher``."""

    store: Store
    warehouse: Warehouse
    settings: Settings
    folder: Path
    stack: ExitStack
    _totals: dict[tuple[str, str], tuple[GroupTotals, ...]] = field(default_factory=dict)

    def tick_tables(self, day: str) -> list[Table]:
        """The tables of the data types that the day is expected to have."""
        return tick_tables(judge(self.store, day, self.settings.thresholds))

    def publish(self, table: Table, day: str) -> list[DayOutcome]:
        """Publish the day, then its neighbours where they are out and no longer what the lake says.

        The quality rows of a day tell whether all its other tables are published, so they follow where they
        are out already.

        Raises
        ------
        DayHeld
            The day's verdict forbids it; nothing was written.
        """
        outcomes = [DayOutcome(table.name, day, self._publish_one(table, day))]
        # The last price before a day may come from a file of two days before it: files are split by arrival.
        reach = (-1, 1, 2) if table is COVERAGE else (-1, 1)
        for neighbour in (shift(day, days) for days in reach):
            entry = ledger.entry(self.store, table.name, neighbour)
            if entry is None:
                continue
            try:
                current = self.partition(table, neighbour).fingerprint
                if entry.state != "done" or entry.fingerprint != current:
                    outcomes.append(DayOutcome(table.name, neighbour, self._publish_one(table, neighbour)))
            except DayHeld:
                # What the neighbour published stays as it is until its own run decides.
                continue
        if table is not QUALITY:
            outcomes += [done for touched in list(outcomes) for done in self._follow(touched.day)]
        return outcomes

    def overall(self, day: str) -> Overall:
        """The day's overall score and its parts, as lake and ledger say now."""
        return day_overall(self.store, self.judged(day), self.settings.overall)

    def differences(self, table: Table, day: str) -> list[str]:
        """How the warehouse differs from what was last published, one line each; empty if it does not.

        That is the lake as it is now, unless a neighbour's run has changed it since: then the neighbour
        publishes this day again, and until it has, the totals of the last publication are what must be there.
        """
        partition = self.partition(table, day)
        entry = ledger.entry(self.store, table.name, day)
        published = entry.published if entry is not None else None
        if published is not None and published.fingerprint != partition.fingerprint:
            expected = published.totals
        else:
            expected = self._partition_totals(table, partition)
        try:
            found = self.warehouse.totals(table, day)
        except PermanentFailure as failure:
            # A partition that cannot be read is not what was published, and the failure says why.
            return [str(failure)]
        return compare_totals(expected, found, table=table)

    def partition(self, table: Table, day: str) -> Partition:
        """What the lake says that the day of the table holds now; one look at it, begun with the call."""
        with snapshot(self.store) as lake:
            return replace(self, store=lake)._partition(table, day)

    def _partition(self, table: Table, day: str) -> Partition:
        judged = self.judged(day)
        if judged.record is None:
            msg = f"nothing is recorded of {day}: materialize its instruments and ticks first"
            raise PermanentFailure(msg)
        if table is QUALITY:
            return self._made(
                table, day, quality_rows(judged, day_overall(self.store, judged, self.settings.overall))
            )
        if judged.scores.state == "held" and not self._takes_back(table, judged):
            msg = f"{day} is held, nothing is published: {'; '.join(judged.scores.reasons)}"
            raise DayHeld(msg)
        if table is CANDLES:
            return self._made(table, day, merged_candles(self.store, day, self.settings))
        if table is COVERAGE:
            # Held like the candles that it describes: a day's runs never speak of candles that are not there.
            return self._made(table, day, coverage_rows(self.store, self.settings, judged))
        if table is INSTRUMENTS:
            return self._instruments(judged)
        return self._ticks(table, judged)

    def _takes_back(self, table: Table, judged: JudgedDay) -> bool:
        """Whether a held day is out and somebody has retracted a part of it.

        Holding a day keeps bad rows from coming out; it must not keep withdrawn ones from going.
        """
        retracted = any(feed.retraction is not None for feed in judged.feeds)
        return retracted and ledger.entry(self.store, table.name, judged.day) is not None

    def _publish_one(self, table: Table, day: str) -> Outcome:
        def plan() -> Plan:
            partition = self.partition(table, day)
            return Plan(partition.fingerprint, partition.files, self._partition_totals(table, partition))

        return publish(self.store, self.warehouse, table, day, plan)

    def _follow(self, day: str) -> list[DayOutcome]:
        """Publish the day's quality rows again if they are out and no longer what the lake says."""
        entry = ledger.entry(self.store, QUALITY.name, day)
        if entry is None or entry.fingerprint == self.partition(QUALITY, day).fingerprint:
            return []
        return [DayOutcome(QUALITY.name, day, self._publish_one(QUALITY, day))]

    def judged(self, day: str) -> JudgedDay:
        """Judge the day with its candles compared, whichever run did or did not do that before."""
        ensure_measures(self.store, day, self.settings)
        return judge(self.store, day, self.settings.thresholds)

    def _partition_totals(self, table: Table, partition: Partition) -> tuple[GroupTotals, ...]:
        key = (table.name, partition.fingerprint)
        if key not in self._totals:
            self._totals[key] = file_totals(table, partition.local)
        return self._totals[key]

    def _ticks(self, table: Table, judged: JudgedDay) -> Partition:
        accepted = judged.accepted_feeds(table.name)
        stored = [
            (paths.ticks_data(feed.feed, judged.day, version.content), version.content, version.rows)
            for feed, version in accepted
        ]
        return self._stored(table, stored)

    def _instruments(self, judged: JudgedDay) -> Partition:
        stored = []
        for exchange in judged.record.exchanges if judged.record else ():
            manifest = load_instruments(self.store, exchange, judged.day)
            if manifest is not None:
                path = paths.instruments_data(exchange, judged.day, manifest.content)
                stored.append((path, manifest.content, manifest.rows))
        return self._stored(INSTRUMENTS, stored)

    def _stored(self, table: Table, stored: Sequence[tuple[str, str, int]]) -> Partition:
        """A partition of files that lie in the lake: (path, content, rows) each."""
        files, local = [], []
        for path, _, rows in stored:
            uri = self.store.uri_of(path)
            copy = self.stack.enter_context(self.store.local_copy(path))
            files.append(LoadFile(uri=uri if uri.startswith(GCS_SCHEME) else None, path=copy, rows=rows))
            local.append(copy)
        contents = [content for _, content, _ in stored]
        return Partition(_fingerprint(table, contents), tuple(files), tuple(local))

    def _made(self, table: Table, day: str, rows: pa.Table) -> Partition:
        """A partition that is computed from the lake; the same rows are the same bytes."""
        unfinished = self.folder / f"{table.name}-{day}.unfinished"
        pq.write_table(rows, unfinished, compression="zstd")
        content = hashlib.sha256(unfinished.read_bytes()).hexdigest()
        path = unfinished.rename(self.folder / f"{table.name}-{day}-{content}.parquet")
        return Partition(
            _fingerprint(table, [content]),
            (LoadFile(uri=None, path=path, rows=rows.num_rows),),
            (path,),
        )


def ticks_fingerprint(table: Table, judged: JudgedDay) -> str:
    """What the day's partition of a tick table has as its fingerprint when it is as the lake says."""
    return _fingerprint(table, [version.content for _, version in judged.accepted_feeds(table.name)])


def _fingerprint(table: Table, contents: Sequence[str]) -> str:
    columns = [(c.name, c.type, c.required) for c in table.columns]
    return hashlib.sha256(f"{columns}:{list(contents)}".encode()).hexdigest()


@contextmanager
def open_publisher(store: Store, warehouse: Warehouse, settings: Settings) -> Iterator[Publisher]:
    """A publisher whose temporary files live as long as the block."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="backfill-")))
        yield Publisher(store, warehouse, settings, folder, stack)
