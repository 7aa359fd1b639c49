"""Published partitions and the lake's candles give every reader of Parquet the same values."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import polars as pl
import pyarrow.parquet as pq
import pytest

DAY = "2024-01-01"
TABLES = ("instruments", "trades", "candles", "coverage", "quality")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """The folder of lake and warehouse of one day, made by the first test that needs it."""
    return tmp_path_factory.mktemp("readers")


@pytest.fixture
def day(folder, make_pipeline, standin) -> Path:
    if not (folder / "lake").exists():
        made = make_pipeline(standin)
        assert made.run(DAY).success
        for name in ("lake", "warehouse"):
            (made.folder / name).rename(folder / name)
    return folder


def cells(values: list[Any]) -> list[Any]:
    """Values in the form that each reader gives: times as moments of UTC, missing values as None."""
    return [cell(value) for value in values]


def cell(value: Any) -> Any:
    if value is None or value is pd.NaT or value is pd.NA or value != value:
        return None
    if isinstance(value, pd.Timestamp):
        value = value.to_pydatetime(warn=False)
    if isinstance(value, datetime):
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
    return value.item() if hasattr(value, "item") else value


def by_pandas(file: Path, name: str) -> list[Any]:
    return cells(pd.read_parquet(file, columns=[name])[name].tolist())


def by_polars(file: Path, name: str) -> list[Any]:
    return cells(pl.read_parquet(file, columns=[name], hive_partitioning=False)[name].to_list())


def by_duckdb(file: Path, name: str) -> list[Any]:
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        query = f'SELECT "{name}" FROM read_parquet($file, hive_partitioning = false)'
        return cells([row[0] for row in connection.execute(query, {"file": str(file)}).fetchall()])


READERS = {
    "pandas": by_pandas,
    "polars": by_polars,
    "DuckDB": by_duckdb,
}


def differing(file: Path, read: Any) -> dict[str, int]:
    """Number of rows of each column in which this reader differs from the file's own writer."""
    schema = pq.read_schema(file)
    found = {}
    for field in schema:
        true = cells(pq.read_table(file, columns=[field.name], partitioning=None)[field.name].to_pylist())
        said = read(file, field.name)
        if str(field.type) == "date32[day]":
            said = [getattr(value, "date", lambda value=value: value)() for value in said]
        if len(said) != len(true) or said != true:
            found[field.name] = sum(a != b for a, b in zip(true, said, strict=False))
    return found


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("table", TABLES)
def test_every_reader_gives_the_values_of_a_published_partition(day: Path, table: str, reader: str) -> None:
    assert differing(day / "warehouse" / table / f"{DAY}.parquet", READERS[reader]) == {}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("kind", ["ticks", "candles", "coverage", "instruments"])
def test_every_reader_gives_the_values_of_the_lakes_files(day: Path, kind: str, reader: str) -> None:
    for file in (day / "lake" / kind).rglob("*.parquet"):
        assert differing(file, READERS[reader]) == {}, file
