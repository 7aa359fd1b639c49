"""States of the minutes of quotes and books: their names, and the letters that they are written with.

``bucket_states`` writes them run by run, as it does those of trades; no letter means two things.
"""

from __future__ import annotations

from typing import Final, Literal

BookState = Literal[
    "diverged", "crossed", "proven", "consistent", "silent", "outage", "unknown", "missing",
]  # fmt: skip

#: One letter per state, in the order in which they are told.
BOOK_LETTERS: Final[dict[BookState, str]] = {
    "proven": "v",  # a snapshot, or another data type of the market, agrees
    "consistent": "c",  # a valid book, and nothing that contradicts
    "silent": "s",  # no change
    "diverged": "d",  # a snapshot, or another data type of the market, contradicts
    "crossed": "x",  # crossed or locked for a second or longer
    "outage": "g",  # no change during a known outage, or no book
    "unknown": "n",  # no book yet, or none any more
    "missing": "m",  # no file counts
}

#: Letters in profiles of an earlier version: no book yet, and proven.
EARLIER_LETTERS: Final = str.maketrans("-p", "nv")
