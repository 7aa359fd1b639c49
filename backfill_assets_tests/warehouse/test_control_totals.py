"""Control totals find every difference, and nothing else."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from warehouse_samples import TRADES, rows, write

from backfill_assets.columns import Column
from backfill_assets.failures import PermanentFailure
from backfill_assets.warehouse.tables import Table
from backfill_assets.warehouse.totals import GroupTotals, compare_totals, file_totals

GROUP = GroupTotals(("binance", "BTC-USDT"), 3, 1, 2, (10, 20), (1.5,))


def test_equal_totals_have_no_differences() -> None:
    assert compare_totals([GROUP], [replace(GROUP)]) == []
    assert compare_totals([], []) == []


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"rows": 4}, "binance/BTC-USDT: 3 rows in the lake, 4 in the warehouse"),
        (
            {"first_time_us": 0},
            "binance/BTC-USDT: first time 1970-01-01T00:00:00.000001Z in the lake, "
            "1970-01-01T00:00:00.000000Z in the warehouse",
        ),
        (
            {"last_time_us": None},
            "binance/BTC-USDT: last time 1970-01-01T00:00:00.000002Z in the lake, none in the warehouse",
        ),
        ({"exact": (10, 21)}, "binance/BTC-USDT: sum of timestamp is 20 in the lake, 21 in the warehouse"),
        ({"floats": (1.6,)}, "binance/BTC-USDT: sum of price is 1.5 in the lake, 1.6 in the warehouse"),
        ({"floats": (math.nan,)}, "binance/BTC-USDT: sum of price is 1.5 in the lake, nan in the warehouse"),
    ],
)
def test_a_difference_is_one_line_for_a_person(change: dict[str, Any], line: str) -> None:
    assert compare_totals([GROUP], [replace(GROUP, **change)], table=TRADES) == [line]


def test_a_missing_and_a_surplus_group_are_named() -> None:
    other = replace(GROUP, group=("kraken", None))
    assert compare_totals([GROUP], [other]) == [
        "binance/BTC-USDT: 3 rows in the lake, none in the warehouse",
        "kraken/null: none in the lake, 3 rows in the warehouse",
    ]


def test_float_sums_have_a_relative_tolerance_and_exact_sums_none() -> None:
    assert compare_totals([GROUP], [replace(GROUP, floats=(1.5 * (1 + 9e-10),))]) == []
    assert compare_totals([GROUP], [replace(GROUP, floats=(1.5 * (1 + 2e-9),))]) != []
    assert compare_totals([replace(GROUP, exact=(2**70, 0))], [replace(GROUP, exact=(2**70 + 1, 0))]) != []
    nan = replace(GROUP, floats=(math.nan,))
    assert compare_totals([nan], [nan]) == []


def test_totals_of_files_are_sums_over_all_of_them(tmp_path: Path) -> None:
    paths = [write(tmp_path / f"{i}.parquet", rows(count=2, price=float(i))) for i in (1, 2)]
    (totals,) = file_totals(TRADES, paths)
    midnight = 1_704_067_200_000_000
    assert totals == GroupTotals(
        group=("binance", "BTC-USDT"),
        rows=4,
        first_time_us=midnight + 1,
        last_time_us=midnight + 1_000_001,
        exact=(4 * 2**62 + 2, 4 * (midnight + 1) + 2_000_000),
        floats=(8.0,),
    )


def test_totals_of_no_files_and_of_no_rows_are_none(tmp_path: Path) -> None:
    ungrouped = replace(TRADES, group_by=())
    empty = [write(tmp_path / "1.parquet", [])]
    for table in (TRADES, ungrouped):
        assert file_totals(table, []) == ()
        assert file_totals(table, empty) == ()
    (totals,) = file_totals(ungrouped, [write(tmp_path / "2.parquet", rows())])
    assert (totals.group, totals.rows) == ((), 3)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    path = tmp_path / "1.parquet"
    path.write_bytes(b"PAR1")
    with pytest.raises(PermanentFailure, match=r"1\.parquet: not readable as rows of trades"):
        file_totals(TRADES, [path])


@pytest.mark.parametrize(
    "change",
    [
        {"name": "a-b"},
        {"time_column": "price"},
        {"exact_sums": ("price",)},
        {"float_sums": ("id",)},
        {"group_by": ("id",)},
        {"clustering": ("nothing",)},
        {"partition_column": "timestamp"},
        {"columns": (Column("date", "DATE", ""), *TRADES.columns[1:])},
    ],
)
def test_a_table_that_cannot_be_proven_cannot_be_declared(change: dict[str, Any]) -> None:
    fine = {name: getattr(TRADES, name) for name in TRADES.__dataclass_fields__}
    assert Table(**fine) == TRADES
    with pytest.raises(ValueError, match="table"):
        Table(**{**fine, **change})


def test_sums_of_floats_neither_overflow_nor_cancel(tmp_path: Path) -> None:
    values = [1e308, 1e308, -1e308, -5.0, 1.5, 2.0]
    paths = [write(tmp_path / f"{i}.parquet", rows(count=1, price=v)) for i, v in enumerate(values)]
    (totals,) = file_totals(TRADES, paths)
    assert (totals.rows, totals.floats) == (6, (3.5,))
