"""What both warehouses promise about one partition."""

from __future__ import annotations

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
    path = write(folder / f"{generation}.parquet", content)
    bench.warehouse.replace_partition(TRADES, day, [bench.file(path)], generation)
    return path


def _without(name: str) -> Table:
    return replace(TRADES, columns=tuple(c for c in TRADES.columns if c.name != name))


def _with(column: Column) -> Table:
    return replace(TRADES, columns=(*(c for c in TRADES.columns if c.name != column.name), column))


def test_a_partition_holds_exactly_the_rows_of_its_files(bench: Any, tmp_path: Path) -> None:
    first, second = rows("ADA-USDT"), rows("BTC-USDT", 4)
    paths = [write(tmp_path / "1.parquet", first), write(tmp_path / "2.parquet", second)]
    bench.warehouse.replace_partition(TRADES, DAY, [bench.file(path) for path in paths], 1)
    assert bench.read() == [*first, *second]


def test_loading_again_replaces_the_day_and_no_other(bench: Any, tmp_path: Path) -> None:
    _load(bench, tmp_path, rows(count=5), 1)
    _load(bench, tmp_path, rows(day=NEXT_DAY), 1, NEXT_DAY)
    _load(bench, tmp_path, rows(price=99.5), 2)
    assert bench.read() == [*rows(price=99.5), *rows(day=NEXT_DAY)]


def test_an_empty_day_empties_its_partition_and_no_other(bench: Any, tmp_path: Path) -> None:
    _load(bench, tmp_path, rows(), 1)
    _load(bench, tmp_path, rows(day=NEXT_DAY), 1, NEXT_DAY)
    bench.warehouse.replace_partition(TRADES, DAY, [], 2)
    assert bench.read() == rows(day=NEXT_DAY)
    assert bench.warehouse.totals(TRADES, DAY) == ()


def test_files_without_rows_make_an_empty_day(bench: Any, tmp_path: Path) -> None:
    _load(bench, tmp_path, rows(), 1)
    _load(bench, tmp_path, [], 2)
    assert bench.read() == []


@pytest.mark.parametrize(
    "bad",
    [
        pytest.param([*rows(), *rows(count=1, day=NEXT_DAY)], id="a row of another day"),
        pytest.param([{**rows()[0], "exchange": None}], id="a null in a required column"),
    ],
)
def test_bad_rows_are_refused_and_the_previous_rows_stay(
    bench: Any, tmp_path: Path, bad: list[dict[str, Any]]
) -> None:
    _load(bench, tmp_path, rows(), 1)
    loose = pa.schema([field.with_nullable(True) for field in TRADES.schema])
    path = write(tmp_path / "bad.parquet", bad, loose)
    with pytest.raises(PermanentFailure):
        bench.warehouse.replace_partition(TRADES, DAY, [bench.file(path)], 2)
    assert bench.read() == rows()


def test_a_file_with_an_unknown_column_is_refused_by_its_name(bench: Any, tmp_path: Path) -> None:
    schema = TRADES.schema.append(pa.field("surprise", pa.int64()))
    path = write(tmp_path / "bad.parquet", [{**row, "surprise": 1} for row in rows()], schema)
    with pytest.raises(PermanentFailure, match="surprise"):
        bench.warehouse.replace_partition(TRADES, DAY, [bench.file(path)], 1)


def test_a_file_without_a_nullable_column_is_loaded_with_nulls(bench: Any, tmp_path: Path) -> None:
    path = write(tmp_path / "old.parquet", rows(), _without("is_maker").schema)
    bench.warehouse.replace_partition(TRADES, DAY, [bench.file(path)], 1)
    assert bench.read() == [{**row, "is_maker": None} for row in rows()]


def test_a_damaged_file_leaves_the_previous_rows(bench: Any, tmp_path: Path) -> None:
    good = _load(bench, tmp_path, rows(), 1)
    damaged = tmp_path / "damaged.parquet"
    damaged.write_bytes(good.read_bytes()[:-40])
    with pytest.raises(PermanentFailure):
        bench.warehouse.replace_partition(TRADES, DAY, [bench.file(good), bench.file(damaged, 3)], 2)
    assert bench.read() == rows()


