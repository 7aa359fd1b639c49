"""The model of a listing, shared by both sources of the stand-in, and of a stream of trades.

The listings of the generated market are in ``catalogue``; ``directory`` makes its listings from file names.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Listing:
    """One symbol of one venue while it is listed under that name.

    Attributes
    ----------
    native_id
        The exchange's own id, as in ``availableSymbols`` (lower case on Binance).
    dataset_symbol
        The name in the file's URL.
    column_symbol
        The name in the file's ``symbol`` column.
    since, to
        First listed day, and the first day that is no longer listed.
    grid_until
        Pairs (day, decimals): the price grid that was valid before that day, oldest first.
    details
        Further fields of the vendor's instrument metadata.
    """

    exchange: str
    native_id: str
    dataset_symbol: str
    column_symbol: str
    base: str
    quote: str
    type: str
    since: str
    to: str | None = None
    data_types: tuple[str, ...] = ("trades",)
    price_decimals: int = 8
    amount_decimals: int = 8
    grid_until: tuple[tuple[str, int], ...] = ()
    maker_fee: float = 0.001
    taker_fee: float = 0.001
    details: tuple[tuple[str, Any], ...] = ()

    @property
    def canonical(self) -> str:
        """``BASE-QUOTE``."""
        return f"{self.base}-{self.quote}"

    def listed_on(self, day: str) -> bool:
        """Whether the venue lists the symbol on that day."""
        return self.since <= day and (self.to is None or day < self.to)

    def price_decimals_on(self, day: str) -> int:
        """Decimals of the price grid that is valid on that day."""
        return next((decimals for until, decimals in self.grid_until if day < until), self.price_decimals)


@dataclass(frozen=True, slots=True)
class Stream:
    """One uninterrupted sequence of trades, under all the names that the venue has given it over time.

    Attributes
    ----------
    listings
        The names, oldest first; each begins where the one before ends.
    rows_per_day
        Ids used on an average day; days differ by up to a fifth.
    numeric_since
        First day whose trades carry a numeric id; ``None`` if they never do.
    id_base
        The id before the first trade of the first listed day.
    id_holes
        Share of ids that no trade carries, in runs of at most 5 (Binance futures).
    zero_rows
        Rows per day with price and amount 0.
    millisecond_times
        Whether ``timestamp`` has milliseconds only.
    quiet_share
        Share of the day's minutes without trades.
    unknown_side_share
        Share of trades without a taker's side.
    premium_bp
        Distance of the venue's price from the reference, in 1/10,000.
    silent_days
        Listed days without a single trade.
    """

    listings: tuple[Listing, ...]
    rows_per_day: int
    numeric_since: str | None = "1970-01-01"
    id_base: int = 1_000_000
    id_holes: float = 0.0
    zero_rows: int = 0
    millisecond_times: bool = False
    quiet_share: float = 0.004
    unknown_side_share: float = 0.0
    premium_bp: float = 0.0
    silent_days: frozenset[str] = field(default_factory=frozenset)

    @property
    def exchange(self) -> str:
        """The venue."""
        return self.listings[0].exchange

    @property
    def canonical(self) -> str:
        """``BASE-QUOTE``, the same under every name."""
        return self.listings[0].canonical

    def listing_on(self, day: str) -> Listing | None:
        """Return the name under which the stream is listed on that day."""
        return next((listing for listing in self.listings if listing.listed_on(day)), None)
