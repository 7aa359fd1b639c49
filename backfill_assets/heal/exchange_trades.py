"""The exchange's own public trades, asked for through ccxt: the only module here that knows that library.

Two ways of asking show every id of a run. Coinbase gives trades below an id, newest first. Binance gives
trades of one order at one price as one, with the first and the last of their ids and a number of its own;
these numbers show whether a page lacks something.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from typing import Any, Final
from urllib.parse import urlsplit

import ccxt

from backfill_assets.days import MICROSECONDS_PER_MILLISECOND, time_us
from backfill_assets.failures import BackfillError, PermanentFailure, TransientFailure, redacted
from backfill_assets.feeds import Feed
from backfill_assets.heal.conclusions import Hole, Issued, Unproven
from backfill_assets.heal.recorded import RecordingSession, ReplayedSession
from backfill_assets.heal.sources import Answered, Body, Budget, SourceName

#: Trades of one page; both exchanges give at most so many.
_PAGE: Final = 1_000
_FEWEST: Final = 10
#: Pages for one hole: a longer one is an outage, for which the archive is the place.
_MOST_PAGES: Final = 50
#: Tries of one request, and the longest wait between two of them.
_TRIES: Final = 3
_LONGEST_WAIT_SECONDS: Final = 30.0
_FIRST_WAIT_SECONDS: Final = 0.5
_HOUR_MS: Final = 3_600_000

Trade = Mapping[str, Any]
Fetch = Callable[..., list[Trade]]


@dataclass(frozen=True, slots=True)
class _Venue:
    """How ccxt knows the exchange, and how it is asked."""

    client: str
    options: Mapping[str, Any]
    pages: Callable[[Fetch, Hole], list[Issued]]


class ExchangeTrades:
    """Asks one exchange for one market.

    Parameters
    ----------
    endpoint
        Where the exchange is asked instead of its own address; empty: there.
    bodies
        Answers to give again in place of the network's.
    """

    def __init__(
        self,
        feed: Feed,
        *,
        endpoint: str = "",
        timeout_seconds: float = 30.0,
        budget: Budget | None = None,
        bodies: Sequence[Body] | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._venue = _VENUES[feed.exchange]
        self._market_id = feed.dataset_symbol
        self._sleep = sleep
        self._session = (
            RecordingSession(budget or Budget(1), timeout_seconds)
            if bodies is None
            else ReplayedSession(bodies)
        )
        client = getattr(ccxt, self._venue.client)
        self._client = client(
            {
                "session": self._session,
                "timeout": round(timeout_seconds * 1_000),
                "enableRateLimit": bodies is None,
                "options": dict(self._venue.options),
            }
        )
        self._symbol = ""
        if bodies is not None:
            self._symbol = self._market_id
            self._client.set_markets([_market(self._client, self._market_id)])
        elif endpoint:
            self._client.urls["api"] = _moved(self._client.urls["api"], f"{endpoint}/{self._venue.client}")

    @property
    def name(self) -> SourceName:
        """See ``Source.name``."""
        return "exchange"

    @property
    def asked(self) -> str:
        """See ``Source.asked``."""
        return f"the public trades of {self._venue.client} for {self._market_id}"

    def ask(self, holes: Sequence[Hole]) -> Iterator[tuple[Hole, Answered | BackfillError]]:
        """See ``Source.ask``."""
        failure: BackfillError | None = None
        for hole in holes:
            if failure is None:
                try:
                    yield hole, self._answer(hole)
                    continue
                except Unproven as unproven:
                    yield hole, unproven
                    continue
                except BackfillError as found:
                    # It will answer the next hole no better.
                    failure = found
            yield hole, failure

    def _answer(self, hole: Hole) -> Answered:
        if not self._symbol:
            self._symbol = self._listed()
        self._session.bodies.clear()
        issued = self._venue.pages(self._fetch, hole)
        return Answered(tuple(self._session.bodies), tuple(issued))

    def _listed(self) -> str:
        """The library's name of the market.

        Raises
        ------
        PermanentFailure
            The exchange does not list it.
        """
        self._asked(self._client.load_markets)
        found = self._client.markets_by_id.get(self._market_id, [])
        names = [market["symbol"] for market in found if market["spot"]]
        if not names:
            msg = f"{self._venue.client} lists no spot market {self._market_id}"
            raise PermanentFailure(msg)
        return str(names[0])

    def _fetch(self, **arguments: Any) -> list[Trade]:
        """One page of trades; the body is what the exchange sent."""
        known = len(self._session.bodies)
        trades = self._asked(lambda: self._client.fetch_trades(self._symbol, **arguments))
        bodies = self._session.bodies[known:]
        if not bodies or _entries(bodies[-1]) != len(trades):
            msg = "the answer is no list of trades"
            raise Unproven(msg)
        # Answers before it were refusals.
        self._session.bodies[known:] = bodies[-1:]
        return list(trades)

    def _asked(self, call: Callable[[], Any]) -> Any:
        """Call the client, again where waiting may help."""
        for attempt in range(_TRIES):
            try:
                return call()
            except ccxt.OperationFailed as failure:
                if attempt + 1 == _TRIES:
                    msg = f"{self._venue.client} does not answer: {_said(failure)}"
                    raise TransientFailure(msg) from failure
                wait = self._session.retry_after or _FIRST_WAIT_SECONDS * 2**attempt
                self._sleep(min(wait, _LONGEST_WAIT_SECONDS))
            except ccxt.BaseError as failure:
                msg = f"{self._venue.client} refuses: {_said(failure)}"
                raise Unproven(msg) from failure
            except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as failure:
                # An unforeseen answer, which the library took for another.
                msg = f"the answer is no list of trades ({type(failure).__name__}: {_said(failure)})"
                raise Unproven(msg) from failure
        raise AssertionError


def _below_an_id(fetch: Fetch, hole: Hole) -> list[Issued]:
    """Pages of trades below an id, newest first, until the row before the hole is in one."""
    first, last = hole.ids
    below, found = last + 2, dict[int, Issued]()
    for _ in range(_MOST_PAGES):
        limit = min(_PAGE, max(_FEWEST, below - first + 1))
        page = [_single(trade) for trade in fetch(limit=limit, params={"after": below})]
        if any(row.first_id >= below for row in page):
            msg = f"the answer has ids that were not asked for: all are below {below}"
            raise Unproven(msg)
        found |= {row.first_id: row for row in page}
        if not page or (below := min(row.first_id for row in page)) < first:
            break
    return list(found.values())


def _summed_up(fetch: Fetch, hole: Hole) -> list[Issued]:
    """Pages of trades that are summed up by order and price, until the row after the hole is in one."""
    begin, end = (us // MICROSECONDS_PER_MILLISECOND for us in hole.times_us)
    asked: dict[str, Any] = {"since": begin, "params": {"until": min(end, begin + _HOUR_MS - 1)}}
    found: dict[int, Issued] = {}
    for _ in range(_MOST_PAGES):
        page = {_whole(trade, "a"): _several(trade) for trade in fetch(limit=_PAGE, **asked)}
        found |= page
        if not page or max(row.last_id for row in page.values()) >= hole.after.id:
            break
        asked = {"params": {"fromId": max(page) + 1}}
    numbers = sorted(found)
    for one, other in pairwise(numbers):
        if other != one + 1:
            msg = f"the answer lacks the summed-up trade {one + 1}, which comes after one that it has"
            raise Unproven(msg)
    return [found[number] for number in numbers]


def _single(trade: Trade) -> Issued:
    number = _whole(trade, "trade_id")
    return _issued(trade, number, number)


def _several(trade: Trade) -> Issued:
    first, last = _whole(trade, "f"), _whole(trade, "l")
    if first > last:
        msg = f"the answer has a summed-up trade from {first} to {last}"
        raise Unproven(msg)
    return _issued(trade, first, last)


def _issued(trade: Trade, first: int, last: int) -> Issued:
    price, amount, at = trade["price"], trade["amount"], _time_us(trade)
    if price is None or amount is None or at is None:
        msg = f"the trade {first} of the answer lacks its price, amount or time"
        raise Unproven(msg)
    return Issued(first, last, at, str(trade["side"]), float(price), float(amount))


def _whole(trade: Trade, key: str) -> int:
    """A number of the exchange's own row."""
    value = trade["info"].get(key)
    if not str(value).isascii() or not str(value).isdecimal():
        msg = f"a trade of the answer has {value!r} as {key}, which is no whole number"
        raise Unproven(msg)
    return int(value)


