"""The command `settings`: every value with its origin and without secrets, and schemas for editors."""

from __future__ import annotations

import dataclasses
import json
import os
import re
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
import yaml
from click.testing import CliRunner, Result

from backfill_assets.cli import main
from backfill_assets.quality.verdict import rules_hash
from backfill_assets.rule_set import DEFAULT_RULES, RULES_VERSION, RuleSet
from backfill_assets.settings import ENVIRONMENTS, ProcessEnvironment, SettingsFile, ThresholdSettings
from backfill_assets.settings_view import masked
from backfill_assets_tests.setting_keys import fields

SECRET = "s3cr3t"
GOOD: dict[str, Any] = {
    "universe": [{"exchanges": ["binance"], "symbols": ["BTC-USDT"]}],
    "lake": {"uri": "gs://${MY_BUCKET}/lake"},
    "warehouse": {"kind": "bigquery", "project": "${MY_PROJECT:-p}", "dataset": "d"},
}


@pytest.fixture(autouse=True)
def _own_variables_only(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(("BACKFILL_", "DAGSTER_", "TARDIS_", "MY_")):
            monkeypatch.delenv(name)


def write(folder: Path, **changes: Any) -> Path:
    file = folder / "mine.yaml"
    file.write_text(yaml.safe_dump({**GOOD, **changes}), encoding="utf-8")
    return file


def run(*arguments: str, **variables: str) -> Result:
    return CliRunner().invoke(main, ["settings", *arguments], env=variables)


def shown(file: Path, **variables: str) -> dict[str, tuple[str, str]]:
    """Value and origin by key, from the command's output."""
    result = run(BACKFILL_ENV=str(file), **variables)
    assert result.exit_code == 0, result.output
    rows = [re.split(r" {2,}", line.strip()) for line in result.output.splitlines() if line.startswith("  ")]
    return {key: (value, origin) for key, value, origin in rows}


# --- values and origins ------------------------------------------------------------------------------------


def test_every_setting_every_rule_and_every_variable_is_shown(tmp_path: Path) -> None:
    of_other_kinds = {"warehouse.folder", "comparison.sources[0].folder"}
    settings = {key.replace("[]", "[0]") for key, _ in fields(SettingsFile)} - of_other_kinds
    rules = {key for key, _ in fields(RuleSet)} - {"version"}
    variables = {field.name.upper() for field in dataclasses.fields(ProcessEnvironment)}
    file = write(tmp_path, comparison={"sources": [{"kind": "massive"}]})
    assert shown(file).keys() == settings | rules | variables


def test_each_value_says_whether_it_is_of_the_file_a_variable_the_rules_or_a_default(tmp_path: Path) -> None:
    (tmp_path / "method.yaml").write_text(f"version: {RULES_VERSION}\nrows: {{frozen_rows: 7}}\n")
    file = write(tmp_path, thresholds={"rules": "method.yaml", "strict": True}, decode_threads=0)
    found = shown(file, MY_BUCKET="b", BACKFILL_API_TOKEN=SECRET)
    assert found["thresholds.strict"] == ("true", "settings file")
    assert found["decode_threads"] == ("0", "settings file"), "written, though it is the default"
    assert found["thresholds.hold_below"] == ("0.5", "default")
    assert found["universe[0].data_types"] == ("trades", "default")
    assert found["lake.uri"] == ("gs://b/lake", "settings file, environment variable MY_BUCKET")
    assert found["warehouse.project"] == ("p", "settings file, environment variable MY_PROJECT (not set)")
    assert found["serve.token"] == ("***", "default, environment variable BACKFILL_API_TOKEN")
    assert found["tardis.api_key"] == ("empty", "default, environment variable TARDIS_API_KEY (not set)")
    assert found["rows.frozen_rows"] == ("7", "file of rules")
    assert found["rows.one_sided_rows"] == ("1000", "rule set of the package")
    assert found["rows.conflicting_limit"] == ("1e-05", "rule set of the package")
    assert found["BACKFILL_ENV"] == (str(file), "environment variable")
    assert found["DAGSTER_HOME"] == ("not set", "default")


def test_a_variable_that_is_needed_and_not_set_is_no_failure(tmp_path: Path) -> None:
    assert shown(write(tmp_path))["lake.uri"] == (
        "not set",
        "settings file, environment variable MY_BUCKET (not set)",
    )


def test_files_versions_and_the_hash_of_the_rules_head_the_tables(tmp_path: Path) -> None:
    file = write(tmp_path)
    lines = run("--show", BACKFILL_ENV=str(file)).output.splitlines()
    assert lines[0] == f"Settings: {file}"
    hashed = rules_hash(ThresholdSettings())
    assert f"Rules: {DEFAULT_RULES} (version {RULES_VERSION}, hash {hashed})" in lines


# --- secrets -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [
        {"tardis": {"api_key": SECRET}},
        {"tardis": {"api_key": "${MY_KEY:-s3cr3t}"}},
        {"tardis": {"api_key": "${MY_SECRET}"}},
        {"serve": {"token": SECRET}},
        {"tardis": {"datasets_endpoint": f"https://me:{SECRET}@proxy/v1"}},
        {"tardis": {"datasets_endpoint": f"https://{SECRET}@proxy/v1"}},
        {"tardis": {"api_endpoint": f"https://proxy/v1?api_key={SECRET}"}},
        {"tardis": {"datasets_endpoint": f"https://gateway/{SECRET}/v1/datasets"}},
        {"tardis": {"api_endpoint": f"https://gateway/v1/{SECRET}"}},
        {"heal": {"exchange_endpoint": f"https://gateway/{SECRET}/"}},
        {"heal": {"archive_endpoint": "https://gateway/${MY_SECRET}"}},
        {"comparison": {"sources": [{"kind": "ccxt", "endpoint": f"https://gateway/{SECRET}"}]}},
        {"serve": {"dagster_url": f"https://me:{SECRET}@dagster"}},
        *(
            {"ohlcv": {"url": url}}
            for url in (
                f"postgresql://me:{SECRET}@h/d",
                f"postgresql://me:{SECRET}/x@y:z@h:5432/d",
                f"postgresql://me:a {SECRET}\n@h/d",
                f"postgresql://h/d?user=me&password={SECRET}&sslmode=require",
                f"postgresql://h/d?sslpassword=a {SECRET}#{SECRET}",
                f"postgresql://me:{SECRET}",
                f"postgresql://me:{SECRET}/d",
                f"me:{SECRET}@h/d",
                f"host=h password={SECRET}",
                "postgresql://me:${MY_SECRET}@h/d",
                "${MY_URL:-postgresql://me:s3cr3t@h/d}",
            )
        ),
    ],
)
def test_no_secret_of_a_settings_file_is_shown(changes: dict[str, Any], tmp_path: Path) -> None:
    result = run(BACKFILL_ENV=str(write(tmp_path, **changes)), MY_SECRET=SECRET)
    assert result.exit_code == 0
    assert SECRET not in result.output
    assert "***" in result.output


