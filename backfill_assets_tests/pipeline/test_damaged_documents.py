"""One damaged document of the lake: its feed or its day waits, and all others go on.

Every kind of document is damaged in a lake of three published days, two kinds in every way. A run of the day
makes again each document that can be made again. A feed's manifest stores decisions, so only a refresh begins
it anew. A document that is replaced unread is kept below ``damaged/``.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import chdir
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from backfill_assets.automation.due import awaiting_export, due_days
from backfill_assets.cli import main
from backfill_assets.doctor import examine
from backfill_assets.feeds import Feed
from backfill_assets.lake import documents, paths
from backfill_assets.lake.manifests import load_day_record, load_manifest
from backfill_assets.progress.stored_days import calendar, stored_day, summarized_day
from backfill_assets.quality.baseline import load_baseline
from backfill_assets.quality.settled import load_day
from backfill_assets.report.month import DaySummary
from backfill_assets.standins.faults import Fault, not_found
from backfill_assets.standins.market import Market
from backfill_assets.standins.tardis import TardisStandin
from backfill_assets_tests.cli.conftest import REPOSITORY
from backfill_assets_tests.obstacles import OBSTACLES, put_in_the_way
from backfill_assets_tests.pipeline.conftest import Pipeline, write_settings

pytestmark = pytest.mark.story

BEFORE, DAY, AFTER = "2024-01-02", "2024-01-03", "2024-01-04"
TODAY = date(2024, 1, 5)
SYMBOLS = ("BTC-USDT", "ETH-USDT")
FEED = Feed("binance", "trades", "BTCUSDT")
TABLES = ("instruments", "trades", "candles", "coverage", "quality")
MARKET = ("--exchange", "binance", "--symbol", "BTC-USDT")

DERIVED = {
    "settled day": paths.settled_day(DAY),
    "measures": paths.measures(DAY),
    "summary": paths.day_summary(DAY),
    "day record": paths.day_record(DAY),
    "instruments": paths.instruments_manifest("binance", DAY),
    **{f"ledger of {table}": paths.publication(table, DAY) for table in TABLES},
}
DOCUMENTS = {**DERIVED, "manifest": paths.ticks_manifest(FEED, DAY), "baseline": paths.baseline()}


def _newer(data: bytes) -> bytes:
    return json.dumps({**json.loads(data), "of_a_newer_version": {"x": 1}}).encode()


def _other_types(data: bytes) -> bytes:
    return json.dumps(dict.fromkeys(json.loads(data), 0)).encode()


DAMAGES: dict[str, Callable[[bytes], bytes | None]] = {
    "empty": lambda _: b"",
    "cut": lambda data: data[: len(data) // 2],
    "not JSON": lambda _: b"<html>502 Bad Gateway</html>",
    "null": lambda _: b"null",
    "a list": lambda _: b"[]",
    "deep": lambda _: b"[" * 100_000,
    "no text": lambda _: b"\xff\xfe\x00\x01",
    "other types": _other_types,
    "one key more": _newer,
    **{what: lambda _: None for what in OBSTACLES},
}


def damage(pipeline: Pipeline, path: str, how: str) -> None:
    file = pipeline.folder / "lake" / path
    changed = DAMAGES[how](file.read_bytes())
    if changed is None:
        put_in_the_way(file, how)
    else:
        file.write_bytes(changed)


@pytest.fixture(scope="module")
def running() -> Iterator[TardisStandin]:
    small = Market(rows={("binance", symbol): 400 for symbol in SYMBOLS})
    with TardisStandin(small, clock=lambda: datetime(2024, 2, 10, 12, tzinfo=UTC)) as standin:
        yield standin


def settings_of(folder: Path, standin: TardisStandin, *symbols: str) -> Path:
    """Settings that are the same in every folder to which they are copied."""
    return write_settings(
        folder,
        standin,
        universe=[{"exchanges": ["binance"], "symbols": list(symbols), "data_types": ["trades"]}],
        schedule={"look_back_days": 3},
        lake={"uri": "lake"},
        warehouse={"kind": "duckdb", "folder": "warehouse"},
    )


def command(pipeline: Pipeline, *words: str) -> Any:
    environment = {"BACKFILL_ENV": str(pipeline.file), "DAGSTER_HOME": None}
    return CliRunner(env=environment).invoke(main, words)


@pytest.fixture(scope="module")
def published(running: TardisStandin, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three published days, and a baseline of them."""
    folder = tmp_path_factory.mktemp("published")
    made = Pipeline(settings_of(folder, running, *SYMBOLS), running)
    with chdir(folder):
        for day in (BEFORE, DAY, AFTER):
            assert made.run(day).success
        assert command(made, "baseline").exit_code == 0
    return folder


