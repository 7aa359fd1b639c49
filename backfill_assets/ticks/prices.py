"""Counts spikes, rows off the grid, and the longest time without a price change, from the prices of trades.

``quality.profiles`` defines each number; this module computes the numbers without storing rows. It keeps the
last 2,050 prices of each symbol (33 kB, taken as they arrive). A trade is judged when its later neighbors are
known, by the scatter of the 2,000 trades around the end of its block of 500 (the first 2,000 are one block):
1.4826 × the median distance of their log prices from the median of each one's own 50. Distances from one
median of all 2,000 would measure the move of the market, and let a wrong price in a thin pair pass. The
distances of its own neighbors from their median count too: in a wild quarter of an hour, every peak of the
price is further from its neighbors than the rest of the day suggests. If no price step is known, the fifth
smallest move between two of these trades replaces it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from backfill_assets.quality.profiles import Spike, Stretch
from backfill_assets.settings import CountingSettings

if TYPE_CHECKING:
    from backfill_assets.ticks.profile import Rows

LISTED_SPIKES: Final = 100

#: Price steps by the text of the file's symbol column: all steps valid at some time of the day.
Grids = Mapping[str, tuple[float, ...]]


class Prices:
    """State of the price kernels for every symbol of a file; a number identifies a symbol."""

    def __init__(self, counting: CountingSettings, grids: Grids) -> None:
        import numpy as np

        from backfill_assets.ticks import price_kernels
        from backfill_assets.ticks.jit import untouched

        self._untouched = untouched
        self._k: Any = price_kernels
        self._known_grids = grids
        near, many = counting.spike_neighbours, counting.spike_scatter_trades
        self._shape = np.array([near, counting.spike_least_neighbours, many], np.int64)
        self._limits = np.array([counting.spike_multiple, counting.spike_least_scatter_bp * 1e-4])
        self._counts = np.zeros((1, self._k.P_SIZE), np.int64)
        self._values = np.zeros((1, self._k.V_SIZE))
        self._grids = np.zeros((1, self._k.GRIDS))
        # The system provides zeroed memory only when it is touched.
        self._prices = np.zeros((1, near + many))
        self._price_times = np.zeros((1, near + many), np.int64)
        self._spike_times = np.zeros((1, LISTED_SPIKES), np.int64)
        self._spike_prices = np.zeros((1, LISTED_SPIKES))

    def make_room(self, symbols: int) -> None:
        """Make room for this many symbols."""
        known = len(self._counts)
        if symbols <= known:
            return
        size = max(symbols, 2 * known)
        filled = self._counts[:, self._k.P_FILL].tolist()
        spikes = self._counts[:, self._k.P_SPIKES].tolist()
        for used, names in (
            (None, ("counts", "values", "grids")),
            (filled, ("prices", "price_times")),
            (spikes, ("spike_times", "spike_prices")),
        ):
            for name in names:
                setattr(self, f"_{name}", self._larger(getattr(self, f"_{name}"), size, used))

    def _larger(self, array: Any, size: int, used: list[int] | None) -> Any:
        """The array with more rows; copies only used cells, since a touched page takes memory."""
        larger = self._untouched((size, array.shape[1]), array.dtype)
        for row, count in enumerate(used or [array.shape[1]] * len(array)):
            if count:
                larger[row, :count] = array[row, :count]
        return larger

    def name(self, symbol: int, text: str) -> None:
        """Name the symbol of the number; its steps are not judged if unknown or too many."""
        steps = sorted(set(self._known_grids.get(text, ())))
        if steps and steps[0] > 0 and len(steps) <= self._k.GRIDS:
            self._grids[symbol, : len(steps)] = steps

    def add(self, rows: Rows, symbol_of: Any, start: int, stop: int) -> None:
        """Count the rows from ``start`` to before ``stop``."""
        self._k.count_prices(
            rows.times, rows.locals, rows.price, rows.amount, rows.codes, symbol_of, start, stop,
            *self._state(),
        )  # fmt: skip

    def _state(self) -> tuple[Any, ...]:
        return (
            self._counts, self._values, self._grids, self._prices, self._price_times, self._spike_times,
            self._spike_prices, self._shape, self._limits,
        )  # fmt: skip

    def finish(self, symbol: int) -> dict[str, Any]:
        """End the symbol's counting, and return its part of ``SymbolProfile``."""
        k = self._k
        k.end_prices(symbol, *self._state())
        c = self._counts[symbol].tolist()
        listed = min(c[k.P_SPIKES], LISTED_SPIKES)
        spikes = zip(
            self._spike_times[symbol, :listed].tolist(),
            self._spike_prices[symbol, :listed].tolist(),
            strict=True,
        )
        steps = tuple(step for step in self._grids[symbol].tolist() if step)
        most, longest = (
            Stretch(start_us=c[at + 1], end_us=c[at + 2], rows=c[at], price=float(price)) if c[at] else None
            for at, price in (
                (k.P_MOST_ROWS, self._values[symbol, k.V_MOST]),
                (k.P_LONG_ROWS, self._values[symbol, k.V_LONG]),
            )
        )
        return {
            "spike_count": c[k.P_SPIKES],
            "spikes": tuple(Spike(time_us=time, price=price) for time, price in spikes),
            "unjudged_prices": c[k.P_UNJUDGED],
            "price_increments": steps,
            "off_grid_rows": c[k.P_OFF_GRID] if steps else None,
            "off_finer_grid_rows": c[k.P_OFF_FINER] if steps else None,
            "most_rows_at_one_price": most,
            "longest_at_one_price": longest,
        }