@pytest.mark.parametrize(
    "address",
    [f"postgresql://me:{SECRET}@h/d", f"me:{SECRET}@h/d", f"postgres://h/d?password={SECRET}", SECRET],
)
def test_no_secret_of_the_environment_is_shown(address: str, tmp_path: Path) -> None:
    result = run(BACKFILL_ENV=str(write(tmp_path)), DAGSTER_POSTGRES_URL=address, TARDIS_API_KEY=SECRET)
    assert result.exit_code == 0
    assert SECRET not in result.output


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("postgresql://me:pw@h:5432/d", "postgresql://***@h:5432/d"),
        ("postgresql://h:5432/d?sslmode=require", "postgresql://h:5432/d?sslmode=require"),
        ("sqlite:////data/ohlcv.db", "sqlite:////data/ohlcv.db"),
        ("http://127.0.0.1:8000/v1/datasets", "http://127.0.0.1:8000/v1/datasets"),
        ("http://[::1]:8000/v1", "http://[::1]:8000/v1"),
        ("gs://bucket/prefix", "gs://bucket/prefix"),
        ("./data/lake", "./data/lake"),
    ],
)
def test_of_an_address_only_the_secrets_are_hidden(address: str, expected: str) -> None:
    assert masked(address) == expected


# --- schemas -----------------------------------------------------------------------------------------------


