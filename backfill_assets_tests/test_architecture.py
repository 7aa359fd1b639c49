"""The rules of docs/architecture.md that a machine can check, each a function over a tree of source files.

Every rule is also shown red on a small bad tree and green on a near miss, so that none passes because it
never looks.
"""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

import pytest

REPOSITORY: Final = Path(__file__).parents[1]
PACKAGE: Final = "backfill_assets"

#: Allowed imports: each room imports from itself and the rooms before it. One line is one rank; the files
#: of the first rank are the ground of all others.
ORDER: Final = (
    (
        *("failures", "files", "feeds", "venues", "columns", "days", "yaml_files", "rule_set", "id_laws"),
        *("settings", "logs", "databases", "readable_numbers", "partitions", "orchestration", "contracts"),
    ),
    ("tardis",),
    ("lake",),
    ("quality",),
    ("instruments",),
    ("ticks",),
    ("heal",),
    ("candles",),
    ("references",),
    ("warehouse",),
    ("report",),
    ("frames",),
    ("alerts",),
    ("automation",),
    ("progress",),
    ("rehearsal",),
    ("definitions",),
    ("local_runs",),
    ("demo", "doctor", "settings_view"),
    ("new_settings",),
    ("cli",),
)
RANK: Final = {room: rank for rank, rooms in enumerate(ORDER) for room in rooms}
#: Besides the order: a stand-in for the source knows the source, and the product does not know the stand-in.
STANDINS: Final = "standins"
STANDINS_MAY_USE: Final = RANK["tardis"]
#: The package imports it when ``open`` is called; the package's tests see that nothing is imported before.
DOOR: Final = "frames.data"
USERS_OF_STANDINS: Final = {STANDINS, "rehearsal", "demo", "cli"}

#: Places that may name Dagster: by the file's name, the room, or the file itself. The demo and the doctor
#: exist to drive an instance and to look at one.
DAGSTER_FILES: Final = {
    "assets",
    "checks",
    "resource",
    "partitions",
    "orchestration",
    "definitions",
    "local_runs",
    "demo",
    "doctor",
}
DAGSTER_ROOMS: Final = {"automation"}
DAGSTER_MODULES: Final = {"progress.reader", "progress.sensor", "quality.pandera_checks", "rehearsal.quick"}
#: The rooms through which the data passes; their logic must not reach Dagster through another module either.
STAGES: Final = {room for room, rank in RANK.items() if 0 < rank <= RANK["report"]}

ENVIRONMENT_READERS: Final = {"settings.process_environment", "standins.run"}
#: The one module that syncs to disk and locks files.
DURABLE_FILES: Final = "files"


def modules(tree: Path) -> Iterator[tuple[str, ast.Module]]:
    """Each module under the package folder: its name below the package ("" for its own) and its syntax."""
    for file in sorted(tree.rglob("*.py")):
        parts = list(file.relative_to(tree).with_suffix("").parts)
        if parts[-1] == "__init__":
            parts.pop()
        yield ".".join(parts), ast.parse(file.read_text(encoding="utf-8"), str(file))


def imports(name: str, syntax: ast.Module, tree: Path) -> Iterator[str]:
    """Every import of a module, at any depth, as absolute dotted names."""
    here = [PACKAGE, *name.split(".")] if name else [PACKAGE]
    if not tree.joinpath(*here[1:], "__init__.py").exists():
        here.pop()
    for node in ast.walk(syntax):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = here[: len(here) + 1 - node.level] if node.level else []
            source = ".".join([*base, *([node.module] if node.module else [])])
            # `from package import room` names the room; `from module import name` names the module.
            names = [f"{source}.{alias.name}" for alias in node.names] if source == PACKAGE else [source]
            yield from names


def own(imported: str) -> str | None:
    """The name below the package, or None for a module outside it."""
    return imported[len(PACKAGE) + 1 :] if imported == PACKAGE or imported.startswith(f"{PACKAGE}.") else None


