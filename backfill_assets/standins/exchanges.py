"""Stand-ins for the public trades of exchanges, and for Binance's archive of days.

Binance with its futures, Coinbase, Kraken and OKX each answer in their own way. One server on loopback keeps
what the exchanges' client relies on: their lists of markets, their pages of trades with the ids or times by
which they are asked for, and zipped files with checksums. The caller gives the trades;
``faults`` sets faults by path.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import sys
import threading
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import groupby
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import parse_qs, urlsplit

from backfill_assets.days import MICROSECONDS_PER_MILLISECOND, MICROSECONDS_PER_SECOND, end_us, start_us
from backfill_assets.standins.faults import Fault, Faults
from backfill_assets.standins.serving import HOST

_PAGE: Final = 1_000
_ARCHIVED: Final = re.compile(
    r"/data/(spot|futures/um)/daily/trades/(\w+)/\2-trades-(\d{4}-\d\d-\d\d)\.zip(\.CHECKSUM)?"
)
#: Binance sums up trades of its futures within so long.
_FUTURES_MS: Final = 100
_FUTURES_HEADER: Final = "id,price,qty,quote_qty,time,is_buyer_maker"
_PAGE_OF_OKX: Final = 100
_PRODUCT: Final = re.compile(r"/coinbaseexchange/products/([\w-]+)/trades")


@dataclass(frozen=True, slots=True)
class Traded:
    """A trade: its id, exchange time in microseconds, side of the taker, price and amount as texts."""

    id: int
    time_us: int
    side: str
    price: str
    amount: str


class ExchangesStandin:
    """The server; a context manager that listens while it is entered.

    Parameters
    ----------
    binance, binance_futures, coinbase, kraken, okex
        Trades by the vendor's name of the market, in order of their ids. Binance's trades are aggregated if
        time, price and side are the same.
    most
        The largest number of trades on a page.

    Attributes
    ----------
    requests
        Paths with their queries, in order.
    """

    def __init__(
        self,
        binance: Mapping[str, Sequence[Traded]] | None = None,
        coinbase: Mapping[str, Sequence[Traded]] | None = None,
        most: int = _PAGE,
        *,
        binance_futures: Mapping[str, Sequence[Traded]] | None = None,
        kraken: Mapping[str, Sequence[Traded]] | None = None,
        okex: Mapping[str, Sequence[Traded]] | None = None,
    ) -> None:
        self.binance = dict(binance or {})
        self.binance_futures = dict(binance_futures or {})
        self.coinbase = dict(coinbase or {})
        self.kraken = dict(kraken or {})
        self.okex = dict(okex or {})
        self.most = most
        self.faults = Faults()
        self.requests: list[str] = []
        self.stopping = threading.Event()

    def __enter__(self) -> Self:
        self._server = _Server((HOST, 0), _Handler)
        self._server.standin = self
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        )
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stopping.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def url(self) -> str:
        """The URL for ``heal.exchange_endpoint`` and ``heal.archive_endpoint``."""
        return f"http://{HOST}:{self._server.server_address[1]}"

    def answer(self, path: str, query: Mapping[str, str]) -> bytes | None:
        """Return the body of an answer; None for an unknown path."""
        if path == "/binance/api/v3/exchangeInfo":
            return _json({"symbols": [_binance_market(name) for name in self.binance]})
        if path == "/binance/api/v3/aggTrades":
            return _json(self._summed_up([*summed_up(self.binance[query["symbol"]])], query))
        if path == "/binanceusdm/fapi/v1/exchangeInfo":
            return _json({"symbols": [_future(name) for name in self.binance_futures]})
        if path == "/binanceusdm/fapi/v1/aggTrades":
            of_futures = summed_up(self.binance_futures[query["symbol"]], _FUTURES_MS)
            without_best = [{key: value for key, value in row.items() if key != "M"} for row in of_futures]
            return _json(self._summed_up(without_best, query))
        if path in ("/kraken/0/public/Assets", "/kraken/0/public/AssetPairs"):
            pairs = {_kraken_id(name): _kraken_pair(name) for name in self.kraken}
            return _json({"error": [], "result": pairs if path.endswith("Pairs") else {}})
        if path == "/kraken/0/public/Trades":
            return _json(self._after(query))
        if path == "/okx/api/v5/public/instruments":
            return _json({"code": "0", "msg": "", "data": [_okx_market(name) for name in self.okex]})
        if path == "/okx/api/v5/market/history-trades":
            return _json(self._below_of_okx(query))
        if path == "/coinbaseexchange/products":
            return _json([_coinbase_market(name) for name in self.coinbase])
        if path == "/coinbaseexchange/currencies":
            return _json([])
        if match := _PRODUCT.fullmatch(path):
            return _json(self._below(match[1], query)) if match[1] in self.coinbase else None
        if match := _ARCHIVED.fullmatch(path):
            rows = self._archived_rows(match[1], match[2], match[3])
            return _archived(f"{match[2]}-trades-{match[3]}", rows, is_checksum=match[4] is not None)
        return None

    def _archived_rows(self, folder: str, market: str, day: str) -> bytes:
        is_spot = folder == "spot"
        trades = (self.binance if is_spot else self.binance_futures).get(market, ())
        of_day = [trade for trade in trades if start_us(day) <= trade.time_us < end_us(day)]
        lines = [*map(_archive_row if is_spot else _archive_row_of_futures, of_day)]
        header = [] if is_spot else [_FUTURES_HEADER]
        return "\n".join([*header, *lines, ""]).encode() if lines else b""

    def _summed_up(self, rows: list[dict[str, Any]], query: Mapping[str, str]) -> list[dict[str, Any]]:
        if "fromId" in query:
            rows = [row for row in rows if row["a"] >= int(query["fromId"])]
        else:
            begin, end = int(query.get("startTime", 0)), int(query.get("endTime", 10**15))
            rows = [row for row in rows if begin <= row["T"] <= end]
        return rows[: min(self.most, int(query.get("limit", 500)))]

    def _below(self, market: str, query: Mapping[str, str]) -> list[dict[str, Any]]:
        below = int(query.get("after", 10**18))
        rows = [row for row in reversed(self.coinbase[market]) if row.id < below]
        return [_coinbase_row(row) for row in rows[: min(self.most, int(query.get("limit", _PAGE)))]]

    def _after(self, query: Mapping[str, str]) -> dict[str, Any]:
        """Trades after a time in nanoseconds, which is not included."""
        name = next(name for name in self.kraken if _kraken_id(name) == query["pair"])
        rows = [row for row in self.kraken[name] if row.time_us * 1_000 > int(query.get("since", 0))]
        rows = rows[: min(self.most, int(query.get("count", _PAGE)))]
        last = str(rows[-1].time_us * 1_000) if rows else query.get("since", "0")
        return {"error": [], "result": {query["pair"]: [_kraken_row(row) for row in rows], "last": last}}

    def _below_of_okx(self, query: Mapping[str, str]) -> dict[str, Any]:
        below, most = int(query.get("after", 10**18)), min(self.most, _PAGE_OF_OKX)
        rows = [row for row in reversed(self.okex[query["instId"]]) if row.id < below]
        of_page = rows[: min(most, int(query.get("limit", most)))]
        return {"code": "0", "msg": "", "data": [_okx_row(query["instId"], row) for row in of_page]}


def zip_of(name: str, data: bytes) -> bytes:
    """Return a zip of one file; equal files give equal bytes."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as zipped:
        zipped.writestr(zipfile.ZipInfo(name), data, zipfile.ZIP_DEFLATED)
    return out.getvalue()


