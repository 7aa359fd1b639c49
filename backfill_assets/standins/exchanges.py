"""Stand-ins for the public trades of exchanges: Binance's and Coinbase's own, and Binance's daily archive.

One server on loopback keeps everything that the client of the exchanges relies on: their lists of markets,
their pages of trades, requested by id, and zipped files with checksums. The caller gives the trades;
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
_ARCHIVED: Final = re.compile(r"/data/spot/daily/trades/(\w+)/\1-trades-(\d{4}-\d\d-\d\d)\.zip(\.CHECKSUM)?")
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
    binance, coinbase
        Trades by the exchange's id of the market, in order of their ids. Binance's trades are aggregated if
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
    ) -> None:
        self.binance = dict(binance or {})
        self.coinbase = dict(coinbase or {})
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
            return _json(self._summed_up(query))
        if path == "/coinbaseexchange/products":
            return _json([_coinbase_market(name) for name in self.coinbase])
        if path == "/coinbaseexchange/currencies":
            return _json([])
        if match := _PRODUCT.fullmatch(path):
            return _json(self._below(match[1], query)) if match[1] in self.coinbase else None
        if match := _ARCHIVED.fullmatch(path):
            return self._archived(match[1], match[2], is_checksum=match[3] is not None)
        return None

    def _summed_up(self, query: Mapping[str, str]) -> list[dict[str, Any]]:
        rows = [*summed_up(self.binance[query["symbol"]])]
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

    def _archived(self, market: str, day: str, *, is_checksum: bool) -> bytes | None:
        trades = [t for t in self.binance.get(market, ()) if start_us(day) <= t.time_us < end_us(day)]
        if not trades:
            return None
        name = f"{market}-trades-{day}"
        zipped = zip_of(f"{name}.csv", "".join(f"{_archive_row(trade)}\n" for trade in trades).encode())
        digest = hashlib.sha256(zipped).hexdigest()
        return f"{digest}  {name}.zip\n".encode() if is_checksum else zipped


def zip_of(name: str, data: bytes) -> bytes:
    """Return a zip of one file; equal files give equal bytes."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as zipped:
        zipped.writestr(zipfile.ZipInfo(name), data, zipfile.ZIP_DEFLATED)
    return out.getvalue()


def summed_up(trades: Sequence[Traded]) -> Iterator[dict[str, Any]]:
    """Aggregate trades as Binance does: adjacent ones with the same millisecond, price and side."""
    grouped = groupby(trades, lambda t: (t.time_us // MICROSECONDS_PER_MILLISECOND, t.price, t.side))
    for number, ((time_ms, price, side), same) in enumerate(grouped, start=1):
        rows = [*same]
        yield {
            "a": number,
            "p": price,
            "q": rows[0].amount if len(rows) == 1 else repr(sum(float(row.amount) for row in rows)),
            "f": rows[0].id,
            "l": rows[-1].id,
            "T": time_ms,
            "m": side == "sell",
            "M": True,
        }


def _archive_row(trade: Traded) -> str:
    # Microseconds since 2025.
    in_us = trade.time_us >= start_us("2025-01-01")
    at = trade.time_us if in_us else trade.time_us // MICROSECONDS_PER_MILLISECOND
    quote = float(trade.price) * float(trade.amount)
    maker = "True" if trade.side == "sell" else "False"
    return f"{trade.id},{trade.price},{trade.amount},{quote},{at},{maker},True"


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
