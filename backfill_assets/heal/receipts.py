"""Stores answers in the lake, and repeats the conclusions from them without a network."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from backfill_assets.days import utc_now
from backfill_assets.failures import BackfillError
from backfill_assets.feeds import Feed
from backfill_assets.heal.conclusions import Conclusion, Hole, conclude
from backfill_assets.heal.sources import Answered, Body, Source, SourceName
from backfill_assets.lake import paths
from backfill_assets.lake.evidence import Answer, Ids, Receipt, TradeRow
from backfill_assets.lake.store import Store
from backfill_assets.lake.tables import DataFile
from backfill_assets.ticks.healed import read_rows, rows_file

#: Ending of the names of stored answers.
KINDS: Final[dict[SourceName, str]] = {"exchange": "json", "archive": "csv"}

#: Makes a source that replays these bodies.
Replaying = Callable[[SourceName, Sequence[Body]], Source]


@dataclass(frozen=True, slots=True)
class Replay:
    """The result of repeating a receipt's conclusion; ``problem`` is empty if the conclusion is the same."""

    receipt: Receipt
    problem: str = ""


def keep(
    store: Store, feed: Feed, day: str, source: Source, hole: Hole, answered: Answered, found: Conclusion
) -> Receipt:
    """Store the bodies and their trades; the caller puts the receipt into the feed's manifest."""
    kind = KINDS[source.name]
    answers = []
    for body in answered.bodies:
        content = hashlib.sha256(body.data).hexdigest()
        store.put_bytes(body.data, paths.receipt_data(feed, day, content, kind))
        answers.append(
            Answer(
                request=body.request, content=content, bytes=len(body.data), whole_sha256=body.whole_sha256
            )
        )
    rows = None
    if found.recovered:
        data = rows_file(found.recovered)
        content = hashlib.sha256(data).hexdigest()
        store.put_bytes(data, paths.receipt_data(feed, day, content, "csv"))
        rows = DataFile(content=content, rows=len(found.recovered), bytes=len(data))
    first, last = hole.ids
    return Receipt(
        source=source.name,
        asked=source.asked,
        first_id=first,
        last_id=last,
        before=hole.before,
        after=hole.after,
        answers=tuple(answers),
        never_issued=found.never_issued,
        recovered=ranges_of(found.recovered),
        rows=rows,
        asked_at=utc_now(),
    )


def replay(store: Store, feed: Feed, day: str, receipt: Receipt, source_of: Replaying) -> Replay:
    """Conclude from the stored answers again."""
    try:
        bodies = [
            Body(a.request, _stored(store, feed, day, a.content, receipt.ending), a.whole_sha256)
            for a in receipt.answers
        ]
        hole = Hole(receipt.before, receipt.after)
        [(_, answered)] = source_of(receipt.source, bodies).ask([hole])
        if isinstance(answered, BackfillError):
            return Replay(receipt, str(answered))
        found = conclude(hole, answered.issued)
        kept = read_rows(_stored(store, feed, day, receipt.rows.content, "csv")) if receipt.rows else []
    except BackfillError as failure:
        return Replay(receipt, str(failure))
    is_same = (found.never_issued, list(found.recovered)) == (receipt.never_issued, kept)
    return Replay(receipt, "" if is_same else "the stored answers give another conclusion")


def ranges_of(trades: Sequence[TradeRow]) -> tuple[Ids, ...]:
    """Ids of sorted trades as ranges."""
    found: list[Ids] = []
    for trade in trades:
        if found and found[-1][1] == trade.id - 1:
            found[-1] = (found[-1][0], trade.id)
        else:
            found.append((trade.id, trade.id))
    return tuple(found)


def _stored(store: Store, feed: Feed, day: str, content: str, kind: str) -> bytes:
    with store.local_copy(paths.receipt_data(feed, day, content, kind)) as file:
        return file.read_bytes()