def summed_up(trades: Sequence[Traded], within_ms: int = 1) -> Iterator[dict[str, Any]]:
    """Aggregate trades as Binance does: adjacent ones of the same milliseconds, price and side."""
    unit = within_ms * MICROSECONDS_PER_MILLISECOND
    grouped = groupby(trades, lambda t: (t.time_us // unit, t.price, t.side))
    for number, ((_, price, side), same) in enumerate(grouped, start=1):
        rows = [*same]
        yield {
            "a": number,
            "p": price,
            "q": rows[0].amount if len(rows) == 1 else repr(sum(float(row.amount) for row in rows)),
            "f": rows[0].id,
            "l": rows[-1].id,
            "T": rows[0].time_us // MICROSECONDS_PER_MILLISECOND,
            "m": side == "sell",
            "M": True,
        }


def _archived(name: str, rows: bytes, *, is_checksum: bool) -> bytes | None:
    if not rows:
        return None
    zipped = zip_of(f"{name}.csv", rows)
    digest = hashlib.sha256(zipped).hexdigest()
    return f"{digest}  {name}.zip\n".encode() if is_checksum else zipped


def _archive_row(trade: Traded) -> str:
    # Microseconds since 2025.
    in_us = trade.time_us >= start_us("2025-01-01")
    at = trade.time_us if in_us else trade.time_us // MICROSECONDS_PER_MILLISECOND
    quote = float(trade.price) * float(trade.amount)
    maker = "True" if trade.side == "sell" else "False"
    return f"{trade.id},{trade.price},{trade.amount},{quote},{at},{maker},True"


def _archive_row_of_futures(trade: Traded) -> str:
    at = trade.time_us // MICROSECONDS_PER_MILLISECOND
    quote = float(trade.price) * float(trade.amount)
    return f"{trade.id},{trade.price},{trade.amount},{quote},{at},{str(trade.side == 'sell').lower()}"


def _binance_market(name: str) -> dict[str, Any]:
    quote = next(q for q in ("USDT", "BTC", "ETH") if name.endswith(q))
    return {
        "symbol": name,
        "status": "TRADING",
        "baseAsset": name.removesuffix(quote),
        "quoteAsset": quote,
        "permissions": ["SPOT"],
        "filters": [],
    }


def _coinbase_market(name: str) -> dict[str, Any]:
    base, quote = name.split("-")
    return {
        "id": name,
        "base_currency": base,
        "quote_currency": quote,
        "quote_increment": "0.01",
        "base_increment": "0.00000001",
        "status": "online",
    }


def _coinbase_row(trade: Traded) -> dict[str, Any]:
    seconds, rest = divmod(trade.time_us, MICROSECONDS_PER_SECOND)
    at = datetime.fromtimestamp(seconds, UTC).replace(microsecond=rest)
    return {
        "trade_id": trade.id,
        # The exchange gives the side of the maker.
        "side": "sell" if trade.side == "buy" else "buy",
        "size": trade.amount,
        "price": trade.price,
        "time": at.isoformat(timespec="microseconds").replace("+00:00", "Z"),
    }


def _future(name: str) -> dict[str, Any]:
    return {
        **_binance_market(name),
        "contractType": "PERPETUAL",
        "marginAsset": "USDT",
        "pair": name,
        "deliveryDate": 4_133_404_800_000,
    }


def _kraken_id(name: str) -> str:
    """Kraken's own name: ``XXBTZUSD`` of the vendor's ``XBT-USD``."""
    base, quote = name.split("-")
    return f"X{base}Z{quote}"


def _kraken_pair(name: str) -> dict[str, Any]:
    base, quote = name.split("-")
    return {
        "altname": f"{base}{quote}",
        "wsname": f"{base}/{quote}",
        "base": f"X{base}",
        "quote": f"Z{quote}",
        "pair_decimals": 1,
        "lot_decimals": 8,
        "leverage_buy": [],
        "leverage_sell": [],
        "status": "online",
    }


def _kraken_row(trade: Traded) -> list[Any]:
    # Seconds with their fraction, as a number.
    at = trade.time_us / MICROSECONDS_PER_SECOND
    return [trade.price, trade.amount, at, "b" if trade.side == "buy" else "s", "m", "", trade.id]


def _okx_market(name: str) -> dict[str, Any]:
    base, quote = name.split("-")
    return {
        "instId": name,
        "instType": "SPOT",
        "baseCcy": base,
        "quoteCcy": quote,
        "state": "live",
        "lotSz": "0.00000001",
        "minSz": "0.00001",
        "tickSz": "0.1",
    }


def _okx_row(market: str, trade: Traded) -> dict[str, Any]:
    return {
        "instId": market,
        "side": trade.side,
        "sz": trade.amount,
        "px": trade.price,
        "tradeId": str(trade.id),
        "ts": str(trade.time_us // MICROSECONDS_PER_MILLISECOND),
    }


def _json(answer: Any) -> bytes:
    return json.dumps(answer).encode()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    standin: ExchangesStandin

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Show bugs of the server; a client that disconnects is not one."""
        if not isinstance(sys.exception(), (ConnectionError, TimeoutError)):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    timeout = 60
    server: _Server

    def do_GET(self) -> None:
        standin, address = self.server.standin, urlsplit(self.path)
        standin.requests.append(self.path)
        fault, refusal = standin.faults.take(address.path)
        standin.stopping.wait(fault.delay_seconds)
        query = {name: values[-1] for name, values in parse_qs(address.query).items()}
        if refusal is not None:
            body, status = _json({"message": refusal.message}), refusal.status
        else:
            found = fault.body if fault.body is not None else standin.answer(address.path, query)
            status = 404 if found is None else 200
            body = b'{"message": "NotFound"}' if found is None else found
        self._send(body, status, fault, None if refusal is None else refusal.retry_after_seconds)

    def _send(self, body: bytes, status: int, fault: Fault, retry_after: int | None) -> None:
        body = body if fault.cut_body_at is None else body[: fault.cut_body_at]
        self.send_response(status)
        self.send_header("Content-Type", "text/html" if body.startswith(b"<") else "application/json")
        self.send_header("Content-Length", str(len(body)))
        if retry_after is not None:
            self.send_header("Retry-After", str(retry_after))
        self.end_headers()
        self.wfile.write(body if fault.cut_connection_at is None else body[: fault.cut_connection_at])
        if fault.cut_connection_at is not None:
            self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:
        """Stay silent: the requests are in ``ExchangesStandin.requests``."""