def schema(*arguments: str) -> tuple[dict[str, Any], jsonschema_rs.Validator]:
    result = run("--schema", *arguments)
    assert result.exit_code == 0
    content = json.loads(result.output)
    jsonschema_rs.meta.validate(content)
    return content, jsonschema_rs.validator_for(content)


def read(file: Path) -> Any:
    return yaml.safe_load(file.read_text(encoding="utf-8"))


def test_the_schema_takes_every_shipped_environment() -> None:
    _, validator = schema()
    files = sorted(ENVIRONMENTS.glob("*.yaml"))
    assert [file.stem for file in files if not validator.is_valid(read(file))] == []
    assert len(files) == 4


@pytest.mark.parametrize(
    "changes",
    [
        {"lakes": {}},
        {"thresholds": {"missing_ids": 3}},
        {"thresholds": {"day_quality": 1.1}},
        {"warehouse": {"kind": "duckdb", "project": "p"}},
        {"candles": {"timeframes": ["1m", "7m"]}},
        {"universe": [{"exchanges": ["binance"], "symbols": ["btc-usdt"]}]},
        {"universe": [{"exchanges": ["binance"], "symbols": ["BTC-USDT"], "data_types": ["trade"]}]},
        {"universe": []},
    ],
)
def test_the_schema_refuses_what_loading_refuses(changes: dict[str, Any]) -> None:
    _, validator = schema("settings")
    assert validator.is_valid(GOOD)
    assert not validator.is_valid({**GOOD, **changes})


def test_the_schema_of_rules_takes_the_packages_and_parts_of_it_and_no_other_version() -> None:
    _, validator = schema("rules")
    assert validator.is_valid(read(DEFAULT_RULES))
    assert validator.is_valid({"version": RULES_VERSION, "rows": {"frozen_rows": 7}})
    for other in (
        {},
        {"version": 2},
        {"version": 3, "rows": {"frozen": 7}},
        {"version": 3, "missing_ids": -1},
    ):
        assert not validator.is_valid(other), other


@pytest.mark.parametrize("of", ["settings", "rules"])
def test_an_editor_finds_a_description_of_every_key(of: str) -> None:
    content, _ = schema(of)
    keys = {
        f"{name}.{key}": part
        for name, model in {"": content, **content["$defs"]}.items()
        for key, part in model["properties"].items()
        if ("$ref" not in part and key not in ("universe", "warehouse", "sources"))
        or name == "OverallSettings"
    }
    assert [key for key, part in keys.items() if not part.get("description")] == []
    assert len(keys) > 40


# --- the command -------------------------------------------------------------------------------------------


def test_show_and_schema_are_asked_for_one_at_a_time(tmp_path: Path) -> None:
    assert run("--show", "--schema").exit_code == 2
    assert run("--schema", "lake").exit_code == 2
    file = str(write(tmp_path))
    assert run(BACKFILL_ENV=file).output == run("--show", BACKFILL_ENV=file).output


def test_a_file_that_is_refused_is_told_in_one_line(tmp_path: Path) -> None:
    file = write(tmp_path, lakes={})
    result = run(BACKFILL_ENV=str(file))
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == (
        f"Error: {file}: lakes: unknown key; did you mean lake? (see docs/settings.md)\n"
    )