def room(name: str) -> str:
    return name.split(".")[0]


def against_the_stream(tree: Path) -> list[str]:
    """Imports of a later room by an earlier one, and rooms that have no place in the order."""
    found, homeless = [], set()
    for name, syntax in modules(tree):
        if name == "":
            rank = -1
        elif room(name) == STANDINS:
            rank = STANDINS_MAY_USE
        elif room(name) in RANK:
            rank = RANK[room(name)]
        else:
            homeless.add(room(name))
            continue
        for imported in imports(name, syntax, tree):
            target = own(imported)
            if not name and target == DOOR:
                continue
            if target and room(target) != STANDINS and RANK.get(room(target), -1) > rank:
                found.append(f"{name or PACKAGE} imports {target}")
    return found + [f"{name} has no place in ORDER" for name in sorted(homeless)]


def strangers_at_the_standins(tree: Path) -> list[str]:
    """Imports of the stand-ins by the product."""
    return [
        f"{name} imports {imported}"
        for name, syntax in modules(tree)
        if room(name) not in USERS_OF_STANDINS
        for imported in imports(name, syntax, tree)
        if room(own(imported) or "") == STANDINS
    ]


def may_name_dagster(name: str) -> bool:
    return name.split(".")[-1] in DAGSTER_FILES or room(name) in DAGSTER_ROOMS or name in DAGSTER_MODULES


def dagster_in_the_logic(tree: Path) -> list[str]:
    """Imports of Dagster outside the modules made for it and, in the stages, of those by the logic."""
    found = []
    for name, syntax in modules(tree):
        if may_name_dagster(name):
            continue
        for imported in imports(name, syntax, tree):
            target = own(imported)
            is_dagster = re.match(r"dagster(_\w+)?(\.|$)", imported) is not None
            if is_dagster or (target and room(name) in STAGES and may_name_dagster(target)):
                found.append(f"{name} imports {imported}")
    return found


def readers_of_the_environment(tree: Path) -> list[str]:
    """Uses of ``os.environ`` and similar calls outside the settings and the one place that starts a child."""
    variables = {"environ", "environb", "getenv", "getenvb", "putenv", "unsetenv"}
    found = []
    for name, syntax in modules(tree):
        if name in ENVIRONMENT_READERS:
            continue
        for node in ast.walk(syntax):
            if not isinstance(node, ast.Attribute | ast.ImportFrom):
                continue
            by_attribute = (
                isinstance(node, ast.Attribute)
                and node.attr in variables
                and isinstance(node.value, ast.Name)
                and node.value.id in {"os", "posix"}
            )
            by_name = (
                isinstance(node, ast.ImportFrom)
                and node.module in {"os", "posix"}
                and any(alias.name in variables for alias in node.names)
            )
            if by_attribute or by_name:
                found.append(f"{name}:{node.lineno} reads the environment")
    return found


def syncs_and_locks_elsewhere(tree: Path) -> list[str]:
    """Durable renames and file locks other than those of ``files``."""
    return [
        f"{name}:{node.lineno} syncs or locks files"
        for name, syntax in modules(tree)
        if name != DURABLE_FILES
        for node in ast.walk(syntax)
        if (isinstance(node, ast.Attribute) and node.attr in {"fsync", "fdatasync"})
        or (isinstance(node, ast.Import) and any(alias.name == "fcntl" for alias in node.names))
        or (isinstance(node, ast.ImportFrom) and node.module == "fcntl")
    ]


def without_charter(tree: Path) -> list[str]:
    """Modules that do not open with a docstring."""
    return [name or PACKAGE for name, syntax in modules(tree) if not ast.get_docstring(syntax)]


Rule = Callable[[Path], list[str]]
RULES: Final[Sequence[Rule]] = (
    against_the_stream,
    strangers_at_the_standins,
    dagster_in_the_logic,
    readers_of_the_environment,
    syncs_and_locks_elsewhere,
    without_charter,
)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_package_keeps_every_rule(rule: Rule) -> None:
    assert rule(REPOSITORY / PACKAGE) == []


