"""The lowest and highest prices of each minute of tickers and liquidations, to be compared with the trades'.

They are computed while the file is decoded and stored in a file of their own (``quality.minute_numbers``), so
the comparison opens no tick file; the bands of trades are their partial candles (``quality.beside_trades``).
Prices that are null or not above zero are left out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from backfill_assets.quality.profiles import BAND, MinuteNumbers

if TYPE_CHECKING:
    from backfill_assets.ticks.profile import Name, Rows

#: Price columns by data type.
COLUMNS: Final = {
    "derivative_ticker": ("last_price", "index_price", "mark_price"),
    "liquidations": ("price",),
}


class Bands:
    """Bands of every symbol of a file; a number identifies a symbol."""

    def __init__(self, day_start: int, data_type: str) -> None:
        import numpy as np

        from backfill_assets.ticks import value_kernels

        self._np: Any = np
        self._k: Any = value_kernels
        self._day_start = day_start
        self._columns = COLUMNS[data_type]
        self._names: list[Name] = []
        self._bands = self._empty(1)

    def _empty(self, symbols: int) -> Any:
        """Lows and highs by column, symbol and minute."""
        empty = self._np.empty((len(self._columns), symbols, self._k.MINUTES, 2))
        empty[..., 0], empty[..., 1] = self._np.inf, -self._np.inf
        return empty

    def name(self, symbol: int, name: Name) -> None:
        """Name the symbol of the next number."""
        if symbol < len(self._names):
            return
        self._names.append(name)
        if symbol >= self._bands.shape[1]:
            self._bands = self._np.concatenate([self._bands, self._empty(self._bands.shape[1])], axis=1)

    def add(self, rows: Rows, symbol_of: Any, start: int, stop: int) -> None:
        """Add the rows from ``start`` to before ``stop``."""
        k = self._k
        if rows.values is not None:
            prices = [rows.values[column] for column in (k.T_LAST, k.T_INDEX, k.T_MARK)]
        else:
            prices = [rows.price]
        for column, of_column in enumerate(prices):
            k.widen_bands(
                rows.times, rows.codes, symbol_of, of_column, start, stop, self._day_start,
                self._bands[column],
            )  # fmt: skip

    def numbers(self) -> tuple[MinuteNumbers, ...]:
        """The bands of all symbols with a price, sorted by name."""
        found = []
        for number, name in enumerate(self._names):
            bands = {column: self._packed(self._bands[n, number]) for n, column in enumerate(self._columns)}
            if packed := {column: entries for column, entries in bands.items() if entries}:
                found.append(
                    MinuteNumbers(dataset_symbol=name.dataset_symbol, symbol=name.symbol, packed=packed)
                )
        return tuple(sorted(found, key=lambda one: one.dataset_symbol))

    def _packed(self, bands: Any) -> bytes:
        minutes = (bands[:, 0] <= bands[:, 1]).nonzero()[0]
        entries = self._np.empty(len(minutes), BAND)
        entries["minute"], entries["low"], entries["high"] = minutes, bands[minutes, 0], bands[minutes, 1]
        packed: bytes = entries.tobytes()
        return packed
