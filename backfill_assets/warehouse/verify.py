"""Checks every byte of a range of days: files of the lake by their names, partitions by the ledger.

A run opens only the files that it uses, so data that a disk loses in old days shows only in a check. Mending
takes damaged data out of sight: plans find the day not good, and its next run fetches it or makes it again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from pydantic import BaseModel

from backfill_assets.failures import DamagedFile
from backfill_assets.feeds import Feed
from backfill_assets.lake import documents, paths
from backfill_assets.lake.listing import InstrumentsManifest
from backfill_assets.lake.manifests import DayRecord, FeedManifest
from backfill_assets.lake.parallel import parallel_map
from backfill_assets.lake.store import Store
from backfill_assets.quality.measures import DayMeasures
from backfill_assets.quality.remedies import run_day
from backfill_assets.quality.settled import SettledDay
from backfill_assets.references.day import DayComparison
from backfill_assets.references.fetched import FetchedDay
from backfill_assets.references.sources import SOURCES
from backfill_assets.warehouse import ledger
from backfill_assets.warehouse.catalog import CANDLES, COVERAGE, INSTRUMENTS, OHLCV, TABLES, TICKS
from backfill_assets.warehouse.protocol import Warehouse
from backfill_assets.warehouse.publish import changes
from backfill_assets.warehouse.tables import Table

Model = TypeVar("Model", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Verified:
    """A day: the number of checked files and partitions, and the problems, one line each."""

    day: str
    files: int
    bytes: int
    partitions: int
    problems: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _File:
    """A data file that a document names, and the table whose rows are made of it."""

    path: str
    bytes: int
    table: Table
    #: Whether the file must exist; an earlier version that does not count need not.
    needed: bool = True
    #: The remedy that restores it, if that is not a run of the day.
    remedy: str = ""


def verify_days(
    store: Store, warehouses: Sequence[Warehouse], days: Sequence[str], *, mend: bool
) -> Iterator[Verified]:
    """Check each day in turn.

    Parameters
    ----------
    warehouses
        The warehouse and, if there is one, that of the OHLCV table.
    mend
        Set damaged files aside, and withdraw the confirmation of partitions that differ.
    """
    for day in days:
        problems: list[str] = []
        files = _named_files(store, day, problems)
        _look_at_files(store, day, files, problems, mend=mend)
        partitions = sum(_look_at_partitions(store, one, day, problems, mend=mend) for one in warehouses)
        yield Verified(day, len(files), sum(file.bytes for file in files), partitions, tuple(problems))


def _look_at_files(
    store: Store, day: str, files: Sequence[_File], problems: list[str], *, mend: bool
) -> None:
    found = parallel_map(lambda file: _problem(store, file), files, store.parallel_reads)
    for file, problem in zip(files, found, strict=True):
        if problem:
            problems.append(f"{store.uri_of(file.path)} {problem}{file.remedy}")
            if mend:
                store.set_aside(file.path)
                if not file.remedy:
                    ledger.doubt(store, file.table.name, day, problems[-1])


def _look_at_partitions(
    store: Store, warehouse: Warehouse, day: str, problems: list[str], *, mend: bool
) -> int:
    """Return the number of checked partitions: those that the ledger says are out."""
    count = 0
    for table in _tables(warehouse):
        entry = _read(problems, store, paths.publication(table.name, day), ledger.Entry)
        if entry is None or entry.state != "done" or entry.published is None:
            continue
        count += 1
        if lines := changes(warehouse, table, day, entry.published):
            more = f"; and {len(lines) - 1} more" if lines[1:] else ""
            problems.append(f"{table.name} is not what was published: {lines[0]}{more}")
            if mend:
                ledger.doubt(store, table.name, day, problems[-1])
    return count


def _tables(warehouse: Warehouse) -> Sequence[Table]:
    from backfill_assets.warehouse.ohlcv.warehouse import OhlcvWarehouse

    return (OHLCV,) if isinstance(warehouse, OhlcvWarehouse) else TABLES


def _problem(store: Store, file: _File) -> str:
    try:
        with store.local_copy(file.path) as copy:
            size = copy.stat().st_size
    except DamagedFile as failure:
        return failure.problem if file.needed or store.exists(file.path) else ""
    return "" if size == file.bytes else f"has {size} bytes, but its document says {file.bytes}"


def _named_files(store: Store, day: str, problems: list[str]) -> list[_File]:
    """Return every data file that the day's documents name; unreadable documents are problems."""
    record = _read(problems, store, paths.day_record(day), DayRecord)
    files = [] if record is None else [*_ticks(store, record, problems), *_listings(store, record, problems)]
    measures = _read(problems, store, paths.measures(day), DayMeasures)
    if measures is not None:
        for name, trades in measures.files.items():
            path = paths.partials_data(Feed.parse(name), day, trades.partials.content)
            files.append(_File(path, trades.partials.bytes, CANDLES))
        for table, made in ((CANDLES, measures.candles), (COVERAGE, measures.coverage)):
            if made is not None:
                files.append(_File(paths.made_data(table.name, day, made.content), made.bytes, table))
    return [*files, *_references(store, day, problems)]


