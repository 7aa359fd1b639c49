"""Fields follow the work into threads, secrets never appear, and every log call is one line."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from backfill_assets import logs
from backfill_assets.lake.parallel import parallel_map
from backfill_assets.logs import bound, with_fields
from backfill_assets.settings import load_settings, secrets_of

LOGGER = logging.getLogger("backfill_assets.some.module")
KEY = "TD.a+key/that must=not-leak"

Write = Callable[..., None]


@pytest.fixture
def write(tmp_path: Path) -> Iterator[Write]:
    """Writes the current settings."""
    file = tmp_path / "settings.yaml"

    def settings(form: str = "json", level: str = "debug", more: str = "") -> None:
        file.write_text(
            "universe: [{exchanges: [binance], symbols: [BTC-USDT]}]\n"
            "lake: {uri: ./lake}\nwarehouse: {kind: duckdb, folder: ./warehouse}\n"
            f"log: {{format: {form}, level: {level}}}\n{more}"
        )

    settings()
    logs.install(str(file), logging.NOTSET)
    yield settings
    logs.install()


@pytest.fixture
def lines(capsys: pytest.CaptureFixture[str]) -> Callable[[], list[dict[str, str]]]:
    return lambda: [json.loads(line) for line in capsys.readouterr().err.splitlines()]


def test_a_line_has_the_fields_that_are_bound_where_it_is_logged(
    write: Write, lines: Callable[[], list[dict[str, str]]]
) -> None:
    with bound(run="r1", day="2024-01-01", feed=""):
        with bound(feed="binance/trades/BTCUSDT"):
            LOGGER.warning("one of %d", 2)
        LOGGER.error("two")
    LOGGER.warning("three")
    first, second, third = lines()
    assert {name: first[name] for name in ("event", "level", "logger", "run", "day", "feed")} == {
        "event": "one of 2",
        "level": "warning",
        "logger": "backfill_assets.some.module",
        "run": "r1",
        "day": "2024-01-01",
        "feed": "binance/trades/BTCUSDT",
    }
    assert ("feed" in second, second["run"]) == (False, "r1")
    assert not third.keys() & {"run", "day", "feed"}


def test_fields_go_along_into_threads_and_stay_apart_there(
    write: Write, lines: Callable[[], list[dict[str, str]]]
) -> None:
    def work(feed: str) -> None:
        with bound(feed=feed):
            LOGGER.warning("%s", feed)

    with bound(day="2024-01-01"):
        parallel_map(work, [f"f{n}" for n in range(40)], workers=8)
        call = with_fields(work)
    call("later")
    found = lines()
    assert len(found) == 41
    assert all(line["feed"] == line["event"] and line["day"] == "2024-01-01" for line in found)


@pytest.mark.parametrize("form", ["json", "console"])
def test_no_secret_of_the_settings_is_in_a_line(
    form: str, write: Write, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TARDIS_API_KEY", KEY)
    monkeypatch.setenv("BACKFILL_API_TOKEN", "a-long-token")
    monkeypatch.setenv("SLACK_WEBHOOK_URL", "https://hooks.example/T0/B0/XyZ https://b.example/Second")
    write(form)
    with bound(feed=f"feed {KEY}"):
        try:
            raise ValueError(KEY)
        except ValueError:
            LOGGER.exception("%s and a-long-token of postgres://me:hidden-word@db at %s", KEY, KEY.upper())
    LOGGER.warning("to https://b.example/Second")
    text = capsys.readouterr().err
    for secret in (KEY, KEY.upper(), json.dumps(KEY)[1:-1], "a-long-token", "hidden-word", "Second"):
        assert secret not in text
    assert text.count("***") >= 6
    assert "ValueError" in text


@pytest.mark.parametrize("level, seen", [("debug", 4), ("info", 3), ("warning", 2), ("error", 1)])
def test_lines_below_the_level_are_not_written(
    level: str, seen: int, write: Write, lines: Callable[[], list[dict[str, str]]]
) -> None:
    write(level=level)
    for number in (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR):
        LOGGER.log(number, "said")
    assert len(lines()) == seen


@pytest.mark.parametrize("form", ["json", "console"])
def test_words_of_others_forge_no_line(form: str, write: Write, capsys: pytest.CaptureFixture[str]) -> None:
    write(form)
    LOGGER.warning("first\nsecond \x1b[2J \u202e end")
    (line,) = capsys.readouterr().err.splitlines()
    assert "\x1b" not in line
    assert "\u202e" not in line


def test_settings_that_cannot_be_read_hide_no_line(
    write: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "settings.yaml").write_text("nonsense: [")
    LOGGER.warning("said all the same")
    assert "said all the same" in capsys.readouterr().err


def test_every_secret_of_the_settings_is_known(write: Write, tmp_path: Path) -> None:
    write(more="tardis: {api_key: k-1}\nserve: {token: t-1}\nalerts: {urls: u-1 u-2, heartbeat_url: h-1}\n")
    assert set(secrets_of(load_settings(tmp_path / "settings.yaml"))) == {
        *("k-1", "t-1", "u-1 u-2", "u-1", "u-2", "h-1")
    }


def test_the_path_of_a_gateway_is_a_secret_except_the_vendors_own(write: Write, tmp_path: Path) -> None:
    write(
        more="tardis: {datasets_endpoint: http://h/p-1/v1/datasets, api_endpoint: http://h/v1/p-2}\n"
        "heal: {exchange_endpoint: http://h/p-3, archive_endpoint: http://h/p-4/}\n"
        "comparison: {sources: [{kind: massive, endpoint: http://h/p-5, api_key: k-1}]}\n"
    )
    found = set(secrets_of(load_settings(tmp_path / "settings.yaml")))
    assert found == {"p-1", "p-2", "p-3", "p-4", "p-5", "k-1"}


def test_importing_and_installing_does_not_import_structlog() -> None:
    code = (
        "import sys; from backfill_assets import logs; logs.install(); "
        "found = {'structlog', 'backfill_assets.settings'} & set(sys.modules); sys.exit(bool(found))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
