"""Settings are refused with file, key and remedy, and name secrets without needing them."""

from __future__ import annotations

import ast
import os
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from backfill_assets.failures import SettingsError
from backfill_assets.settings import (
    ENVIRONMENTS,
    REPLACED,
    TIMEFRAMES,
    BigQueryWarehouse,
    DuckDBWarehouse,
    Settings,
    SettingsFile,
    current_settings,
    load_settings,
    resolve,
    settings_file,
)
from backfill_assets_tests.setting_keys import fields

GOOD: dict[str, Any] = {
    "universe": [{"exchanges": ["binance"], "symbols": ["BTC-USDT"], "data_types": ["trades"]}],
    "lake": {"uri": "./lake"},
    "warehouse": {"kind": "duckdb", "folder": "./warehouse"},
}


def write(folder: Path, **changes: Any) -> Path:
    """A settings file like ``GOOD`` with these sections replaced; None leaves a section out."""
    content = {key: value for key, value in {**GOOD, **changes}.items() if value is not None}
    file = folder / "mine.yaml"
    file.write_text(yaml.safe_dump(content), encoding="utf-8")
    return file


def refusal(file: Path) -> str:
    """The one-line message of the refusal."""
    with pytest.raises(SettingsError) as refused:
        load_settings(file)
    message = str(refused.value)
    assert "\n" not in message
    assert message.startswith(f"{file}: ")
    return message.removeprefix(f"{file}: ")


def test_a_small_file_is_enough_and_the_rest_has_defaults(tmp_path: Path) -> None:
    settings = load_settings(write(tmp_path))
    assert settings.name == "mine"
    assert settings.warehouse == DuckDBWarehouse(kind="duckdb", folder="./warehouse")
    assert settings.candles.timeframes == ("1m", "5m", "15m", "1h", "4h", "1d")
    assert (settings.thresholds.day_completeness, settings.thresholds.strict) == (0.95, False)
    assert settings.universe[0].instrument_types == ("spot", "perpetual")


@pytest.mark.parametrize(
    ("changes", "key", "hint"),
    [
        ({"lakes": {}}, "lakes", "did you mean lake?"),
        ({"lake": {"uri": "x", "url": "y"}}, "lake.url", "did you mean uri?"),
        (
            {"thresholds": {"day_completness": 0.9}},
            "thresholds.day_completness",
            "did you mean day_completeness",
        ),
        ({"tardis": {"apikey": "x"}}, "tardis.apikey", "did you mean api_key?"),
        ({"tardis": {"color": "x"}}, "tardis.color", "remove it or correct its spelling"),
        (
            {"universe": [{**GOOD["universe"][0], "type": "spot"}]},
            "universe.0.type",
            "remove it or correct its spelling",
        ),
        (
            {"warehouse": {"kind": "duckdb", "folder": "x", "project": "p"}},
            "warehouse.duckdb.project",
            "remove it or correct its spelling",
        ),
    ],
)
def test_an_unknown_key_is_refused_by_its_full_name_with_the_nearest(
    changes: Any, key: str, hint: str, tmp_path: Path
) -> None:
    message = refusal(write(tmp_path, **changes))
    assert message.startswith(f"{key}: unknown key; {hint}")
    assert "; and " not in message


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"lake": None}, "lake"),
        ({"universe": None}, "universe"),
        ({"lake": {}}, "lake.uri"),
        ({"warehouse": {"kind": "bigquery", "project": "p"}}, "warehouse.bigquery.dataset"),
        ({"universe": [{"symbols": ["BTC-USDT"]}]}, "universe.0.exchanges"),
    ],
)
def test_a_missing_key_is_named_and_asked_for(changes: Any, key: str, tmp_path: Path) -> None:
    assert refusal(write(tmp_path, **changes)).startswith(f"{key}: is missing; add it")


def universe(**changes: Any) -> dict[str, Any]:
    return {"universe": [{**GOOD["universe"][0], **changes}]}


