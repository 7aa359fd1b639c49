"""Facts that differ by venue: ids, other names of currencies, and which of these are dollars.

They are separate from the settings because they are facts about the venues, measured or documented, and not
choices. ``id_laws`` says what the ids of a venue's trades prove.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

#: Some venues' names of a currency, and its usual name.
CURRENCY_ALIASES: Final[Mapping[str, str]] = {"XBT": "BTC", "XDG": "DOGE"}
#: Quote currencies that count as one dollar; their own moves are far too small to affect weights.
DOLLARS: Final = frozenset({"USD", "USDT", "USDC", "BUSD"})
#: Exchanges whose old trades are public, by id or by time; ``heal.exchange_trades`` has the requests.
ASKED_FOR_IDS: Final = frozenset({"binance", "binance-futures", "coinbase", "kraken", "okex"})
#: Ids of the vendor's exchanges (https://api.tardis.dev/v1/exchanges), used to recognize typing errors.
#: The vendor adds exchanges, so an id that is not here may be right.
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
