"""The rule set is one documented file; another may take its place; a mistake in it is told in one line."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from backfill_assets.failures import SettingsError
from backfill_assets.feeds import Feed
from backfill_assets.quality.verdict import approval_rules, rules_hash
from backfill_assets.report.month import build_version
from backfill_assets.rule_set import DEFAULT_RULES, RULES_VERSION, RuleSet
from backfill_assets.settings import (
    ComparisonSettings,
    CountingSettings,
    RowSettings,
    ThresholdSettings,
    current_settings,
    load_settings,
)
from backfill_assets.settings_view import rule_comments
from backfill_assets.ticks.profile import ProfileParameters, profile_parameters_hash
from backfill_assets_tests.setting_keys import fields

SETTINGS = {
    "universe": [{"exchanges": ["binance"], "symbols": ["BTC-USDT"]}],
    "lake": {"uri": "./lake"},
    "warehouse": {"kind": "duckdb", "folder": "./warehouse"},
}
DEFAULTS: dict[str, Any] = yaml.safe_load(DEFAULT_RULES.read_text(encoding="utf-8"))


def settings_with(folder: Path, rules: str = "rules.yaml", **more: Any) -> Path:
    file = folder / "mine.yaml"
    content = {**SETTINGS, "thresholds": {"rules": rules}, **more}
    file.write_text(yaml.safe_dump(content), encoding="utf-8")
    return file


def write_rules(folder: Path, name: str = "rules.yaml", **rules: Any) -> Path:
    file = folder / name
    file.parent.mkdir(exist_ok=True)
    file.write_text(yaml.safe_dump({"version": RULES_VERSION, **rules}), encoding="utf-8")
    return file


def refusal(file: Path) -> str:
    with pytest.raises(SettingsError) as refused:
        load_settings(file)
    message = str(refused.value)
    assert "\n" not in message
    return message


# --- the package's own rules -------------------------------------------------------------------------------


def leaves(content: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    found = {}
    for key, value in content.items():
        found |= leaves(value, f"{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return found


def test_the_file_of_the_package_has_every_rule_and_no_other() -> None:
    assert set(leaves(DEFAULTS)) == {key for key, _ in fields(RuleSet)}


def test_every_number_of_the_package_has_a_comment_that_gives_its_reason() -> None:
    comments = rule_comments()
    without = [key for key in leaves(DEFAULTS) if len(comments.get(key, "").split()) < 5]
    assert without == []


def test_the_numbers_of_the_package_are_those_without_any_file_of_rules(tmp_path: Path) -> None:
    settings = load_settings(settings_with(tmp_path, ""))
    assert settings.thresholds == ThresholdSettings()
    assert settings.comparison == ComparisonSettings()
    dumped = leaves(RuleSet(version=RULES_VERSION).model_dump())
    assert dumped == pytest.approx(leaves(DEFAULTS))


def test_stored_verdicts_and_profiles_name_the_rules_of_the_package_by_these_hashes() -> None:
    """Another hash settles every day, or fetches every file again: change a number only on purpose."""
    assert rules_hash(ThresholdSettings()) == "58bac2325628"
    assert profile_parameters_hash(ProfileParameters()) == "2363f8fcc1ffb45e"
    assert profile_parameters_hash(ProfileParameters(), "liquidations") == "974b3194e19837a5"
    assert profile_parameters_hash(ProfileParameters(), "derivative_ticker") == "9f749ca1b3de3f31"
    assert profile_parameters_hash(ProfileParameters(), "quotes") == "9f749ca1b3de3f31"


def test_another_version_of_the_package_voids_no_approval(monkeypatch: pytest.MonkeyPatch) -> None:
    """An upgrade would remove published data from the tables."""
    feed = Feed("binance", "trades", "BTCUSDT")
    stored = "21a1b803b7a2"
    assert approval_rules(feed, "2024-01-02", ThresholdSettings()) == stored
    monkeypatch.setattr("backfill_assets.quality.verdict.RULES_VERSION", RULES_VERSION + 1)

    class Later(ThresholdSettings):
        missing_ids: int = 9
        another: int = 1

    monkeypatch.setattr("backfill_assets.quality.verdict.FeedRules", Later)
    assert approval_rules(feed, "2024-01-02", Later()) == stored
    assert approval_rules(feed, "2024-01-02", Later(missing_ids=8)) != stored


# --- a user's rules ----------------------------------------------------------------------------------------


def test_a_copy_of_the_packages_rules_is_the_same_rules_with_the_same_hashes(tmp_path: Path) -> None:
    (tmp_path / "rules.yaml").write_bytes(DEFAULT_RULES.read_bytes())
    with_floats = {k: float(v) if isinstance(v, int) else v for k, v in DEFAULTS["counting"].items()}
    write_rules(tmp_path, "floats.yaml", counting=with_floats)
    ours, copied, floats = (
        load_settings(settings_with(tmp_path, name)) for name in ("", "rules.yaml", "floats.yaml")
    )
    assert ours == copied == floats
    assert build_version(ours) == build_version(copied) == build_version(floats)
    hashes = {profile_parameters_hash(ProfileParameters.of(s.thresholds)) for s in (ours, copied, floats)}
    assert len(hashes) == 1
    assert rules_hash(ours.thresholds) == rules_hash(copied.thresholds) == rules_hash(floats.thresholds)


def test_a_file_of_rules_changes_what_it_names_and_nothing_else(tmp_path: Path) -> None:
    rows, counting = {"spike_excused": 1}, {"id_reset": 9}
    write_rules(tmp_path, longest_hole=7, rows=rows, counting=counting, comparison={"agreement": 1})
    settings = load_settings(settings_with(tmp_path))
    assert settings.thresholds == ThresholdSettings(
        longest_hole=7, rows=RowSettings(spike_excused=1), counting=CountingSettings(id_reset=9)
    )
    assert settings.comparison == ComparisonSettings(agreement=1)


def test_rules_lie_beside_the_settings_file_wherever_the_process_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir("/")
    file = write_rules(tmp_path, "method/rules.yaml", missing_ids=3)
    for named in ("method/rules.yaml", "./method/../method/rules.yaml", str(file), "~/method/rules.yaml"):
        assert load_settings(settings_with(tmp_path, named)).thresholds.missing_ids == 3


def test_the_thresholds_of_days_stay_beside_a_file_of_rules(tmp_path: Path) -> None:
    write_rules(tmp_path, missing_ids=3)
    file = settings_with(tmp_path, thresholds={"rules": "rules.yaml", "hold_below": 0.4})
    thresholds = load_settings(file).thresholds
    assert (thresholds.hold_below, thresholds.missing_ids) == (0.4, 3)


def test_the_current_settings_follow_the_file_of_rules(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rules = write_rules(tmp_path, missing_ids=3)
    monkeypatch.setenv("BACKFILL_ENV", str(settings_with(tmp_path)))
    assert current_settings().thresholds.missing_ids == 3
    assert current_settings() is current_settings()
    before = rules.stat().st_mtime_ns
    write_rules(tmp_path, missing_ids=4)
    os.utime(rules, ns=(before + 1, before + 1))
    assert current_settings().thresholds.missing_ids == 4
    rules.unlink()
    with pytest.raises(SettingsError, match="there is no file"):
        current_settings()


# --- mistakes ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rules", "said"),
    [
        ({"longest_hole": -1}, "longest_hole: must be greater than or equal to 0 (got -1)"),
        ({"legitimate_hole": 6}, "legitimate_hole: must be less than or equal to 5 (got 6)"),
        ({"silence_seconds": 4.9}, "silence_seconds: must be greater than or equal to 5 (got 4.9)"),
        ({"rows": {"frozen_rows": "many"}}, "rows.frozen_rows: must be a valid integer"),
        ({"largest": 7}, f"largest: unknown key; remove it or correct its spelling (see {DEFAULT_RULES})"),
        ({"rows": {"frozen": 7}}, "rows.frozen: unknown key; did you mean frozen_rows or frozen_seconds?"),
        ({"rows": 7}, "rows: must be a section with its own keys"),
        ({"day_quality": 0.5}, "day_quality: unknown key"),
        ({"version": 2}, "version: these rules are of version 2, but this package's are of version 5: copy"),
    ],
)  # fmt: skip
def test_a_slip_in_the_rules_is_told_with_file_key_and_remedy(
    rules: dict[str, Any], said: str, tmp_path: Path
) -> None:
    file = write_rules(tmp_path, **rules)
    assert refusal(settings_with(tmp_path)).startswith(f"{file}: {said}")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("longest_hole: 7\n", f"version: is missing; add it (see {DEFAULT_RULES})"),
        ("- a\n", f"must hold a mapping of rules; see {DEFAULT_RULES}"),
        ("", f"must hold a mapping of rules; see {DEFAULT_RULES}"),
        ("a: b: c", "cannot be read as YAML: line 1"),
    ],
)
def test_a_file_that_holds_no_rules_is_refused_by_its_name(text: str, said: str, tmp_path: Path) -> None:
    file = tmp_path / "rules.yaml"
    file.write_text(text, encoding="utf-8")
    assert refusal(settings_with(tmp_path)).startswith(f"{file}: {said}")


@pytest.mark.parametrize("named", ["other.yaml", "/nowhere/rules.yaml", "."])
def test_a_file_of_rules_that_is_not_there_is_told_with_the_setting_that_names_it(
    named: str, tmp_path: Path
) -> None:
    file = settings_with(tmp_path, named)
    assert refusal(file) == (
        f"{file}: thresholds.rules: there is no file {tmp_path / named}; correct the path, which is relative "
        "to the settings file, or remove the key for the package's own rules"
    )


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("thresholds", "missing_ids", 3),
        ("thresholds", "rows", {"frozen_rows": 3}),
        ("comparison", "agreement", 1),
    ],
)
def test_a_rule_among_the_settings_is_sent_to_a_file_of_rules(
    section: str, key: str, value: Any, tmp_path: Path
) -> None:
    file = settings_with(tmp_path, **{section: {key: value}})
    assert refusal(file) == (
        f"{file}: {section}.{key}: is a rule, not a setting; write it into a file of rules and name that in "
        f"thresholds.rules (see {DEFAULT_RULES})"
    )
