"""The documentation is true: every setting, variable, command, check, route, table and constant is on its
page, pages name none that does not exist, and commands print the output on the pages.

A comment marks each compared part of a page: ``<!-- table: NAME -->`` above a table, ``<!-- run -->``
above a block of commands with their output.
"""

from __future__ import annotations

import ast
import dataclasses
import importlib
import importlib.metadata
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, Final, cast, get_args

import click
import dagster as dg
import pytest
import yaml

from backfill_assets.automation.run_order import PRIORITIES
from backfill_assets.cli import main
from backfill_assets.id_laws import ID_LAWS, load_id_laws
from backfill_assets.progress.reconcile import Kind
from backfill_assets.quality.rules import row_rules
from backfill_assets.rehearsal.environment import Environment, environment_of
from backfill_assets.rehearsal.limits import load_limits
from backfill_assets.rehearsal.scenarios import SCENARIOS
from backfill_assets.rule_set import load_rules
from backfill_assets.settings import (
    DEFAULT_LIMITS,
    ENVIRONMENTS,
    OWN_FILES_VARIABLE,
    REPLACED,
    DayThresholds,
    ProcessEnvironment,
    RowSettings,
    SettingsFile,
    load_settings,
)
from backfill_assets.warehouse.catalog import CANDLES, TABLES
from backfill_assets.warehouse.tables import Table
from backfill_assets.warehouse.views import CANDLES_WITH_STATE, DAYS, VIEWS, View
from backfill_assets_tests.setting_keys import fields

REPOSITORY: Final = Path(__file__).parents[1]
README: Final = (REPOSITORY / "README.md").read_text(encoding="utf-8")
PAGES: Final = {
    path.relative_to(REPOSITORY).as_posix(): path.read_text(encoding="utf-8")
    for path in (
        *(
            REPOSITORY / name
            for name in ("README.md", "CHANGELOG.md", "SECURITY.md", ".github/CONTRIBUTING.md")
        ),
        *sorted((REPOSITORY / "docs").glob("*.md")),
    )
}
EVERYTHING: Final = "\n".join(PAGES.values())


def table(page: str, name: str) -> list[list[str]]:
    """Cells of the rows of the one table with that mark, without the code marks around them."""
    [marked] = re.findall(rf"<!-- table: {name} -->\n((?:\|.*\n?)+)", PAGES[page])
    rows = [line.strip().strip("|").split("|") for line in marked.splitlines()[2:]]
    return [[cell.strip() for cell in row] for row in rows]


def bare(cell: str) -> str:
    return cell.strip("`")


