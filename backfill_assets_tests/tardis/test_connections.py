"""The feeds of a fetch share a few connections, and a connection that the server has closed costs nothing."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from backfill_assets.feeds import Feed
from backfill_assets.tardis.client import Download, TardisClient
from backfill_assets_tests.tardis.conftest import TRADES

FEEDS = [Feed("binance", "trades", f"S{number}") for number in range(12)]


@contextmanager
def keeping_connections(*, closes_silently: bool) -> Iterator[tuple[str, list[Any]]]:
    """A server that keeps its connections open, or closes each after an answer without announcing it."""
    requests: list[Any] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = 30

        def do_GET(self) -> None:
            requests.append(self.client_address)
            self.send_response(200)
            self.send_header("Content-Length", str(len(TRADES)))
            self.end_headers()
            self.wfile.write(TRADES)
            self.close_connection = closes_silently

        def log_message(self, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", requests
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_twelve_feeds_take_no_more_connections_than_may_run_at_once(tardis_settings, tmp_path):
    with keeping_connections(closes_silently=False) as (url, requests):
        client = TardisClient(tardis_settings(datasets_endpoint=url, concurrency=3))
        found = list(client.fetch(FEEDS, "2024-01-02", tmp_path))
    assert all(isinstance(result, Download) for _, result in found)
    assert len(requests) == len(FEEDS)
    assert len(set(requests)) <= 3


@pytest.mark.parametrize("concurrency", [1, 4])
def test_a_connection_that_was_closed_between_two_feeds_is_made_anew(tardis_settings, tmp_path, concurrency):
    with keeping_connections(closes_silently=True) as (url, requests):
        settings = tardis_settings(datasets_endpoint=url, concurrency=concurrency, retry_budget_seconds=0)
        found = list(TardisClient(settings).fetch(FEEDS, "2024-01-02", tmp_path))
    assert [str(result) for _, result in found if not isinstance(result, Download)] == []
    assert len(requests) == len(FEEDS)
