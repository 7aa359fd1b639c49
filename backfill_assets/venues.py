"""What differs by venue: ids, other names of currencies, and which of these are dollars.

Separate from the settings because these are facts about the venues, measured or documented, and not wishes.
What the ids of a venue's trades prove is in ``id_laws``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

#: Names that some venues give a currency, and its usual name.
CURRENCY_ALIASES: Final[Mapping[str, str]] = {"XBT": "BTC", "XDG": "DOGE"}
#: Quote currencies that count as one dollar; their own ups and downs are far below what weights can tell.
DOLLARS: Final = frozenset({"USD", "USDT", "USDC", "BUSD"})
#: Exchanges that give old trades by their ids or times to everyone; ``heal.exchange_trades`` knows how.
ASKED_FOR_IDS: Final = frozenset({"binance", "binance-futures", "coinbase", "kraken", "okex"})
#: Ids of the vendor's exchanges (https://api.tardis.dev/v1/exchanges), by which a slip of the pen is known.
#: The vendor adds some: an id that is not here may be right.
EXCHANGES: Final = frozenset({
    "ascendex", "binance", "binance-delivery", "binance-dex", "binance-european-options",
    "binance-futures", "binance-jersey", "binance-options", "binance-us", "bitfinex",
    "bitfinex-derivatives", "bitflyer", "bitget", "bitget-futures", "bitmex", "bitnomial", "bitstamp",
    "blockchain-com", "bybit", "bybit-options", "bybit-spot", "coinbase", "coinbase-international",
    "coinflex", "crypto-com", "crypto-com-derivatives", "cryptofacilities", "delta", "deribit", "dydx",
    "dydx-v4", "ftx", "ftx-us", "gate-io", "gate-io-futures", "gemini", "hitbtc", "huobi", "huobi-dm",
    "huobi-dm-linear-swap", "huobi-dm-options", "huobi-dm-swap", "hyperliquid", "kraken", "kucoin",
    "kucoin-futures", "mango", "okcoin", "okex", "okex-futures", "okex-options", "okex-spreads",
    "okex-swap", "phemex", "poloniex", "serum", "star-atlas", "upbit", "woo-x",
})  # fmt: skip
