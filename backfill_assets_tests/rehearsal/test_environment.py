"""The environment file: its refusals, and the effect of every key, seen at processes and files."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from click.testing import CliRunner

from backfill_assets.cli import main
from backfill_assets.rehearsal.cloud import cloud
from backfill_assets.rehearsal.environment import ENVIRONMENTS, Environment, environment_of
from backfill_assets.rehearsal.house import House, rehearsal_market
from backfill_assets.rehearsal.model import Promise
from backfill_assets.rehearsal.scenarios import SCENARIOS, play
from backfill_assets.rehearsal.stage import Stage, Undisturbed
from backfill_assets.standins.tardis import TardisStandin
from backfill_assets_tests.setting_keys import fields

DAY = "2024-01-02"


@pytest.fixture
def environment(tmp_path: Path) -> Callable[..., Environment]:
    """The environment of a file with these sections."""

    def make(**sections: Any) -> Environment:
        file = tmp_path / "mine.yaml"
        file.write_text(yaml.safe_dump(sections))
        return environment_of(str(file))

    return make


def rehearse(folder: Path, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "backfill_assets.cli", "rehearse", "--report-dir", str(folder / "r")]
    return subprocess.run(
        [*command, *words],
        env={**os.environ, **variables},
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
    )


# --- the file ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["local", "staging"])
def test_the_files_of_the_package_play_every_scenario(name: str) -> None:
    found = environment_of(name)
    assert found.name == name
    assert not found.is_real
    assert [scenario for scenario in SCENARIOS if found.why_not(scenario)] == []
    assert found.test_data.day == DAY


def test_the_local_file_has_every_key_that_stand_ins_need() -> None:
    written = yaml.safe_load((ENVIRONMENTS / "local.yaml").read_text())
    for section in ("sources", "test_data", "monitoring"):
        known = [key for key, _ in fields(Environment) if key.startswith(f"{section}.")]
        assert [f"{section}.{key}" for key in written[section]] == [key.replace("[]", "") for key in known]
    assert environment_of("local") == Environment(
        **{s: v for s, v in environment_of("local") if s != "bigquery"}
    )


@pytest.mark.parametrize(
    ("sections", "said"),
    [
        ({"infrastructur": {"cores": 1}}, "infrastructur: unknown key; did you mean infrastructure?"),
        ({"infrastructure": {"core": 1}}, "infrastructure.core: unknown key; did you mean cores?"),
        ({"infrastructure": {"cores": 0}}, "infrastructure.cores: "),
        ({"infrastructure": {"cores": 4096}}, "infrastructure.cores: 4096 are more than the "),
        (
            {"infrastructure": {"memory": "lots"}},
            "infrastructure.memory: 'lots' is not a size; write a number",
        ),
        ({"infrastructure": {"disk": "0 GB"}}, "infrastructure.disk: '0 GB' is not a size"),
        (
            {"sources": {"tardis": "standing"}},
            "sources.tardis: 'standing' is not a source; did you mean standin?",
        ),
        ({"sources": {"tardis_key_variable": "sk-live-0123456789abcdef"}}, "sources.tardis_key_variable: "),
        ({"sources": {"rate_limit_per_minute": 0}}, "sources.rate_limit_per_minute: "),
        ({"sources": {"connect_timeout_seconds": 0}}, "sources.connect_timeout_seconds: "),
        (
            {"sources": {"connect_timeout_seconds": float("inf")}},
            "sources.connect_timeout_seconds: must be a",
        ),
        ({"sources": {"tardis": "http://"}}, "sources.tardis: 'http://' is not a source; write standin"),
        ({"sources": {"read_timeout_seconds": "soon"}}, "sources.read_timeout_seconds: "),
        ({"sources": {"tardis": "tardis", "tardis_key_variable": "NO_SUCH_KEY"}}, "NO_SUCH_KEY is not set"),
        ({"bigquery": {"project": "p"}}, "bigquery.dataset: is missing"),
        ({"bigquery": {"project": "${NO_SUCH_P}", "dataset": "d"}}, "NO_SUCH_P is not set"),
        (
            {"test_data": {"exchanges": ["binanse"]}},
            "test_data.exchanges: the stand-in has no binanse; did you mean bin",
        ),
        (
            {"test_data": {"symbols": ["BTC-USTD"]}},
            "test_data.symbols: the stand-in has no BTC-USTD at binance",
        ),
        ({"test_data": {"symbols": ["btc"]}}, "test_data.symbols.0: 'btc' is not a canonical symbol"),
        ({"test_data": {"date_range": "January"}}, "test_data.date_range: 'January' is not a range of days"),
        ({"test_data": {"date_range": "2024-01-03 to 2024-01-02"}}, "2024-01-03 is after 2024-01-02"),
        ({"test_data": {"date_range": "2020-01-03"}}, "2020-01-03 is too early; choose days from 2021-06-18"),
        ({"test_data": {"date_range": "2024-01-03 to 2099-01-02"}}, "2099-01-02 is not over"),
        ({"monitoring": {"log_level": "chatty"}}, "monitoring.log_level: "),
        ({"monitoring": {"metrics": "perhaps"}}, "monitoring.metrics: "),
    ],
)
def test_what_cannot_be_used_is_refused_in_one_line_that_names_it(
    sections: dict[str, Any], said: str, tmp_path: Path
) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump(sections))
    words = ["rehearse", "--env", str(file), "--report-dir", str(tmp_path / "r")]
    answer = CliRunner().invoke(main, words)
    assert answer.exit_code == 2
    assert said in answer.output
    assert answer.output.count("\n") == 1
    assert "sk-live" not in answer.output
    assert not (tmp_path / "r").exists()


def test_an_unknown_environment_is_refused_with_the_known_ones() -> None:
    answer = CliRunner().invoke(main, ["rehearse", "--env", "stagging"])
    assert answer.exit_code == 2
    said = (
        "'stagging' is not an environment of a rehearsal; "
        "did you mean staging? or give a path to a .yaml file"
    )
    assert answer.output == f"Error: {said}\n"
    assert "choose local, staging" in CliRunner().invoke(main, ["rehearse", "--env", "production"]).output


# --- every key has an effect -------------------------------------------------------------------------------


def content_of_settings(folder: Path, given: Environment) -> dict[str, Any]:
    with House(folder / "house", rehearsal_market(environment=given), environment=given) as house:
        return {**yaml.safe_load((house.folder / "rehearsal.yaml").read_text()), "feeds": house.feeds(DAY)}


#: Settings of a run, by the key that changes them; other effects have their own tests below.
SETTINGS_OF_RUNS: list[tuple[str, object, tuple[str, ...]]] = [
    ("sources.rate_limit_per_minute", 7, ("tardis", "requests_per_minute")),
    ("sources.connect_timeout_seconds", 1.5, ("tardis", "connect_timeout_seconds")),
    ("sources.read_timeout_seconds", 1.5, ("tardis", "read_timeout_seconds")),
    ("monitoring.log_level", "error", ("log", "level")),
]
ELSEWHERE = {
    "name",
    *("infrastructure.cores", "infrastructure.memory", "infrastructure.disk"),
    *("sources.tardis", "sources.tardis_key_variable"),
    *("bigquery.project", "bigquery.dataset", "bigquery.location", "bigquery.endpoint"),
    *("test_data.exchanges", "test_data.symbols", "test_data.date_range"),
    *("monitoring.metrics", "monitoring.alerts"),
}


def test_every_key_is_shown_to_have_an_effect() -> None:
    known = {key for key, _ in fields(Environment)}
    assert known == {key for key, _, _ in SETTINGS_OF_RUNS} | ELSEWHERE


@pytest.mark.parametrize(("key", "value", "setting"), SETTINGS_OF_RUNS, ids=lambda v: str(v))
def test_a_key_becomes_the_setting_of_the_runs(
    key: str, value: object, setting: tuple[str, str], environment: Callable[..., Environment], tmp_path: Path
) -> None:
    section, name = key.split(".")
    found = content_of_settings(tmp_path, environment(**{section: {name: value}}))
    assert found[setting[0]][setting[1]] == value


def test_exchanges_symbols_and_the_range_of_days_are_what_is_rehearsed(
    environment: Callable[..., Environment], tmp_path: Path
) -> None:
    given = environment(
        test_data={"exchanges": ["kraken"], "symbols": ["ETH-USDT"], "date_range": "2023-05-01 to 2023-05-03"}
    )
    found = content_of_settings(tmp_path, given)
    assert [str(feed) for feed in found["feeds"]] == ["kraken/trades/ETH-USDT"]
    assert found["universe"] == [{"exchanges": ["kraken"], "symbols": ["ETH-USDT"], "data_types": ["trades"]}]
    assert given.test_data.day == "2023-05-02"
    assert given.test_data.days == ["2023-05-01", "2023-05-02", "2023-05-03"]
    assert "it needs BTC-USDT" in given.why_not("network")
    assert given.why_not("killed") == ""


def test_a_data_set_takes_the_place_of_the_embedded_warehouse(
    environment: Callable[..., Environment], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_PROJECT", "market-data")
    wanted = {"project": "${MY_PROJECT}", "dataset": "d", "location": "EU", "endpoint": "http://127.0.0.1:9"}
    given = environment(bigquery=wanted)
    found = content_of_settings(tmp_path, given)
    assert found["warehouse"] == {**wanted, "project": "market-data", "kind": "bigquery"}
    assert [name for name in SCENARIOS if not given.why_not(name)] == ["normal"]


def test_runs_stay_on_the_processors_of_the_environment(
    environment: Callable[..., Environment], tmp_path: Path
) -> None:
    given, before = environment(infrastructure={"cores": 1}), os.sched_getaffinity(0)
    with House(tmp_path / "house", rehearsal_market(), environment=given) as house:
        process = house.start(DAY)
        assert psutil.Process(process.pid).cpu_affinity() == [min(before)]
        process.kill()
        process.wait(10)
    assert os.sched_getaffinity(0) == before


@pytest.mark.parametrize(("limits", "about"), [({"memory": "1 MB"}, "memory"), ({"disk": "0.01 MB"}, "room")])
@pytest.mark.story
def test_a_scenario_that_takes_more_than_the_environment_has_is_broken(
    limits: dict[str, str], about: str, environment: Callable[..., Environment], tmp_path: Path
) -> None:
    def one_run(stage: Stage) -> None:
        with stage.house() as house:
            house.run(DAY)

    def broken(given: Environment, folder: Path) -> list[str]:
        stage = Stage("normal", folder, DAY, Undisturbed({}, 18, 1_000_000), environment=given)
        with stage.measured():
            one_run(stage)
        stage.within_infrastructure()
        return [o.expected for o in stage.outcomes if o.promise is Promise.WITHIN_LIMITS and o.kept is False]

    [said] = broken(environment(infrastructure=limits), tmp_path / "narrow")
    assert about in said
    assert broken(environment(infrastructure=dict.fromkeys(limits, "20 GB")), tmp_path / "wide") == []


def test_metrics_are_beside_the_logs_where_they_are_wanted(
    environment: Callable[..., Environment], tmp_path: Path
) -> None:
    for wanted in (True, False):
        stage = Stage(
            "normal",
            tmp_path / str(wanted),
            DAY,
            Undisturbed({}, 0, 0),
            environment=environment(monitoring={"metrics": wanted}),
        )
        with stage.house() as house:
            pass
        file = house.folder / "logs" / "metrics.txt"
        assert file.exists() == wanted
        if wanted:
            assert 'backfill_day_state{days_ago="1",state="missing"} 1.0' in file.read_text()


def test_without_alerts_nobody_is_told_and_the_promise_is_not_run(
    environment: Callable[..., Environment], tmp_path: Path
) -> None:
    given = environment(monitoring={"alerts": False})
    stage = Stage("normal", tmp_path / "stage", DAY, Undisturbed({}, 0, 0), environment=given)
    with stage.house() as house:
        stage.is_told(house, DAY, "a run that was not made", bad=True)
        assert house.settings.alerts.urls == ""
        assert house.inbox.messages == []
    [outcome] = [o for o in stage.outcomes if o.promise is Promise.SOMEBODY_TOLD]
    assert (outcome.kept, outcome.seen) == (None, "monitoring.alerts is off")


# --- user sources ------------------------------------------------------------------------------------------


def test_where_sources_are_named_a_scenario_with_faults_is_not_run_and_not_kept(
    environment: Callable[..., Environment], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_KEY", "a-key-of-mine")
    # No process listens at the address, so a scenario that is played by mistake asks no vendor.
    given = environment(sources={"tardis": "http://127.0.0.1:9", "tardis_key_variable": "MY_KEY"})
    stage = Stage("killed", tmp_path / "stage", DAY, Undisturbed({}, 0, 0), environment=given)
    found = play(SCENARIOS["killed"], stage, tmp_path / "logs")
    assert {found.state(promise) for promise in Promise} == {"not run"}
    assert all("into which no fault is injected" in outcome.seen for outcome in found.outcomes)
    assert not (tmp_path / "stage").exists()


def test_a_published_day_is_not_replayed_at_sources_of_ones_own(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump({"bigquery": {"project": "p", "dataset": "d"}}))
    answer = CliRunner().invoke(main, ["rehearse", "--env", str(file), "--replay", DAY])
    assert (answer.exit_code, answer.output.count("\n")) == (2, 1)
    assert "--replay serves the day from a stand-in" in answer.output


@pytest.mark.story
@pytest.mark.timeout(300)
def test_a_rehearsal_at_a_named_source_asks_it_with_the_key_of_the_variable(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    with TardisStandin(rehearsal_market(), api_key="a-key-of-mine-0123") as standin:
        content = {
            "sources": {"tardis": standin.url, "tardis_key_variable": "MY_KEY"},
            "test_data": {"exchanges": ["kraken"], "symbols": ["BTC-USDT"], "date_range": "2024-01-05"},
        }
        file.write_text(yaml.safe_dump(content))
        words = ("--env", str(file), "--scenario", "normal", "--scenario", "killed")
        done = rehearse(tmp_path, *words, MY_KEY="a-key-of-mine-0123")
        assert done.returncode == 0, done.stdout + done.stderr
        paths = [request.path for request in standin.requests]
    assert "/v1/datasets/kraken/trades/2024/01/05/BTC-USDT.csv.gz" in [
        re.sub(r"XBT", "BTC", p) for p in paths
    ]
    found = {r["scenario"]: r for r in json.loads((tmp_path / "r" / "rehearsal.json").read_text())["results"]}
    assert set(found["killed"]["promises"].values()) == {"not run"}
    assert found["normal"]["promises"]["recovered"] == "kept"
    assert found["normal"]["promises"]["nothing_lost"] == "kept"
    for log in (tmp_path / "r").rglob("*"):
        assert log.is_dir() or "a-key-of-mine-0123" not in log.read_text()


@pytest.mark.story
@pytest.mark.timeout(300)
def test_a_named_data_set_receives_the_day(environment: Callable[..., Environment], tmp_path: Path) -> None:
    with cloud(tmp_path / "cloud") as place:
        named = {key: place.settings[key] for key in ("project", "dataset", "endpoint")}
        markets = {"exchanges": ["kraken"], "symbols": ["BTC-USDT"]}
        given = environment(bigquery=named, test_data=markets)
        stage = Stage("normal", tmp_path / "stage", DAY, Undisturbed({}, 0, 0), environment=given)
        found = play(SCENARIOS["normal"], stage, tmp_path / "logs")
        place.export(tmp_path / "tables")
    assert {found.state(promise) for promise in Promise} <= {"kept", "not judged"}, found.outcomes
    assert found.state(Promise.NOTHING_LOST) == "kept"
    assert (tmp_path / "tables" / "trades" / f"{DAY}.parquet").exists()
    assert list((tmp_path / "logs" / "house").glob("*.log"))


def test_a_name_is_that_of_the_file_unless_it_is_given(environment: Callable[..., Environment]) -> None:
    assert environment().name == "mine"
    given = environment(name="lab", bigquery={"project": "p", "dataset": "d"})
    assert given.why_not("killed").startswith("lab names sources")
