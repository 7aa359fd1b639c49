"""The HTTP side of the stand-in: requests, routes, headers and broken connections.

The ``Answers`` that the server is given decide the correct answer and who may see it; its faults decide which
requests go wrong.
"""

from __future__ import annotations

import hashlib
import json
import re
import socket
import socketserver
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from email.utils import formatdate
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final, Protocol
from urllib.parse import parse_qs, unquote, urlsplit

from backfill_assets.feeds import Feed
from backfill_assets.standins.faults import Fault, Faults, Refusal, not_found

HOST: Final = "127.0.0.1"

_DATASET: Final = re.compile(
    r"(?P<storage>/storage)?/v1/datasets/(?P<exchange>[^/]+)/(?P<data_type>[^/]+)"
    r"/(?P<year>\d{4})/(?P<month>\d\d)/(?P<day>\d\d)/(?P<symbol>[^/]+)\.csv\.gz"
)
_METADATA: Final = re.compile(r"/v1/(?P<what>exchanges|instruments)/(?P<exchange>[^/]+)(/(?P<symbol>[^/]+))?")
_BLOCK: Final = 1 << 18
_GZIP_MAGIC: Final = b"\x1f\x8b"
#: Number of pieces of a dripping body.
_PIECES: Final = 50


class RefusedError(Exception):
    """The request gets this answer instead of data."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.message)
        self.refusal = refusal


@dataclass(frozen=True, slots=True)
class LoggedRequest:
    """One request: the path without its query, and the number of bytes that the answer announces.

    ``at`` is the time of the answer (monotonic); ``has_key`` tells whether a key came with the request.
    """

    method: str
    path: str
    status: int
    bytes: int = 0
    at: float = field(default=0.0, compare=False)
    has_key: bool = field(default=False, compare=False)


class Counting:
    """Counts requests that are being answered."""

    def __init__(self) -> None:
        self.now = 0
        self.most = 0
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        with self._lock:
            self.now += 1
            self.most = max(self.most, self.now)

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self.now -= 1


class Answers(Protocol):
    """The answers that the server needs; every method may raise ``RefusedError``."""

    faults: Faults
    stopping: threading.Event
    counting: Counting
    #: The header ``Server``.
    name: str

    def log(self, request: LoggedRequest) -> None:
        """Record a request."""
        ...

    def check_key(self, authorization: str | None, day: str) -> None:
        """Refuse a data set that the key does not cover."""
        ...

    def check_instruments_key(self, authorization: str | None) -> None:
        """Refuse instruments metadata to keys that do not cover it."""
        ...

    def dataset(self, feed: Feed, day: str) -> bytes | Path:
        """Return the file."""
        ...

    def exchange_details(self, exchange: str) -> dict[str, Any]:
        """Answer ``/v1/exchanges/{exchange}``."""
        ...

    def instruments(self, exchange: str, wanted: str, symbol: str | None) -> Any:
        """Answer ``/v1/instruments/{exchange}``, or one instrument by its id."""
        ...


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = 1 << 16
    disable_nagle_algorithm = True
    timeout = 60
    server: Server

    def do_GET(self) -> None:
        standin = self.server.standin
        with standin.counting:
            address = urlsplit(self.path)
            fault = Fault()
            try:
                if "Range" in self.headers:
                    raise RefusedError(Refusal(403, 403, "Range requests are not supported"))
                fault, refusal = standin.faults.take(address.path)
                standin.stopping.wait(fault.delay_seconds)
                if refusal is not None:
                    raise RefusedError(refusal)
                if fault.redirect_to is not None:
                    self._send_redirect(fault.redirect_to)
                    return
                self._route(address.path, address.query, fault)
            except RefusedError as refused:
                self._send_refusal(refused.refusal)

    def do_HEAD(self) -> None:
        self._send_refusal(not_found())

    def version_string(self) -> str:
        return self.server.standin.name

    def log_message(self, format: str, *args: object) -> None:
        """Stay silent: the requests are in ``TardisStandin.requests``."""

    def _route(self, path: str, query: str, fault: Fault) -> None:
        standin = self.server.standin
        if match := _DATASET.fullmatch(path):
            feed = Feed(match["exchange"], match["data_type"], unquote(match["symbol"]))
            day = f"{match['year']}-{match['month']}-{match['day']}"
            if match["storage"] is None:
                standin.check_key(self.headers.get("Authorization"), day)
            body = fault.body if fault.body is not None else standin.dataset(feed, day)
            self._send_file(body, fault, free=day.endswith("-01"))
        elif match := _METADATA.fullmatch(path):
            if fault.body is not None:
                self._send_body(fault.body)
                return
            exchange = unquote(match["exchange"])
            if match["what"] == "exchanges":
                if match["symbol"] is not None:
                    raise RefusedError(not_found())
                self._send_json(standin.exchange_details(exchange))
                return
            standin.check_instruments_key(self.headers.get("Authorization"))
            wanted = parse_qs(query).get("filter", ["{}"])[0]
            symbol = unquote(match["symbol"]) if match["symbol"] is not None else None
            self._send_json(standin.instruments(exchange, wanted, symbol))
        else:
            raise RefusedError(not_found())

    def _begin(self, status: int, length: int, content_type: str = "application/json") -> None:
        # Logged first, so that a client that has the answer finds its request in the log.
        path, has_key = urlsplit(self.path).path, "Authorization" in self.headers
        request = LoggedRequest(self.command, path, status, length, time.monotonic(), has_key)
        self.server.standin.log(request)
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(length))

    def _send_json(self, answer: Any, status: int = HTTPStatus.OK, retry_after: str | None = None) -> None:
        self._send_body(json.dumps(answer).encode(), status, retry_after)

    def _send_body(self, body: bytes, status: int = HTTPStatus.OK, retry_after: str | None = None) -> None:
        self._begin(status, len(body))
        if body.startswith(_GZIP_MAGIC):
            self.send_header("Content-Encoding", "gzip")
        if retry_after is not None:
            self.send_header("Retry-After", retry_after)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _send_refusal(self, refusal: Refusal) -> None:
        body: dict[str, Any] = {"code": refusal.code, "message": refusal.message}
        retry_after, seconds = None, refusal.retry_after_seconds
        if seconds is not None and refusal.as_date:
            retry_after = formatdate(time.time() + seconds, usegmt=True)
        elif seconds is not None:
            body["retryAfterSeconds"] = seconds
            if refusal.status in (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE):
                retry_after = str(seconds)
        self._send_json(body, refusal.status, retry_after)

    def _send_redirect(self, path: str) -> None:
        self._begin(HTTPStatus.FOUND, 0)
        self.send_header("Location", path)
        self.end_headers()

    def _send_file(self, body: bytes | Path, fault: Fault, *, free: bool) -> None:
        if isinstance(body, bytes):
            content = body if fault.cut_body_at is None else body[: fault.cut_body_at]
            self._begin(HTTPStatus.OK, len(content), "application/octet-stream")
            if free:
                self.send_header("x-md5", hashlib.md5(content, usedforsecurity=False).hexdigest())
            self.end_headers()
            self._write_until_cut(content, fault)
            return
        with body.open("rb") as file:
            if fault.cut_body_at is not None or fault.cut_connection_at is not None or fault.drip_seconds:
                self._send_file(file.read(), fault, free=free)
                return
            self._begin(HTTPStatus.OK, body.stat().st_size, "application/octet-stream")
            if free:
                self.send_header("x-md5", hashlib.file_digest(file, "md5").hexdigest())
                file.seek(0)
            self.end_headers()
            while block := file.read(_BLOCK):
                self.wfile.write(block)

    def _write_until_cut(self, content: bytes, fault: Fault) -> None:
        if fault.drip_seconds:
            size = -(-len(content) // _PIECES)
            for start in range(0, len(content), size):
                self.server.standin.stopping.wait(fault.drip_seconds / _PIECES)
                self.wfile.write(content[start : start + size])
                self.wfile.flush()
            return
        if fault.cut_connection_at is None:
            self.wfile.write(content)
            return
        self.wfile.write(content[: fault.cut_connection_at])
        self.wfile.flush()
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)


class Server(ThreadingHTTPServer):
    """Listens on loopback; one thread per connection, all ended by ``cut_connections``."""

    daemon_threads = True
    request_queue_size = 256

    def __init__(self, port: int, standin: Answers) -> None:
        self.standin = standin
        self._connections: set[socket.socket] = set()
        self._lock = threading.Lock()
        super().__init__((HOST, port), _Handler)

    def server_bind(self) -> None:
        """Bind without asking the resolver for the host's name, which can take seconds."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = HOST, self.server_address[1]

    def process_request(self, request: Any, client_address: Any) -> None:
        """Remember the connection while it is served."""
        with self._lock:
            self._connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """Forget the connection."""
        with self._lock:
            self._connections.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Show bugs of the server; a client that disconnects is not one."""
        if not isinstance(sys.exception(), (ConnectionError, TimeoutError)):
            super().handle_error(request, client_address)

    def cut_connections(self) -> None:
        """End idle keep-alive connections, so that no client is served after the stop."""
        with self._lock:
            for connection in self._connections:
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
