"""Conditions of feeds and markets in one word: by API, command line and Python, with the last change."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import polars as pl
import pytest
from click.testing import CliRunner
from starlette.testclient import TestClient

import backfill_assets as ba
from backfill_assets.cli import main
from backfill_assets.frames import conditions
from backfill_assets.frames.states import condition_of_rows, market_states
from backfill_assets.lake.local import LocalStore
from backfill_assets.progress.api import create_app
from backfill_assets.progress.service import Backfills
from backfill_assets.settings import load_settings
from backfill_assets.warehouse import ledger
from backfill_assets_tests.frames.market_days import (
    EXCHANGE,
    day,
    feeds,
    publish_days,
    publish_quality,
    symbol,
)
from backfill_assets_tests.progress.conftest import BASE

DAYS = 3
RANGE = {"from": day(0), "to": day(DAYS - 1)}
MARKET = f"/api/v1/coverage/{EXCHANGE}/{symbol(0)}"


@pytest.fixture
def file(tmp_path) -> Path:
    """Two markets and three days: the second day falls short, the first is in the ledger."""
    made = publish_days(tmp_path, 2, DAYS)
    publish_quality(tmp_path, 2, 1, published=[False, True], pending=[True, False], day_state="degraded")
    store = LocalStore(tmp_path / "lake")
    for table in ("coverage", "trades"):
        mine = ledger.claim(store, table, day(0), "f")
        ledger.complete(store, table, day(0), mine, fingerprint="f", job="j", totals=())
    return made


@pytest.fixture
def client(file) -> Iterator[TestClient]:
    """The service; its routes for data do not use Dagster."""
    service = Backfills(cast("Any", None), lambda: cast("Any", None), lambda: load_settings(file))
    with TestClient(create_app(service), base_url=BASE) as found:
        yield found


@pytest.mark.parametrize(
    ("row", "word"),
    [
        ({}, "available"),
        ({"day_state": "degraded"}, "degraded"),
        ({"day_state": "held", "published": False}, "pending"),
        ({"published": False, "verdict": "quarantine", "pending": True}, "pending"),
        ({"published": False, "verdict": "missing"}, "missing"),
        ({"day_state": "held", "published": False, "verdict": "missing"}, "missing"),
    ],
)
def test_a_row_of_quality_and_the_day_of_its_market_come_to_the_same_word(row, word):
    rows = pl.DataFrame(feeds(1, 0)).with_columns(**{name: pl.lit(value) for name, value in row.items()})
    assert rows.select(condition_of_rows()).item() == word
    [found] = market_states(rows.to_dicts(), [day(0)], "trades", EXCHANGE, symbol(0))
    assert found.condition == word


def test_a_market_and_a_feed_have_a_word_for_each_day_and_the_worst_for_the_range(client):
    market = client.get(MARKET, params=RANGE).json()
    assert [one["condition"] for one in market["days"]] == ["available", "pending", "available"]
    assert (market["condition"], market["days"][1]["state"]) == ("pending", "left_out")
    [first, second] = client.get("/api/v1/quality", params={**RANGE, "exchange": EXCHANGE}).json()["feeds"]
    assert [one["condition"] for one in first["days"]] == ["available", "pending", "available"]
    assert [one["condition"] for one in second["days"]] == ["available", "degraded", "available"]
    assert (first["condition"], second["condition"]) == ("pending", "degraded")
    beyond = client.get("/api/v1/quality", params={**RANGE, "to": day(DAYS)}).json()["feeds"][1]
    assert (beyond["condition"], beyond["days"][-1]["condition"]) == ("missing", "missing")


def test_the_last_change_is_the_last_publication_by_the_ledger(client, file):
    entry = ledger.entry(LocalStore(file.parent / "lake"), "coverage", day(0))
    assert entry is not None
    assert entry.published is not None
    market = client.get(MARKET, params=RANGE).json()
    at = entry.published.published_at.isoformat().replace("+00:00", "Z")
    assert [one["last_modified"] for one in market["days"]] == [at, None, None]
    assert market["last_modified"] == at


@pytest.mark.parametrize("path", [MARKET, "/api/v1/quality"])
def test_an_answer_is_304_until_something_changes(client, file, path):
    first = client.get(path, params=RANGE)
    tag = first.headers["etag"]
    again = client.get(path, params=RANGE, headers={"If-None-Match": tag})
    assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
    publish_quality(file.parent, 2, 1)
    changed = client.get(path, params=RANGE, headers={"If-None-Match": tag})
    assert changed.status_code == 200
    assert changed.headers["etag"] != tag
    assert '"pending"' not in changed.text


def test_minutes_of_books_are_told_by_command_line_python_and_api(client, file):
    told = {
        "book_minutes": ["v1000c340d100", None],
        "valid_book_share": [0.98765, None],
        "longest_unchanged_seconds": [1_234.5, None],
        "unchanged_at_end_seconds": [2.0, None],
    }
    publish_quality(file.parent, 2, 1, **told)
    words = ["--date", day(1), "--exchange", EXCHANGE]
    run = CliRunner(env={"BACKFILL_ENV": str(file)})
    of_book, of_trades = run.invoke(main, ["quality", *words]).stdout.splitlines()
    assert (
        "1,000 min proven, 340 min consistent, 100 min diverged, valid 98.77 % of the day, "
        "unchanged for at most 1,234.5 s, at the end for 2.0 s"
    ) in of_book
    assert "min" not in of_trades
    first = client.get("/api/v1/quality", params={"from": day(1), "to": day(1)}).json()["feeds"][0]["days"][0]
    rows = ba.open(file).quality(day(1), day(2)).to_polars().sort("dataset_symbol")
    for name, (value, _) in told.items():
        assert (first[name], rows[name][0]) == (value, value)


def test_command_line_and_python_say_the_same_as_the_api(client, file):
    words = ["--date", RANGE["from"], "--end", RANGE["to"], "--exchange", EXCHANGE]
    run = CliRunner(env={"BACKFILL_ENV": str(file)})
    market = run.invoke(main, ["coverage", *words, "--symbol", symbol(0), "--json"])
    assert json.loads(market.stdout) == client.get(MARKET, params=RANGE).json()
    feed = run.invoke(main, ["quality", *words, "--json"])
    assert json.loads(feed.stdout) == client.get("/api/v1/quality", params=RANGE).json()
    lines = run.invoke(main, ["quality", *words, "--symbol", symbol(0)]).stdout.splitlines()
    assert [line.split()[:3] for line in lines] == [
        [f"{EXCHANGE}/trades/C000USDT", day(n), word]
        for n, word in enumerate(("available", "pending", "available"))
    ]
    lines = run.invoke(main, ["coverage", *words, "--symbol", symbol(0)]).stdout.splitlines()
    assert [line.split()[:2] for line in lines][1] == [day(1), "pending"]
    rows = ba.open(file).quality(day(0), day(DAYS), symbol=symbol(0)).to_polars()
    assert rows["condition"].to_list() == ["available", "pending", "available"]
    assert run.invoke(main, ["quality", "--date", "2024-06-01"]).stdout == "no day of the range was run\n"


def test_only_generated_prices_are_said_to_be_generated(client, file):
    market = ba.open(file).candles(EXCHANGE, symbol(1), "1h", day(0))
    assert (market.is_generated, repr(market)[:-1].partition(";")[0]) == (
        False,
        f"<{EXCHANGE} {symbol(1)} 1h candles",
    )
    publish_quality(file.parent, 2, 0, generated=[None, True])
    assert [ba.open(file).candles(EXCHANGE, symbol(n), "1h", day(0)).is_generated for n in (0, 1)] == [
        False,
        True,
    ]
    feeds_of = client.get("/api/v1/quality", params={**RANGE, "to": day(0)}).json()["feeds"]
    assert [feed["days"][0]["generated"] for feed in feeds_of] == [None, True]
    assert [one["generated"] for one in client.get(MARKET, params=RANGE).json()["days"]] == [False] * DAYS


@pytest.mark.parametrize(
    ("path", "params", "said"),
    [
        (
            "/api/v1/coverage/binance/C000-USTD",
            RANGE,
            "'C000-USTD' on binance; did you mean C000-USDT",
        ),
        (MARKET, {**RANGE, "timeframe": "7m"}, "'7m' is not a stored timeframe"),
        (MARKET, {"from": day(2), "to": day(0)}, "0 days: ask for 1 to"),
        (MARKET, {"from": day(0)}, "to"),
        ("/api/v1/quality", {"from": "2001-01-01", "to": day(0)}, "days: ask for 1 to"),
        ("/api/v1/quality", {**RANGE, "to": "x"}, "'x'"),
        (
            "/api/v1/quality",
            {**RANGE, "exchange": "binanse"},
            "feeds of exchange 'binanse'; did you mean binance",
        ),
        ("/api/v1/quality", {**RANGE, "data_type": "trade"}, "data_type 'trade'; did you mean trades"),
        (
            "/api/v1/quality",
            {**RANGE, "symbol": "X", "exchange": "binance"},
            "'binance', symbol 'X'; choose from C000",
        ),
    ],
)
def test_what_cannot_be_asked_is_told(client, path, params, said):
    answer = client.get(path, params=params)
    assert answer.status_code == 422
    assert said in answer.text


def test_an_answer_that_would_be_too_large_says_what_to_choose(client, monkeypatch):
    monkeypatch.setattr(conditions, "MOST_FEED_DAYS", 5)
    answer = client.get("/api/v1/quality", params=RANGE)
    assert answer.status_code == 422
    assert "2 feeds over 3 days are more than 5 rows: choose exchange, symbol or data_type" in answer.text
    chosen = client.get("/api/v1/quality", params={**RANGE, "symbol": symbol(0)})
    assert (chosen.status_code, len(chosen.json()["feeds"])) == (200, 1)


def test_a_lake_without_a_day_has_missing_ones(client):
    later = {"from": "2023-06-01", "to": "2023-06-02"}
    market = client.get(MARKET, params=later).json()
    assert (market["condition"], market["last_modified"]) == ("missing", None)
    assert client.get("/api/v1/quality", params=later).json() == {"feeds": []}
