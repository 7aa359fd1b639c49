"""States of the minutes of quotes and books: their names and their letters.

``bucket_states`` writes them run by run, like the states of trades; no letter has two meanings.
"""

from __future__ import annotations

from typing import Final, Literal

BookState = Literal[
    "diverged", "crossed", "proven", "consistent", "silent", "outage", "unknown", "missing",
]  # fmt: skip

#: One letter per state, in the order in which they are shown.
BOOK_LETTERS: Final[dict[BookState, str]] = {
    "proven": "v",  # a snapshot, or another data type of the market, agrees
    "consistent": "c",  # a valid book that nothing contradicts
    "silent": "s",  # no change
    "diverged": "d",  # a snapshot, or another data type of the market, contradicts
    "crossed": "x",  # crossed or locked for a second or longer
    "outage": "g",  # no change, or no book, during a known outage
    "unknown": "n",  # no book yet, or no longer one
    "missing": "m",  # no file counts
}

#: Letters in profiles of an earlier version: no book yet, and proven.
EARLIER_LETTERS: Final = str.maketrans("-p", "nv")