def shown(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return str(value) if isinstance(value, int) else f"{value:g}"
    if value is None:
        return "none"
    return (", ".join(value) if isinstance(value, tuple) else value) or "empty"


# --- settings and variables ------------------------------------------------------------------------------


def settings_rows() -> dict[str, list[str]]:
    """A row of the table by key: default and meaning, as the code has them."""
    rows = {}
    for key, field in fields(SettingsFile):
        default = "required" if field.is_required() else shown(field.default)
        rows[key] = [default, " ".join((field.description or "").split())]
    return rows


def test_the_table_of_settings_has_every_key_with_its_default_and_meaning_and_no_other() -> None:
    expected = settings_rows()
    expected["name"][0] = "the file's name"
    rows = table("docs/settings.md", "settings")
    assert {bare(key): [bare(default), meaning] for key, default, meaning in rows} == expected
    assert [bare(key) for key, *_ in rows] == list(expected), "in the order of the code"
    assert all(len(meaning) > 10 for _, meaning in expected.values())


def test_the_table_of_a_rehearsals_environment_has_every_key_with_its_default_and_meaning() -> None:
    expected = []
    for key, field in fields(Environment):
        default = "required" if field.is_required() else shown(field.default)
        meaning = " ".join((field.description or "").split())
        expected.append([key.replace("[]", ""), "the file's name" if key == "name" else default, meaning])
    rows = table("docs/operations.md", "environment")
    assert [[bare(key), bare(default), meaning] for key, default, meaning in rows] == expected


def test_the_example_of_a_rehearsals_environment_can_be_used_and_has_every_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    [block] = re.findall(r"```yaml rehearsal\n(.*?)```", EVERYTHING, re.DOTALL)
    file = tmp_path / "example.yaml"
    file.write_text(block.replace("cores: 2", "cores: 1"))
    monkeypatch.setenv("TARDIS_API_KEY", "k")
    monkeypatch.setenv("BACKFILL_PROJECT", "p")
    assert environment_of(str(file)).is_real
    named = {f"{section}.{key}" for section, keys in yaml.safe_load(block).items() for key in keys}
    known = {key.replace("[]", "") for key, _ in fields(Environment)}
    assert named == known - {"name", "bigquery.endpoint"}


def test_the_readme_says_how_many_settings_there_are() -> None:
    assert f"one YAML file of {len(settings_rows())} settings" in README


def test_the_page_of_settings_names_every_key_that_may_refer_to_a_variable_and_no_other() -> None:
    [listed] = re.findall(r"<!-- references -->\n(.*?)\. They", PAGES["docs/settings.md"], re.DOTALL)
    marked = {key for key, field in fields(SettingsFile) if REPLACED in field.metadata}
    assert set(re.findall(r"`([\w.\[\]]+)`", listed)) == marked


def test_the_table_of_variables_has_every_variable_that_the_package_and_its_settings_files_read() -> None:
    own = {field.name.upper() for field in dataclasses.fields(ProcessEnvironment)}
    files = "".join(path.read_text(encoding="utf-8") for path in ENVIRONMENTS.glob("*.yaml"))
    named = set(re.findall(r"\$\{(\w+)", files + str(settings_rows())))
    rows = {bare(row[0]) for row in table("docs/settings.md", "variables")}
    assert rows == own | named | {OWN_FILES_VARIABLE}


def test_no_page_names_a_variable_of_ours_that_nothing_reads() -> None:
    sources = [
        *(REPOSITORY / "backfill_assets").rglob("*.py"),
        *(REPOSITORY / "backfill_assets" / "environments").glob("*.yaml"),
        *(p for p in (REPOSITORY / "backfill_assets_tests").rglob("*.py") if p != Path(__file__)),
        REPOSITORY / ".ci" / "run",
    ]
    read = "\n".join(path.read_text(encoding="utf-8") for path in sources)
    named = set(re.findall(r"\b(?:BACKFILL|DAGSTER|TARDIS)_[A-Z_]+\b", EVERYTHING))
    assert {name for name in named if name not in read} == set()


@pytest.mark.parametrize("block", re.findall(r"```yaml\n(.*?)```", EVERYTHING, re.DOTALL))
def test_settings_files_that_the_pages_show_are_accepted(block: str, tmp_path: Path) -> None:
    file = tmp_path / "shown.yaml"
    file.write_text(block, encoding="utf-8")
    assert load_settings(file).name == "shown"


@pytest.mark.parametrize("block", re.findall(r"```yaml part\n(.*?)```", EVERYTHING, re.DOTALL))
def test_parts_of_settings_files_that_the_pages_show_are_accepted(block: str, tmp_path: Path) -> None:
    whole = (ENVIRONMENTS / "tardis.yaml").read_text(encoding="utf-8")
    [rules] = re.findall(r"```yaml rules\n(.*?)```", EVERYTHING, re.DOTALL)
    (tmp_path / "rules.yaml").write_text(rules, encoding="utf-8")
    file = tmp_path / "shown.yaml"
    file.write_text(block + whole, encoding="utf-8")
    load_settings(file)


@pytest.mark.parametrize("block", re.findall(r"```yaml dagster\n(.*?)```", EVERYTHING, re.DOTALL))
def test_parts_of_dagsters_settings_that_the_pages_show_are_loaded_by_dagster(
    block: str, tmp_path: Path
) -> None:
    content = yaml.safe_load((REPOSITORY / "dagster.yaml").read_text(encoding="utf-8"))
    content |= yaml.safe_load(block)
    if launcher := content.get("run_launcher"):
        # It takes the place of the cluster that a pod finds by itself.
        file = tmp_path / "kube.yaml"
        file.write_text(KUBE_CONFIG, encoding="utf-8")
        launcher["config"] |= {"load_incluster_config": False, "kubeconfig_file": str(file)}
    (tmp_path / "dagster.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        assert type(instance.run_launcher).__name__ == launcher["class"]


KUBE_CONFIG: Final = """
apiVersion: v1
kind: Config
clusters: [{name: one, cluster: {server: "http://127.0.0.1:9"}}]
users: [{name: one, user: {token: none}}]
contexts: [{name: one, context: {cluster: one, user: one}}]
current-context: one
"""


def test_run_configurations_that_the_pages_show_are_accepted_by_their_jobs() -> None:
    from backfill_assets.definitions import defs

    [of_range] = re.findall(r"`(ops: \{.*?\})` in", EVERYTHING)
    [of_day] = re.findall(r"--config-json '(.*?)'", EVERYTHING)
    repository = defs.get_repository_def()
    assert dg.validate_run_config(repository.get_job("range"), yaml.safe_load(of_range))
    assert dg.validate_run_config(repository.get_job("day"), json.loads(of_day))


def test_no_block_of_configuration_on_the_pages_is_without_its_loader() -> None:
    kinds = set(re.findall(r"^ *```(.+)$", EVERYTHING, re.MULTILINE))
    rooms = ("rules", "id_laws", "limits", "part", "dagster", "rehearsal")
    loaded = {"yaml", *(f"yaml {room}" for room in rooms)}
    # pipeline/test_frames.py runs those of Python, and pipeline/test_cloud.py those of BigQuery.
    assert kinds - loaded <= {"sh", "console", "mermaid", "sql duckdb", "sql bigquery", "python"}


@pytest.mark.parametrize("block", re.findall(r"```yaml rules\n(.*?)```", EVERYTHING, re.DOTALL))
def test_files_of_rules_that_the_pages_show_are_accepted(block: str, tmp_path: Path) -> None:
    file = tmp_path / "shown.yaml"
    file.write_text(block, encoding="utf-8")
    assert len(load_rules(file).model_fields_set) > 1


@pytest.mark.parametrize("block", re.findall(r"```yaml id_laws\n(.*?)```", EVERYTHING, re.DOTALL))
def test_files_of_laws_that_the_pages_show_are_accepted(block: str, tmp_path: Path) -> None:
    file = tmp_path / "shown.yaml"
    file.write_text(block, encoding="utf-8")
    assert len(load_id_laws(file)) == len(ID_LAWS) + 1


@pytest.mark.parametrize("block", re.findall(r"```yaml limits\n(.*?)```", EVERYTHING, re.DOTALL))
def test_files_of_limits_that_the_pages_show_are_accepted(block: str, tmp_path: Path) -> None:
    file = tmp_path / "shown.yaml"
    file.write_text(block, encoding="utf-8")
    shown, own = load_limits(file, SCENARIOS), load_limits(DEFAULT_LIMITS, SCENARIOS)
    assert any(shown.of(name, "quick") != own.of(name, "quick") for name in SCENARIOS)


# --- commands ----------------------------------------------------------------------------------------------


def test_the_table_of_commands_has_every_command_with_every_option_and_no_other() -> None:
    expected = {
        name: {o for p in command.params if isinstance(p, click.Option) for o in p.opts}
        for name, command in main.commands.items()
    }
    documented = {
        bare(command): set(re.findall(r"--[a-z-]+", options))
        for command, options, _ in table("docs/commands.md", "commands")
    }
    assert documented == expected


def test_the_table_of_scenarios_has_every_one_with_its_summary() -> None:
    rows = {bare(name): f"{what}." for name, what in table("docs/operations.md", "scenarios")}
    assert rows == {scenario.name: scenario.summary for scenario in SCENARIOS.values()}


def test_the_table_of_states_has_every_state_of_a_frame_with_its_meaning() -> None:
    from backfill_assets.frames.states import MEANINGS

    assert {bare(state): meaning for state, meaning in table("docs/python.md", "states")} == MEANINGS


def test_the_table_of_conditions_has_every_word_with_its_meaning() -> None:
    from backfill_assets.frames.states import CONDITIONS

    assert {bare(word): said for word, said in table("docs/operations.md", "conditions")} == CONDITIONS


def test_make_targets_on_the_pages_exist_and_the_readme_has_all_of_them() -> None:
    makefile = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z]+):.*##", makefile, re.MULTILINE))
    code = re.findall(r"```.*?```|`[^`\n]+`", EVERYTHING, re.DOTALL)
    used = {target for text in code for target in re.findall(r"\bmake ([a-z]+)", text)}
    assert used - targets == set()
    in_readme = re.findall(r"\bmake ([a-z]+)", README)
    assert targets - set(in_readme) == set()


