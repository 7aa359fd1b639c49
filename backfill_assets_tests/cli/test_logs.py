"""Lines of real processes: runs, the service and commands log as the settings say, with run, day and feed."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from backfill_assets.days import shift, utc_now
from backfill_assets.feeds import Feed
from backfill_assets.lake import paths
from backfill_assets.standins import faults
from backfill_assets.standins.faults import Fault
from backfill_assets.standins.tardis import TardisStandin
from backfill_assets_tests.cli.conftest import REPOSITORY, Answer, Desk

DAY = "2024-01-01"
ETH = Feed("binance", "trades", "ETHUSDT")
UNIVERSE = [{"exchanges": ["binance"], "symbols": ["BTC-USDT", "ETH-USDT"]}]
WORDS = ("launch", "-m", "backfill_assets.definitions", "--assets", "instruments,ticks")

Run = Callable[..., Answer]


@pytest.fixture
def run(
    desk: Desk, dagster_home: Path, standin: TardisStandin, settings_file: Callable[..., Path], request: Any
) -> Run:
    """Runs a part of a day that lacks one of its two files."""
    standin.faults.put_dataset(ETH, DAY, Fault(always=faults.not_found()))

    def materialize(**log: str) -> Answer:
        file = settings_file(standin.url, universe=UNIVERSE, log=log)
        desk.set(DAGSTER_HOME=str(dagster_home), BACKFILL_ENV=str(file))
        answer = desk.run(*WORDS, "--partition", DAY, cwd=request.config.rootpath, program="dg")
        assert answer.code == 0, answer.err[-3_000:]
        return answer

    return materialize


def of_run(answer: Answer) -> list[str]:
    """Every line except those that Dagster's command logs about itself."""
    return [
        line for line in answer.err.splitlines() if "click/core.py" not in line and "callback" not in line
    ]


def of_json(answer: Answer) -> list[dict[str, str]]:
    return [json.loads(line) for line in of_run(answer)]


def test_every_line_of_a_run_is_an_object_with_its_run_and_day_and_those_of_a_feed_say_which(
    run: Run, dagster_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = of_json(run(format="json"))
    assert {line["day"] for line in lines} == {DAY}
    (run_id,) = {line["run"] for line in lines}
    (absent,) = [line for line in lines if line.get("feed")]
    assert (absent["feed"], absent["level"], absent["step"]) == (str(ETH), "warning", "ticks")
    assert absent["event"].startswith(f"{DAY} {ETH} absent: ")
    assert all(line["timestamp"].endswith("Z") for line in lines)
    monkeypatch.setenv("DAGSTER_HOME", str(dagster_home))
    with dg.DagsterInstance.get() as instance:
        assert [found.run_id for found in instance.get_runs()] == [run_id]


def test_a_level_hides_lines_below_it_and_none_from_dagsters_ui(
    run: Run, dagster_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    levels = {line["level"] for line in of_json(run(format="json", level="debug"))}
    assert levels == {"debug", "info", "warning"}
    lines = of_json(run(format="json", level="warning"))
    assert [(line["level"], line["feed"]) for line in lines] == [("warning", str(ETH))]
    monkeypatch.setenv("DAGSTER_HOME", str(dagster_home))
    with dg.DagsterInstance.get() as instance:
        newest = next(iter(instance.get_runs(limit=1))).run_id
        told = [entry.user_message for entry in instance.all_logs(newest)]
    assert any("instruments, 2 feeds expected" in message for message in told)


def test_on_a_console_the_lines_of_a_run_are_dagsters_own(run: Run) -> None:
    (line,) = of_run(run(level="warning"))
    assert " - WARNING - " in line
    assert f"{DAY} {ETH} absent: " in line


@pytest.mark.timeout(90)
def test_the_service_logs_the_day_of_a_document_that_it_cannot_read(
    desk: Desk, dagster_home: Path, closed_port: int, settings_file: Callable[..., Path]
) -> None:
    file = settings_file(f"http://127.0.0.1:{closed_port}", log={"format": "json"})
    day = shift(utc_now().date().isoformat(), -2)
    # A folder takes the place of the document.
    (desk.folder / "lake" / paths.settled_day(day)).mkdir(parents=True)
    desk.set(DAGSTER_HOME=str(dagster_home), BACKFILL_ENV=str(file))
    # This server looks for incidents every ten seconds.
    words = [sys.executable, "-m", "backfill_assets.rehearsal.quick", "service", "serve", "--port", "0"]
    process = subprocess.Popen(
        words,
        cwd=REPOSITORY,
        env=desk.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        assert process.stdout is not None
        found = next(line for line in iter(process.stdout.readline, "") if line.startswith("{"))
        line = json.loads(found)
        assert (line["day"], line["level"]) == (day, "warning")
        assert f"{day}.json: a folder is where a document should be" in line["event"]
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
    finally:
        process.kill()


def test_a_command_logs_in_one_line_on_a_console(
    desk: Desk, closed_port: int, settings_file: Callable[..., Path]
) -> None:
    desk.set(BACKFILL_ENV=str(settings_file(f"http://127.0.0.1:{closed_port}")))
    file = desk.folder / "lake" / paths.incidents()
    file.parent.mkdir(parents=True)
    file.write_text("{")
    answer = desk.run("incidents")
    (line,) = answer.err.splitlines()
    assert "[warning  ]" in line
    assert file.name in line