@pytest.fixture
def pipeline(running: TardisStandin, published: Path, tmp_path: Path) -> Iterator[Pipeline]:
    """A copy of the published days."""
    shutil.copytree(published, tmp_path / "copy")
    with chdir(tmp_path / "copy"):
        yield Pipeline(settings_of(tmp_path / "copy", running, *SYMBOLS), running)
    running.faults.clear()


def tables(pipeline: Pipeline) -> dict[str, dict[str, bytes]]:
    return {table: pipeline.partition_bytes(table) for table in TABLES}


WAYS = [(kind, how) for kind in DOCUMENTS for how in ("cut", "other types", "a folder")]
MORE_WAYS = [(kind, how) for kind in ("settled day", "manifest") for how in DAMAGES]


@pytest.mark.parametrize(("kind", "how"), dict.fromkeys([*WAYS, *MORE_WAYS]))
def test_whoever_looks_is_answered_for_the_day_and_for_all_others(
    pipeline: Pipeline, kind: str, how: str
) -> None:
    store, settings = pipeline.store, pipeline.settings
    assert due_days(store, TODAY, settings) == []
    damage(pipeline, DOCUMENTS[kind], how)

    assert set(due_days(store, TODAY, settings)) <= {DAY}
    assert awaiting_export(store, TODAY, settings) == []
    outcomes = {day.day: day.outcome for day in calendar(store, settings, BEFORE, AFTER)}
    assert (outcomes[BEFORE], outcomes[AFTER]) == ("published", "published")
    assert {stored_day(store, settings, day).outcome for day in (BEFORE, AFTER)} == {"published"}
    assert {summarized_day(store, settings, day).outcome for day in (BEFORE, AFTER)} == {"published"}
    stored_day(store, settings, DAY)
    summarized_day(store, settings, DAY)
    plan = command(pipeline, "plan", "--start", BEFORE, "--end", AFTER, "--json")
    assert plan.exit_code == 0, plan.output
    assert set(json.loads(plan.stdout)["days_to_run"]) <= {DAY}
    assert command(pipeline, "report", "--month", "2024-01").exit_code == 0
    for words in (
        ("report", "--date", AFTER),
        ("candles", "--date", AFTER, "--exchange", "binance", "--symbol", "BTC-USDT", "--timeframe", "1d"),
        ("coverage", "--date", AFTER),
    ):
        answered = command(pipeline, *words)
        assert answered.exit_code == 0, answered.output
    for words in (("report", "--date", DAY), ("coverage", "--date", DAY), ("settings",)):
        answered = command(pipeline, *words)
        assert answered.exception is None or isinstance(answered.exception, SystemExit), words


RUN_WAYS = [(kind, how) for kind in DOCUMENTS for how in ("cut", "a folder")]


@pytest.mark.parametrize(
    ("kind", "how"),
    [*RUN_WAYS, ("settled day", "one key more"), ("settled day", "a FIFO"), ("manifest", "a FIFO")],
)
def test_runs_of_any_day_succeed_and_leave_the_tables_as_they_are(
    pipeline: Pipeline, kind: str, how: str
) -> None:
    before = tables(pipeline)
    damage(pipeline, DOCUMENTS[kind], how)
    for day in (AFTER, DAY):
        assert pipeline.run(day).success
    after = tables(pipeline)
    # The quality table tells whether the other tables of the day are published, and how the day was judged.
    for table in TABLES[:-1]:
        assert after[table] == before[table], table
    if kind in DERIVED:
        assert due_days(pipeline.store, TODAY, pipeline.settings) == []
        assert stored_day(pipeline.store, pipeline.settings, DAY).outcome == "published"
        assert documents.damage(pipeline.store, paths.day_summary(DAY), DaySummary) == ""
        kept = list(pipeline.store.list("damaged/"))
        folders = list((pipeline.folder / "lake" / "damaged").rglob("*.json.*"))
        assert bool(kept or folders) == (how != "one key more")