def plant(tree: Path, file: str, source: str) -> Path:
    for folder in Path(file).parents:
        (tree / folder).mkdir(parents=True, exist_ok=True)
        (tree / folder / "__init__.py").write_text('"""A charter."""\n', encoding="utf-8")
    (tree / file).write_text(f'"""A charter."""\n{source}\n', encoding="utf-8")
    return tree


@pytest.mark.parametrize(
    ("rule", "file", "source"),
    [
        (against_the_stream, "lake/store.py", "from backfill_assets.ticks.decode import decode"),
        (against_the_stream, "lake/store.py", "from backfill_assets import ticks"),
        (against_the_stream, "lake/store.py", "from ..ticks import decode"),
        (against_the_stream, "lake/store.py", "from .. import ticks"),
        (against_the_stream, "lake/__init__.py", "from ..ticks import decode"),
        (against_the_stream, "lake/store.py", "def late():\n    import backfill_assets.warehouse.publish"),
        (against_the_stream, "days.py", "from backfill_assets.tardis import client"),
        (against_the_stream, "__init__.py", "from backfill_assets.days import Day"),
        (against_the_stream, "standins/server.py", "from backfill_assets.lake import paths"),
        (against_the_stream, "automation/jobs.py", "from backfill_assets.definitions import defs"),
        (against_the_stream, "helpers/misc.py", ""),
        (strangers_at_the_standins, "tardis/client.py", "from backfill_assets.standins.server import Server"),
        (strangers_at_the_standins, "definitions.py", "from backfill_assets import standins"),
        (dagster_in_the_logic, "ticks/decode.py", "import dagster as dg"),
        (
            dagster_in_the_logic,
            "cli.py",
            "def demo():\n    from dagster import DagsterInstance",
        ),
        (dagster_in_the_logic, "warehouse/bigquery.py", "from dagster_gcp import BigQueryResource"),
        (dagster_in_the_logic, "ticks/decode.py", "from backfill_assets.orchestration import OWNERS"),
        (dagster_in_the_logic, "candles/merge.py", "from backfill_assets.ticks.assets import ticks"),
        (readers_of_the_environment, "lake/store.py", "import os\nroot = os.environ['LAKE']"),
        (readers_of_the_environment, "lake/store.py", "import os\nroot = os.getenv('LAKE')"),
        (readers_of_the_environment, "lake/store.py", "from os import environ"),
        (readers_of_the_environment, "settings/loading.py", "import os\nos.environ['BACKFILL_ENV']"),
        (syncs_and_locks_elsewhere, "lake/store.py", "import os\nos.fsync(1)"),
        (syncs_and_locks_elsewhere, "lake/store.py", "import fcntl"),
        (syncs_and_locks_elsewhere, "lake/store.py", "from fcntl import flock"),
    ],
)
def test_a_breach_is_seen(rule: Rule, file: str, source: str, tmp_path: Path) -> None:
    tree = plant(tmp_path, file, source)
    assert len(rule(tree)) == 1


@pytest.mark.parametrize(
    ("rule", "file", "source"),
    [
        (
            against_the_stream,
            "ticks/decode.py",
            "from ..lake import store\nfrom . import profile",
        ),
        (against_the_stream, "days.py", "from backfill_assets.failures import SettingsError"),
        (against_the_stream, "standins/server.py", "from backfill_assets.tardis.columns import TRADES"),
        (against_the_stream, "cli.py", "from backfill_assets.definitions import defs"),
        (strangers_at_the_standins, "cli.py", "from backfill_assets.standins.run import run_with_standins"),
        (strangers_at_the_standins, "standins/cli.py", "from backfill_assets.standins import server"),
        (dagster_in_the_logic, "ticks/assets.py", "import dagster as dg"),
        (dagster_in_the_logic, "automation/schedules.py", "import dagster as dg"),
        (dagster_in_the_logic, "ticks/checks.py", "from backfill_assets.orchestration import OWNERS"),
        (dagster_in_the_logic, "ticks/decode.py", "import dagsterish"),
        (readers_of_the_environment, "settings/process_environment.py", "import os\nos.environ['HOME']"),
        (readers_of_the_environment, "standins/run.py", "import os\nchild = {**os.environ}"),
        (readers_of_the_environment, "lake/store.py", "import os\nenviron = os.replace"),
        (syncs_and_locks_elsewhere, "files.py", "import fcntl, os\nos.fsync(1)"),
        (syncs_and_locks_elsewhere, "lake/store.py", "from backfill_assets.files import locked"),
        (without_charter, "lake/store.py", ""),
    ],
)
def test_what_is_allowed_is_left_alone(rule: Rule, file: str, source: str, tmp_path: Path) -> None:
    assert rule(plant(tmp_path, file, source)) == []


