"""Databases for the OHLCV table: SQLite in a file, and a real Postgres server."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import sqlalchemy as sa

from backfill_assets.settings import OhlcvSettings
from backfill_assets.warehouse.ohlcv.target import Target, open_target
from backfill_assets_tests.emulators.postgres import binaries, postgres_server


@dataclass
class Bench:
    """A target, its settings, and a way to look at the rows and to meddle."""

    settings: OhlcvSettings
    target: Target

    @property
    def table(self) -> str:
        return self.settings.table

    def run(self, sql: str) -> list[dict[str, Any]]:
        """Run a statement as any client would; the rows that it gives."""
        with self.target.engine.begin() as connection:
            result = connection.execute(sa.text(sql.replace("TABLE_NAME", self.table)))
            return [dict(row) for row in result.mappings()] if result.returns_rows else []

    def rows(self) -> list[dict[str, Any]]:
        return self.run("SELECT * FROM TABLE_NAME ORDER BY exchange, symbol, timeframe, open_time")


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    if binaries() is None:
        pytest.skip("Postgres is not installed (initdb and postgres in PATH or /usr/lib/postgresql)")
    with postgres_server() as url:
        yield url


@pytest.fixture(params=["sqlite", "postgres"])
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Bench:
    """Each database in turn, without the table."""
    url = f"sqlite:///{tmp_path / 'candles.db'}"
    if request.param == "postgres":
        url = request.getfixturevalue("postgres")
    settings = OhlcvSettings(url=url, table=f"ohlcv_{uuid4().hex[:8]}", batch_rows=7)
    target = open_target(settings)
    assert target is not None
    return Bench(settings, target)
