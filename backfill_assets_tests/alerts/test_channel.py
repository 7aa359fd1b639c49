"""Messages go out through the real Apprise; addresses are secrets."""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from backfill_assets.alerts import channel
from backfill_assets.failures import SettingsError
from backfill_assets.settings import AlertSettings
from backfill_assets_tests.alerts.listener import Listener, listening
from backfill_assets_tests.stopped_processes import children_that_run

SECRET = "T12345678/B12345678/abcdefghijklmnopqrstuvwx"


@contextmanager
def never_ending(kind: str) -> Iterator[str]:
    """A server that never ends its answer: it sends a byte at a time, an endless body, or nothing."""
    stopping = threading.Event()

    def answer(connection: socket.socket) -> None:
        head = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n"
        with connection, suppress(OSError):
            connection.recv(65_536)
            if kind == "endless":
                connection.sendall(head)
                while not stopping.is_set():
                    connection.sendall(b"x" * 65_536)
            for byte in head * 1_000 if kind == "drip" else b"":
                connection.sendall(bytes([byte]))
                if stopping.wait(0.5):
                    return
            stopping.wait()

    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.2)
        threads = []

        def serve() -> None:
            while not stopping.is_set():
                with suppress(TimeoutError):
                    connection, _ = server.accept()
                    threads.append(threading.Thread(target=answer, args=(connection,)))
                    threads[-1].start()

        serving = threading.Thread(target=serve)
        serving.start()
        try:
            yield f"127.0.0.1:{server.getsockname()[1]}"
        finally:
            stopping.set()
            serving.join()
            for thread in threads:
                thread.join()


@pytest.fixture
def listener() -> Iterator[Listener]:
    with listening() as found:
        yield found


def test_every_service_gets_the_message(listener: Listener) -> None:
    settings = AlertSettings(urls=f"{listener.url}  {listener.url}\n")
    assert channel.send(settings, "title", "first\nsecond") == (True, "")
    assert listener.texts == ["title\nfirst\nsecond"] * 2


def test_slack_gets_its_webhook_as_it_is_and_no_markup_of_others(
    listener: Listener, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # The process that delivers reads this first, because Slack's own host cannot be reached here.
    (tmp_path / "sitecustomize.py").write_text(
        "from apprise.plugins.slack import NotifySlack\n"
        f"NotifySlack.webhook_url = 'http://{listener.address}/services'\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("SLACK_WEBHOOK_URL", f"https://hooks.slack.com/services/{SECRET}")
    text = "binance/trades/<!channel> & <https://evil|click> *bold*"
    assert channel.send(AlertSettings(), "held <!here>", text) == (True, "")
    ((path, body),) = listener.got
    assert path == f"/services/{SECRET}"
    said = str(body)
    assert "&lt;!channel&gt; &amp; &lt;https://evil|click&gt;" in said
    assert "<!" not in said


def test_a_service_that_refuses_or_is_gone_is_named_without_its_address(
    listener: Listener, caplog: pytest.LogCaptureFixture
) -> None:
    secret = "json://user:very-secret-word@127.0.0.1:9/path-with-token-12345678"
    settings = AlertSettings(urls=f"{listener.url} {secret}")
    with caplog.at_level(logging.DEBUG):
        delivered, failure = channel.send(settings, "title", "text")
    assert (delivered, failure) == (True, "JSON (number 2) did not take the message")
    listener.status = 500
    with caplog.at_level(logging.DEBUG):
        assert channel.send(AlertSettings(urls=listener.url), "t", "t") == (
            False,
            "JSON (number 1) did not take the message",
        )
    assert "very-secret-word" not in caplog.text
    assert "path-with-token" not in caplog.text


@pytest.mark.parametrize("kind", ["drip", "endless", "silent"])
def test_what_answers_for_ever_is_given_up_and_delays_no_other(
    listener: Listener, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(channel, "SECONDS", 5)
    with never_ending(kind) as address:
        began = time.monotonic()
        settings = AlertSettings(
            urls=f"json://{address}/x {listener.url}", heartbeat_url=f"http://{address}/beat"
        )
        assert channel.send(settings, "title", "text") == (True, "JSON (number 1) did not take the message")
        # The status of an endless answer arrives at once, and the rest is not read.
        expected = "" if kind == "endless" else "alerts.heartbeat_url does not answer"
        assert channel.ping(settings) == expected
        assert time.monotonic() - began < 30
    assert listener.texts == ["title\ntext"]
    assert not children_that_run("alerts.deliver")


def test_a_redirect_has_delivered_nothing(listener: Listener) -> None:
    listener.status = 302
    settings = AlertSettings(urls=listener.url, heartbeat_url=f"http://{listener.address}/beat")
    assert channel.send(settings, "t", "t") == (False, "JSON (number 1) did not take the message")
    assert channel.ping(settings) == "alerts.heartbeat_url answers 302"
    assert listener.got == [("/beat", None)]


def test_addresses_may_have_commas_or_lines_between(listener: Listener) -> None:
    settings = AlertSettings(urls=f"{listener.url},{listener.url}\n{listener.url}?a=1,2")
    assert channel.send(settings, "t", "t") == (True, "")
    assert len(listener.texts) == 3


@pytest.mark.parametrize("url", ["http://a..b/x", f"http://{'a' * 70}.b/x", "http://[::1/x", "nonsense"])
def test_a_heartbeat_that_is_no_address_is_said(url: str) -> None:
    assert channel.ping(AlertSettings(heartbeat_url=url)) == "alerts.heartbeat_url does not answer"


def test_good_news_is_told_from_bad(listener: Listener) -> None:
    for ended in (False, True):
        channel.send(AlertSettings(urls=listener.url), "t", "t", ended=ended)
    assert [body["type"] for _, body in listener.got] == ["failure", "success"]


@pytest.mark.parametrize(
    "wrong", ["nonsense", "slack://", "https//hooks.slack.com/x", "no-such://host/secret"]
)
def test_an_address_that_apprise_does_not_know_is_refused_by_its_place(
    listener: Listener, wrong: str
) -> None:
    with pytest.raises(SettingsError, match=r"alerts\.urls: Apprise does not know address number 2") as found:
        channel.send(AlertSettings(urls=f"{listener.url} {wrong}"), "t", "t")
    assert wrong not in str(found.value)
    assert listener.got == []


def test_the_heartbeat_is_asked_for_and_a_failure_hides_its_address(listener: Listener) -> None:
    settings = AlertSettings(heartbeat_url=f"http://{listener.address}/ping/secret-of-mine")
    assert channel.ping(settings) == ""
    assert listener.got == [("/ping/secret-of-mine", None)]
    listener.status = 503
    assert channel.ping(settings) == "alerts.heartbeat_url answers 503"
    gone = AlertSettings(heartbeat_url="http://127.0.0.1:9/secret-of-mine")
    assert channel.ping(gone) == "alerts.heartbeat_url does not answer"
