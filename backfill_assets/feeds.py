"""What a feed is, and the data types the vendor serves.

A feed is the unit of download, storage, judgement and quarantine. This file holds names only: where a
feed is stored is the lake's business, where it is fetched from is the Tardis client's.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

#: Data types with their own table, in the order they are listed everywhere.
DATA_TYPES: Final = (
    "trades",
    "quotes",
    "book_ticker",
    "book_snapshot_5",
    "book_snapshot_25",
    "incremental_book_L2",
    "derivative_ticker",
    "liquidations",
    "options_chain",
)

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
        """Read ``exchange/data_type/SYMBOL`` back; raises ``ValueError`` if it is not of that form."""
        exchange, data_type, dataset_symbol = text.split("/")
        return cls(exchange, data_type, dataset_symbol)

    @property
    def is_grouped(self) -> bool:
        """Whether the file holds many symbols."""
        return self.dataset_symbol in GROUPED_SYMBOLS


@dataclass(frozen=True, order=True, slots=True)
class ExpectedFeed:
    """A feed that a day must have, with the symbols that its rows may carry.

    Attributes
    ----------
    feed
        What to fetch.
    symbols
        Pairs (venue's symbol as in the file's ``symbol`` column, canonical symbol such as ``BTC-USDT``).
    """

    feed: Feed
    symbols: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class FeedChoice:
    """Some feeds of a day; an empty part leaves the choice open, so the empty choice is every feed."""

    exchanges: tuple[str, ...] = ()
    #: Canonical symbols, or groups such as ``SPOT``.
    symbols: tuple[str, ...] = ()
    data_types: tuple[str, ...] = ()

    def has(self, feed: Feed, canonical: Collection[str]) -> bool:
        """Whether the feed, whose rows carry these canonical symbols, is among them.

        A grouped file is chosen by its group, or by any symbol in it, since it is fetched as a whole.
        """
        return (
            (not self.exchanges or feed.exchange in self.exchanges)
            and (not self.data_types or feed.data_type in self.data_types)
            and (not self.symbols or not {feed.dataset_symbol, *canonical}.isdisjoint(self.symbols))
        )
