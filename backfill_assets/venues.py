"""Differences between venues: ids, other names of currencies, and which of these are dollars.

These are separate from the settings because they are facts about the venues, measured or documented, not
wishes. ``id_laws`` defines the evidence that the ids of a venue's trades give.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

#: Names that some venues give a currency, and its usual name.
CURRENCY_ALIASES: Final[Mapping[str, str]] = {"XBT": "BTC", "XDG": "DOGE"}
#: Quote currencies that count as one dollar; their own changes are far below the precision of the weights.
DOLLARS: Final = frozenset({"USD", "USDT", "USDC", "BUSD"})
#: Ids of the vendor's exchanges (https://api.tardis.dev/v1/exchanges), by which a typing error is recognized.
#: The vendor adds new ones, so an id that is not here may be right.
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