def test_a_table_must_be_made_before_it_is_loaded(bench: Any, tmp_path: Path) -> None:
    path = write(tmp_path / "1.parquet", rows())
    with pytest.raises(PermanentFailure, match="other"):
        bench.warehouse.replace_partition(replace(TRADES, name="other"), DAY, [bench.file(path)], 1)


def test_a_fenced_generation_never_loads_and_the_next_one_does(bench: Any, tmp_path: Path) -> None:
    _load(bench, tmp_path, rows(), 1)
    bench.warehouse.fence(TRADES, DAY, [2, 3])
    for late in (2, 3):
        with pytest.raises(Superseded):
            _load(bench, tmp_path, rows(price=0.5), late)
    assert bench.read() == rows()
    _load(bench, tmp_path, rows(price=4.5), 4)
    assert bench.read() == rows(price=4.5)


def test_a_fence_concerns_one_day(bench: Any, tmp_path: Path) -> None:
    bench.warehouse.fence(TRADES, DAY, [1])
    _load(bench, tmp_path, rows(day=NEXT_DAY), 1, NEXT_DAY)
    assert bench.read() == rows(day=NEXT_DAY)


def test_a_generation_that_has_loaded_does_not_load_again(bench: Any, tmp_path: Path) -> None:
    _load(bench, tmp_path, rows(), 1)
    with pytest.raises(Superseded):
        _load(bench, tmp_path, rows(price=0.5), 1)
    bench.warehouse.fence(TRADES, DAY, [1])
    assert bench.read() == rows()


def test_totals_of_a_partition_are_those_of_its_files(bench: Any, tmp_path: Path) -> None:
    content = [
        *rows(),
        *rows("ADA-USDT", 70, price=0.1),
        *rows(None, 2),
        {**rows()[0], "id": None, "price": None},
    ]
    path = _load(bench, tmp_path, content, 1)
    expected = file_totals(TRADES, [path])
    found = bench.warehouse.totals(TRADES, DAY)
    assert [totals.group[1] for totals in found] == [None, "ADA-USDT", "BTC-USDT"]
    assert found[1].exact[0] == 70 * 2**62 + sum(range(70))
    assert compare_totals(expected, found) == []
    assert [replace(totals, floats=()) for totals in found] == [replace(t, floats=()) for t in expected]


def test_a_lost_row_changes_the_totals(bench: Any, tmp_path: Path) -> None:
    path = _load(bench, tmp_path, rows(), 1)
    bench.tamper()
    differences = compare_totals(file_totals(TRADES, [path]), bench.warehouse.totals(TRADES, DAY))
    assert differences == ["binance/BTC-USDT: 3 rows in the lake, 2 in the warehouse"]


def test_making_a_table_that_exists_changes_nothing(bench: Any, tmp_path: Path) -> None:
    _load(bench, tmp_path, rows(), 1)
    bench.warehouse.ensure_table(TRADES)
    assert bench.read() == rows()


def test_a_new_nullable_column_is_added_and_old_rows_have_nulls(bench: Any, tmp_path: Path) -> None:
    _load(bench, tmp_path, rows(day=NEXT_DAY), 1, NEXT_DAY)
    wider = _with(Column("note", "STRING", "Free text"))
    bench.warehouse.ensure_table(wider)
    assert bench.read() == [{**row, "note": None} for row in rows(day=NEXT_DAY)]
    path = write(tmp_path / "new.parquet", [{**row, "note": "x"} for row in rows()], wider.schema)
    bench.warehouse.replace_partition(wider, DAY, [bench.file(path)], 1)
    assert [row["note"] for row in bench.read()] == ["x", "x", "x", None, None, None]


@pytest.mark.parametrize(
    ("other", "named"),
    [
        pytest.param(_without("is_maker"), "is_maker exists", id="removed"),
        pytest.param(_with(Column("is_maker", "STRING", "")), "is_maker is BOOL NULLABLE", id="another type"),
        pytest.param(
            _with(Column("is_maker", "BOOL", "", required=True)), "wanted is BOOL REQUIRED", id="mode"
        ),
        pytest.param(
            _with(Column("note", "STRING", "", required=True)), "note is required", id="new, required"
        ),
    ],
)
def test_a_column_that_changed_is_refused_by_its_name(bench: Any, other: Table, named: str) -> None:
    with pytest.raises(PermanentFailure, match=named):
        bench.warehouse.ensure_table(other)
    bench.warehouse.ensure_table(TRADES)
