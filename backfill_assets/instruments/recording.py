"""What a day is expected to have: the vendor's instruments as of that day, and the universe resolved.

Written once per day and then added to: taking a symbol out of the universe concerns days to come, and putting
one in lets past days gain it by a rerun. A feed of which nothing was ever stored leaves with the settings.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from backfill_assets.days import end_us, start_us, time_us, utc_now
from backfill_assets.failures import NotExportedYet, Unreadable
from backfill_assets.feeds import Feed
from backfill_assets.instruments.findings import look_at_listing
from backfill_assets.instruments.rows import ROWS_VERSION, expected_names, instrument_rows
from backfill_assets.lake import documents, paths
from backfill_assets.lake.listing import (
    InstrumentsManifest,
    Outage,
    readable_instruments,
    store_instruments,
)
from backfill_assets.lake.manifests import DayRecord, ExpectedSymbols, load_manifest
from backfill_assets.lake.parallel import parallel_map
from backfill_assets.lake.store import Store
from backfill_assets.quality.settled import load_settled
from backfill_assets.settings import UniverseEntry
from backfill_assets.tardis.client import TardisClient
from backfill_assets.tardis.metadata import ExchangeDetails, InstrumentList, ready
from backfill_assets.tardis.symbols import DayUniverse, resolve

REQUESTS_AT_ONCE: Final = 8


@dataclass(frozen=True, slots=True)
class RecordedDay:
    """The day's record as stored, and each exchange's instruments."""

    record: DayRecord
    manifests: tuple[InstrumentsManifest, ...]


def record_day(
    store: Store, client: TardisClient, day: str, universe: Sequence[UniverseEntry]
) -> RecordedDay:
    """Store the instruments of every configured exchange and what the day must have.

    Raises
    ------
    NotExportedYet
        The vendor has not finished the day for some exchange; the record says for which.
    PermanentFailure
        The universe names an exchange or a symbol that does not exist.
    """
    exchanges = sorted({exchange for entry in universe for exchange in entry.exchanges})
    details = dict(
        zip(exchanges, parallel_map(client.exchange_details, exchanges, REQUESTS_AT_ONCE), strict=True)
    )
    waiting = tuple(exchange for exchange in exchanges if not ready(details[exchange], day))
    if waiting:
        _update_record(store, day, DayUniverse((), ()), waiting)
        msg = (
            f"{day} is not exported yet for {', '.join(waiting)}: run it again later, usually after 06:00 UTC"
        )
        raise NotExportedYet(msg)
    instruments = dict(
        zip(exchanges, parallel_map(client.instruments, exchanges, REQUESTS_AT_ONCE), strict=True)
    )
    resolved = resolve(universe, day, details, instruments)
    manifests = [
        _stored(store, exchange, day, instruments[exchange], resolved, outages_of_day(details[exchange], day))
        for exchange in exchanges
    ]
    return RecordedDay(_update_record(store, day, resolved, ()), tuple(manifests))


def _stored(
    store: Store,
    exchange: str,
    day: str,
    instruments: InstrumentList,
    resolved: DayUniverse,
    outages: tuple[Outage, ...],
) -> InstrumentsManifest:
    """Store the exchange's instruments; rows are made only where the answer or the universe has changed."""
    names = expected_names(exchange, resolved.expected)
    text = f"{ROWS_VERSION}:{sorted(names)}:{instruments.model_dump_json()}"
    inputs = hashlib.sha256(text.encode()).hexdigest()[:16]
    former = readable_instruments(store, exchange, day)
    if (
        former is not None
        and (former.inputs, former.outages) == (inputs, outages)
        and store.size(paths.instruments_data(exchange, day, former.content)) == former.bytes
    ):
        return former
    rows = instrument_rows(exchange, day, instruments, names)
    return store_instruments(
        store,
        exchange,
        day,
        rows,
        instruments.source,
        outages,
        look_at=lambda table: look_at_listing(table).model_dump(mode="json"),
        inputs=inputs,
    )


def outages_of_day(details: ExchangeDetails, day: str) -> tuple[Outage, ...]:
    """The reported incidents that touch the day, in order of time."""
    found = [
        Outage(start_us=time_us(incident.start), end_us=time_us(incident.end), details=incident.details or "")
        for incident in details.incident_reports
    ]
    touching = [o for o in found if o.start_us < end_us(day) and o.end_us > start_us(day)]
    return tuple(sorted(touching, key=lambda o: (o.start_us, o.end_us)))


def _update_record(store: Store, day: str, resolved: DayUniverse, waiting: tuple[str, ...]) -> DayRecord:
    """Add the day's feeds to the record; what was never stored leaves it with the settings."""
    found = {str(e.feed): dict(e.symbols) for e in resolved.expected}
    absent = [f"{n.exchange}/{n.data_type}/{n.symbol}" for n in resolved.not_listed]
    now = utc_now()

    def change(stored: DayRecord | None) -> DayRecord:
        old = stored or _record_as_settled(store, day)
        before = {e.feed: dict(e.symbols) for e in old.expected} if old else {}
        expected = {
            feed: symbols
            for feed, symbols in before.items()
            if feed in found or waiting or _is_stored(store, Feed.parse(feed), day)
        }
        for feed, symbols in found.items():
            expected[feed] = {**expected.get(feed, {}), **symbols}
        record = DayRecord(
            day=day,
            expected=tuple(
                ExpectedSymbols(feed=feed, symbols=tuple(sorted(symbols.items())))
                for feed, symbols in sorted(expected.items())
            ),
            not_listed=tuple(sorted({*(old.not_listed if old else ()), *absent})),
            awaiting_export=waiting,
            recorded_at=now,
        )
        unchanged = old is not None and old == record.model_copy(update={"recorded_at": old.recorded_at})
        return old if old is not None and unchanged else record

    return documents.update(store, paths.day_record(day), DayRecord, change, anew=True)


def _is_stored(store: Store, feed: Feed, day: str) -> bool:
    """Whether the lake holds anything of the feed; one that cannot be read may."""
    try:
        manifest = load_manifest(store, feed, day)
    except Unreadable:
        return True
    return bool(manifest.versions or manifest.decisions)


def _record_as_settled(store: Store, day: str) -> DayRecord | None:
    """The record as the day's document has it, where the record itself is gone or damaged."""
    settled = load_settled(store, day)
    if settled is None:
        return None
    return DayRecord(
        day=day,
        expected=tuple(ExpectedSymbols(feed=str(f.feed), symbols=f.symbols) for f in settled.feeds),
        not_listed=settled.not_listed,
        recorded_at=utc_now(),
    )
