"""Whether data types that the vendor makes from the same books show the same books at the end of each minute.

``quotes``, ``book_snapshot_5`` and ``book_snapshot_25`` are made from the messages of
``incremental_book_L2``, so a file that differs was damaged on its way to us. Nothing says which of two files
that is, so both warn and neither loses a score. ``book_ticker`` is the exchange's own stream with its own
times and is never compared. The digests are made during decoding (``ticks.tops``), so no tick file is opened.

A difference that is over before the minute ends shows in the minute's path. Where the paths of a market
differ in most minutes though its books agree, the vendor makes quotes in another way, and paths say nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

from backfill_assets.feeds import Feed
from backfill_assets.lake.documents import Document
from backfill_assets.quality.profiles import PATH, FeedProfile, MinuteNumbers

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Minutes = NDArray[np.bool_]

#: Paths that differ in a greater share of the minutes with changes are made in another way, unless only a few
#: minutes differ.
OTHER_WAY: Final = 0.5
FEW_MINUTES: Final = 10
#: Data types that are made from one book.
OF_ONE_BOOK: Final = ("quotes", "book_snapshot_5", "book_snapshot_25", "incremental_book_L2")


class Agreement(Document):
    """How two feeds of one market compare: minutes in which both know a book, and minutes that differ.

    ``passing`` counts the minutes that end alike but differ before their end.
    """

    other: str
    dataset_symbol: str
    #: Levels of a side that are compared.
    levels: int
    minutes: int
    differing: int
    #: The first minute of the day that differs; null if none does.
    first: int | None = None
    passing: int = 0
    first_passing: int | None = None


def agreements(feed: Feed, profile: FeedProfile, newest: Mapping[Feed, FeedProfile]) -> tuple[Agreement, ...]:
    """How a version of a feed compares with the newest versions of the market's other feeds."""
    return tuple(
        found
        for other in others_of(feed)
        if other in newest
        for found in _compared(profile, str(other), newest[other])
    )


def others_of(feed: Feed) -> list[Feed]:
    """The market's other feeds of the same book."""
    if feed.data_type not in OF_ONE_BOOK:
        return []
    types = [data_type for data_type in OF_ONE_BOOK if data_type != feed.data_type]
    return [Feed(feed.exchange, data_type, feed.dataset_symbol) for data_type in types]


def compared_minutes(ours: MinuteNumbers, theirs: MinuteNumbers) -> tuple[int, Minutes, Minutes, Minutes]:
    """How two feeds compare minute by minute.

    Returns
    -------
    levels
        Levels of a side that are compared.
    both, differing, passing
        Minutes in which both know a book; that end with different books; that end alike but differ before.
    """
    levels = max(ours.levels & theirs.levels)
    one, other = ours.digests(str(levels)), theirs.digests(str(levels))
    both = (one != 0) & (other != 0)
    differing = both & (one != other)
    passing = _paths_apart(ours.digests(PATH), theirs.digests(PATH)) & both & ~differing
    return levels, both, differing, passing


def _paths_apart(one: Any, other: Any) -> Any:
    both = (one != 0) & (other != 0)
    apart = both & (one != other)
    # 1 is the path of a minute without a change.
    changing = both & ((one > 1) | (other > 1))
    return apart & (apart.sum() <= max(FEW_MINUTES, OTHER_WAY * changing.sum()))


def _compared(profile: FeedProfile, other: str, theirs: FeedProfile) -> Iterator[Agreement]:
    by_symbol = {numbers.dataset_symbol: numbers for numbers in theirs.numbers}
    for numbers in profile.numbers:
        beside = by_symbol.get(numbers.dataset_symbol)
        if beside is None:
            continue
        levels, both, differing, passing = compared_minutes(numbers, beside)
        yield Agreement(
            other=other,
            dataset_symbol=numbers.dataset_symbol,
            levels=levels,
            minutes=int(both.sum()),
            differing=int(differing.sum()),
            first=int(differing.argmax()) if differing.any() else None,
            passing=int(passing.sum()),
            first_passing=int(passing.argmax()) if passing.any() else None,
        )
