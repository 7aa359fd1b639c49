"""Derives instruments from exchange details, for keys that do not cover the instruments endpoint.

The details name symbols, kinds and availability, but not currencies or increments. So base and quote are
guessed from the symbol, and everything else stays null. This is separate from ``metadata`` because a guess
does not describe the vendor's answer.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final, cast, get_args

from backfill_assets.tardis.metadata import (
    DatasetSymbol,
    ExchangeDetails,
    Instrument,
    InstrumentList,
    InstrumentType,
    dataset_symbol,
)
from backfill_assets.venues import DOLLARS

#: Quote currencies that venues append without a separator.
QUOTE_CURRENCIES: Final = frozenset({
    "USDT", "USDC", "BUSD", "TUSD", "FDUSD", "USDP", "DAI", "USD",
    "EUR", "GBP", "TRY", "BRL", "JPY", "AUD", "KRW", "RUB", "UAH",
    "BTC", "XBT", "ETH", "BNB", "TRX", "XRP",
})  # fmt: skip

#: Data set symbols that stand for many symbols are not instruments.
_GROUPS: Final = frozenset({"SPOT", "FUTURES", "PERPETUALS", "OPTIONS"})

#: Contract families that CryptoFacilities writes in front: ``PF_XBTUSD``.
_FAMILIES: Final = frozenset({"PF", "PI", "PV", "FI", "FF", "FV"})
#: Kinds that WOO X and bitFlyer write in front of a pair: ``PERP_BTC_USDT``, ``FX_BTC_JPY``.
_KINDS: Final = frozenset({"PERP", "SPOT", "FX"})
#: Second words that are not currencies.
_TERMS: Final = frozenset({"SWAP", "PERP", "CW", "NW", "CQ", "NQ"})


def instruments_from_details(details: ExchangeDetails) -> InstrumentList:
    """One instrument per data set symbol, in the vendor's order."""
    own_ids = {dataset_symbol(symbol.id): symbol.id for symbol in details.available_symbols}
    kinds = get_args(InstrumentType)
    symbols = [s for s in details.datasets.symbols if dataset_symbol(s.id) not in _GROUPS and s.type in kinds]
    named = [(symbol, own_ids.get(dataset_symbol(symbol.id), symbol.id)) for symbol in symbols]
    known_bases = _certain_bases(own_id for _, own_id in named)
    return InstrumentList(
        source="exchange_details",
        instruments=tuple(_instrument(details.id, symbol, own_id, known_bases) for symbol, own_id in named),
    )


def guess_currencies(
    symbol: str, known_bases: frozenset[str] = frozenset(), exchange: str = ""
) -> tuple[str, str] | None:
    """Guess base and quote of ``XBT/USD``, ``BTC-USDT-SWAP`` or ``ETHUSDT``; None if unclear.

    Upbit writes the quote currency first (https://docs.upbit.com: ``KRW-BTC``). So did Poloniex until its new
    API of 2022: if both currencies may be quotes, neither is certain, unless the second is a dollar. Phemex
    writes an ``s`` in front of spot pairs (https://phemex-docs.github.io).

    Without a separator several readings are possible (``DOTUSD``: DOT-USD or DO-TUSD). A reading whose base
    is among ``known_bases`` or is itself a usual quote wins, then the one with the longest quote.
    """
    if exchange == "phemex":
        symbol = symbol.removeprefix("s")
    parts = re.split(r"[-/_:]", symbol.upper())
    if parts[0] in _FAMILIES or (parts[0] in _KINDS and len(parts) == 3 and parts[2] in QUOTE_CURRENCIES):
        parts = parts[1:]
    if exchange == "upbit":
        parts.reverse()
    if exchange == "poloniex" and parts[0] in QUOTE_CURRENCIES and not DOLLARS.issuperset(parts[1:]):
        return None
    if len(parts) > 1 and parts[0] and (parts[1] in QUOTE_CURRENCIES or _is_pair(parts)):
        return parts[0], parts[1]
    readings = _readings(parts[0])
    if not readings:
        return None
    known = known_bases | QUOTE_CURRENCIES
    return max(readings, key=lambda reading: (reading[0] in known, len(reading[1])))


def _is_pair(parts: list[str]) -> bool:
    """Whether these are two short words, the second neither a date nor a kind (unlike ``BTC-14FEB25``)."""
    return len(parts) == 2 and parts[1].isalpha() and len(parts[1]) <= 5 and parts[1] not in _TERMS


def _readings(text: str) -> list[tuple[str, str]]:
    return [
        (text[: -len(quote)], quote)
        for quote in QUOTE_CURRENCIES
        if text.endswith(quote) and len(text) > len(quote)
    ]


def _certain_bases(symbols: Iterable[str]) -> frozenset[str]:
    readings = (_readings(symbol.upper()) for symbol in symbols)
    return frozenset(found[0][0] for found in readings if len(found) == 1)


def _instrument(
    exchange: str,
    symbol: DatasetSymbol,
    own_id: str,
    known_bases: frozenset[str],
) -> Instrument:
    base, quote = guess_currencies(own_id, known_bases, exchange) or (None, None)
    return Instrument(
        id=own_id,
        exchange=exchange,
        type=cast("InstrumentType", symbol.type),
        available_since=symbol.available_since,
        available_to=symbol.available_to,
        dataset_id=symbol.id,
        base_currency=base,
        quote_currency=quote,
    )
