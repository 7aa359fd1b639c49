"""Digests of the top of each book at the end of each minute, to compare data types of one market.

The vendor makes quotes, snapshots and changes of books from the same messages, so at every moment they show
the same best levels. For each symbol, minute and depth 32 bits are stored: the digest of the prices and
amounts of the best 1, 5 and 25 levels in force at the end of the minute, as deep as the data type goes. Two
different books have the same digest once in four billion minutes. After a file's last row its last book stays
in force, so a file that ends early differs from the others until midnight.

Another 32 bits of each minute are the digest of its path: the best level of both sides in order, with the
arrival of each. They show changes that are undone before the minute ends. A minute in which the best prices
are crossed or locked for a moment has no path.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING, Any, Final

from backfill_assets.quality.book_states import BOOK_LETTERS, BookState
from backfill_assets.quality.profiles import PATH, MinuteNumbers, MinuteTops, Silence

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from backfill_assets.ticks.profile import Name, Rows

    Floats = NDArray[np.float64]

#: Levels of a side that each data type shows; books that are replayed have any number.
LEVELS: Final = {"quotes": 1, "book_ticker": 1, "book_snapshot_5": 5, "book_snapshot_25": 25}
MOST_DEPTH: Final = max(LEVELS.values())
#: A minute counts as crossed if the book was crossed or locked for this long.
CROSSED_MINUTE_US: Final = 1_000_000


def minute_digests(name: Name, digests: Any, levels: int, paths: Any, flags: Any) -> MinuteNumbers:
    """Digests of a symbol's books (one row per depth), as deep as the data type goes, and of its paths."""
    import numpy as np

    from backfill_assets.ticks.book_kernels import DEPTHS, M_CROSSED

    # A minute without a change has a path too; a minute that is crossed for a moment has none.
    folded = np.maximum((paths ^ (paths >> 32)) & 0xFFFFFFFF, 1)
    comparable = (digests[0] != 0) & (flags & M_CROSSED == 0)
    rows = {str(depth): row for depth, row in zip(DEPTHS, digests, strict=True) if depth <= levels}
    rows[PATH] = np.where(comparable, folded, 0)
    packed = {key: row.astype("<u4").tobytes() for key, row in rows.items()}
    return MinuteNumbers(dataset_symbol=name.dataset_symbol, symbol=name.symbol, packed=packed)


def minute_letters(flags: Any, crossed_us: Any, changes: Any, diverged: Collection[int] = ()) -> str:
    """State of each minute from the kernels' records, one letter each."""
    import numpy as np

    from backfill_assets.ticks import book_kernels as k

    contradicted = np.zeros(k.MINUTES, np.bool_)
    contradicted[[minute for minute in diverged if 0 <= minute < k.MINUTES]] = True
    states: list[tuple[BookState, Any]] = [
        ("unknown", flags & k.M_KNOWN == 0),
        ("diverged", contradicted),
        ("crossed", crossed_us >= CROSSED_MINUTE_US),
        ("proven", flags & k.M_PROVEN != 0),
        ("silent", changes == 0),
    ]
    letters = [ord(BOOK_LETTERS[state]) for state, _ in states]
    found = np.select([applies for _, applies in states], letters, ord(BOOK_LETTERS["consistent"]))
    return found.astype(np.uint8).tobytes().decode()


def longest_unchanged(c: list[int]) -> Silence | None:
    """The longest time without a change by a symbol's counts; the last such time ends at the last row."""
    from backfill_assets.ticks import book_kernels as k

    others = c[k.B_CHANGES] - 2
    if others < 1:
        return None
    start, length = c[k.B_UNCHANGED_START], c[k.B_UNCHANGED]
    at_end = c[k.B_LAST] - c[k.B_LAST_CHANGE]
    if at_end > length:
        start, length = c[k.B_LAST_CHANGE], at_end
    usual = max(0.0, (c[k.B_LAST] - c[k.B_FIRST_CHANGE] - length) / others)
    return Silence(start_us=start, end_us=start + length, usual_us=usual) if length else None


