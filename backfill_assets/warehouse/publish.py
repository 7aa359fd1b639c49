"""Publishes one day of one table: exactly the lake's content, confirmed by reading it back.

Any number of publishers may be at work on the same partition, on any machines, and any of them may die at any
moment. The order of the steps keeps that safe: claim in the ledger, settle all earlier claims, only then read
the lake, load, read back, and mark the claim done if it is still the latest. So the publisher with the latest
claim publishes the lake as it was after all earlier claims had ended. The verdicts, inside the plan, decide
whether a day may be published at all.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from typing import Final, Literal

from backfill_assets.failures import BackfillError, PermanentFailure, Superseded, TransientFailure
from backfill_assets.lake.store import Store
from backfill_assets.warehouse import ledger
from backfill_assets.warehouse.protocol import LoadFile, LoadStopped, Warehouse
from backfill_assets.warehouse.tables import Table
from backfill_assets.warehouse.totals import GroupTotals, compare_totals, total_rows

#: Times that a publisher takes over a partition before it leaves it to the others.
ATTEMPTS: Final = 6
#: How long an overtaken publisher waits for the other one before it takes over the partition again.
PATIENCE_SECONDS: Final = 300.0

_DIFFERENCES_SHOWN: Final = 5
_LONGEST_WAIT_SECONDS: Final = 2.0


@dataclass(frozen=True, slots=True)
class Load:
    """The rows of a partition.

    Attributes
    ----------
    files
        Files in a fixed order; none for an empty day.
    totals
        Control totals of these files.
    """

    files: Sequence[LoadFile]
    totals: tuple[GroupTotals, ...]


@dataclass(frozen=True, slots=True)
class Partition:
    """The content that a partition must have according to the lake.

    Attributes
    ----------
    fingerprint
        Equal for equal content, and different for different content; known without opening a file.
    load
        Lends the rows for a block; called only when a load is due.
    """

    fingerprint: str
    load: Callable[[], AbstractContextManager[Load]]


@dataclass(frozen=True, slots=True)
class Publication:
    """The result of publishing.

    ``skipped`` means that the warehouse already had exactly this, confirmed by its content.
    """

    state: Literal["published", "skipped"]
    generation: int
    fingerprint: str
    rows: int
    totals: tuple[GroupTotals, ...]
    job: str


def publish(
    store: Store,
    warehouse: Warehouse,
    table: Table,
    day: str,
    plan: Callable[[], Partition],
    *,
    attempts: int = ATTEMPTS,
    patience_seconds: float = PATIENCE_SECONDS,
) -> Publication:
    """Make the partition equal to the lake's content, or find that it is.

    Parameters
    ----------
    plan
        Reads the current lake; called several times. Any exception that it raises (for a held day, for
        example) ends the publishing.

    Raises
    ------
    PermanentFailure
        The rows read back are not those of the lake, or the load was refused, or stopped by a person; the
        ledger then stays at ``intent``, so the next publisher loads again.
    TransientFailure
        The service failed, the day's loads are used up, or other publishers were faster every time.
    """
    warehouse.ensure_table(table)
    for _ in range(attempts):
        proposal = plan()
        outcome = already_there(store, warehouse, table, day, proposal)
        if outcome is not None:
            return outcome
        mine = ledger.claim(store, table.name, day, proposal.fingerprint)
        try:
            return _take_over(store, warehouse, table, day, mine, plan)
        except Superseded:
            _wait_for_others(store, table, day, mine, patience_seconds)
        except BackfillError as error:
            with suppress(BackfillError):  # the failure itself says more than an unreachable ledger
                ledger.give_up(store, table.name, day, mine, str(error))
            raise
    msg = f"{table.name} {day}: other publishers were faster {attempts} times: run again when they have ended"
    raise TransientFailure(msg)


def already_there(
    store: Store, warehouse: Warehouse, table: Table, day: str, proposal: Partition
) -> Publication | None:
    """Return the publication of this fingerprint, if the ledger has it and the warehouse has its rows now."""
    entry = ledger.entry(store, table.name, day)
    if entry is None or entry.state != "done" or entry.published is None:
        return None
    published = entry.published
    if published.fingerprint != proposal.fingerprint or changes(warehouse, table, day, published):
        return None
    return Publication(
        state="skipped",
        generation=published.generation,
        fingerprint=proposal.fingerprint,
        rows=total_rows(published.totals),
        totals=published.totals,
        job=published.job,
    )


def changes(warehouse: Warehouse, table: Table, day: str, published: ledger.Published) -> list[str]:
    """Return differences from the published partition, one line each; every value is compared.

    Entries of an earlier layout do not name the content, so only their totals are compared.
    """
    try:
        # If no row was published, there is no name for the content.
        if (published.content or not published.rows) and warehouse.content(table, day) == published.content:
            return []
        found = compare_totals(published.totals, warehouse.totals(table, day), table=table)
    except PermanentFailure as failure:
        # A partition that cannot be read is repaired by loading it.
        return [str(failure)]
    if not found and published.content:
        return ["rows are not those that were published, though all totals agree"]
    return found


def _take_over(
    store: Store,
    warehouse: Warehouse,
    table: Table,
    day: str,
    mine: ledger.Entry,
    plan: Callable[[], Partition],
) -> Publication:
    warehouse.fence(table, day, mine.open)
    # Read again: the lake may have changed since the proposal, and the change may be published already.
    final = plan()
    with final.load() as load:
        ledger.announce(store, table.name, day, mine, final.fingerprint, [file.name for file in load.files])
        if warehouse.daily_loads is not None:
            ledger.count_submission(store, table.name, day, mine.generation, warehouse.daily_loads)
        job = _replaced(store, warehouse, table, day, mine, load.files)
        content, found = warehouse.content(table, day), warehouse.totals(table, day)
        differences = compare_totals(load.totals, found, table=table)
    if differences:
        if not ledger.is_latest(store, table.name, day, mine):
            msg = f"{table.name} {day}: overtaken between loading and reading back"
            raise Superseded(msg)
        shown = "; ".join(differences[:_DIFFERENCES_SHOWN])
        more = (
            f"; and {len(differences) - _DIFFERENCES_SHOWN} more" if differences[_DIFFERENCES_SHOWN:] else ""
        )
        msg = (
            f"{table.name} {day}: the warehouse does not hold the lake's rows after {job}: {shown}{more}: "
            "look for another writer of this table, then publish again"
        )
        raise PermanentFailure(msg)
    published = ledger.complete(
        store, table.name, day, mine, fingerprint=final.fingerprint, job=job, totals=found, content=content
    )
    return Publication(
        state="published",
        generation=published.generation,
        fingerprint=published.fingerprint,
        rows=published.rows,
        totals=found,
        job=job,
    )


def _replaced(
    store: Store, warehouse: Warehouse, table: Table, day: str, mine: ledger.Entry, files: Sequence[LoadFile]
) -> str:
    """Load the files; a load that was stopped without a newer claim is a permanent failure."""
    try:
        return warehouse.replace_partition(table, day, files, mine.generation)
    except LoadStopped as stopped:
        if not ledger.is_latest(store, table.name, day, mine):
            raise
        msg = f"{stopped}: not stopped by another publisher: run the day again when it may be loaded"
        raise PermanentFailure(msg) from stopped


def _wait_for_others(
    store: Store, table: Table, day: str, mine: ledger.Entry, patience_seconds: float
) -> None:
    """Wait until the newer claim is done; otherwise two publishers would overtake each other forever."""
    deadline = time.monotonic() + patience_seconds
    wait = 0.05
    while time.monotonic() < deadline:
        entry = ledger.entry(store, table.name, day)
        if entry is None or entry.generation == mine.generation:
            return
        if entry.state == "done" or entry.failure is not None:
            return
        time.sleep(random.uniform(0.5, 1.0) * wait)
        wait = min(_LONGEST_WAIT_SECONDS, wait * 1.5)
