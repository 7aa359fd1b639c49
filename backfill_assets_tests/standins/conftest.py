"""A running stand-in with a small market, and ways to read what it serves."""

from __future__ import annotations

import gzip
import io
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

import polars as pl
import pytest

from backfill_assets.standins.market import Market
from backfill_assets.standins.tardis import TardisStandin

ReadFile = Callable[[bytes], pl.DataFrame]


@pytest.fixture(scope="session")
def market() -> Market:
    return Market()


@pytest.fixture
def standin(market: Market) -> Iterator[TardisStandin]:
    """Answers as on 2024-02-10 at noon."""
    with TardisStandin(market, clock=lambda: datetime(2024, 2, 10, 12, tzinfo=UTC)) as running:
        yield running


@pytest.fixture(scope="session")
def read_file() -> ReadFile:
    """Every cell as text; null if empty."""

    def read(content: bytes) -> pl.DataFrame:
        return pl.read_csv(io.BytesIO(gzip.decompress(content)), infer_schema=False)

    return read