def _references(store: Store, day: str, problems: list[str]) -> Iterator[_File]:
    """The candles that sources gave; a run of the day asks them again where these are gone."""
    _read(problems, store, paths.comparison(day), DayComparison)
    for source in SOURCES:
        kept = _read(problems, store, paths.reference_manifest(source, day), FetchedDay)
        if kept is not None and kept.file is not None:
            path = paths.reference_data(source, day, kept.file.content)
            yield _File(path, kept.file.bytes, CANDLES, remedy=f"; '{run_day(day)}' asks {source} again")


def _ticks(store: Store, record: DayRecord, problems: list[str]) -> Iterator[_File]:
    day = record.day
    settled = _read(problems, store, paths.settled_day(day), SettledDay)
    counting = {f.accepted.content for f in settled.feeds if f.accepted is not None} if settled else set()
    for expected in record.expected_feeds:
        feed = expected.feed
        manifest = _read(problems, store, paths.ticks_manifest(feed, day), FeedManifest)
        if manifest is None:
            continue
        for version in manifest.versions:
            needed = version == manifest.newest or version.content in counting
            path = paths.ticks_data(feed, day, version.content)
            yield _File(path, version.bytes, TICKS[feed.data_type], needed)
            if (numbers := version.minute_numbers) is not None:
                path = paths.partials_data(feed, day, numbers.content)
                yield _File(path, numbers.bytes, TICKS[feed.data_type], version == manifest.newest)
        remedy = f"; 'backfill-assets heal --date {day} --feed {feed}' fetches it again"
        for receipt in manifest.receipts:
            kept = [(answer.content, answer.bytes, receipt.ending) for answer in receipt.answers]
            kept += [(receipt.rows.content, receipt.rows.bytes, "csv")] if receipt.rows else []
            for content, size, ending in kept:
                path = paths.receipt_data(feed, day, content, ending)
                yield _File(path, size, TICKS[feed.data_type], remedy=remedy)


def _listings(store: Store, record: DayRecord, problems: list[str]) -> Iterator[_File]:
    for exchange in record.exchanges:
        manifest = _read(
            problems, store, paths.instruments_manifest(exchange, record.day), InstrumentsManifest
        )
        if manifest is not None:
            path = paths.instruments_data(exchange, record.day, manifest.content)
            yield _File(path, manifest.bytes, INSTRUMENTS)


def _read(problems: list[str], store: Store, path: str, model: type[Model]) -> Model | None:
    """Return the document; an unreadable one is a problem, even if a run would make it again."""
    found, damage = documents.look(store, path, model)
    if damage:
        problems.append(damage)
    return found
