"""Whether data types that the vendor makes of the same books show the same books at the end of each minute.

``quotes``, ``book_snapshot_5`` and ``book_snapshot_25`` are made of the messages of ``incremental_book_L2``,
so one that differs was damaged on its way to us; which of two that is, nothing says, so both warn and neither
loses a score. ``book_ticker`` is the exchange's own stream with times of its own and is compared with none.
Profiles have the digests (``ticks.tops``), so no file is opened.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from backfill_assets.feeds import Feed
from backfill_assets.lake.documents import Document
from backfill_assets.quality.profiles import FeedProfile, MinuteTops

#: Data types that are made of one book.
OF_ONE_BOOK: Final = ("quotes", "book_snapshot_5", "book_snapshot_25", "incremental_book_L2")


class Agreement(Document):
    """How two feeds of one market compare: minutes in which both know a book, and those that differ."""

    other: str
    dataset_symbol: str
    #: Levels of a side that are compared.
    levels: int
    minutes: int
    differing: int
    #: The first minute of the day that differs; null if none does.
    first: int | None = None


def agreements(feed: Feed, profile: FeedProfile, newest: Mapping[Feed, FeedProfile]) -> tuple[Agreement, ...]:
    """How a version of a feed compares with the newest versions of the market's other feeds."""
    if feed.data_type not in OF_ONE_BOOK:
        return ()
    others = [
        Feed(feed.exchange, data_type, feed.dataset_symbol)
        for data_type in OF_ONE_BOOK
        if data_type != feed.data_type
    ]
    return tuple(
        found
        for other in others
        if other in newest
        for found in _compared(profile, str(other), newest[other])
    )


def _compared(profile: FeedProfile, other: str, theirs: FeedProfile) -> Iterator[Agreement]:
    by_symbol: dict[str, MinuteTops] = {tops.dataset_symbol: tops for tops in theirs.tops}
    for tops in profile.tops:
        beside = by_symbol.get(tops.dataset_symbol)
        if beside is None:
            continue
        levels = max(tops.digests.keys() & beside.digests.keys())
        ours, others = tops.unpacked(levels), beside.unpacked(levels)
        both = (ours != 0) & (others != 0)
        differing = (both & (ours != others)).nonzero()[0].tolist()
        yield Agreement(
            other=other,
            dataset_symbol=tops.dataset_symbol,
            levels=levels,
            minutes=int(both.sum()),
            differing=len(differing),
            first=differing[0] if differing else None,
        )