def documented_runs() -> list[tuple[str, list[str]]]:
    """Commands of the pages' marked blocks, the README's first, with the lines that they print."""
    runs: list[tuple[str, list[str]]] = []
    for block in re.findall(r"<!-- run -->\n```[a-z]*\n(.*?)```", EVERYTHING, re.DOTALL):
        for line in block.splitlines():
            if line.startswith("$ "):
                runs.append((line[2:], []))
            elif line.strip() and not line.startswith("…"):
                runs[-1][1].append(line)
    return runs


def comparable(line: str) -> str:
    """A line without the parts that differ from run to run: seconds, recent days, runs so far, places."""
    line = re.sub(r"\d+\.\d s", "N s", line)
    line = re.sub(r"hash (\w{12}|…)", "hash H", line)
    line = re.sub(r"20[2-9]\d-\d\d-\d\d(?: 00:00 UTC)?(?=;|$)", "DAY", line)
    line = re.sub(r"\b\d+ runs\b", "N runs", re.sub(r"/\S+/(data|backfill_assets)/", r"…/\1/", line))
    return " ".join(line.split())


def test_the_commands_of_the_pages_print_what_they_show(tmp_path: Path) -> None:
    home = tmp_path / ".home"
    home.mkdir()
    (home / "dagster.yaml").symlink_to(REPOSITORY / "dagster.yaml")
    ours = ("BACKFILL_", "DAGSTER_", "TARDIS_")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    runs = documented_runs()
    assert len(runs) == 11
    exports: list[str] = []
    for command, lines in runs:
        if command.startswith("export "):
            exports.append(command)
            continue
        # make's folder of records and its environment are already there; CI runs the target itself.
        by_make = f'DAGSTER_HOME="{home}" backfill-assets demo'
        script = command.replace("make demo", by_make).replace(". .venv/bin/activate", "true")
        done = subprocess.run(
            ["bash", "-o", "pipefail", "-c", "\n".join((*exports, script))],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        printed = iter([comparable(line) for line in done.stdout.splitlines()])
        missing = [line for line in lines if comparable(line) not in printed]
        assert missing == [], f"{command} prints\n{done.stdout}"


# --- the graph ---------------------------------------------------------------------------------------------


def test_the_table_of_checks_has_every_asset_check_with_its_promise_and_no_other() -> None:
    from backfill_assets.definitions import defs

    expected = {
        (spec.asset_key.to_user_string(), spec.name, "yes" if spec.blocking else "no", spec.description)
        for checks in defs.asset_checks or ()
        for spec in checks.check_specs
    }
    documented = {
        (bare(asset), bare(name), blocking, promise)
        for asset, name, blocking, promise in table("docs/checks.md", "checks")
    }
    assert documented == expected


def test_the_tables_of_assets_and_automation_have_every_one_and_no_other() -> None:
    from backfill_assets.definitions import defs

    repository = defs.get_repository_def()
    assets = {key.to_user_string() for key in repository.asset_graph.materializable_asset_keys}
    assert {bare(row[0]) for row in table("docs/architecture.md", "assets")} == assets
    named = (*(defs.schedules or ()), *(defs.sensors or ()), *(defs.jobs or ()))
    names = {found.name for found in named}
    assert {bare(row[0]) for row in table("docs/operations.md", "automation")} == names


def test_the_table_of_differences_has_every_kind() -> None:
    assert [bare(kind) for kind, *_ in table("docs/operations.md", "differences")] == list(get_args(Kind))


def test_the_table_of_priorities_has_every_kind_of_run() -> None:
    rows = table("docs/operations.md", "priorities")
    assert {bare(run.partition(":")[0]): int(number) for run, number in rows} == PRIORITIES


def test_the_table_of_version_numbers_has_every_one_where_it_is() -> None:
    package = REPOSITORY / "backfill_assets"
    found = {
        (match[1], file.relative_to(package).as_posix())
        for file in package.rglob("*.py")
        for match in re.finditer(r"^([A-Z]+_VERSION): Final", file.read_text(), re.MULTILINE)
    }
    documented = {
        (bare(number), bare(place)) for number, place, *_ in table("docs/architecture.md", "versions")
    }
    assert {name for name, _ in documented} == {name for name, _ in found}
    assert documented - found == {("RULES_VERSION", "rules/default.yaml")}


def test_the_table_of_rooms_has_every_folder_and_module_of_the_package() -> None:
    package = REPOSITORY / "backfill_assets"
    modules = {file.stem for file in package.glob("*.py")} - {"__init__"}
    folders = {file.parent.name for file in package.glob("*/__init__.py")}
    named = [
        name for room, _ in table("docs/architecture.md", "rooms") for name in re.findall(r"`(\w+)`", room)
    ]
    assert sorted(named) == sorted(modules | folders)


def test_what_is_to_be_changed_where_names_files_that_there_are() -> None:
    rows = table("docs/architecture.md", "changes")
    named = {name for _, files in rows for name in re.findall(r"`([\w/]+\.(?:py|yaml|md|j2))`", files)}
    assert len(named) > 30
    places = (REPOSITORY, REPOSITORY / "backfill_assets")
    assert [n for n in sorted(named) if not any((place / n).is_file() for place in places)] == []


def test_the_table_of_routes_has_every_route_of_the_api_and_no_other() -> None:
    from backfill_assets.progress.api import create_app

    described = create_app(cast("Any", None), token="").openapi()["paths"]
    expected = {f"{method.upper()} {path}" for path, methods in described.items() for method in methods}
    rows = table("docs/operations.md", "routes")
    assert {bare(route.strip()) for row in rows for route in row[0].split(",")} == expected


# --- tables ------------------------------------------------------------------------------------------------


def column_lines(described: Table) -> list[str]:
    """The lines of a table's columns; the levels of a book are one line for all."""
    lines = []
    levels = {int(n[1]) for c in described.columns if (n := re.match(r"asks_(\d+)_price", c.name))}
    for column in described.columns:
        level = re.match(r"(asks|bids)_(\d+)_(price|amount)$", column.name)
        name, text = column.name, column.description
        if level:
            if level[2] != "0":
                continue
            name = f"{level[1]}_N_{level[3]}"
            text = (
                f"N = 0 … {max(levels)}: {text.replace('level 0 (0 is the best)', 'level N (0 is the best)')}"
            )
        lines.append(f"| `{name}` | {column.type}{'' if column.required else ', nullable'} | {text} |")
    return lines


@pytest.mark.parametrize("described", TABLES, ids=lambda t: t.name)
def test_the_page_of_data_has_the_columns_of_every_table(described: Table) -> None:
    section = re.search(
        rf"^### `{described.name}`\n\n(?P<text>.*?)(?=^##|\Z)",
        PAGES["docs/data.md"],
        re.DOTALL | re.MULTILINE,
    )
    assert section is not None
    lines = section["text"].splitlines()
    assert lines[0] == described.description
    assert [line for line in lines if line.startswith("| `")] == column_lines(described)


def test_the_page_of_data_has_no_table_that_does_not_exist() -> None:
    assert set(re.findall(r"^### `(\w+)`$", PAGES["docs/data.md"], re.MULTILINE)) == {t.name for t in TABLES}


def test_the_page_of_data_has_every_view_and_no_other() -> None:
    expected = [[v.name, v.description, ", ".join(t.name for t in v.tables)] for v in VIEWS]
    rows = table("docs/data.md", "views")
    assert [[bare(name), said, reads.replace("`", "")] for name, said, reads in rows] == expected


@pytest.mark.parametrize("view", [DAYS, CANDLES_WITH_STATE], ids=lambda v: v.name)
def test_the_page_of_data_has_the_columns_that_a_view_adds(view: View) -> None:
    of_tables = set(CANDLES.columns) if CANDLES in view.tables else set()
    expected = [
        [c.name, f"{c.type}{'' if c.required else ', nullable'}", c.description]
        for c in view.columns
        if c not in of_tables
    ]
    rows = table("docs/data.md", f"columns of {view.name}")
    assert [[bare(name), kind, said] for name, kind, said in rows] == expected


@pytest.fixture(scope="module")
def empty_tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from backfill_assets.warehouse.duckdb import DuckDBWarehouse

    warehouse = DuckDBWarehouse(tmp_path_factory.mktemp("warehouse"))
    for described in TABLES:
        warehouse.ensure_table(described)
    return warehouse.database


@pytest.mark.parametrize("block", re.findall(r"```sql duckdb\n(.*?)```", EVERYTHING, re.DOTALL))
def test_the_example_queries_run_in_the_embedded_warehouse(block: str, empty_tables: Path) -> None:
    import duckdb

    with duckdb.connect(str(empty_tables), read_only=True) as connection:
        connection.execute(block)


# --- scores ------------------------------------------------------------------------------------------------


def test_the_page_of_scores_has_every_threshold_row_rule_and_constant_with_its_value() -> None:
    thresholds = {key: shown(field.default) for key, field in fields(DayThresholds)}
    page = "docs/scores.md"
    assert {bare(key): value for key, value, _ in table(page, "thresholds")} == thresholds
    rules = {(rule.name, shown(rule.excused), shown(rule.limit)) for rule in row_rules(RowSettings())}
    assert {(bare(name), excused, limit) for name, excused, limit, _ in table(page, "rules")} == rules
    for name, value, _ in table(page, "constants"):
        module, _, constant = bare(name).rpartition(".")
        assert value.replace(",", "") == shown(
            getattr(importlib.import_module(f"backfill_assets.{module}"), constant)
        ), name


def test_the_page_of_scores_has_every_number_of_the_judging_modules() -> None:
    documented = {bare(name) for name, *_ in table("docs/scores.md", "constants")}
    for name in ("completeness", "estimates", "completeness_messages", "rules", "verdict"):
        module = importlib.import_module(f"backfill_assets.quality.{name}")
        source = ast.parse(Path(str(module.__file__)).read_text(encoding="utf-8"))
        for node in source.body:
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                value = getattr(module, node.target.id, None)
                if isinstance(value, int | float) and node.target.id != "RULES_VERSION":
                    assert f"quality.{name}.{node.target.id}" in documented


# --- words -------------------------------------------------------------------------------------------------

WORDS: Final = (
    "feed",
    "day",
    "verdict",
    "evidence class",
    "proven",
    "sealed",
    "held",
    "degraded",
    "quarantine",
    "candidate",
    "accepted",
    "restatement",
    "publication",
    "gap",
    "silence",
    "coverage",
)


def test_the_glossary_explains_the_words_each_in_one_sentence_with_an_example() -> None:
    rows = table("docs/glossary.md", "glossary")
    words = [word for word, _, _ in rows]
    assert set(WORDS) - set(words) == set()
    assert len(set(words)) == len(words)
    for word, meaning, example in rows:
        assert re.fullmatch(r"[A-Z][^.]+\.", meaning), word
        assert example, word


def test_every_word_of_the_glossary_is_used_outside_of_it() -> None:
    pages = [text for page, text in PAGES.items() if page != "docs/glossary.md"]
    code = [path.read_text(encoding="utf-8") for path in (REPOSITORY / "backfill_assets").rglob("*.py")]
    used = "\n".join(pages + code).lower()
    words = [word for word, _, _ in table("docs/glossary.md", "glossary")]
    assert [w for w in words if not re.search(rf"\b{w.replace(' ', '[ _]')}\b", used)] == []


def test_the_readme_the_first_steps_and_the_site_lead_to_the_glossary() -> None:
    assert "](docs/glossary.md)" in README
    assert "](glossary.md)" in PAGES["docs/start.md"]
    # Not loaded as YAML: the file names a function of its generator.
    assert "- glossary.md\n" in (REPOSITORY / "mkdocs.yml").read_text(encoding="utf-8")


def test_the_words_at_the_foot_of_pages_have_the_meanings_of_the_glossary() -> None:
    glossary = {word: meaning for word, meaning, _ in table("docs/glossary.md", "glossary")}
    foot = (REPOSITORY / "backfill_assets/report/templates/terms.html.j2").read_text(encoding="utf-8")
    shown = dict(re.findall(r"<dt>(.*?)</dt><dd>(.*?)</dd>", foot))
    assert len(shown) > 5
    assert shown == {word: glossary.get(word) for word in shown}


def test_messages_that_the_pages_explain_are_messages_of_the_package() -> None:
    package = REPOSITORY / "backfill_assets"
    texts = [path.read_text(encoding="utf-8") for path in ENVIRONMENTS.glob("*.yaml")]
    for path in package.rglob("*.py"):
        nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        texts += [n.value for n in nodes if isinstance(n, ast.Constant) and isinstance(n.value, str)]
    fragments = [bare(part) for row in table("docs/messages.md", "messages") for part in row[0].split(" … ")]
    assert len(fragments) >= 10
    assert [f for f in fragments if not any(f in text for text in texts)] == []


def test_the_tests_that_show_a_defense_exist() -> None:
    named = [found for row in table("SECURITY.md", "defenses") for found in re.findall(r"`([^`]+)`", row[1])]
    assert len(named) > 10
    for file, name in (found.split("::") for found in named):
        assert f"\ndef {name}(" in (REPOSITORY / file).read_text(encoding="utf-8"), name


def test_what_runs_before_a_commit_is_what_make_lint_runs() -> None:
    hooks = yaml.safe_load((REPOSITORY / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"]
    entries = [hook["entry"].replace(".venv/bin", "$(BIN)") for repo in hooks for hook in repo["hooks"]]
    [lint] = re.findall(r"^lint:.*\n((?:\t@.*\n)+)", (REPOSITORY / "Makefile").read_text(), re.MULTILINE)
    assert entries == [line.removeprefix("\t@") for line in lint.splitlines()]


def test_the_changelog_begins_with_the_version_that_is_installed() -> None:
    version = importlib.metadata.version("backfill-assets")
    assert re.findall(r"^## (.*)$", PAGES["CHANGELOG.md"], re.MULTILINE)[0] == version


def slug(heading: str) -> str:
    """The anchor that GitHub gives a heading."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def test_links_between_files_lead_somewhere() -> None:
    broken = []
    for page, text in PAGES.items():
        for target in re.findall(r"\]\(([^)\s]+)\)", text):
            if target.startswith(("http://", "https://")):
                continue
            file, _, anchor = target.partition("#")
            path = (REPOSITORY / page).parent / file if file else REPOSITORY / page
            if not path.exists():
                broken.append(f"{page}: {target}")
            elif anchor and path.suffix == ".md":
                headings = re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), re.MULTILINE)
                if anchor not in {slug(heading) for heading in headings}:
                    broken.append(f"{page}: {target}")
    assert broken == []


def test_paths_of_the_package_that_pages_name_exist() -> None:
    named = set(re.findall(r"`(backfill_assets(?:_tests)?/[\w/.-]+)`", EVERYTHING))
    assert {path for path in named if not (REPOSITORY / path).exists()} == set()
