"""The top of each book at the end of each minute, as digests, by which data types of one market are compared.

Quotes, snapshots and changes of books are made by the vendor of the same messages, so at every moment they
show the same best levels. Of each symbol, minute and depth 32 bits are kept: of the prices and amounts of the
best 1, 5 and 25 levels that are in force when the minute ends, as deep as the data type goes. Two different
books have the same digest once in four billion minutes. After a file's last row its last book stays in force,
so a file that ends early differs from the others until midnight.
"""

from __future__ import annotations

from base64 import b64encode
from typing import TYPE_CHECKING, Any, Final

from backfill_assets.quality.profiles import MinuteTops

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from backfill_assets.ticks.profile import Name, Rows

    Floats = NDArray[np.float64]

#: Levels of a side that each data type shows; books that are replayed have any number.
LEVELS: Final = {"quotes": 1, "book_snapshot_5": 5, "book_snapshot_25": 25}
MOST_DEPTH: Final = max(LEVELS.values())


def minute_tops(name: Name, digests: Any, levels: int) -> MinuteTops:
    """Digests of a symbol (one row per depth) as deep as the data type goes."""
    from backfill_assets.ticks.book_kernels import DEPTHS

    return MinuteTops(
        dataset_symbol=name.dataset_symbol,
        symbol=name.symbol,
        digests={
            depth: b64encode(row.astype("<u4").tobytes()).decode()
            for depth, row in zip(DEPTHS, digests, strict=True)
            if depth <= levels
        },
    )


class Tops:
    """Digests of quotes or snapshots, for every symbol of a file; a symbol is known by its number."""

    def __init__(self, day_start: int, data_type: str) -> None:
        import numpy as np

        from backfill_assets.ticks import book_kernels

        self._np: Any = np
        self._k: Any = book_kernels
        self._day_start = day_start
        self._levels = LEVELS[data_type]
        # Where bid price, bid amount, ask price and ask amount of a level stand among the numbers of a row.
        if self._levels == 1:
            columns = [[2, 3, 1, 0]]
        else:
            columns = [[4 * n + 2, 4 * n + 3, 4 * n, 4 * n + 1] for n in range(self._levels)]
        self._columns = np.array(columns, np.int64).reshape(-1)
        self._names: list[Name] = []
        self._last = np.zeros(0, np.int64)
        self._tops = np.zeros((0, len(self._columns)))
        self._digests = np.zeros((0, len(book_kernels.DEPTHS), book_kernels.MINUTES), np.uint32)

    def name(self, symbol: int, name: Name) -> None:
        """Say which symbol the next number stands for."""
        if symbol < len(self._names):
            return
        self._names.append(name)
        if symbol >= len(self._last):
            more = max(1, len(self._last))
            np = self._np
            self._last = np.concatenate([self._last, np.full(more, -1)])
            self._tops = np.concatenate([self._tops, np.full((more, self._tops.shape[1]), np.nan)])
            shape = (more, *self._digests.shape[1:])
            self._digests = np.concatenate([self._digests, np.zeros(shape, np.uint32)])

    def add(self, rows: Rows, values: Floats, symbol_of: Any, start: int, stop: int) -> None:
        """Follow the rows from ``start`` to before ``stop``."""
        self._k.follow_tops(
            rows.locals, rows.codes, symbol_of, values, self._columns, start, stop, self._last, self._tops,
            self._digests, self._day_start,
        )  # fmt: skip

    def finish(self) -> tuple[MinuteTops, ...]:
        """The digests of all symbols with rows, by their names."""
        found = []
        for number, name in enumerate(self._names):
            if self._last[number] >= 0:
                self._k.end_tops(number, self._last, self._tops, self._digests)
                found.append(minute_tops(name, self._digests[number], self._levels))
        return tuple(sorted(found, key=lambda tops: tops.dataset_symbol))
