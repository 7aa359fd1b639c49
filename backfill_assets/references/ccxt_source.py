"""The exchanges' own candles through ccxt, which knows the interface of each exchange.

ccxt keeps to each exchange's rate limit (``enableRateLimit``). It takes a page that is not JSON for an answer
without markets or candles, so this module checks every answer.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Final

from backfill_assets.days import parse_day
from backfill_assets.failures import PermanentFailure, TransientFailure, printable, redacted
from backfill_assets.feeds import PERPETUAL, pair_of
from backfill_assets.references.answers import INSTALL, Answer, answer_of, read_minutes
from backfill_assets.references.conventions import (
    CCXT,
    MINUTES_PER_DAY,
    Convention,
    Venue,
    convention_of,
)
from backfill_assets.settings import CcxtSource, resolve

#: Limit of one request.
_TIMEOUT_MS: Final = 10_000
_SAID: Final = 160
_HOST: Final = re.compile(r"^https?://[^/]+")


class CcxtCandles:
    """See ``CandleApi``; requests each exchange's list of markets once."""

    name: Final = "ccxt"

    def __init__(self, settings: CcxtSource) -> None:
        self._exchanges = settings.exchanges
        self._settings = settings
        self._clients: dict[str, Any] = {}

    def convention(self, exchange: str) -> Convention | None:
        """See ``CandleApi``."""
        return convention_of(self.name, exchange)

    def unit(self, exchange: str) -> str:
        """See ``CandleApi``: one exchange."""
        return exchange

    def asked_for(self, exchange: str) -> bool:
        """See ``CandleApi``."""
        return not self._exchanges or exchange in self._exchanges

    def fetch(self, exchange: str, symbol: str, day: str) -> Answer:
        """See ``CandleApi``."""
        venue = CCXT[exchange]
        with self._failures(exchange, f"{symbol} of {day}"):
            client = self._client(venue)
            market = _market_of(client.markets, symbol)
            if market is None:
                return Answer("absent", reason=_lacks(exchange, symbol))
            rows: list[list[float | None]] = []
            for since, minutes in _pages(day, venue.page):
                rows += client.fetch_ohlcv(market["symbol"], "1m", since, minutes)
            found = read_minutes(rows, day)
        return answer_of(found, market["symbol"], venue.convention, _contract_size(market, venue.convention))

    def missing_market(self, exchange: str, symbol: str) -> str:
        """See ``CandleApi``."""
        with self._failures(exchange, "its list of markets"):
            markets = self._client(CCXT[exchange]).markets
        return "" if _market_of(markets, symbol) else _lacks(exchange, symbol)

    def _client(self, venue: Venue) -> Any:
        """The exchange's client with its markets."""
        if venue.name not in self._clients:
            client = _strict(venue.name)({"enableRateLimit": True, "timeout": _TIMEOUT_MS})
            # Names of currencies are not needed, and many exchanges give them only with a key.
            client.has["fetchCurrencies"] = False
            if venue.name == "binance":
                client.options["fetchMarkets"] = {"types": ["spot"]}
            if endpoint := resolve(self._settings.endpoint).rstrip("/"):
                client.urls["api"] = _moved(client.urls["api"], f"{endpoint}/{venue.name}")
            if not client.load_markets():
                msg = "lists no markets"
                raise TransientFailure(msg)
            self._clients[venue.name] = client
        return self._clients[venue.name]

    @contextmanager
    def _failures(self, exchange: str, wanted: str) -> Iterator[None]:
        """Turn failures of the library into those of this package."""
        ccxt = _library()
        asked = f"ccxt: {exchange} was asked for {wanted}"
        said = partial(_said, base=resolve(self._settings.endpoint))
        try:
            yield
        except TransientFailure as failure:
            msg = f"{asked} and {failure}: the next run of the day asks again"
            raise TransientFailure(msg) from failure
        except (ccxt.RateLimitExceeded, ccxt.DDoSProtection) as error:
            msg = f"{asked} and answered that it is asked too often (429): the next run of the day asks again"
            raise TransientFailure(msg) from error
        except (ccxt.AuthenticationError, ccxt.PermissionDenied) as error:
            msg = (
                f"{asked} and refuses this machine ({said(error)}): leave the exchange out of the "
                "exchanges of ccxt in comparison.sources"
            )
            raise PermanentFailure(msg) from error
        # The library's code raises these when an answer is JSON of an unexpected form.
        except (ccxt.BaseError, ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            msg = (
                f"{asked} and did not answer with candles ({said(error)}): check the network and "
                "comparison.sources; the next run of the day asks again"
            )
            raise TransientFailure(msg) from error


def _library() -> Any:
    try:
        import ccxt
    except ImportError as error:
        msg = f"comparison.sources: ccxt is not installed: {INSTALL}"
        raise PermanentFailure(msg) from error
    return ccxt


def _strict(name: str) -> Any:
    """The exchange's class, changed so that an answer that is not JSON is an error instead of empty."""
    ccxt = _library()
    known = getattr(ccxt, name)

    def fetch(self: Any, *arguments: Any, **named: Any) -> Any:
        answer = known.fetch(self, *arguments, **named)
        if isinstance(answer, dict | list):
            return answer
        begin = " ".join(str(answer).split())[:40]
        msg = f"the answer is not JSON and begins with {begin!r}"
        raise ccxt.BadResponse(msg)

    return type(name, (known,), {"fetch": fetch})


def _moved(urls: Any, base: str) -> Any:
    """The addresses of an exchange with another scheme and host, and the same paths."""
    if isinstance(urls, str):
        return _HOST.sub(base, urls)
    return {name: _moved(url, base) for name, url in urls.items()} if isinstance(urls, dict) else urls


def _market_of(markets: Mapping[str, Mapping[str, Any]], symbol: str) -> Mapping[str, Any] | None:
    """The market of a symbol: ``BTC/USDT`` for spot, ``BTC/USDT:USDT`` or ``BTC/USD:BTC`` for a perpetual."""
    base, _, quote = pair_of(symbol).partition("-")
    names = [f"{base}/{quote}:{settled_in}" for settled_in in (quote, base)]
    found = (markets.get(name) for name in (names if symbol.endswith(PERPETUAL) else [f"{base}/{quote}"]))
    return next((market for market in found if market is not None), None)


def _lacks(exchange: str, symbol: str) -> str:
    kind = "perpetual" if symbol.endswith(PERPETUAL) else "spot market"
    return f"{exchange} lists no {kind} {pair_of(symbol).replace('-', '/')} any more, or never did"


def _contract_size(market: Mapping[str, Any], convention: Convention) -> float | None:
    """Base currency of one contract; None for an inverse market, whose contracts are of quote currency."""
    if convention.volume == "base":
        return 1.0
    size = market.get("contractSize")
    return None if market.get("inverse") or size is None else float(size)


def _pages(day: str, page: int) -> Iterator[tuple[int, int]]:
    """First millisecond and number of minutes of each request."""
    midnight = datetime.combine(parse_day(day), datetime.min.time(), UTC)
    for first in range(0, MINUTES_PER_DAY, page):
        since = midnight + timedelta(minutes=first)
        yield round(since.timestamp() * 1_000), min(page, MINUTES_PER_DAY - first)


def _said(error: Exception, base: str) -> str:
    return printable(redacted(" ".join(f"{type(error).__name__}: {error}".split()), base=base))[:_SAID]