@pytest.mark.parametrize("how", ["cut", "a folder"])
def test_a_feed_with_a_damaged_manifest_counts_as_before_and_says_why(pipeline: Pipeline, how: str) -> None:
    damage(pipeline, paths.ticks_manifest(FEED, DAY), how)
    assert pipeline.run(DAY).success
    found = pipeline.settled(DAY).settled.feed(FEED)
    assert found is not None
    assert found.accepted is not None
    assert "manifest.json" in found.unreadable
    [notable] = stored_day(pipeline.store, pipeline.settings, DAY).notable
    assert notable.accepted
    assert "manifest.json" in notable.reasons[-1]


def test_a_refresh_begins_the_manifest_anew_with_the_decision_that_holds(pipeline: Pipeline) -> None:
    counted = pipeline.settled(DAY).settled.feed(FEED)
    assert counted is not None
    assert counted.accepted is not None
    which = ("--date", DAY, "--feed", str(FEED), "--content", counted.accepted.content)
    retracted = command(pipeline, "retract", *which, "--reason", "wrong venue")
    assert retracted.exit_code == 0, retracted.output
    damage(pipeline, paths.ticks_manifest(FEED, DAY), "cut")
    assert pipeline.run(DAY, refresh=True, feeds=[str(FEED)]).success
    [decision] = load_manifest(pipeline.store, FEED, DAY).decisions
    assert decision.reason == "wrong venue"
    found = pipeline.settled(DAY).settled.feed(FEED)
    assert found is not None
    assert (found.accepted, found.unreadable) == (None, "")
    assert [path for path in pipeline.store.list("damaged/") if "manifest.json" in path]


def test_a_refresh_that_finds_no_file_takes_nothing_away_from_a_damaged_manifest(pipeline: Pipeline) -> None:
    damage(pipeline, paths.ticks_manifest(FEED, DAY), "cut")
    pipeline.with_fault(str(FEED), DAY, Fault(always=not_found()))
    before = pipeline.partition_bytes("trades")
    assert pipeline.run(DAY, refresh=True, feeds=[str(FEED)]).success
    assert pipeline.partition_bytes("trades") == before


def test_a_damaged_manifest_of_a_day_that_was_never_settled_is_fetched_again(pipeline: Pipeline) -> None:
    day = "2024-01-06"
    path = paths.ticks_manifest(FEED, day)
    pipeline.store.replace(path, b"", None)
    assert pipeline.run(day).success
    assert load_manifest(pipeline.store, FEED, day).newest is not None


def test_a_damaged_record_keeps_the_feeds_that_were_stored_and_left_the_settings(
    pipeline: Pipeline, running: TardisStandin
) -> None:
    damage(pipeline, paths.day_record(DAY), "empty")
    smaller = Pipeline(settings_of(pipeline.folder, running, "ETH-USDT"), running)
    before = pipeline.partition_bytes("trades")
    assert smaller.run(DAY).success
    record = load_day_record(smaller.store, DAY)
    assert record is not None
    assert str(FEED) in {e.feed for e in record.expected}
    assert smaller.partition_bytes("trades") == before


def test_a_profile_that_is_damaged_within_its_manifest_makes_that_feed_unreadable(pipeline: Pipeline) -> None:
    file = pipeline.folder / "lake" / paths.ticks_manifest(FEED, DAY)
    content = json.loads(file.read_bytes())
    content["versions"][-1]["profile"] = {"symbols": [7]}
    file.write_text(json.dumps(content))
    before = pipeline.partition_bytes("trades")
    assert pipeline.run(DAY).success
    assert pipeline.partition_bytes("trades") == before
    found = load_day(pipeline.store, DAY)
    assert found is not None
    assert [bool(f.unreadable) for f in found.feeds] == [True, False]


