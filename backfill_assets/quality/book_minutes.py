"""The states of each minute of a market, by an accepted file of quotes or books.

Settling the day computes them from profiles that it parses anyway, with the replay's own states, from the
digests of the market's other feeds (``agreement``), and from the known outages. No rows are read.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Final

import numpy as np

from backfill_assets.days import MICROSECONDS_PER_SECOND, start_us
from backfill_assets.feeds import Feed
from backfill_assets.lake.documents import Document
from backfill_assets.quality.agreement import OF_ONE_BOOK, compared_minutes, others_of
from backfill_assets.quality.book_states import BOOK_LETTERS, EARLIER_LETTERS, BookState
from backfill_assets.quality.bucket_states import MINUTES, letters_in, runs_of, touched
from backfill_assets.quality.profiles import BookProfile, FeedProfile, MinuteTops
from backfill_assets.quality.verdict import Context

#: Data types whose minutes have these states.
OF_BOOKS: Final = (*OF_ONE_BOOK, "book_ticker")
#: Letters of states, first the one that counts where the symbols of a file differ. Silent and unknown come
#: last: the book of one symbol says nothing of the others while it does not change, or is not known.
_FIRST_OF_FILE: Final = np.frombuffer(b"mdxgcvsn", np.uint8)
#: Position in ``_FIRST_OF_FILE`` by the letter's character code.
_ORDER: Final = np.zeros(128, np.uint8)
_ORDER[_FIRST_OF_FILE] = range(len(_FIRST_OF_FILE))


class BookMinutes(Document):
    """One market's minutes in a file of quotes or books.

    Attributes
    ----------
    states
        Letters of ``book_states.BOOK_LETTERS``, run by run like the states of buckets.
    valid_share
        Share of the feed's window with a best bid below the best ask.
    longest_unchanged_seconds, unchanged_at_end_seconds
        The longest time without a change, and the time from the last change to the end of the window. Null
        without a change.
    """

    states: str
    valid_share: float | None = None
    longest_unchanged_seconds: float | None = None
    unchanged_at_end_seconds: float | None = None


def book_minutes(
    feed: Feed,
    symbols: Iterable[str],
    day: str,
    profile: FeedProfile | None,
    context: Context,
    newest: Mapping[Feed, FeedProfile],
) -> dict[str, BookMinutes]:
    """States by canonical symbol; empty for other data types and for files that an earlier version decoded.

    Parameters
    ----------
    profile
        Profile of the accepted version; None where no version counts.
    newest
        Profiles of the newest versions of the day's feeds.
    """
    if feed.data_type not in OF_BOOKS:
        return {}
    if profile is None:
        return {symbol: _uniform("missing") for symbol in sorted(set(symbols))}
    counted: Iterable[BookProfile | MinuteTops] = profile.books or profile.tops
    by_symbol = {one.symbol: one for one in counted if one.minutes}
    if profile.rows and not by_symbol:
        return {}
    return {
        symbol: _of_market(feed, by_symbol[symbol], day, profile, context, newest)
        if symbol in by_symbol
        else _uniform("unknown")
        for symbol in sorted(set(symbols))
    }


def of_file(books: Collection[BookMinutes]) -> BookMinutes | None:
    """The minutes of a file by those of its symbols; None without any.

    In a group, each minute has the first state by ``_FIRST_OF_FILE``, and each number is that of the worst
    symbol; symbols without a number are left out.
    """
    if len(books) < 2:
        return next(iter(books), None)
    letters = "".join(letters_in(book.states) for book in books).encode()
    found = _ORDER[np.frombuffer(letters, np.uint8)].reshape(len(books), MINUTES).min(axis=0)
    shares = [book.valid_share for book in books if book.valid_share is not None]
    longest = [book.longest_unchanged_seconds for book in books if book.longest_unchanged_seconds is not None]
    at_end = [book.unchanged_at_end_seconds for book in books if book.unchanged_at_end_seconds is not None]
    return BookMinutes(
        states=runs_of(_FIRST_OF_FILE[found].tobytes().decode()),
        valid_share=min(shares, default=None),
        longest_unchanged_seconds=max(longest, default=None),
        unchanged_at_end_seconds=max(at_end, default=None),
    )


def _uniform(state: BookState) -> BookMinutes:
    return BookMinutes(states=runs_of(BOOK_LETTERS[state] * MINUTES))


def _of_market(
    feed: Feed,
    own: BookProfile | MinuteTops,
    day: str,
    profile: FeedProfile,
    context: Context,
    newest: Mapping[Feed, FeedProfile],
) -> BookMinutes:
    letter = {state: ord(text) for state, text in BOOK_LETTERS.items()}
    states = np.frombuffer(own.minutes.translate(EARLIER_LETTERS).encode(), np.uint8).copy()
    is_quiet = np.isin(states, [letter["silent"], letter["unknown"]])
    states[is_quiet & touched(context.outages, start_us(day))] = letter["outage"]
    agrees, differs = (np.zeros(MINUTES, np.bool_) for _ in range(2))
    numbers = {one.dataset_symbol: one for one in profile.numbers}.get(own.dataset_symbol)
    for other in others_of(feed) if numbers is not None else ():
        for beside in newest[other].numbers if other in newest else ():
            if numbers is not None and beside.dataset_symbol == own.dataset_symbol:
                _, both, differing, passing = compared_minutes(numbers, beside)
                differs |= differing | passing
                agrees |= both & ~differing & ~passing
    states[agrees & (states == letter["consistent"])] = letter["proven"]
    states[differs] = letter["diverged"]
    window_us = context.window_end_us - context.window_start_us
    longest, last = own.longest_unchanged, own.last_change_us
    return BookMinutes(
        states=runs_of(states.tobytes().decode()),
        valid_share=min(1.0, own.valid_us / window_us) if window_us else None,
        longest_unchanged_seconds=_seconds(longest.end_us - longest.start_us) if longest else None,
        unchanged_at_end_seconds=_seconds(max(0, context.window_end_us - last)) if last is not None else None,
    )


def _seconds(length_us: int) -> float:
    return length_us / MICROSECONDS_PER_SECOND