@pytest.mark.parametrize(
    ("changes", "key", "remedy"),
    [
        (
            universe(data_types=["trade"]),
            "universe.0.data_types.0",
            "'trade' is not a data type; did you mean trades?",
        ),
        (universe(data_types=["ticks"]), "universe.0.data_types.0", "choose from trades, quotes"),
        (universe(symbols=["btc-usdt"]), "universe.0.symbols.0", "did you mean BTC-USDT?"),
        (universe(symbols=["BTC/USDT"]), "universe.0.symbols.0", "did you mean BTC-USDT?"),
        (universe(symbols=["BTC USDT"]), "universe.0.symbols.0", "write BASE-QUOTE such as BTC-USDT"),
        (universe(symbols="BTC-USDT"), "universe.0.symbols", "must be a list"),
        (universe(symbols=[7]), "universe.0.symbols.0", "must be text"),
        ({"universe": {"exchanges": ["binance"]}}, "universe", "must be a list"),
        (universe(symbols=[]), "universe.0.symbols", "at least 1"),
        (universe(instrument_types=["swap"]), "universe.0.instrument_types.0", "'spot', 'perpetual'"),
        ({"candles": {"timeframes": ["1m", "7m"]}}, "candles.timeframes.1", "choose from 1m, 3m, 5m"),
        ({"candles": {"timeframes": ["5m"]}}, "candles", "must contain the base timeframe 1m"),
        ({"thresholds": {"day_quality": 1.01}}, "thresholds.day_quality", "less than or equal to 1"),
        ({"thresholds": {"rules": ["mine.yaml"]}}, "thresholds.rules", "must be text"),
        ({"tardis": {"concurrency": "many"}}, "tardis.concurrency", "valid integer"),
        ({"tardis": {"requests_per_minute": 0}}, "tardis.requests_per_minute", "greater than or equal to 1"),
        ({"warehouse": {"kind": "snowflake"}}, "warehouse", "choose from duckdb, bigquery"),
        ({"warehouse": {"folder": "x"}}, "warehouse", "its key 'kind' is missing"),
        ({"schedule": {"look_back_days": 32}}, "schedule.look_back_days", "less than or equal to 31"),
        ({"prices": {"machine_per_hour": 1}}, "prices", 'write date: "YYYY-MM-DD"'),
        ({"prices": {"date": "November"}}, "prices.date", "pattern"),
        ({"prices": {"date": "2026-11-30", "load_per_tb": -1}}, "prices.load_per_tb", "greater than"),
        ({"lake": "./lake"}, "lake", "must be a section with its own keys"),
        ({"lake": {"uri": ""}}, "lake.uri", "at least 1 character"),
    ],
)
def test_a_bad_value_is_refused_with_its_key_and_what_would_do(
    changes: Any, key: str, remedy: str, tmp_path: Path
) -> None:
    message = refusal(write(tmp_path, **changes))
    assert message.startswith(f"{key}: ")
    assert remedy in message
    assert "; and " not in message, "one mistake is one error"
    assert "Input should" not in message
    assert "tuple" not in message.replace("Tuple should have at least 1 item", "")


@pytest.mark.parametrize(
    "changes",
    [
        universe(symbols=["SPOT"]),
        universe(symbols=["1INCH-USDT"], data_types=["book_snapshot_25", "options_chain"]),
        {"candles": {"timeframes": ["1m"]}},
        {"candles": {"timeframes": list(TIMEFRAMES)}},
        {"thresholds": {"day_quality": 1, "hold_below": 0, "strict": True, "rules": ""}},
        {"tardis": {"concurrency": 200, "requests_per_minute": 1}},
        {"schedule": {"look_back_days": 31}},
    ],
)
def test_values_at_the_border_of_what_is_allowed_are_taken(changes: Any, tmp_path: Path) -> None:
    assert load_settings(write(tmp_path, **changes)).name == "mine"


def test_each_of_several_mistakes_is_told_once_with_the_nearest_key(tmp_path: Path) -> None:
    bad = universe(symbol=["BTC-USDT"], data_types=["trade"])
    del bad["universe"][0]["symbols"]
    message = refusal(write(tmp_path, **bad, lakes={}, thresholds={"strikt": True}))
    assert message.split("; ") == [
        "universe.0.data_types.0: 'trade' is not a data type",
        "did you mean trades?",
        "universe.0.symbol: unknown key",
        "did you mean symbols? (see docs/settings.md)",
        "thresholds.strikt: unknown key",
        "did you mean strict? (see docs/settings.md)",
        "lakes: unknown key",
        "did you mean lake? (see docs/settings.md)",
    ]


