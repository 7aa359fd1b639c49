"""The definition of a feed, and the data types that the vendor serves.

A feed is the unit of download, storage, judgment and quarantine. This file holds names only: the lake knows
where a feed is stored, and the Tardis client where it is fetched from.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final

#: No market has prices or amounts outside these ranges (ends included), and sums of values outside need not
#: be numbers. The cheapest coins cost 1e-15 bitcoin, and no supply reaches 1e18.
SANE_PRICE: Final = (1e-18, 1e15)
SANE_AMOUNT: Final = (1e-18, 1e18)


@dataclass(frozen=True, slots=True)
class DataType:
    """The properties of a data type's rows.

    Attributes
    ----------
    has_fills
        Whether a row is a fill, whose price and amount are above zero; rows of other types are updates.
    has_trades
        Whether a row is one trade of a venue, with ids that prove completeness and valid rows per minute.
    makes_candles
        Whether candles are made from the rows.
    changes_books
        Whether a row is a change of an order book, so that the rows can be replayed.
    low_price, high_price
        Columns of the lowest and the highest price that a row shows of its market; empty if a row shows none,
        and so witnesses no price.
    summed
        Float columns whose sums show that the rows are in a table; their values do not cancel out.
    """

    has_fills: bool = False
    has_trades: bool = False
    makes_candles: bool = False
    changes_books: bool = False
    low_price: str = ""
    high_price: str = ""
    summed: tuple[str, ...] = ()

    @property
    def shows_prices(self) -> bool:
        """Whether a row witnesses the price of its market."""
        return bool(self.low_price)


_QUOTES: Final = DataType(low_price="bid_price", high_price="ask_price", summed=("ask_price", "bid_price"))
_BOOK: Final = DataType(
    low_price="bids_0_price", high_price="asks_0_price", summed=("asks_0_price", "bids_0_price")
)

#: Data types with their own table, in the order in which they are listed everywhere.
DATA_TYPES: Final[Mapping[str, DataType]] = {
    "trades": DataType(
        has_fills=True,
        has_trades=True,
        makes_candles=True,
        low_price="price",
        high_price="price",
        summed=("price", "amount"),
    ),
    "quotes": _QUOTES,
    "book_ticker": _QUOTES,
    "book_snapshot_5": _BOOK,
    "book_snapshot_25": _BOOK,
    "incremental_book_L2": DataType(changes_books=True, summed=("price", "amount")),
    "derivative_ticker": DataType(summed=("mark_price",)),
    "liquidations": DataType(has_fills=True, summed=("price", "amount")),
    "options_chain": DataType(summed=("ask_price", "bid_price", "mark_price")),
}

#: Data set symbols that stand for one file with every symbol of that kind (vendor documentation).
GROUPED_SYMBOLS: Final = ("SPOT", "FUTURES", "PERPETUALS", "OPTIONS")


@dataclass(frozen=True, order=True, slots=True)
class Feed:
    """One file per day at the vendor.

    Attributes
    ----------
    exchange
        The vendor's exchange id, e.g. ``binance-futures``.
    data_type
        One of ``DATA_TYPES``.
    dataset_symbol
        The symbol in the file's URL, upper case with ``-`` for ``/`` and ``:``, e.g. ``XBT-USD``.
    """

    exchange: str
    data_type: str
    dataset_symbol: str

    def __str__(self) -> str:
        return f"{self.exchange}/{self.data_type}/{self.dataset_symbol}"

    @classmethod
    def parse(cls, text: str) -> Feed:
        """Parse ``exchange/data_type/SYMBOL``; raise ``ValueError`` if the text does not have that form."""
        exchange, data_type, dataset_symbol = text.split("/")
        return cls(exchange, data_type, dataset_symbol)

    @property
    def type(self) -> DataType:
        """The feed's data type."""
        return DATA_TYPES[self.data_type]

    @property
    def is_grouped(self) -> bool:
        """Whether the file holds many symbols."""
        return self.dataset_symbol in GROUPED_SYMBOLS


#: Suffix of a perpetual's symbol; it trades beside the spot market of the pair, at different prices.
PERPETUAL: Final = "-PERP"


def pair_of(symbol: str) -> str:
    """Return the pair of a spot or perpetual market, and any other symbol unchanged."""
    return symbol.removesuffix(PERPETUAL)


@dataclass(frozen=True, order=True, slots=True)
class ExpectedFeed:
    """A feed that a day must have, with the symbols that its rows may carry.

    Attributes
    ----------
    feed
        The feed to fetch.
    symbols
        Pairs (venue's symbol as in the file's ``symbol`` column, canonical symbol; see
        ``tardis.metadata.Instrument.market``).
    """

    feed: Feed
    symbols: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class FeedChoice:
    """A choice of a day's feeds; an empty part does not restrict it, so the empty choice is every feed."""

    exchanges: tuple[str, ...] = ()
    #: Canonical symbols, or groups such as ``SPOT``.
    symbols: tuple[str, ...] = ()
    data_types: tuple[str, ...] = ()

    def has(self, feed: Feed, canonical: Collection[str]) -> bool:
        """Whether the choice includes the feed, whose rows carry these canonical symbols.

        A pair chooses its spot market and its perpetual. A grouped file is chosen by its group, or by any
        symbol in it, because it is fetched as a whole.
        """
        names = {feed.dataset_symbol, *canonical, *map(pair_of, canonical)}
        return (
            (not self.exchanges or feed.exchange in self.exchanges)
            and (not self.data_types or feed.data_type in self.data_types)
            and (not self.symbols or not names.isdisjoint(self.symbols))
        )
