"""The command ``rehearse``: the calls that it refuses, and a rehearsal as a user starts it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from contextlib import suppress

import psutil
import pytest
from click.testing import CliRunner

from backfill_assets.cli import main
from backfill_assets.rehearsal import process_faults, scenarios, service_faults
from backfill_assets.rehearsal.history import load
from backfill_assets.rehearsal.limits import load_limits
from backfill_assets.rehearsal.model import Promise
from backfill_assets.rehearsal.report import reserved
from backfill_assets.rehearsal.scenarios import SCENARIOS, Scenario, chosen, play
from backfill_assets.rehearsal.stage import Stage, Undisturbed
from backfill_assets.settings import DEFAULT_LIMITS


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["--scenario", "kiled"],
            "Error: 'kiled' is not a scenario; did you mean killed? known: normal, ",
        ),
        (["--date", "2019-01-01"], "Error: 2019-01-01 cannot be rehearsed: choose a day from 2021-06-18 to "),
        (["--date", "2099-01-01"], "Error: 2099-01-01 cannot be rehearsed: choose a day from 2021-06-18 to "),
    ],
)
def test_wrong_names_and_days_are_refused_in_one_line(words, said, tmp_path) -> None:
    answer = CliRunner().invoke(main, ["rehearse", "--report-dir", str(tmp_path / "r"), *words])
    assert answer.exit_code == 2
    assert answer.output.startswith(said)
    assert answer.output.count("\n") == 1
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--report-dir", "{}/file/r"], "{}/file/r: cannot be written: Not a directory: name another place "),
        (["--history", "{}/file/h"], "{}/file: cannot be written: Not a directory: name another place with "),
        (["--report-dir", "{}/held"], "{}/held: another rehearsal is at work there: name another folder "),
    ],
)
def test_a_place_for_reports_that_cannot_be_used_is_refused_before_anything_is_started(
    words, said, tmp_path, monkeypatch
) -> None:
    monkeypatch.setattr(scenarios, "rehearse", lambda *_, **__: pytest.fail("it was started"))
    (tmp_path / "file").touch()
    words = [word.format(tmp_path) for word in ("--report-dir", "{}/r", *words)]
    with reserved(tmp_path / "held", tmp_path / "held" / "history.jsonl"):
        answer = CliRunner().invoke(main, ["rehearse", *words])
    assert (answer.exit_code, answer.output.count("\n")) == (2, 1)
    assert answer.output.startswith(f"Error: {said.format(tmp_path)}")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_two_days_at_once_are_refused() -> None:
    answer = CliRunner().invoke(main, ["rehearse", "--replay", "2024-01-02", "--date", "2024-01-03"])
    assert answer.exit_code == 2
    assert "--replay 2024-01-02 and --date 2024-01-03 are both days to rehearse" in answer.output


def test_every_scenario_says_in_one_line_what_happens() -> None:
    for scenario in SCENARIOS.values():
        assert scenario.summary.endswith("."), scenario.name


def test_without_names_every_scenario_is_played_and_else_those_in_their_order() -> None:
    assert chosen(()) == list(SCENARIOS.values())
    assert [scenario.name for scenario in chosen(("hung", "normal"))] == ["hung", "normal"]


@pytest.mark.story
@pytest.mark.timeout(120)
def test_a_rehearsal_that_is_asked_to_end_ends_its_runs_and_removes_its_folder(tmp_path) -> None:
    command = [sys.executable, "-m", "backfill_assets.cli", "rehearse", "--report-dir", str(tmp_path / "r")]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    process = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
    run: list[psutil.Process] = []
    while not (run := psutil.Process(process.pid).children()):
        assert process.poll() is None
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 128 + signal.SIGTERM
    assert not any(child.is_running() for child in run)
    assert list(tmp_path.iterdir()) == []


def test_a_rehearsal_that_was_asked_to_end_where_the_answer_was_lost_ends_before_the_next_scenario(
    tmp_path, monkeypatch
) -> None:
    played: list[str] = []

    def deaf(stage: Stage) -> None:
        """It gets the signal in a place from which no exception comes."""
        played.append(stage.scenario)
        with suppress(SystemExit):
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(scenarios, "undisturbed", lambda *_: Undisturbed({}, 18, 1_000_000))
    both = [Scenario("first", deaf), Scenario("second", deaf)]
    with pytest.raises(SystemExit) as ended:
        scenarios.rehearse(
            "2024-01-02", both, is_full=False, logs=tmp_path, limits=load_limits(DEFAULT_LIMITS, SCENARIOS)
        )
    assert (ended.value.code, played) == (128 + signal.SIGTERM, ["first"])


@pytest.mark.story
@pytest.mark.timeout(600)
def test_a_rehearsal_keeps_its_promises_and_leaves_its_reports(tmp_path) -> None:
    command = [sys.executable, "-m", "backfill_assets.cli", "rehearse", "--report-dir", str(tmp_path)]
    names = ["normal", "killed", "stopped"]
    words = [word for name in names for word in ("--scenario", name)]
    done = subprocess.run([*command, *words], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    content = json.loads((tmp_path / "rehearsal.json").read_text())
    assert [result["scenario"] for result in content["results"]] == names
    for result in content["results"]:
        measured = result["measured"]
        assert measured["requests"] >= 12
        assert measured["rows"] > 0
        assert measured["peak_mb"] > 50
        assert measured["cpu_seconds"] > 1
    assert len(list(ET.parse(tmp_path / "junit.xml").getroot())) == len(names)
    assert list((tmp_path / "logs" / "killed" / "house").glob("*.log"))
    [kept] = load(tmp_path / "history.jsonl")
    assert list(kept.scenarios) == names


def test_a_scenario_that_breaks_off_is_broken_and_has_its_line(tmp_path) -> None:
    def breaks(stage: Stage) -> None:
        """It breaks."""
        raise ZeroDivisionError

    stage = Stage("breaks", tmp_path / "stage", "2024-01-02", Undisturbed({}, 18, 1_000_000))
    found = play(Scenario("breaks", breaks), stage, tmp_path / "logs")
    assert found.state(Promise.RECOVERED) == "broken"
    assert any("ZeroDivisionError" in outcome.seen for outcome in found.outcomes)


def test_a_disk_that_cannot_be_made_small_is_not_run_and_not_kept(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(process_faults, "_mount", lambda folder, options: "no tmpfs may be mounted")
    stage = Stage("disk-full", tmp_path / "stage", "2024-01-02", Undisturbed({}, 18, 1_000_000))
    found = play(SCENARIOS["disk-full"], stage, tmp_path / "logs")
    states = {promise: found.state(promise) for promise in Promise}
    assert states.pop(Promise.NO_SECRET_IN_LOGS) == "kept"
    assert set(states.values()) == {"not run"}
    assert {outcome.seen for outcome in found.outcomes if outcome.kept is None} == {
        "no tmpfs may be mounted",
        "no run was started",
    }


def test_without_postgres_its_absence_is_not_run_and_not_kept(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(service_faults, "binaries", lambda: None)
    stage = Stage("database-away", tmp_path / "stage", "2024-01-02", Undisturbed({}, 18, 1_000_000))
    found = play(SCENARIOS["database-away"], stage, tmp_path / "logs")
    assert {outcome.kept for outcome in found.outcomes} == {None}
    seen = {outcome.seen for outcome in found.outcomes}
    assert seen == {"there is no Postgres (initdb and postgres)", "no run was started"}


@pytest.mark.parametrize("minutes", ["0", "1441"])
def test_a_soak_is_a_minute_to_a_day_long(minutes) -> None:
    answer = CliRunner().invoke(main, ["rehearse", "--soak-minutes", minutes])
    assert answer.exit_code == 2
    assert "1<=x<=1440" in answer.output
