"""Replays an order book from its changes and counts crossed time, absent levels and wrong snapshots.

``quality.profiles`` defines each number; this module computes the numbers without storing rows. It keeps two
books per symbol, as sorted arrays that double up to 131,072 levels a side (8 MB a symbol then): the current
book, and the book before the last snapshot, which is compared with that snapshot when it is complete. Beyond
that many levels, those furthest from the best are dropped and counted, and the book counts as known only as
deep as it is kept. A book is known as deep as its last snapshot reached. A change further than 512 levels
from the best moves no level: the kernels merge 512 such changes at once.

A snapshot that follows the message before it at once is a free witness of all changes between it and the
snapshot before. A snapshot after a new connection is no witness of the changes that the venue sent meanwhile.
The busiest minute of the day bounds the number of these changes: if at its rate a message is expected in that
time with a chance of ``CHANCE`` or more, as many of the largest messages as it expects are explained.

A repeated message is recognized among about the last 65,536 by 64 bits of its exchange time, prices and
amounts in order. If a venue gives no time, no message equals another.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

from backfill_assets.days import MICROSECONDS_PER_MINUTE
from backfill_assets.quality.profiles import BookProfile, Disagreement, MinuteNumbers, Stuck
from backfill_assets.ticks.tops import MOST_DEPTH, longest_unchanged, minute_digests, minute_letters

if TYPE_CHECKING:
    from backfill_assets.ticks.prices import Grids
    from backfill_assets.ticks.profile import Name, Rows

LISTED_DISAGREEMENTS: Final = 100
#: A message expected with a smaller chance explains no difference.
CHANCE: Final = 0.01
_LEAST_LEVELS: Final = 1 << 10
_MESSAGES_SEEN: Final = 1 << 16


class Books:
    """State of the book kernels for every symbol of a file; a number identifies a symbol.

    Parameters
    ----------
    day_start
        First microsecond of the file's day.
    grids
        Price steps valid at some time of the day, by the text of the file's symbol column.
    resent
        Number of messages, repeating earlier ones in order, that make a block that was sent again.
    """

    def __init__(self, day_start: int, grids: Grids, resent: int) -> None:
        import numpy as np

        from backfill_assets.ticks import book_kernels
        from backfill_assets.ticks.jit import untouched

        self._np: Any = np
        self._k: Any = book_kernels
        self._untouched = untouched
        self._day_start, self._known_grids, self._resent = day_start, grids, resent
        self._names: list[Name] = []
        k = self._k
        self._counts = np.zeros((1, k.B_SIZE), np.int64)
        self._sizes = np.zeros(4, np.int64)
        self._keys = untouched((4, _LEAST_LEVELS), np.float64)
        self._amounts = untouched((4, _LEAST_LEVELS), np.float64)
        self._waiting = untouched((2, k.WAITING), np.float64)
        self._waiting_amounts = untouched((2, k.WAITING), np.float64)
        self._horizons = np.zeros((1, k.H_SIZE))
        self._grids = np.zeros((1, k.GRIDS))
        self._changes = np.zeros((1, k.MINUTES), np.int32)
        self._crossed_us = np.zeros((1, k.MINUTES), np.int64)
        self._flags = np.zeros((1, k.MINUTES), np.uint8)
        self._tops = np.zeros((1, len(k.DEPTHS), k.MINUTES), np.uint32)
        self._best = np.zeros((1, 4))
        self._paths = np.zeros((1, k.MINUTES), np.int64)
        self._listed = np.zeros((1, k.L_SIZE * LISTED_DISAGREEMENTS), np.int64)
        self._seen = untouched((_MESSAGES_SEEN, 2), np.int64)

    def name(self, symbol: int, name: Name) -> None:
        """Name the symbol of the next number; its steps are not judged if unknown or too many."""
        if symbol < len(self._names):
            return
        self._names.append(name)
        if symbol >= len(self._counts):
            self._make_room(2 * len(self._counts), self._keys.shape[1])
        steps = sorted(set(self._known_grids.get(name.dataset_symbol, ())))
        if steps and steps[0] > 0 and len(steps) <= self._k.GRIDS:
            self._grids[symbol, : len(steps)] = steps

    def _make_room(self, symbols: int, levels: int) -> None:
        former = len(self._counts)
        for name in ("counts", "horizons", "grids", "changes", "crossed_us", "flags", "tops", "best", "paths",
                     "listed", "waiting", "waiting_amounts"):  # fmt: skip
            array = getattr(self, f"_{name}")
            size = symbols * len(array) // former
            if size > len(array):
                larger = self._untouched((size, *array.shape[1:]), array.dtype)
                larger[: len(array)] = array
                setattr(self, f"_{name}", larger)
        used = self._sizes.tolist()
        self._sizes = self._np.zeros(4 * symbols, self._np.int64)
        self._sizes[: len(used)] = used
        for name in ("keys", "amounts"):
            array = getattr(self, f"_{name}")
            larger = self._untouched((4 * symbols, levels), array.dtype)
            # Copy only used cells, since a touched page takes memory.
            for row, size in enumerate(used):
                larger[row, :size] = array[row, :size]
            setattr(self, f"_{name}", larger)

    def add(self, rows: Rows, symbol_of: Any, start: int, stop: int) -> None:
        """Replay the rows from ``start`` to before ``stop``."""
        if rows.price is None or rows.amount is None or rows.side is None or rows.is_snapshot is None:
            msg = "changes of books have a price, an amount, a side and say whether they are of a snapshot"
            raise TypeError(msg)
        bits = rows.price.view(self._np.int64), rows.amount.view(self._np.int64)
        while True:
            start = self._k.replay(
                rows.times, rows.locals, rows.price, rows.amount, *bits, rows.side, rows.is_snapshot,
                rows.codes, symbol_of, start, stop, self._counts, self._sizes, self._keys, self._amounts,
                self._waiting, self._waiting_amounts, self._horizons, self._grids, self._changes,
                self._crossed_us, self._flags, self._tops, self._best, self._paths, self._listed, self._seen,
                self._resent, self._day_start,
            )  # fmt: skip
            if start == stop:
                return
            self._make_room(len(self._counts), 2 * self._keys.shape[1])

    def finish(self) -> tuple[BookProfile, ...]:
        """The books of all symbols with rows, sorted by name; ends the counting."""
        found = [
            self._book(number, name)
            for number, name in enumerate(self._names)
            if self._counts[number, self._k.B_ROWS]
        ]
        return tuple(sorted(found, key=lambda book: book.dataset_symbol))

    def numbers(self) -> tuple[MinuteNumbers, ...]:
        """The digests of all symbols whose book was known, sorted by name, after ``finish``."""
        found = [
            minute_digests(name, self._tops[number], MOST_DEPTH, self._paths[number], self._flags[number])
            for number, name in enumerate(self._names)
            if self._tops[number].any()
        ]
        return tuple(sorted(found, key=lambda one: one.dataset_symbol))

    def _book(self, s: int, name: Name) -> BookProfile:
        k = self._k
        k.end_book(
            s, self._counts, self._sizes, self._keys, self._amounts, self._waiting, self._waiting_amounts,
            self._horizons, self._changes, self._flags, self._tops, self._best, self._paths, self._listed,
            self._seen, self._resent, self._day_start,
        )  # fmt: skip
        c = self._counts[s].tolist()
        disagreements = self._disagreements(s, c)
        has_grid = bool(self._grids[s, 0])
        longest = c[k.B_CROSS_LONGEST_START], c[k.B_CROSS_LONGEST_START] + c[k.B_CROSS_LONGEST]
        return BookProfile(
            dataset_symbol=name.dataset_symbol,
            symbol=name.symbol,
            rows=c[k.B_ROWS],
            messages=c[k.B_MESSAGES],
            snapshots=c[k.B_SNAPSHOTS],
            rows_before_snapshot=c[k.B_ROWS_BEFORE],
            unknown_us=max(0, (c[k.B_BOOK_FROM] if c[k.B_SNAPSHOTS] else c[k.B_LAST]) - c[k.B_FIRST]),
            valid_us=c[k.B_VALID_US],
            one_sided_us=c[k.B_ONE_SIDED_US],
            locked_us=c[k.B_LOCKED_US],
            crossed_us=c[k.B_CROSSED_US],
            stuck_us=c[k.B_STUCK_US],
            longest_crossed=Stuck(start_us=longest[0], end_us=longest[1]) if c[k.B_CROSS_LONGEST] else None,
            deletes=c[k.B_DELETES],
            absent_deletes=c[k.B_ABSENT],
            absent_deletes_beyond=c[k.B_ABSENT_BEYOND],
            invalid_price_rows=c[k.B_BAD_PRICE],
            invalid_amount_rows=c[k.B_BAD_AMOUNT],
            sideless_rows=c[k.B_SIDELESS],
            off_grid_rows=c[k.B_OFF_GRID] if has_grid else None,
            off_finer_grid_rows=c[k.B_OFF_FINER] if has_grid else None,
            compared_snapshots=c[k.B_COMPARED],
            compared_levels=c[k.B_LEVELS_COMPARED],
            differing_levels=c[k.B_LEVELS_DIFFERING],
            disagreements=disagreements,
            disagreement_count=c[k.B_DIFFERING],
            dropped_levels=c[k.B_DROPPED],
            longest_unchanged=longest_unchanged(c),
            last_change_us=c[k.B_LAST_CHANGE] if c[k.B_CHANGES] else None,
            far_levels=c[k.B_FAR],
            shifted_levels=c[k.B_SHIFTED],
            first_shifted_us=c[k.B_SHIFTED_AT] if c[k.B_SHIFTED] else None,
            resent_blocks=c[k.B_RESENT_BLOCKS],
            resent_messages=c[k.B_RESENT],
            minutes=self._minutes(s, disagreements),
        )

    def _disagreements(self, s: int, c: list[int]) -> tuple[Disagreement, ...]:
        k = self._k
        rate = int(self._changes[s].max()) / MICROSECONDS_PER_MINUTE
        listed = self._listed[s].reshape(-1, k.L_SIZE)[: min(c[k.B_DIFFERING], LISTED_DISAGREEMENTS)]
        found = []
        for time, gap, compared, differing in listed.tolist():
            missed = math.ceil(rate * gap) if rate * gap >= CHANCE else 0
            explained = min(compared, missed * c[k.B_MOST_ROWS])
            found.append(
                Disagreement(
                    time_us=time, gap_us=gap, compared=compared, differing=differing, explained=explained
                )
            )
        return tuple(found)

    def _minutes(self, s: int, disagreements: tuple[Disagreement, ...]) -> str:
        diverged = [
            (one.time_us - self._day_start) // MICROSECONDS_PER_MINUTE
            for one in disagreements
            if one.differing > one.explained
        ]
        return minute_letters(self._flags[s], self._crossed_us[s], self._changes[s], diverged)
