"""Databases for the jobs, and the service in this process over Dagster's own storage and an empty lake."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import dagster as dg
import psycopg2  # type: ignore[import-untyped]
import pytest
import sqlalchemy as sa
import yaml

from backfill_assets.automation.instance_storage import postgres_url
from backfill_assets.definitions import defs
from backfill_assets.progress.database import open_jobs
from backfill_assets.progress.service import Backfills
from backfill_assets.progress.store import JobStore
from backfill_assets.settings import Settings, load_settings
from backfill_assets_tests.emulators.postgres import binaries, postgres_server

EXCHANGES = ["binance", "coinbase", "kraken"]
SYMBOLS = ["BTC-USDT", "ETH-USDT", "ADA-USDT"]
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
def database(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """SQLAlchemy's address of an empty database, of either kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'home' / 'backfill_assets.db'}"
    server = request.getfixturevalue("postgres")
    return postgres_url(empty_database(server, f"jobs_{os.urandom(4).hex()}"))


@pytest.fixture
def jobs(database: str) -> Iterator[JobStore]:
    store = open_jobs(database)
    yield store
    store.close()


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """The local universe over an empty lake."""
    content = {
        "universe": [{"exchanges": EXCHANGES, "symbols": SYMBOLS, "data_types": ["trades"]}],
        "lake": {"uri": str(tmp_path / "lake")},
        "warehouse": {"kind": "duckdb", "folder": str(tmp_path / "warehouse")},
        "serve": {"max_days": 100},
    }
    file = tmp_path / "settings.yaml"
    file.write_text(yaml.safe_dump(content))
    return load_settings(file)


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as found:
        yield found


@pytest.fixture
def rig(tmp_path: Path, instance: dg.DagsterInstance, settings: Settings) -> Iterator[SimpleNamespace]:
    """The service without a daemon: nothing runs unless a test makes it."""
    url = f"sqlite:///{tmp_path / 'jobs.db'}"
    service = Backfills(open_jobs(url), instance, defs.resolve_asset_graph, lambda: settings)
    again = open_jobs(url)
    yield SimpleNamespace(service=service, instance=instance, settings=settings, url=url, jobs=again)
    again.close()
    service.close()
