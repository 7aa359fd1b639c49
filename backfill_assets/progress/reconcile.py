"""Compares the lake, the warehouse and Dagster's records day by day.

The lake holds the accepted versions and the ledger the published ones, as for a plan; partitions are read
back as in ``verify``. Repairs here need no vendor: tables are published again from the lake, and stored data
is reported to Dagster. All other differences name the command that repairs them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Literal

from pydantic import BaseModel

from backfill_assets.automation.due import outdated_tables
from backfill_assets.days import is_day
from backfill_assets.failures import BackfillError, Unreadable
from backfill_assets.lake import documents, paths
from backfill_assets.lake.manifests import DayRecord, FeedManifest
from backfill_assets.lake.store import Store
from backfill_assets.quality.measures import DayMeasures
from backfill_assets.quality.remedies import run_day
from backfill_assets.quality.settled import Day, SettledDay, load_day
from backfill_assets.report.month import DaySummary, has_page, load_summary
from backfill_assets.settings import Settings
from backfill_assets.warehouse import ledger
from backfill_assets.warehouse.catalog import CANDLES, COVERAGE, INSTRUMENTS, OHLCV, QUALITY
from backfill_assets.warehouse.overall import tick_tables
from backfill_assets.warehouse.presence import data_files, lost_files
from backfill_assets.warehouse.protocol import Warehouse
from backfill_assets.warehouse.publish import changes
from backfill_assets.warehouse.publisher import Publisher
from backfill_assets.warehouse.tables import Table

Kind = Literal[
    "missing_partition",
    "changed_partition",
    "other_content",
    "orphan_partition",
    "missing_file",
    "orphan_file",
    "unreadable",
    "not_in_dagster",
    "only_in_dagster",
]
_OF_TABLES: Final = ("missing_partition", "changed_partition", "other_content")
_PUBLISHED: Final = {
    f"bigquery/{table.name}": (table,) for table in (INSTRUMENTS, CANDLES, COVERAGE, QUALITY)
}
#: The compared assets.
ASSETS: Final = ("instruments", "ticks", "candles", "report", "bigquery/ticks", "ohlcv", *_PUBLISHED)


@dataclass(frozen=True, slots=True)
class Difference:
    """One difference between the records of a day; ``what`` is a table, file or asset."""

    day: str
    kind: Kind
    what: str
    text: str


@dataclass(frozen=True, slots=True)
class Places:
    """The places to compare.

    Attributes
    ----------
    ohlcv
        The warehouse of the OHLCV table, if the settings name one.
    materialized
        Days by asset, from Dagster.
    unnamed
        Data files that no document names, by day.
    partitions
        Tables with a partition in the warehouse, by day.
    """

    store: Store
    settings: Settings
    warehouse: Warehouse
    ohlcv: Warehouse | None
    materialized: Mapping[str, Collection[str]]
    unnamed: Mapping[str, Collection[str]]
    partitions: Mapping[str, Collection[str]]

    def all_days(self) -> list[str]:
        """Every day that any of the places has."""
        day, found = "2000-01-01", {*self.unnamed, *self.partitions}
        found |= {day for days in self.materialized.values() for day in days}
        named = [paths.day_record(day), paths.settled_day(day), paths.measures(day), paths.day_summary(day)]
        named += [paths.publication(table.name, day) for table in (*_of_every_day(), OHLCV)]
        for document in named:
            folder = document.removesuffix(f"{day}.json")
            names = (path.removeprefix(folder).removesuffix(".json") for path in self.store.list(folder))
            found |= {name for name in names if is_day(name)}
        return sorted(found)


def _of_every_day() -> tuple[Table, ...]:
    return INSTRUMENTS, CANDLES, COVERAGE, QUALITY


def differences(places: Places, day: str) -> list[Difference]:
    """Return all differences of the day without writing anything."""
    store = places.store
    try:
        found = load_day(store, day)
        stored = _stored_assets(places, day, found)
        tables = [] if found is None else list(_of_tables(places, found))
        tables += _orphan_partitions(places, day, {table.what for table in tables})
    except Unreadable as failure:
        return [Difference(day, "unreadable", day, f"{failure}: {run_day(day)}")]
    lost = []
    if found is not None:
        lost = [*_lost_manifests(store, found), *lost_files(store, day, data_files(store, found))]
    files = [Difference(day, "missing_file", path, run_day(day)) for path in lost]
    files += [
        Difference(day, "orphan_file", path, "no document names it: backfill-assets gc removes old ones")
        for path in places.unnamed.get(day, ())
    ]
    damaged = [Difference(day, "unreadable", *damage) for damage in _damaged(store, day, found)]
    return [*damaged, *tables, *files, *_of_dagster(places, day, stored)]


def _lost_manifests(store: Store, found: Day) -> list[str]:
    held = [paths.ticks_manifest(feed.feed, found.day) for feed in found.feeds if feed.judged is not None]
    entry = ledger.entry(store, INSTRUMENTS.name, found.day)
    published = {t.group[0] for t in entry.published.totals} if entry and entry.published else set()
    held += [paths.instruments_manifest(exchange, found.day) for exchange in sorted(filter(None, published))]
    return [path for path in held if not store.exists(path)]


def _orphan_partitions(places: Places, day: str, known: Collection[str]) -> Iterator[Difference]:
    for table in sorted(set(places.partitions.get(day, ())) - set(known)):
        if ledger.entry(places.store, table, day) is None:
            text = (
                "the ledger has no publication of it, and the lake nothing to publish: remove it by hand, or "
            )
            yield Difference(day, "orphan_partition", table, text + run_day(day))


def _damaged(store: Store, day: str, found: Day | None) -> Iterator[tuple[str, str]]:
    """Yield the path and damage of unreadable documents; tables show those of the ledger."""
    models: dict[str, type[BaseModel]] = {
        paths.day_record(day): DayRecord,
        paths.settled_day(day): SettledDay,
        paths.measures(day): DayMeasures,
        paths.day_summary(day): DaySummary,
        **{paths.ticks_manifest(feed.feed, day): FeedManifest for feed in (found.feeds if found else ())},
    }
    for path, model in models.items():
        if damage := documents.damage(store, path, model):
            yield path, f"{damage}: {run_day(day)}"


def _of_tables(places: Places, found: Day) -> Iterator[Difference]:
    store, day = places.store, found.day
    is_held = found.scores.state == "held"
    outdated = set() if is_held else set(outdated_tables(store, found))
    tables = [QUALITY] if is_held else [*_of_every_day(), *tick_tables(store, found)]
    opened = [(places.warehouse, table) for table in tables]
    if places.ohlcv is not None and not is_held:
        opened.append((places.ohlcv, OHLCV))
    for warehouse, table in opened:
        entry = ledger.entry(store, table.name, day)
        if entry is None or entry.state != "done":
            why = "its publication is not confirmed"
            if entry is None:
                is_there = table.name in places.partitions.get(day, ())
                why = "is there, but the ledger does not know it" if is_there else "was never published"
            yield Difference(day, "missing_partition", table.name, why)
        elif entry.published is not None and (lines := changes(warehouse, table, day, entry.published)):
            is_empty = entry.published.rows and not warehouse.totals(table, day)
            kind: Kind = "missing_partition" if is_empty else "changed_partition"
            yield Difference(day, kind, table.name, f"differs from the published table: {lines[0]}")
        elif table.name in outdated:
            yield Difference(day, "other_content", table.name, "holds versions that no longer count")


def _stored_assets(places: Places, day: str, found: Day | None) -> dict[str, bool]:
    """Return for each asset whether lake or ledger hold the data that its materialization stands for."""
    store = places.store

    def published(tables: Collection[Table]) -> bool:
        entries = [ledger.entry(store, table.name, day) for table in tables]
        return bool(entries) and all(entry is not None and entry.published is not None for entry in entries)

    summary = load_summary(store, day)
    stored = {asset: published(tables) for asset, tables in _PUBLISHED.items()}
    stored |= {
        "instruments": store.exists(paths.day_record(day)),
        "ticks": found is not None,
        "candles": found is not None and found.measures is not None,
        "report": summary is not None and has_page(store, summary),
    }
    if found is not None and (tables := tick_tables(store, found)):
        stored["bigquery/ticks"] = published(tables)
    elif found is None:
        stored["bigquery/ticks"] = False
    if places.ohlcv is not None:
        stored["ohlcv"] = published((OHLCV,))
    return stored


def _of_dagster(places: Places, day: str, stored: Mapping[str, bool]) -> Iterator[Difference]:
    for asset, is_stored in stored.items():
        is_known = day in places.materialized[asset]
        if is_stored and not is_known:
            yield Difference(
                day, "not_in_dagster", asset, "is stored, but Dagster has no materialization of it"
            )
        elif is_known and not is_stored:
            text = f"Dagster has a materialization, but nothing is stored: {run_day(day)}"
            yield Difference(day, "only_in_dagster", asset, text)


def mend(
    places: Places, found: Collection[Difference], report: Callable[[str, str], None]
) -> Iterator[Difference]:
    """Publish tables of one day again and report stored data; yield the failures with their reasons.

    Parameters
    ----------
    report
        Reports the asset's day to Dagster.
    """
    for difference in found:
        try:
            if difference.kind in _OF_TABLES:
                _publish(places, difference)
            elif difference.kind == "not_in_dagster":
                report(difference.what, difference.day)
        except BackfillError as failure:
            yield Difference(difference.day, difference.kind, difference.what, str(failure))


def _publish(places: Places, difference: Difference) -> None:
    day = difference.day
    day_tables = {table.name: table for table in _of_every_day()}
    settled = load_day(places.store, day)
    if settled is not None:
        day_tables |= {table.name: table for table in tick_tables(places.store, settled)}
    # A publisher trusts the ledger's proofs.
    ledger.doubt(places.store, difference.what, day, f"reconcile: {difference.text}")
    if difference.what == OHLCV.name and places.ohlcv is not None:
        Publisher(places.store, places.ohlcv, places.settings).publish(OHLCV, day)
    else:
        Publisher(places.store, places.warehouse, places.settings).publish(day_tables[difference.what], day)