class Tops:
    """Digests of quotes or snapshots, for every symbol of a file; a number identifies a symbol."""

    def __init__(self, day_start: int, data_type: str) -> None:
        import numpy as np

        from backfill_assets.ticks import book_kernels

        self._np: Any = np
        self._k: Any = book_kernels
        self._day_start = day_start
        self._levels = LEVELS[data_type]
        # The exchange's own stream has its own times, so it is compared with nothing and not stored.
        self._is_compared = data_type != "book_ticker"
        # Places of a level's bid price, bid amount, ask price and ask amount among the numbers of a row.
        if self._levels == 1:
            columns = [[2, 3, 1, 0]]
        else:
            columns = [[4 * n + 2, 4 * n + 3, 4 * n, 4 * n + 1] for n in range(self._levels)]
        self._columns = np.array(columns, np.int64).reshape(-1)
        self._names: list[Name] = []
        k = book_kernels
        self._counts = np.zeros((0, k.B_SIZE), np.int64)
        self._tops = np.zeros((0, len(self._columns)))
        self._digests = np.zeros((0, len(k.DEPTHS), k.MINUTES), np.uint32)
        self._changes = np.zeros((0, k.MINUTES), np.int32)
        self._crossed_us = np.zeros((0, k.MINUTES), np.int64)
        self._flags = np.zeros((0, k.MINUTES), np.uint8)
        self._best = np.zeros((0, 4))
        self._paths = np.zeros((0, k.MINUTES), np.int64)

    def name(self, symbol: int, name: Name) -> None:
        """Name the symbol of the next number."""
        if symbol < len(self._names):
            return
        self._names.append(name)
        if symbol < len(self._counts):
            return
        more = max(1, len(self._counts))
        for state in ("counts", "tops", "digests", "changes", "crossed_us", "flags", "best", "paths"):
            array = getattr(self, f"_{state}")
            rest = self._np.full(
                (more, *array.shape[1:]), self._np.nan if state == "tops" else 0, array.dtype
            )
            setattr(self, f"_{state}", self._np.concatenate([array, rest]))

    def add(self, rows: Rows, values: Floats, symbol_of: Any, start: int, stop: int) -> None:
        """Add the rows from ``start`` to before ``stop``."""
        self._k.follow_tops(
            rows.locals, rows.codes, symbol_of, values, self._columns, start, stop, self._counts, self._tops,
            self._digests, self._changes, self._crossed_us, self._flags, self._best, self._paths,
            self._day_start,
        )  # fmt: skip

    def finish(self) -> tuple[MinuteTops, ...]:
        """The minutes of all symbols with rows, sorted by name; ends the counting."""
        found = [self._of_symbol(number, name) for number, name in self._with_rows()]
        return tuple(sorted(found, key=lambda tops: tops.dataset_symbol))

    def numbers(self) -> tuple[MinuteNumbers, ...]:
        """The digests of all symbols with rows, sorted by name, after ``finish``."""
        found = [
            minute_digests(
                name, self._digests[number], self._levels, self._paths[number], self._flags[number]
            )
            for number, name in (self._with_rows() if self._is_compared else ())
        ]
        return tuple(sorted(found, key=lambda one: one.dataset_symbol))

    def _with_rows(self) -> Iterator[tuple[int, Name]]:
        rows = self._counts[:, self._k.B_ROWS]
        return ((number, name) for number, name in enumerate(self._names) if rows[number])

    def _of_symbol(self, s: int, name: Name) -> MinuteTops:
        k = self._k
        k.end_tops(
            s, self._counts, self._tops, self._digests, self._changes, self._flags, self._best, self._paths,
            self._day_start,
        )  # fmt: skip
        c = self._counts[s].tolist()
        return MinuteTops(
            dataset_symbol=name.dataset_symbol,
            symbol=name.symbol,
            minutes=minute_letters(self._flags[s], self._crossed_us[s], self._changes[s]),
            valid_us=c[k.B_VALID_US],
            longest_unchanged=longest_unchanged(c),
            last_change_us=c[k.B_LAST_CHANGE] if c[k.B_CHANGES] else None,
        )
