"""A server on loopback that keeps everything posted to it, as Slack, a webhook or a heartbeat gets it."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Listener:
    """The requests that came in, and the answers to give."""

    def __init__(self, server: ThreadingHTTPServer) -> None:
        self.address = f"127.0.0.1:{server.server_address[1]}"
        self.got: list[tuple[str, Any]] = []
        self.status = 200

    @property
    def texts(self) -> list[str]:
        """The messages of Apprise's ``json://``."""
        return [f"{body['title']}\n{body['message']}" for path, body in self.got if path == "/messages"]

    @property
    def url(self) -> str:
        return f"json://{self.address}/messages"


@contextmanager
def listening() -> Iterator[Listener]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            if listener.status == 200:
                listener.got.append((self.path, json.loads(body)))
            self._answer(b"ok")

        def do_GET(self) -> None:
            listener.got.append((self.path, None))
            self._answer(b"ok")

        def _answer(self, body: bytes) -> None:
            self.send_response(listener.status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        listener = Listener(server)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield listener
        finally:
            server.shutdown()
            thread.join()