def test_a_module_without_charter_is_seen(tmp_path: Path) -> None:
    plant(tmp_path, "lake/store.py", "")
    (tmp_path / "lake" / "store.py").write_text("# a comment is none\nx = 1\n", encoding="utf-8")
    assert without_charter(tmp_path) == ["lake.store"]


IMPORT_ALONE: Final = """
import importlib, json, sys

def refuse(event, args):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname"):
        sys.stderr.write(f"importing did {event} {args}\\n")
        raise SystemExit(3)

sys.addaudithook(refuse)
importlib.import_module(sys.argv[1])
print(json.dumps(sorted({name.split(".")[0] for name in sys.modules})))
"""


#: Libraries that only a server needs; a run of a day loads none of them.
SERVER: Final = {"fastapi", "uvicorn", "prometheus_client"}
#: Libraries that take longer to load than the code location itself; the functions that use them import them.
HEAVY: Final = {
    "aiohttp",
    "ccxt",
    "duckdb",
    "google",
    "hypothesis",
    "jinja2",
    "massive",
    "numba",
    "pandas",
    "pandera",
    "polars",
    "requests",
    "sqlalchemy",
    "tardis_dev",
}


def import_alone(module: str, folder: Path, **variables: str) -> set[str]:
    """Import a module in a process without network and variables; returns the top-level modules it loaded."""
    imported = subprocess.run(
        [sys.executable, "-c", IMPORT_ALONE, module],
        cwd=folder,
        env={"PATH": os.defpath, "PYTHONPATH": str(folder), "HOME": "/nonexistent", **variables},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert imported.returncode == 0, imported.stderr
    return set(json.loads(imported.stdout.splitlines()[-1]))


@pytest.mark.parametrize("environment", ["local", "staging", "production"])
def test_importing_the_code_location_needs_neither_network_nor_secrets(environment: str) -> None:
    loaded = import_alone(f"{PACKAGE}.definitions", REPOSITORY, BACKFILL_ENV=environment)
    assert "dagster" in loaded
    assert loaded.isdisjoint(SERVER | HEAVY)


def test_the_command_line_answers_without_loading_what_most_commands_never_use() -> None:
    loaded = import_alone(f"{PACKAGE}.cli", REPOSITORY)
    assert loaded.isdisjoint(SERVER | HEAVY | {"dagster"})


@pytest.mark.parametrize(
    ("source", "complaint"),
    [
        ("import socket\nsocket.socket().connect(('127.0.0.1', 9))", "socket.connect"),
        ("import socket\nsocket.getaddrinfo('localhost', 80)", "socket.getaddrinfo"),
        ("import os\nkey = os.environ['TARDIS_API_KEY']", "KeyError: 'TARDIS_API_KEY'"),
    ],
)
def test_an_import_that_asks_the_network_or_wants_a_secret_is_seen(
    source: str, complaint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TARDIS_API_KEY", "known to the caller only")
    (tmp_path / "greedy.py").write_text(source, encoding="utf-8")
    with pytest.raises(AssertionError, match=re.escape(complaint)):
        import_alone("greedy", tmp_path)
