"""A scripted vendor: a real HTTP server on loopback that gives each path a test's answers, in order."""

from __future__ import annotations

import gzip
import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from backfill_assets.settings import TardisSettings

TRADES = gzip.compress(b"exchange,symbol,timestamp,local_timestamp,id,side,price,amount\n", mtime=0)


@dataclass
class Answer:
    """The answer to one request; a ``cut`` body announces more bytes than it has."""

    status: int = 200
    body: bytes = TRADES
    headers: dict[str, str] = field(default_factory=dict)
    delay: float = 0
    cut: bool = False

    @classmethod
    def error(
        cls, status: int, code: int, message: str = "no", headers: dict[str, str] | None = None, **more: Any
    ):
        body = json.dumps({"code": code, "message": message, **more}).encode()
        return cls(status, body, headers or {})

    @classmethod
    def json(cls, content: Any):
        return cls(200, json.dumps(content).encode())


class ScriptedVendor:
    """Answers each path with its script; the last answer repeats, a path without script is an empty day."""

    def __init__(self) -> None:
        self.scripts: dict[str, list[Answer]] = {}
        self.paths: list[str] = []
        self.keys: list[str | None] = []
        self.most_at_once = 0
        self._at_once = 0
        self._lock = threading.Lock()
        vendor = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                answer = vendor.begin(self.path, self.headers.get("Authorization"))
                time.sleep(answer.delay)
                vendor.end()  # before the answer, after which the client may ask again
                try:
                    self.send_response(answer.status)
                    for name, value in answer.headers.items():
                        self.send_header(name, value)
                    self.send_header("Content-Length", str(len(answer.body) + (1000 if answer.cut else 0)))
                    self.end_headers()
                    self.wfile.write(answer.body)
                except (BrokenPipeError, ConnectionResetError):
                    pass

            def log_message(self, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def begin(self, path: str, key: str | None) -> Answer:
        with self._lock:
            self.paths.append(path)
            self.keys.append(key)
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
            script = self.scripts.get(path.split("?")[0], [Answer()])
            return script.pop(0) if len(script) > 1 else script[0]

    def end(self) -> None:
        with self._lock:
            self._at_once -= 1

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def vendor() -> Iterator[ScriptedVendor]:
    server = ScriptedVendor()
    yield server
    server.close()


@pytest.fixture
def answer() -> type[Answer]:
    return Answer


@pytest.fixture
def tardis_settings(vendor: ScriptedVendor) -> Callable[..., TardisSettings]:
    """Settings that point at the scripted vendor; keyword arguments override them."""

    def make(**changes: Any) -> TardisSettings:
        return TardisSettings(
            **{
                "datasets_endpoint": f"{vendor.url}/v1/datasets",
                "api_endpoint": f"{vendor.url}/v1",
                "api_key": "a-key",
                "timeout_seconds": 5,
                "retry_budget_seconds": 10,
                **changes,
            }
        )

    return make