def _time_us(trade: Trade) -> int | None:
    """The exchange's time, which may be finer than the milliseconds of the library."""
    own = trade["info"].get("time")
    if isinstance(own, str) and not own.isdecimal():
        try:
            return time_us(datetime.fromisoformat(own))
        except ValueError:
            return None
    return None if trade["timestamp"] is None else int(trade["timestamp"]) * MICROSECONDS_PER_MILLISECOND


def _entries(body: Body) -> int | None:
    """How many entries the list of a body has; None where it is no list."""
    try:
        found = json.loads(body.data)
    except ValueError:
        return None
    return len(found) if isinstance(found, list) else None


def _market(client: Any, market_id: str) -> Any:
    """A market with which stored answers are read again: its name plays no part."""
    return client.safe_market_structure(
        {"id": market_id, "symbol": market_id, "base": "", "quote": "", "type": "spot", "spot": True}
    )


def _moved(addresses: Any, endpoint: str) -> Any:
    """The same addresses, their paths below another one."""
    if isinstance(addresses, dict):
        return {name: _moved(address, endpoint) for name, address in addresses.items()}
    return f"{endpoint.rstrip('/')}{urlsplit(addresses).path}" if isinstance(addresses, str) else addresses


def _said(failure: Exception) -> str:
    """One line, without what an address may hold; the library's own has only the address."""
    told = failure.__cause__ if isinstance(failure.__cause__, OSError) else failure
    return redacted(" ".join(str(told).split())[:300])


#: By the vendor's id of the exchange.
_VENUES: Final[Mapping[str, _Venue]] = {
    "binance": _Venue(
        "binance",
        {"fetchMarkets": {"types": ["spot"]}, "fetchTradesMethod": "publicGetAggTrades"},
        _summed_up,
    ),
    "coinbase": _Venue("coinbaseexchange", {}, _below_an_id),
}
#: Exchanges that can be asked.
EXCHANGES: Final = tuple(_VENUES)
