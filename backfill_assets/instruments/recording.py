"""The record of a day's expected feeds: the vendor's instruments as of that day, and the resolved universe.

The record is written once per day and then only added to. A symbol removed from the universe is no longer
expected on days to come; for a symbol added to the universe, past days gain it by a rerun. A feed of which
nothing was ever stored leaves the record when it leaves the settings.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Final

from backfill_assets.days import end_us, start_us, time_us, utc_now
from backfill_assets.failures import (
    BackfillError,
    NotExportedYet,
    PermanentFailure,
    SettingsError,
    TransientFailure,
    Unreadable,
)
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
from backfill_assets.lake.manifests import Awaited, DayRecord, ExpectedSymbols, load_manifest
from backfill_assets.lake.parallel import parallel_map
from backfill_assets.lake.store import Store
from backfill_assets.quality.settled import load_settled
from backfill_assets.settings import UniverseEntry
from backfill_assets.tardis.client import TardisClient
from backfill_assets.tardis.metadata import ExchangeDetails, InstrumentList, ready
from backfill_assets.tardis.symbols import DayUniverse, of_exchanges, resolve

REQUESTS_AT_ONCE: Final = 8


@dataclass(frozen=True, slots=True)
class RecordedDay:
    """The day's record as stored, each exchange's instruments, and entries that could not be read."""

    record: DayRecord
    manifests: tuple[InstrumentsManifest, ...]
    unreadable: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Metadata:
    """The vendor's metadata of one exchange, and the day's feeds that follow from it."""

    details: ExchangeDetails
    instruments: InstrumentList
    resolved: DayUniverse


class _Unresolved(PermanentFailure):
    """The exchange answers, but lacks a symbol that the universe names."""


def record_day(
    store: Store, client: TardisClient, day: str, universe: Sequence[UniverseEntry]
) -> RecordedDay:
    """Store the instruments of every configured exchange and the feeds that the day must have.

    One exchange does not hold up the others. If an exchange is not exported yet, if the vendor does not list
    its contents, or if it lacks a symbol of the universe, the record says that the day waits for it, and why.
    The record keeps the feeds that it already has of such an exchange.

    Raises
    ------
    NotExportedYet, TransientFailure
        The day waits for every exchange; the record says why.
    PermanentFailure
        The same, but a retry would not help.
    """
    exchanges = sorted({exchange for entry in universe for exchange in entry.exchanges})
    answers = dict(
        zip(
            exchanges,
            parallel_map(
                lambda exchange: _asked(client, day, exchange, universe),
                exchanges,
                REQUESTS_AT_ONCE,
                client.stop,
            ),
            strict=True,
        )
    )
    failures = {exchange: a for exchange, a in answers.items() if isinstance(a, BackfillError)}
    known = {exchange: a for exchange, a in answers.items() if isinstance(a, _Metadata)}
    awaited = tuple(
        Awaited(exchange=e, reason=str(failure), is_passing=not isinstance(failure, _Unresolved))
        for e, failure in failures.items()
    )
    resolved = DayUniverse(
        expected=tuple(sorted(feed for a in known.values() for feed in a.resolved.expected)),
        not_listed=tuple(sorted(one for a in known.values() for one in a.resolved.not_listed)),
    )
    if not known:
        record = _update_record(store, day, resolved, awaited, universe)
        if record.awaited or not all(isinstance(failure, _Unresolved) for failure in failures.values()):
            raise _nothing_known(day, failures)
    manifests = [
        _stored(store, exchange, day, a.instruments, resolved, outages_of_day(a.details, day))
        for exchange, a in known.items()
    ]
    record = _update_record(store, day, resolved, awaited, universe)
    unreadable = tuple(
        text for a in known.values() for text in (*a.details.unreadable, *a.instruments.unreadable)
    )
    # The day does not wait for feeds that the record already knows, but the fault is reported.
    unreadable += tuple(a.reason for a in awaited if a not in record.awaited)
    return RecordedDay(record, tuple(manifests), unreadable)


def _asked(
    client: TardisClient, day: str, exchange: str, universe: Sequence[UniverseEntry]
) -> _Metadata | BackfillError:
    """Return the exchange's metadata, or the reason why the day has to wait for it."""
    own = of_exchanges(universe, (exchange,))
    try:
        details = client.exchange_details(exchange)
        if not ready(details, day):
            return NotExportedYet(f"{day} is not exported yet for {exchange}")
        instruments = client.instruments(exchange)
    except SettingsError:
        raise
    except BackfillError as failure:
        return failure
    unreadable = (*details.unreadable, *instruments.unreadable)
    try:
        resolved = resolve(own, day, {exchange: details}, {exchange: instruments})
        for expected in resolved.expected:
            paths.ticks_prefix(expected.feed, day)  # refuses names that the lake cannot have
        return _Metadata(details, instruments, resolved)
    except PermanentFailure as failure:
        # The mistake may be in the settings or at the vendor; nothing tells which.
        if unreadable or not details.datasets.symbols or not instruments.instruments:
            said = unreadable[0] if unreadable else f"the vendor lists nothing of {exchange}"
            return _Unresolved(f"{failure} ({said})")
        return _Unresolved(str(failure))


