"""Promises of every warehouse about one partition."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from warehouse_samples import DAY, NEXT_DAY, TRADES, rows, write

from backfill_assets.columns import Column
from backfill_assets.failures import PermanentFailure, Superseded
from backfill_assets.warehouse.tables import Table
from backfill_assets.warehouse.totals import compare_totals, file_totals

pytestmark = pytest.mark.timeout(60)


def _load(bench: Any, folder: Path, content: list[dict[str, Any]], generation: int, day: str = DAY) -> Path:
    path = write(folder / f"{generation}.parquet", content, bench.table.schema)
    bench.warehouse.replace_partition(bench.table, day, [bench.file(path)], generation)
    return path


def _without(name: str) -> Table:
    return replace(TRADES, columns=tuple(c for c in TRADES.columns if c.name != name))


def _with(column: Column) -> Table:
    return replace(TRADES, columns=(*(c for c in TRADES.columns if c.name != column.name), column))


def test_a_partition_holds_exactly_the_rows_of_its_files(bench: Any, tmp_path: Path) -> None:
    first, second = bench.rows("ADA-USDT"), bench.rows("BTC-USDT", 4)
    schema = bench.table.schema
    paths = [write(tmp_path / "1.parquet", first, schema), write(tmp_path / "2.parquet", second, schema)]
    bench.warehouse.replace_partition(bench.table, DAY, [bench.file(path) for path in paths], 1)
    assert bench.read() == [*first, *second]


def test_loading_again_replaces_the_day_and_no_other(bench: Any, tmp_path: Path) -> None:
    _load(bench, tmp_path, bench.rows(count=5), 1)
    _load(bench, tmp_path, bench.rows(day=NEXT_DAY), 1, NEXT_DAY)
    _load(bench, tmp_path, bench.rows(price=99.5), 2)
    assert bench.read() == [*bench.rows(price=99.5), *bench.rows(day=NEXT_DAY)]


def test_an_empty_day_empties_its_partition_and_no_other(bench: Any, tmp_path: Path) -> None:
    _load(bench, tmp_path, bench.rows(), 1)
    _load(bench, tmp_path, bench.rows(day=NEXT_DAY), 1, NEXT_DAY)
    bench.warehouse.replace_partition(bench.table, DAY, [], 2)
    assert bench.read() == bench.rows(day=NEXT_DAY)
    assert bench.warehouse.totals(bench.table, DAY) == ()


def test_files_without_rows_make_an_empty_day(bench: Any, tmp_path: Path) -> None:
    _load(bench, tmp_path, bench.rows(), 1)
    _load(bench, tmp_path, [], 2)
    assert bench.read() == []


@pytest.mark.parametrize(
    "bad",
    [
        pytest.param(lambda rows: [*rows(), *rows(count=1, day=NEXT_DAY)], id="a row of another day"),
        pytest.param(lambda rows: [{**rows()[0], "exchange": None}], id="a null in a required column"),
    ],
)
def test_bad_rows_are_refused_and_the_previous_rows_stay(
    bench: Any, tmp_path: Path, bad: Callable[[Any], list[dict[str, Any]]]
) -> None:
    _load(bench, tmp_path, bench.rows(), 1)
    loose = pa.schema([field.with_nullable(True) for field in bench.table.schema])
    path = write(tmp_path / "bad.parquet", bad(bench.rows), loose)
    with pytest.raises(PermanentFailure):
        bench.warehouse.replace_partition(bench.table, DAY, [bench.file(path)], 2)
    assert bench.read() == bench.rows()


def test_a_file_with_an_unknown_column_is_refused_by_its_name(bench: Any, tmp_path: Path) -> None:
    schema = bench.table.schema.append(pa.field("surprise", pa.int64()))
    path = write(tmp_path / "bad.parquet", [{**row, "surprise": 1} for row in bench.rows()], schema)
    with pytest.raises(PermanentFailure, match="surprise"):
        bench.warehouse.replace_partition(bench.table, DAY, [bench.file(path)], 1)


def test_a_file_without_a_nullable_column_is_loaded_with_nulls(wide: Any, tmp_path: Path) -> None:
    path = write(tmp_path / "old.parquet", rows(), _without("is_maker").schema)
    wide.warehouse.replace_partition(TRADES, DAY, [wide.file(path)], 1)
    assert wide.read() == [{**row, "is_maker": None} for row in rows()]


def test_a_damaged_file_leaves_the_previous_rows(bench: Any, tmp_path: Path) -> None:
    good = _load(bench, tmp_path, bench.rows(), 1)
    damaged = tmp_path / "damaged.parquet"
    damaged.write_bytes(good.read_bytes()[:-40])
    with pytest.raises(PermanentFailure):
        bench.warehouse.replace_partition(bench.table, DAY, [bench.file(good), bench.file(damaged, 3)], 2)
    assert bench.read() == bench.rows()


def test_a_table_must_be_made_before_it_is_loaded(publishing: Any, tmp_path: Path) -> None:
    with pytest.raises(PermanentFailure, match=publishing.table.name):
        _load(publishing, tmp_path, publishing.rows(), 1)


def test_a_fenced_generation_never_loads_and_the_next_one_does(bench: Any, tmp_path: Path) -> None:
    _load(bench, tmp_path, bench.rows(), 1)
    bench.warehouse.fence(bench.table, DAY, [2, 3])
    for late in (2, 3):
        with pytest.raises(Superseded):
            _load(bench, tmp_path, bench.rows(price=0.5), late)
    assert bench.read() == bench.rows()
    _load(bench, tmp_path, bench.rows(price=4.5), 4)
    assert bench.read() == bench.rows(price=4.5)


def test_a_fence_concerns_one_day(bench: Any, tmp_path: Path) -> None:
    bench.warehouse.fence(bench.table, DAY, [1])
    _load(bench, tmp_path, bench.rows(day=NEXT_DAY), 1, NEXT_DAY)
    assert bench.read() == bench.rows(day=NEXT_DAY)


def test_a_generation_that_has_loaded_does_not_load_again(bench: Any, tmp_path: Path) -> None:
    _load(bench, tmp_path, bench.rows(), 1)
    with pytest.raises(Superseded):
        _load(bench, tmp_path, bench.rows(price=0.5), 1)
    bench.warehouse.fence(bench.table, DAY, [1])
    assert bench.read() == bench.rows()


def test_totals_of_a_partition_are_those_of_its_files(bench: Any, tmp_path: Path) -> None:
    path = _load(bench, tmp_path, [*bench.rows(), *bench.rows("ADA-USDT", 70, price=0.1)], 1)
    expected = file_totals(bench.table, [path])
    found = bench.warehouse.totals(bench.table, DAY)
    assert [totals.rows for totals in found] == [70, 3]
    assert compare_totals(expected, found) == []
    assert [replace(totals, floats=()) for totals in found] == [replace(t, floats=()) for t in expected]


def test_totals_of_large_numbers_and_nulls_are_those_of_the_files(wide: Any, tmp_path: Path) -> None:
    content = [
        *rows(),
        *rows("ADA-USDT", 70, price=0.1),
        *rows(None, 2),
        {**rows()[0], "id": None, "price": None},
    ]
    path = _load(wide, tmp_path, content, 1)
    expected = file_totals(TRADES, [path])
    found = wide.warehouse.totals(TRADES, DAY)
    assert [totals.group[1] for totals in found] == [None, "ADA-USDT", "BTC-USDT"]
    assert found[1].exact[0] == 70 * 2**62 + sum(range(70))
    assert compare_totals(expected, found) == []
    assert [replace(totals, floats=()) for totals in found] == [replace(t, floats=()) for t in expected]


def test_a_lost_row_changes_the_totals(bench: Any, tmp_path: Path) -> None:
    path = _load(bench, tmp_path, bench.rows(), 1)
    bench.tamper()
    differences = compare_totals(file_totals(bench.table, [path]), bench.warehouse.totals(bench.table, DAY))
    [group] = {"/".join(totals.group) for totals in file_totals(bench.table, [path])}
    assert differences == [f"{group}: 3 rows in the lake, 2 in the warehouse"]


def test_making_a_table_that_exists_changes_nothing(bench: Any, tmp_path: Path) -> None:
    _load(bench, tmp_path, bench.rows(), 1)
    bench.warehouse.ensure_table(bench.table)
    assert bench.read() == bench.rows()


def test_a_new_nullable_column_is_added_and_old_rows_have_nulls(wide: Any, tmp_path: Path) -> None:
    _load(wide, tmp_path, rows(day=NEXT_DAY), 1, NEXT_DAY)
    wider = _with(Column("note", "STRING", "Free text"))
    wide.warehouse.ensure_table(wider)
    assert wide.read() == [{**row, "note": None} for row in rows(day=NEXT_DAY)]
    path = write(tmp_path / "new.parquet", [{**row, "note": "x"} for row in rows()], wider.schema)
    wide.warehouse.replace_partition(wider, DAY, [wide.file(path)], 1)
    assert [row["note"] for row in wide.read()] == ["x", "x", "x", None, None, None]


def test_a_required_column_becomes_nullable_and_then_takes_nulls(wide: Any, tmp_path: Path) -> None:
    _load(wide, tmp_path, rows(day=NEXT_DAY), 1, NEXT_DAY)
    columns = tuple(replace(c, required=c.required and c.name != "timestamp") for c in TRADES.columns)
    looser = replace(TRADES, columns=columns)
    wide.warehouse.ensure_table(looser)
    path = write(tmp_path / "new.parquet", [{**row, "timestamp": None} for row in rows()], looser.schema)
    wide.warehouse.replace_partition(looser, DAY, [wide.file(path)], 1)
    times = [row["timestamp"] for row in wide.read()]
    assert sorted(time for time in times if time) == [row["timestamp"] for row in rows(day=NEXT_DAY)]
    assert times.count(None) == 3
    with pytest.raises(PermanentFailure, match="timestamp is TIMESTAMP NULLABLE instead of TIMESTAMP REQ"):
        wide.warehouse.ensure_table(TRADES)


@pytest.mark.parametrize(
    ("other", "named"),
    [
        pytest.param(_without("is_maker"), "is_maker exists", id="removed"),
        pytest.param(_with(Column("is_maker", "STRING", "")), "is_maker is BOOL NULLABLE", id="another type"),
        pytest.param(
            _with(Column("is_maker", "BOOL", "", required=True)), "instead of BOOL REQUIRED", id="mode"
        ),
        pytest.param(
            _with(Column("note", "STRING", "", required=True)), "note is required", id="new, required"
        ),
    ],
)
def test_a_column_that_changed_is_refused_by_its_name(wide: Any, other: Table, named: str) -> None:
    with pytest.raises(PermanentFailure, match=named):
        wide.warehouse.ensure_table(other)
    wide.warehouse.ensure_table(TRADES)
