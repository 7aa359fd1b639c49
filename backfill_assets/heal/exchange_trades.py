"""Requests the exchange's own public trades through ccxt; no other module of ``heal`` uses that library.

Three kinds of requests show every id of a run. Coinbase and OKX give trades below an id, newest first. Kraken
gives trades after a time, oldest first, and pages overlap by a trade. Binance sums up the trades of one order
at one price, with the first and the last of their ids and a number of its own; these numbers show whether a
page lacks a trade.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal, InvalidOperation
from functools import partial
from itertools import pairwise
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

import ccxt

from backfill_assets.days import MICROSECONDS_PER_MILLISECOND, MICROSECONDS_PER_SECOND, time_us
from backfill_assets.failures import BackfillError, PermanentFailure, TransientFailure, redacted
from backfill_assets.feeds import Feed
from backfill_assets.heal.conclusions import SUMMED_UP_US, Hole, Issued, Unproven
from backfill_assets.heal.recorded import RecordingSession, ReplayedSession
from backfill_assets.heal.sources import Answered, Body, Budget, SourceName

#: Trades of one page; OKX gives at most 100.
_PAGE: Final = 1_000
_PAGE_OF_OKX: Final = 100
_FEWEST: Final = 10
#: Most pages for one hole; a longer hole is an outage, which needs the archive.
_MOST_PAGES: Final = 50
#: Tries of one request, and the longest wait between two tries.
_TRIES: Final = 3
_LONGEST_WAIT_SECONDS: Final = 30.0
_FIRST_WAIT_SECONDS: Final = 0.5
#: Most characters of a failure that are shown.
_SAID: Final = 300
_HOUR_MS: Final = 3_600_000
_NANOSECONDS_PER_MICROSECOND: Final = 1_000
#: Columns of Kraken's rows; ccxt adds one to the last row of a page, with the start of the next page.
_KRAKEN_TIME, _KRAKEN_ID, _KRAKEN_NEXT = 2, 6, 7

Trade = Mapping[str, Any]
Fetch = Callable[..., list[Trade]]


@dataclass(frozen=True, slots=True)
class _Venue:
    """An exchange in ccxt, and its requests.

    Attributes
    ----------
    kind
        Kind of its markets, in the terms of ccxt.
    rows
        Finds the list of trades in a parsed answer; returns None if there is none.
    name
        The vendor's name of a market.
    asked_for
        Request parameter with the exchange's id of the market, if that id is not the vendor's.
    """

    client: str
    options: Mapping[str, Any]
    pages: Callable[[Fetch, Hole], list[Issued]]
    kind: str = "spot"
    rows: Callable[[Any], Any] = lambda answer: answer
    name: Callable[[Mapping[str, Any]], str] = lambda market: str(market["id"])
    asked_for: str = ""


class ExchangeTrades:
    """Asks one exchange for one market.

    Parameters
    ----------
    endpoint
        Address to ask instead of the exchange's own; empty: the exchange's own.
    bodies
        Answers to replay instead of asking over the network.
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
        self._endpoint = endpoint
        self._session = (
            RecordingSession(budget or Budget(1), timeout_seconds, endpoint)
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
            self._client.set_markets([self._market_of(bodies)])
        elif endpoint:
            self._client.urls["api"] = _moved(
                self._client.urls["api"], f"{endpoint.rstrip('/')}/{self._venue.client}"
            )

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
                    # It would fail for the next hole as well.
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
        for market in self._client.markets.values():
            if market[self._venue.kind] and self._venue.name(market) == self._market_id:
                return str(market["symbol"])
        msg = f"{self._venue.client} lists no {self._venue.kind} market {self._market_id}"
        raise PermanentFailure(msg)

    def _market_of(self, bodies: Sequence[Body]) -> Any:
        """The market for replaying stored answers; its symbol does not matter."""
        kind, own_id = self._venue.kind, self._market_id
        if self._venue.asked_for and bodies:
            asked = parse_qs(urlsplit(bodies[0].request).query)
            own_id = asked.get(self._venue.asked_for, [own_id])[0]
        names = {"id": own_id, "symbol": self._market_id, "base": "", "quote": ""}
        kinds = {"type": "spot"} if kind == "spot" else {"type": "swap", "swap": True}
        return self._client.safe_market_structure({**names, **kinds, kind: True})

    def _fetch(self, **arguments: Any) -> list[Trade]:
        """Fetch one page of trades, and keep the body of the exchange's answer."""
        known = len(self._session.bodies)
        trades = self._asked(lambda: self._client.fetch_trades(self._symbol, **arguments))
        bodies = self._session.bodies[known:]
        if not bodies or self._entries(bodies[-1]) != len(trades):
            msg = "the answer is not a list of trades"
            raise Unproven(msg)
        # The answers before the last one were refusals.
        self._session.bodies[known:] = bodies[-1:]
        return list(trades)

    def _entries(self, body: Body) -> int | None:
        """Count the trades in a body's list; None if it is not a list."""
        try:
            found = self._venue.rows(json.loads(body.data))
        except (AttributeError, LookupError, TypeError, ValueError):
            return None
        return len(found) if isinstance(found, list) else None

    def _asked(self, call: Callable[[], Any]) -> Any:
        """Call the client, and retry if waiting may help."""
        for attempt in range(_TRIES):
            try:
                return call()
            except ccxt.OperationFailed as failure:
                if attempt + 1 == _TRIES:
                    msg = f"{self._venue.client} does not answer: {self._said(failure)}"
                    raise TransientFailure(msg) from failure
                wait = self._session.retry_after or _FIRST_WAIT_SECONDS * 2**attempt
                self._sleep(min(wait, _LONGEST_WAIT_SECONDS))
            except ccxt.BaseError as failure:
                msg = f"{self._venue.client} refuses: {self._said(failure)}"
                raise Unproven(msg) from failure
            except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as failure:
                # The library misread an unforeseen answer.
                msg = f"the answer is not a list of trades ({type(failure).__name__}: {self._said(failure)})"
                raise Unproven(msg) from failure
        raise AssertionError

    def _said(self, failure: Exception) -> str:
        """The failure in one line, without secrets in addresses; the library's text has only the address."""
        told = failure.__cause__ if isinstance(failure.__cause__, OSError) else failure
        return redacted(" ".join(str(told).split()), base=self._endpoint)[:_SAID]


def _below_an_id(
    fetch: Fetch, hole: Hole, *, key: str, most: int = _PAGE, options: Mapping[str, str] | None = None
) -> list[Issued]:
    """Fetch pages of trades below an id, newest first, until one has the row before the hole."""
    first, last = hole.ids
    below, found = last + 2, dict[int, Issued]()
    for _ in range(_MOST_PAGES):
        limit = min(most, max(_FEWEST, below - first + 1))
        trades = fetch(limit=limit, params={**(options or {}), "after": below})
        page = [_single(trade, _whole(trade, key)) for trade in trades]
        if any(row.first_id >= below for row in page):
            msg = f"the answer has ids that were not asked for: all are below {below}"
            raise Unproven(msg)
        found |= {row.first_id: row for row in page}
        if not page or (below := min(row.first_id for row in page)) < first:
            break
    return list(found.values())


def _summed_up(fetch: Fetch, hole: Hole) -> list[Issued]:
    """Fetch pages of trades summed up by order and price, until one has the row after the hole."""
    begin, end = (us // MICROSECONDS_PER_MILLISECOND for us in hole.times_us)
    # The row before the hole may be summed up with earlier trades, under the time of the first.
    begin -= SUMMED_UP_US // MICROSECONDS_PER_MILLISECOND
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


def _after_a_time(fetch: Fetch, hole: Hole) -> list[Issued]:
    """Fetch pages of trades after a time, oldest first, until one has the row after the hole.

    A page begins with the last trade of the page before, so no trade of the same moment is lost between them.
    """
    since = (hole.times_us[0] - MICROSECONDS_PER_MILLISECOND) * _NANOSECONDS_PER_MICROSECOND
    found: list[Issued] = []
    for _ in range(_MOST_PAGES):
        trades = fetch(limit=_PAGE, params={"since": str(since)})
        page = [_of_kraken(trade) for trade in trades]
        if found:
            known = [row.first_id for row in page].index(found[-1].first_id) if found[-1] in page else None
            if known is None:
                msg = f"the answer lacks the trade {found[-1].first_id}, the last one of the page before"
                raise Unproven(msg)
            page = page[known + 1 :]
        for one, other in pairwise([*found[-1:], *page]):
            if other.first_id <= one.first_id:
                msg = f"the answer has the id {other.first_id} after {one.first_id}: ids are not in order"
                raise Unproven(msg)
        found += page
        following = [t["info"][_KRAKEN_NEXT] for t in trades if len(t["info"]) > _KRAKEN_NEXT]
        if not page or not following or found[-1].last_id >= hole.after.id:
            break
        since = int(following[0]) - 1
    return found


def _of_kraken(trade: Trade) -> Issued:
    """Read a row of price, amount, time, side, kind, remark and id; older answers lack the id."""
    row = trade["info"]
    try:
        number = int(row[_KRAKEN_ID])
        at = int(Decimal(str(row[_KRAKEN_TIME])) * MICROSECONDS_PER_SECOND)
    except (InvalidOperation, LookupError, TypeError, ValueError) as error:
        msg = f"a trade of the answer has no id or time: {str(row)[:80]}"
        raise Unproven(msg) from error
    return _issued(trade, number, number, at)


def _of_pair(answer: Any) -> Any:
    """Kraken's list of trades, which lies beside the start of the next page."""
    [rows] = [value for name, value in answer["result"].items() if name != "last"]
    return rows


def _single(trade: Trade, number: int) -> Issued:
    return _issued(trade, number, number)


def _several(trade: Trade) -> Issued:
    first, last = _whole(trade, "f"), _whole(trade, "l")
    if first > last:
        msg = f"the answer has a summed-up trade from {first} to {last}"
        raise Unproven(msg)
    return _issued(trade, first, last)


def _issued(trade: Trade, first: int, last: int, at: int | None = None) -> Issued:
    price, amount = trade["price"], trade["amount"]
    at = _time_us(trade) if at is None else at
    if price is None or amount is None or at is None:
        msg = f"the trade {first} of the answer lacks its price, amount or time"
        raise Unproven(msg)
    return Issued(first, last, at, str(trade["side"]), float(price), float(amount))


def _whole(trade: Trade, key: str) -> int:
    """Read an integer field of the exchange's own row."""
    value = trade["info"].get(key)
    if not str(value).isascii() or not str(value).isdecimal():
        msg = f"a trade of the answer has {value!r} as {key}, which is not a whole number"
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


def _moved(addresses: Any, endpoint: str) -> Any:
    """The addresses with their paths below another address."""
    if isinstance(addresses, dict):
        return {name: _moved(address, endpoint) for name, address in addresses.items()}
    return f"{endpoint.rstrip('/')}{urlsplit(addresses).path}" if isinstance(addresses, str) else addresses


#: By the vendor's id of the exchange.
_VENUES: Final[Mapping[str, _Venue]] = {
    "binance": _Venue(
        "binance",
        {"fetchMarkets": {"types": ["spot"]}, "fetchTradesMethod": "publicGetAggTrades"},
        _summed_up,
    ),
    "binance-futures": _Venue("binanceusdm", {}, _summed_up, kind="linear"),
    "coinbase": _Venue("coinbaseexchange", {}, partial(_below_an_id, key="trade_id")),
    "kraken": _Venue(
        "kraken",
        {},
        _after_a_time,
        rows=_of_pair,
        name=lambda market: str(market["info"].get("wsname")).replace("/", "-"),
        asked_for="pair",
    ),
    "okex": _Venue(
        "okx",
        {"fetchMarkets": {"types": ["spot"]}},
        partial(
            _below_an_id,
            key="tradeId",
            most=_PAGE_OF_OKX,
            options={"method": "publicGetMarketHistoryTrades", "type": "1"},
        ),
        rows=lambda answer: answer["data"],
    ),
}
#: Exchanges that can be asked.
EXCHANGES: Final = tuple(_VENUES)