def _nothing_known(day: str, failures: Mapping[str, BackfillError]) -> BackfillError:
    """Return the failure of a day without any exchange; transient where a retry may be enough."""
    if all(isinstance(failure, NotExportedYet) for failure in failures.values()):
        remedy = "run it again later, usually after 06:00 UTC"
        return NotExportedYet(f"{day} is not exported yet for {', '.join(failures)}: {remedy}")
    passing = [failure for failure in failures.values() if isinstance(failure, TransientFailure)]
    first = passing[0] if passing else next(iter(failures.values()))
    if len(failures) == 1:
        return first
    msg = f"nothing is known of {day} at any of {', '.join(failures)}: {first}"
    if isinstance(first, TransientFailure):
        return TransientFailure(msg, retry_after_seconds=first.retry_after_seconds)
    return PermanentFailure(msg)


def _stored(
    store: Store,
    exchange: str,
    day: str,
    instruments: InstrumentList,
    resolved: DayUniverse,
    outages: tuple[Outage, ...],
) -> InstrumentsManifest:
    """Store the exchange's instruments; make rows only where the answer or the universe has changed."""
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


def _update_record(
    store: Store,
    day: str,
    resolved: DayUniverse,
    awaited: tuple[Awaited, ...],
    universe: Sequence[UniverseEntry],
) -> DayRecord:
    """Add the day's feeds to the record; drop a feed that was never stored and left the settings."""
    found = {str(e.feed): dict(e.symbols) for e in resolved.expected}
    absent = {f"{n.exchange}/{n.data_type}/{n.symbol}": n.reason for n in resolved.not_listed}
    now = utc_now()

    asked_in_vain = {a.exchange for a in awaited}

    def change(stored: DayRecord | None) -> DayRecord:
        old = stored or _record_as_settled(store, day)
        # A feed once known stays known, whether or not its exchange can be asked again.
        waiting = tuple(a for a in awaited if old is None or not _is_known(old, a.exchange, universe))
        before = {e.feed: dict(e.symbols) for e in old.expected} if old else {}
        expected = {
            feed: symbols
            for feed, symbols in before.items()
            if feed in found
            or Feed.parse(feed).exchange in asked_in_vain
            or _is_stored(store, Feed.parse(feed), day)
        }
        dropped = old.dropped if old else ()
        for feed, symbols in found.items():
            if feed not in {d.feed for d in dropped}:
                expected[feed] = {**expected.get(feed, {}), **symbols}
        record = DayRecord(
            day=day,
            expected=tuple(
                ExpectedSymbols(feed=feed, symbols=tuple(sorted(symbols.items())))
                for feed, symbols in sorted(expected.items())
            ),
            not_listed=tuple(sorted({*(old.not_listed if old else ()), *absent})),
            why_not_listed={**(old.why_not_listed if old else {}), **absent},
            awaiting_export=tuple(a.exchange for a in waiting),
            awaited=waiting,
            dropped=dropped,
            recorded_at=now,
        )
        unchanged = old is not None and old == record.model_copy(update={"recorded_at": old.recorded_at})
        return old if old is not None and unchanged else record

    return documents.update(store, paths.day_record(day), DayRecord, change, anew=True)


def _is_known(record: DayRecord, exchange: str, universe: Sequence[UniverseEntry]) -> bool:
    """Whether the record says, for every symbol of the exchange in the universe, whether the day has it."""
    return all(
        record.knows(exchange, data_type, symbol)
        for entry in of_exchanges(universe, (exchange,))
        for data_type, symbol in product(entry.data_types, entry.symbols)
    )


def _is_stored(store: Store, feed: Feed, day: str) -> bool:
    """Whether the lake holds anything of the feed; an unreadable manifest counts as yes."""
    try:
        manifest = load_manifest(store, feed, day)
    except Unreadable:
        return True
    return bool(manifest.versions or manifest.decisions)


def _record_as_settled(store: Store, day: str) -> DayRecord | None:
    """The record as the day's document has it, for a record that is missing or damaged."""
    settled = load_settled(store, day)
    if settled is None:
        return None
    return DayRecord(
        day=day,
        expected=tuple(ExpectedSymbols(feed=str(f.feed), symbols=f.symbols) for f in settled.feeds),
        not_listed=settled.not_listed,
        why_not_listed=settled.why_not_listed,
        dropped=settled.dropped,
        recorded_at=utc_now(),
    )
