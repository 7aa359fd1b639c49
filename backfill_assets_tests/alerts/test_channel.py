"""Messages go out through the real Apprise; addresses are secrets."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
from apprise.plugins.slack import NotifySlack

from backfill_assets.alerts import channel
from backfill_assets.failures import SettingsError
from backfill_assets.settings import AlertSettings
from backfill_assets_tests.alerts.listener import Listener, listening

SECRET = "T12345678/B12345678/abcdefghijklmnopqrstuvwx"


@pytest.fixture
def listener() -> Iterator[Listener]:
    with listening() as found:
        yield found


def test_every_service_gets_the_message(listener: Listener) -> None:
    settings = AlertSettings(urls=f"{listener.url}  {listener.url}\n")
    assert channel.send(settings, "title", "first\nsecond") == (True, "")
    assert listener.texts == ["title\nfirst\nsecond"] * 2


def test_slack_gets_its_webhook_as_it_is_and_no_markup_of_others(
    listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(NotifySlack, "webhook_url", f"http://{listener.address}/services")
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


@pytest.mark.parametrize(
    "wrong", ["nonsense", "slack://", "https//hooks.slack.com/x", "no-such://host/secret"]
)
def test_an_address_that_apprise_does_not_know_is_refused_by_its_place(
    listener: Listener, wrong: str
) -> None:
    with pytest.raises(
        SettingsError, match=r"alerts\.urls: number 2 is no address that Apprise knows"
    ) as found:
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
    assert channel.ping(gone) == "alerts.heartbeat_url cannot be reached (ConnectionError)"