def test_of_very_many_mistakes_the_first_ten_are_told(tmp_path: Path) -> None:
    message = refusal(write(tmp_path, **{f"qqq{n}": 1 for n in range(12)}))
    assert message.count("unknown key") == 10
    assert message.endswith("; and 2 more")


@pytest.mark.parametrize("content", ["", "- a\n- b\n", "just words", "42"])
def test_a_file_that_is_no_mapping_is_refused(content: str, tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(content, encoding="utf-8")
    assert refusal(file).startswith("must hold a mapping of settings; see environments/local.yaml")


@pytest.mark.parametrize(
    "content",
    [b"lake: {uri: x\nwarehouse: }", b"a: b: c", b"lake:\n\t- tab", b"name: Z\xfcrich"],
    ids=["unclosed", "two colons", "tab", "not UTF-8"],
)
def test_a_file_that_is_no_yaml_is_refused_in_one_line(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_bytes(content)
    assert refusal(file).startswith("cannot be read as YAML: ")


def test_a_file_that_cannot_be_read_is_refused_in_one_line(tmp_path: Path) -> None:
    assert refusal(tmp_path).startswith("cannot be read as YAML: ")


def test_an_unknown_environment_is_refused_with_the_known_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BACKFILL_ENV", "prod")
    for given, said in (("", "BACKFILL_ENV=prod"), ("production2", "production2")):
        with pytest.raises(SettingsError) as refused:
            settings_file(given)
        assert str(refused.value) == (
            f"{said}: unknown environment; choose from local, production, staging, tardis, "
            "or give a path to a .yaml file"
        )


@pytest.mark.parametrize("environment", ["mine.yaml", "mine.yml", "./mine", "/nowhere/mine.yaml"])
def test_a_path_to_no_file_is_refused(
    environment: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SettingsError, match="there is no such file"):
        settings_file(environment)


def test_a_path_to_a_folder_is_refused_as_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.yaml").mkdir()
    monkeypatch.chdir(tmp_path)
    for folder in (str(tmp_path), "./", "mine.yaml"):
        monkeypatch.setenv("BACKFILL_ENV", folder)
        with pytest.raises(SettingsError) as refused:
            current_settings()
        assert str(refused.value) == (
            f"BACKFILL_ENV={folder}: is a folder, not a settings file; give the path of a .yaml file"
        )


def test_an_environment_is_a_name_or_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert settings_file("local") == ENVIRONMENTS / "local.yaml"
    assert settings_file(str(file)) == file
    assert settings_file("mine.yaml").resolve() == file
    assert settings_file("~/mine.yaml") == file


@pytest.mark.parametrize("file", sorted(ENVIRONMENTS.glob("*.yaml")), ids=lambda file: file.stem)
def test_every_shipped_environment_loads_without_a_single_variable(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in list(os.environ):
        monkeypatch.delenv(name)
    settings = load_settings(file)
    assert settings.name == file.stem
    assert settings.candles.timeframes


def test_the_shipped_environments_are_the_four_of_the_documentation() -> None:
    assert sorted(file.stem for file in ENVIRONMENTS.iterdir()) == [
        "local",
        "production",
        "staging",
        "tardis",
    ]
    cloud = {name: load_settings(settings_file(name)) for name in ("staging", "production")}
    assert all(isinstance(settings.warehouse, BigQueryWarehouse) for settings in cloud.values())
    assert all(settings.lake.uri.startswith("gs://") for settings in cloud.values())


@pytest.mark.parametrize(
    ("value", "variables", "expected"),
    [
        ("plain", {}, "plain"),
        ("${BF_A}", {"BF_A": "x"}, "x"),
        ("gs://${BF_A}/${BF_B:-lake}/z", {"BF_A": "x"}, "gs://x/lake/z"),
        ("${BF_A:-}", {}, ""),
        ("${BF_A:-./data}", {}, "./data"),
        ("${BF_A:-./data}", {"BF_A": ""}, "./data"),
        ("${BF_A:-./data}", {"BF_A": "y"}, "y"),
        ("${BF_A:?say it}", {"BF_A": "y"}, "y"),
        ("${BF_A}", {"BF_A": "${BF_B}"}, "${BF_B}"),
        ("$BF_A {BF_A} $", {"BF_A": "y"}, "$BF_A {BF_A} $"),
    ],
)
def test_references_are_replaced_by_the_environment(
    value: str, variables: dict[str, str], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("BF_A", "BF_B"):
        monkeypatch.delenv(name, raising=False)
    for name, content in variables.items():
        monkeypatch.setenv(name, content)
    assert resolve(value) == expected


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("${BF_A}", "environment variable BF_A is not set: set BF_A in the environment"),
        ("x/${BF_A:?ask the platform team}", "environment variable BF_A is not set: ask the platform team"),
    ],
)
@pytest.mark.parametrize("empty", [False, True])
def test_a_variable_that_is_missing_or_empty_is_named(
    value: str, message: str, empty: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("BF_A", raising=False)
    if empty:
        monkeypatch.setenv("BF_A", "")
    with pytest.raises(SettingsError) as refused:
        resolve(value)
    assert str(refused.value) == message


def test_a_secret_is_needed_when_it_is_used_and_not_when_it_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("BF_KEY", raising=False)
    settings = load_settings(write(tmp_path, tardis={"api_key": "${BF_KEY:?buy one at the vendor's}"}))
    assert settings.tardis.api_key == "${BF_KEY:?buy one at the vendor's}"
    with pytest.raises(SettingsError, match="BF_KEY is not set: buy one at the vendor's"):
        resolve(settings.tardis.api_key)
    monkeypatch.setenv("BF_KEY", "k")
    assert resolve(settings.tardis.api_key) == "k"


def test_the_current_settings_follow_the_variable_and_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("BACKFILL_ENV", raising=False)
    assert current_settings().name == "local"
    file = write(tmp_path)
    monkeypatch.setenv("BACKFILL_ENV", str(file))
    assert current_settings().decode_threads == 0
    assert current_settings() is current_settings()
    before = file.stat().st_mtime_ns
    write(tmp_path, decode_threads=3)
    os.utime(file, ns=(before + 1, before + 1))
    assert current_settings().decode_threads == 3


def test_settings_cannot_be_changed_after_they_were_loaded(tmp_path: Path) -> None:
    settings: Settings = load_settings(write(tmp_path))
    with pytest.raises(ValidationError, match="frozen"):
        settings.decode_threads = 4  # type: ignore[misc]


@pytest.mark.parametrize(
    "changes",
    [
        {"tardis": {"api_key": 12345}},
        {"tardis": "12345"},
        {"serve": {"token": [12345]}},
        {"ohlcv": {"url": 12345}},
        {"ohlcv": {"url": "postgresql://me:12345@h/d", "timeframes": ["2h"]}},
        {"tardis": {"api_key": "12345"}, "ohlcv": {"timeframes": ["2h"]}},
        {"serve": {"token": "12345"}, "lakes": {}},
    ],
)
def test_no_refusal_shows_a_secret(changes: Any, tmp_path: Path) -> None:
    assert "12345" not in refusal(write(tmp_path, **changes))


def test_a_key_that_appears_twice_is_refused_with_its_line(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("lake:\n  uri: ./first\nlake:\n  uri: ./second\n", encoding="utf-8")
    assert refusal(file) == "cannot be read as YAML: line 3: lake appears twice: keep one"


@pytest.mark.parametrize(
    "line", ["api_key: [12345", "api_key: '12345", "api_key: *12345 x: y", "\tkey: 12345"]
)
def test_a_file_that_is_no_yaml_is_refused_without_a_line_of_it(line: str, tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(f"tardis:\n  {line}\nlake:\n  uri: x: y\n", encoding="utf-8")
    message = refusal(file)
    assert message.startswith("cannot be read as YAML: line ")
    assert "12345" not in message


def test_a_mistake_in_the_file_as_a_whole_is_named_without_a_key(tmp_path: Path) -> None:
    message = refusal(write(tmp_path, ohlcv={"timeframes": ["2h"]}))
    assert message == "ohlcv.timeframes: 2h must be among candles.timeframes"


def test_the_fields_that_are_marked_as_references_are_those_that_the_package_replaces() -> None:
    """``resolve`` is called with these fields and no other; the documents list them by these marks."""
    replaced = set()
    for source in ENVIRONMENTS.parent.rglob("*.py"):
        for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "resolve":
                replaced |= {argument.attr for argument in node.args if isinstance(argument, ast.Attribute)}
    marked = {key.split(".")[-1] for key, field in fields(SettingsFile) if REPLACED in field.metadata}
    assert replaced - {"universe"} == marked, "the universe is resolved in another sense"
