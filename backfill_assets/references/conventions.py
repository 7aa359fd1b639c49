"""How each source makes its one-minute candles, as data with a link to the description.

Our own convention: a minute without trades has no candle, a candle opens at its first trade, and a volume is
in base currency. An exchange that is not in the table is not compared, because a correct candle could then
count as wrong.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

MINUTES_PER_DAY: Final = 1_440


@dataclass(frozen=True, slots=True)
class Convention:
    """How a source makes the candles of a venue.

    Attributes
    ----------
    empty
        A minute without trades is ``flat``, a candle at the close before it with volume 0, or ``omitted``. If
        the maker of the candles is unknown, a minute of volume 0 is ``filled``, at any prices.
    opens_at
        The price at which a candle opens; with ``previous_close``, high and low include that price.
    volume
        ``base`` currency or ``contracts``. ``unrelated``: includes other venues and cannot be compared.
    is_composite
        Whether the candles are of several venues. Then prices may differ as those of venues do, and a minute
        that only one side has does not count as a difference.
    reach_minutes
        How many of the newest minutes the source still has; None if it has every minute of the days before.
    source
        Page that describes the convention.
    """

    empty: Literal["flat", "omitted", "filled"]
    opens_at: Literal["first_trade", "previous_close"] = "first_trade"
    volume: Literal["base", "contracts", "unrelated"] = "base"
    is_composite: bool = False
    reach_minutes: int | None = None
    source: str = ""

    @property
    def words(self) -> str:
        """The convention in words for people."""
        empty = {
            "flat": "minutes without trades are flat, with volume 0",
            "omitted": "minutes without trades are left out",
            "filled": "minutes of volume 0 are taken for filled",
        }
        opens = {
            "first_trade": "a candle opens at its first trade",
            "previous_close": "a candle opens at the close before it",
        }
        volume = {
            "base": "volumes in base currency",
            "contracts": "volumes in contracts",
            "unrelated": "volumes are not compared",
        }
        parts = [empty[self.empty], opens[self.opens_at], volume[self.volume]]
        parts += ["made of several venues"] if self.is_composite else []
        parts += [f"the newest {self.reach_minutes:,} minutes only"] if self.reach_minutes else []
        return ", ".join(parts)


@dataclass(frozen=True, slots=True)
class Venue:
    """An exchange at ccxt: the library's name for it, minutes per request, and how its candles are made."""

    name: str
    page: int
    convention: Convention


#: Files of a directory, of any maker: minutes of volume 0 are filled, and a candle opens at a trade.
OF_FILES: Final = Convention(empty="filled", source="docs/scores.md#consistency")

_BINANCE: Final = Convention(
    empty="flat",
    source="https://developers.binance.com/docs/binance-spot-api-docs/rest-api/market-data-endpoints#klinecandlestick-data",
)
# The answers shown on that page, spot and perpetual, have candles that open at the close before them. No page
# says that a minute without trades is flat.
_BITGET: Final = Convention(
    empty="flat",
    opens_at="previous_close",
    source="https://github.com/ccxt/ccxt/pull/18679",
)

#: By the data vendor's id of the exchange.
CCXT: Final[Mapping[str, Venue]] = {
    "binance": Venue("binance", 1_000, _BINANCE),
    "binance-futures": Venue("binanceusdm", 1_000, _BINANCE),
    "binance-us": Venue("binanceus", 1_000, _BINANCE),
    "bitget": Venue("bitget", 200, _BITGET),
    "bitget-futures": Venue("bitget", 200, _BITGET),
    "coinbase": Venue(
        "coinbaseexchange",
        300,
        Convention(
            empty="omitted",
            source="https://docs.cdp.coinbase.com/api-reference/exchange-api/rest-api/products/get-product-candles",
        ),
    ),
    "kraken": Venue(
        "kraken",
        MINUTES_PER_DAY,
        Convention(
            empty="flat",
            reach_minutes=720,
            source="https://docs.kraken.com/api-reference/market-data/get-ohlc-data",
        ),
    ),
    # The page says that intervals without ticks are left out, and volumes are in lots, as ccxt gives them.
    "kucoin-futures": Venue(
        "kucoinfutures",
        200,
        Convention(
            empty="omitted",
            volume="contracts",
            source="https://www.kucoin.com/docs-new/rest/futures-trading/market-data/get-klines",
        ),
    ),
}

#: The vendor's candles are made of the trades of several exchanges.
MASSIVE: Final = Convention(
    empty="omitted",
    volume="unrelated",
    is_composite=True,
    source="https://polygon.io/knowledge-base/article/how-does-polygon-create-the-open-high-low-close-volume-aggregate-bars",
)


def convention_of(source: str, exchange: str) -> Convention | None:
    """How a source of the settings makes candles of an exchange; None if that is not known."""
    if source == "ccxt":
        return CCXT[exchange].convention if exchange in CCXT else None
    return MASSIVE if source == "massive" else OF_FILES
