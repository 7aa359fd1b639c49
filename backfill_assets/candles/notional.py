"""The notional traded on a day in US dollars, by market, from the day's candles; the baseline stores it."""

from __future__ import annotations

from typing import Final

from backfill_assets.candles.query import candles_of
from backfill_assets.feeds import pair_of
from backfill_assets.lake.store import Store
from backfill_assets.quality.baseline import market
from backfill_assets.venues import DOLLARS

_DAY: Final = "1d"


def notional_usd(store: Store, day: str) -> dict[str, float]:
    """Return Σ price·amount of the day's accepted trades, in dollars, by market.

    A quote currency other than the dollar is priced by the vwap, over all venues, of its pairs against a
    dollar on the same day. A market is left out if its quote currency has no such pair or its volume is
    unknown.
    """
    candles = candles_of(store, day, _DAY).select(["exchange", "symbol", "volume", "quote_volume"])
    days = candles.drop_null().to_pylist()
    base: dict[str, float] = {}
    quote: dict[str, float] = {}
    for row in days:
        coin, currency = _pair(row["symbol"])
        if currency in DOLLARS:
            base[coin] = base.get(coin, 0.0) + row["volume"]
            quote[coin] = quote.get(coin, 0.0) + row["quote_volume"]
    prices = {coin: quote[coin] / base[coin] for coin in base if base[coin] > 0} | dict.fromkeys(DOLLARS, 1.0)
    return {
        market(row["exchange"], row["symbol"]): row["quote_volume"] * prices[_pair(row["symbol"])[1]]
        for row in days
        if _pair(row["symbol"])[1] in prices
    }


def _pair(symbol: str) -> tuple[str, str]:
    coin, _, currency = pair_of(symbol).partition("-")
    return coin, currency