def test_a_damaged_baseline_is_measured_again_by_its_command(pipeline: Pipeline) -> None:
    days = load_baseline(pipeline.store).days
    assert days
    damage(pipeline, paths.baseline(), "cut")
    assert load_baseline(pipeline.store).days == frozenset()
    assert command(pipeline, "baseline").exit_code == 0
    assert load_baseline(pipeline.store).days == days


def test_a_settled_day_that_the_baseline_cannot_read_is_named(pipeline: Pipeline) -> None:
    damage(pipeline, paths.settled_day(DAY), "cut")
    answer = command(pipeline, "baseline", "--start", BEFORE)
    assert answer.exit_code == 0
    assert "2 measured now" in answer.stdout
    assert answer.stderr.startswith(f"{DAY} is left out: ")
    assert paths.settled_day(DAY) in answer.stderr
    (pipeline.folder / "lake" / paths.settled_day(DAY)).unlink()
    answer = command(pipeline, "baseline", "--start", BEFORE)
    assert answer.stderr == f"{DAY} is left out: its document is gone: run the day again\n"


def test_a_day_whose_candles_the_baseline_cannot_read_is_named(pipeline: Pipeline) -> None:
    damage(pipeline, paths.measures(DAY), "cut")
    answer = command(pipeline, "baseline", "--start", BEFORE)
    assert answer.exit_code == 0
    assert "2 measured now" in answer.stdout
    assert f"{DAY} is left out: the lake {pipeline.store.uri} has no candles of {DAY}" in answer.stderr


OVER_DAYS = {
    "verify": ("--start", BEFORE, "--end", AFTER),
    "coverage": ("--date", BEFORE, "--end", AFTER, *MARKET),
    "quality": ("--date", BEFORE, "--end", AFTER),
    "candles": ("--date", BEFORE, "--end", AFTER, *MARKET, "--timeframe", "1d", "--on-gap", "warn"),
}


@pytest.mark.parametrize("kind", ["settled day", "measures", "day record", "instruments", "manifest"])
def test_a_command_over_a_range_shows_the_days_beside_a_damaged_one(pipeline: Pipeline, kind: str) -> None:
    damage(pipeline, DOCUMENTS[kind], "cut")
    for name, words in OVER_DAYS.items():
        answer = command(pipeline, name, *words)
        assert answer.exit_code == (name == "verify"), (name, answer.output)
        assert all(day in answer.stdout for day in (BEFORE, AFTER)), (name, answer.output)
    assert DOCUMENTS[kind] in command(pipeline, "verify", *OVER_DAYS["verify"]).stdout
    learned = command(pipeline, "laws", "learn", "--start", BEFORE, "--end", AFTER)
    assert learned.exit_code == (kind in ("settled day", "manifest"))
    assert "binance trades: nothing is inferred" in learned.stdout
    refused = command(pipeline, *("candles", *OVER_DAYS["candles"][:-1], "raise"))
    is_gap = kind in ("settled day", "measures")
    assert (f"1 of 3 days fall short (1 missing): {DAY} missing" in refused.stderr) is is_gap


@pytest.mark.parametrize("kind", DOCUMENTS)
def test_the_doctor_names_a_damaged_document_and_its_remedy(
    pipeline: Pipeline, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BACKFILL_ENV", str(pipeline.file))
    (tmp_path / "dagster.yaml").symlink_to(REPOSITORY / "dagster.yaml")
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    assert all(finding.ok for finding in examine())
    damage(pipeline, DOCUMENTS[kind], "cut")
    [finding] = [finding for finding in examine() if not finding.ok]
    assert finding.what == "documents"
    assert pipeline.store.uri_of(DOCUMENTS[kind]) in finding.text
    assert "\n" not in finding.text
