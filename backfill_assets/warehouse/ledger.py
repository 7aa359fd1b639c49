"""The ledger of publications: a document per table and day with the current claim and the publication.

A publisher *claims* the partition by compare-and-swap before it submits a load, and marks it *done* only if
the claim is still its own. Claims without a recorded end stay listed until they are settled. The count of
submissions keeps a table below the warehouse's daily limit. ``publish`` acts on the claims.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Final, Literal

from pydantic import AwareDatetime

from backfill_assets.days import is_day, utc_now
from backfill_assets.failures import Superseded, TransientFailure
from backfill_assets.lake import documents, paths
from backfill_assets.lake.documents import Derived, Document
from backfill_assets.lake.parallel import parallel_map
from backfill_assets.lake.store import Store
from backfill_assets.warehouse.totals import GroupTotals, total_rows

#: Loads of the last hours may still count at the service, whose day is not UTC's, so the wait is a little
#: longer.
_AFTER_MIDNIGHT: Final = timedelta(minutes=5)


class Published(Document):
    """A publication that was completed and confirmed: its rows were read back.

    Attributes
    ----------
    generation
        The claim under which it was loaded.
    fingerprint
        Fingerprint of the lake's content that it holds.
    job
        The result of ``Warehouse.replace_partition``.
    totals
        The totals as read back from the warehouse.
    content
        ``Warehouse.content`` at that time; empty in entries of an earlier layout.
    """

    generation: int
    fingerprint: str
    job: str
    rows: int
    totals: tuple[GroupTotals, ...]
    content: str = ""
    published_at: AwareDatetime


class Entry(Derived):
    """State of one table's partition. A lost entry is confirmed again by the next publisher.

    Attributes
    ----------
    generation
        Number of the latest claim.
    state
        ``intent`` from the claim until it is confirmed, else ``done``.
    fingerprint
        Fingerprint of the content that the latest claim is about to load, or has loaded.
    open
        Earlier claims without a recorded end; the next claim settles them first.
    loading
        Names of the files of an open load, which must not be deleted.
    claimed_at
        When the latest claim was made.
    failure
        Why the latest claim failed, if its publisher lived to record it; no publisher then waits for it.
    published
        The last publication that was completed; while the state is ``intent`` the partition may already hold
        newer rows.
    """

    generation: int
    state: Literal["intent", "done"]
    fingerprint: str
    open: tuple[int, ...] = ()
    loading: tuple[str, ...] = ()
    claimed_at: AwareDatetime
    failure: str | None = None
    published: Published | None = None


def entry(store: Store, table: str, day: str) -> Entry | None:
    """The ledger's entry, or None if the partition was never claimed."""
    return documents.load(store, paths.publication(table, day), Entry)


def damage(store: Store, table: str, day: str) -> str:
    """Return why the entry cannot be read; empty if it can, or if there is none."""
    return documents.damage(store, paths.publication(table, day), Entry)


def published_days(store: Store, table: str) -> list[str]:
    """Return the days of which a publication of the table was confirmed, oldest first."""
    prefix = paths.publication(table, "2000-01-01").removesuffix("2000-01-01.json")
    names = (path.removeprefix(prefix).removesuffix(".json") for path in store.list(prefix))
    days = sorted(name for name in names if is_day(name))
    entries = parallel_map(lambda day: entry(store, table, day), days, store.parallel_reads)
    return [day for day, found in zip(days, entries, strict=True) if found and found.published is not None]


def claim(
    store: Store, table: str, day: str, fingerprint: str, now: Callable[[], datetime] = utc_now
) -> Entry:
    """Take over the partition; the entry's ``open`` claims must be settled before any load is submitted."""

    def change(current: Entry | None) -> Entry:
        moment = now()
        # Seconds since the epoch, so that a lost ledger, or another lake's, begins above every generation
        # that the warehouse has seen.
        number = int(moment.timestamp())
        unsettled: tuple[int, ...] = ()
        if current is not None:
            number = max(number, current.generation + 1)
            unsettled = current.open + ((current.generation,) if current.state == "intent" else ())
        return Entry(
            generation=number,
            state="intent",
            fingerprint=fingerprint,
            open=unsettled,
            claimed_at=moment,
            published=current.published if current else None,
        )

    return _changed(store, table, day, change)


