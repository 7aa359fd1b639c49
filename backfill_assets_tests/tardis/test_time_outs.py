"""The limits of one attempt: for the connection, and for the silence before and within an answer."""

from __future__ import annotations

import gzip
import itertools
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from backfill_assets.failures import TransientFailure
from backfill_assets.feeds import Feed
from backfill_assets.settings import TardisSettings
from backfill_assets.tardis.client import Download, TardisClient
from backfill_assets_tests.tardis.conftest import TRADES

BTC, DAY = Feed("binance", "trades", "BTCUSDT"), "2024-01-02"
HEAD = f"HTTP/1.1 200 OK\r\nContent-Length: {len(TRADES)}\r\n\r\n".encode()
Settings = Callable[..., TardisSettings]


@contextmanager
def full_backlog() -> Iterator[str]:
    """A server whose queue of connections is full: it refuses none and accepts none."""
    with ExitStack() as open_sockets:
        server = open_sockets.enter_context(socket.socket())
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        for number in itertools.count():
            client = open_sockets.enter_context(socket.socket())
            client.settimeout(0.5)
            try:
                client.connect(server.getsockname())
            except TimeoutError:
                break
            assert number < 100
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


@contextmanager
def speaking(*parts: bytes, silence: float) -> Iterator[str]:
    """A server that sends its parts with so much silence before each."""
    gone = threading.Event()

    def serve() -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            with connection:
                connection.recv(65_536)
                for part in parts:
                    if gone.wait(silence):
                        return
                    try:
                        connection.sendall(part)
                    except OSError:
                        break

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.getsockname()[1]}"
        finally:
            gone.set()
            server.shutdown(socket.SHUT_RDWR)
            thread.join()


def fetched(settings: TardisSettings, folder: Path) -> object:
    [(_, result)] = TardisClient(settings).fetch([BTC], DAY, folder)
    return result


def test_a_server_that_never_accepts_ends_the_attempt_at_the_connect_limit(
    tardis_settings: Settings, tmp_path: Path
) -> None:
    with full_backlog() as url:
        limits = {"connect_timeout_seconds": 0.3, "timeout_seconds": 5, "retry_budget_seconds": 0}
        result = fetched(tardis_settings(datasets_endpoint=url, **limits), tmp_path)
        assert isinstance(result, TransientFailure)
        assert "no connection within 0.3 s (tardis.connect_timeout_seconds)" in str(result)

        client = TardisClient(tardis_settings(api_endpoint=url, **limits))
        with pytest.raises(TransientFailure, match="no connection within"):
            client.exchange_details("binance")
        with pytest.raises(TransientFailure, match="no connection within"):
            client.instruments("binance")


def test_without_a_sooner_limit_the_whole_attempts_limit_ends_it(
    tardis_settings: Settings, tmp_path: Path
) -> None:
    with full_backlog() as url:
        settings = tardis_settings(datasets_endpoint=url, timeout_seconds=0.3, retry_budget_seconds=0)
        assert "no complete answer within 0.3 s" in str(fetched(settings, tmp_path))


@pytest.mark.parametrize("parts", [(b"", HEAD), (HEAD + TRADES[:20], b"", TRADES[20:])])
def test_silence_before_and_within_an_answer_ends_the_attempt_at_the_read_limit(
    parts: tuple[bytes, ...], tardis_settings: Settings, tmp_path: Path
) -> None:
    with speaking(*parts, silence=0.8) as url:
        limits = {"read_timeout_seconds": 0.3, "timeout_seconds": 5, "retry_budget_seconds": 0}
        result = fetched(tardis_settings(datasets_endpoint=url, **limits), tmp_path)
    assert isinstance(result, TransientFailure)
    assert "the connection was silent for 0.3 s (tardis.read_timeout_seconds)" in str(result)


def test_an_answer_that_drips_without_longer_silence_comes_whole(
    tardis_settings: Settings, tmp_path: Path
) -> None:
    parts = (HEAD, *(TRADES[n : n + 1] for n in range(len(TRADES))))
    with speaking(*parts, silence=0.02) as url:
        limits = {"connect_timeout_seconds": 1, "read_timeout_seconds": 1, "timeout_seconds": 60}
        result = fetched(tardis_settings(datasets_endpoint=url, **limits), tmp_path)
    assert isinstance(result, Download)
    assert gzip.decompress(result.path.read_bytes()) == gzip.decompress(TRADES)


def test_both_limits_are_thirty_seconds_by_default() -> None:
    settings = TardisSettings()
    assert (settings.connect_timeout_seconds, settings.read_timeout_seconds) == (30, 30)
