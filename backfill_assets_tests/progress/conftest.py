"""Dagster's own storage, SQLite or Postgres, and the service in this process over it and an empty lake."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import dagster as dg
import psycopg2  # type: ignore[import-untyped]
import pytest
import sqlalchemy as sa
import yaml
from starlette.testclient import TestClient

from backfill_assets.definitions import defs
from backfill_assets.progress.api import create_app
from backfill_assets.progress.service import Backfills
from backfill_assets.rehearsal.postgres import binaries, postgres_server
from backfill_assets.settings import Settings, load_settings
from backfill_assets_tests.progress.rig import EXCHANGES, REPOSITORY, SYMBOLS

BASE = "http://127.0.0.1:3080"
#: The name of a service that other machines reach.
NAME = "backfill.example"
needs_postgres = pytest.mark.skipif(binaries() is None, reason="Postgres is not installed")


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """A server of its own for this folder's tests."""
    with postgres_server() as url:
        yield url


def empty_database(server: str, name: str) -> str:
    """The address of a new database on the server."""
    connection = psycopg2.connect(server)
    connection.autocommit = True
    connection.cursor().execute(f'CREATE DATABASE "{name}"')
    connection.close()
    return sa.make_url(server).set(database=name).render_as_string(hide_password=False)


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=needs_postgres)])
def home(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Dagster's home over an empty database of either kind, for this process and its children."""
    found = tmp_path / "home"
    found.mkdir()
    (found / "dagster.yaml").symlink_to(REPOSITORY / "dagster.yaml")
    monkeypatch.setenv("DAGSTER_HOME", str(found))
    monkeypatch.delenv("DAGSTER_POSTGRES_URL", raising=False)
    if request.param == "postgres":
        server = request.getfixturevalue("postgres")
        monkeypatch.setenv("DAGSTER_POSTGRES_URL", empty_database(server, f"home_{os.urandom(4).hex()}"))
    return found


@pytest.fixture
def stored(home: Path) -> Iterator[dg.DagsterInstance]:
    """An instance that other processes can also open."""
    with dg.DagsterInstance.get() as found:
        yield found


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """The local universe over an empty lake."""
    content = {
        "universe": [{"exchanges": EXCHANGES, "symbols": SYMBOLS, "data_types": ["trades"]}],
        "lake": {"uri": str(tmp_path / "lake")},
        "warehouse": {"kind": "duckdb", "folder": str(tmp_path / "warehouse")},
        # Every look reads anew, as if the last one were long ago.
        "serve": {"max_days": 100, "refresh_seconds": 1e-9},
    }
    file = tmp_path / "settings.yaml"
    file.write_text(yaml.safe_dump(content))
    return load_settings(file)


@pytest.fixture(scope="session")
def empty_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Dagster's SQLite files without a record, made once because that takes long."""
    found = tmp_path_factory.mktemp("empty")
    with dg.DagsterInstance.local_temp(str(found)) as instance:
        instance.get_runs_count()
    return found


@pytest.fixture
def instance(empty_home: Path, tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    """An instance on SQLite files; in memory, threads lock each other out."""
    folder = shutil.copytree(empty_home, tmp_path / "dagster")
    with dg.DagsterInstance.local_temp(str(folder)) as found:
        yield found


@pytest.fixture
def rig(instance: dg.DagsterInstance, settings: Settings) -> Iterator[SimpleNamespace]:
    """The service without a daemon: only a test starts runs."""
    service = Backfills(instance, defs.resolve_asset_graph, lambda: settings)
    yield SimpleNamespace(service=service, instance=instance, settings=settings)
    service.close()


def client_of(rig: SimpleNamespace, token: str = "", base: str = BASE) -> TestClient:
    app = create_app(rig.service, token=token, hosts=(NAME,))
    return TestClient(app, base_url=base, raise_server_exceptions=False)


@pytest.fixture
def client(rig: SimpleNamespace) -> Iterator[TestClient]:
    with client_of(rig) as found:
        yield found