def announce(store: Store, table: str, day: str, mine: Entry, fingerprint: str, files: Sequence[str]) -> None:
    """Record the content that the claim is about to load.

    Raises
    ------
    Superseded
        The claim is no longer the latest.
    """

    def change(current: Entry | None) -> Entry:
        held = _held(current, table, day, mine.generation)
        return held.model_copy(update={"fingerprint": fingerprint, "loading": tuple(files)})

    _changed(store, table, day, change)


def complete(
    store: Store,
    table: str,
    day: str,
    mine: Entry,
    *,
    fingerprint: str,
    job: str,
    totals: tuple[GroupTotals, ...],
    content: str = "",
    now: Callable[[], datetime] = utc_now,
) -> Published:
    """Record that the claim's load is complete and confirmed.

    Raises
    ------
    Superseded
        The claim is no longer the latest.
    """
    published = Published(
        generation=mine.generation,
        fingerprint=fingerprint,
        job=job,
        rows=total_rows(totals),
        totals=totals,
        content=content,
        published_at=now(),
    )

    def change(current: Entry | None) -> Entry:
        held = _held(current, table, day, mine.generation)
        update = {
            "state": "done",
            "fingerprint": fingerprint,
            "open": (),
            "loading": (),
            "published": published,
        }
        return held.model_copy(update=update)

    _changed(store, table, day, change)
    return published


def give_up(store: Store, table: str, day: str, mine: Entry, failure: str) -> None:
    """Record that the claim failed; it stays open, since its load may still be running.

    Raises
    ------
    Superseded
        The claim is no longer the latest.
    """

    def change(current: Entry | None) -> Entry:
        return _held(current, table, day, mine.generation).model_copy(update={"failure": failure})

    _changed(store, table, day, change)


def doubt(store: Store, table: str, day: str, reason: str) -> None:
    """Withdraw the confirmation of the publication, so that the day is not good and its next run loads it."""

    def change(current: Entry | None) -> Entry | None:
        if current is None or current.state != "done":
            return current
        return current.model_copy(update={"state": "intent", "failure": reason})

    documents.update(store, paths.publication(table, day), Entry, change)


def is_latest(store: Store, table: str, day: str, mine: Entry) -> bool:
    """Whether no newer claim was made on the partition."""
    current = entry(store, table, day)
    return current is not None and current.generation == mine.generation


def count_submission(
    store: Store,
    table: str,
    day: str,
    generation: int,
    limit: int,
    now: Callable[[], datetime] = utc_now,
) -> None:
    """Count one load of the table, before it is submitted.

    Each load is a separate object rather than a number in a document: a bucket allows one write to an object
    per second, and a backfill has many publishers of one table. Publishers at the limit may exceed it by at
    most their number; the settings stay below the service's limit for this.

    Raises
    ------
    TransientFailure
        The table has used its loads of this UTC day; the failure names the next day.
    """
    moment = now()
    today, used = _submitted(table, moment), submissions(store, table, moment)
    if used >= limit:
        tomorrow = moment.replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=1)
        wait = tomorrow + _AFTER_MIDNIGHT - moment
        msg = (
            f"{table} {day}: {used} loads of this table today, the limit is {limit}: "
            f"waits for {tomorrow.date().isoformat()}, or raise warehouse.load_jobs_per_table_and_day"
        )
        raise TransientFailure(msg, retry_after_seconds=wait.total_seconds())
    store.replace(f"{today}{day}-{generation}", b"\n", None)
    if used == 0:
        for path in list(store.list(f"submissions/{table}/")):
            if path < today:
                store.delete(path)


def submissions(store: Store, table: str, moment: datetime) -> int:
    """Return how many loads of the table were submitted on this UTC day."""
    return sum(1 for _ in store.list(_submitted(table, moment)))


def _submitted(table: str, moment: datetime) -> str:
    return f"submissions/{table}/{moment.date().isoformat()}/"


def _held(current: Entry | None, table: str, day: str, generation: int) -> Entry:
    if current is None or current.generation != generation:
        latest = "nobody" if current is None else str(current.generation)
        msg = f"{table} {day}: claim {generation} was overtaken by {latest}"
        raise Superseded(msg)
    return current


def _changed(store: Store, table: str, day: str, change: Callable[[Entry | None], Entry]) -> Entry:
    stored = documents.update(store, paths.publication(table, day), Entry, change)
    if stored is None:  # only if change returned None
        msg = f"{table} {day}: the ledger entry vanished"
        raise Superseded(msg)
    return stored
