"""Candles compared with their ticks and each other: every wrong column is found, rounding is accepted."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from backfill_assets.candles import recomputed
from backfill_assets.candles.consistency import (
    LIMIT,
    mismatches_between_timeframes,
    mismatches_with_ticks,
)
from backfill_assets.candles.merge import day_of_candles
from backfill_assets.candles.recomputed import ComparedFile, OtherFile
from backfill_assets.contracts import Contract, Contracts
from backfill_assets.ticks.repeats import repeated_rows, rows_of_both
from backfill_assets_tests.candles.candle_samples import (
    DAY,
    END,
    MINUTE,
    START,
    Trade,
    numbered,
    partials_of,
    write_ticks,
)

TIMEFRAMES = ("1m", "5m", "1h", "1d")
EXACT = ("open", "high", "low", "close", "trade_count", "first_trade_time", "last_trade_time")
SUMS = ("volume", "quote_volume", "buy_volume", "sell_volume")


def trades(count: int = 400, **changes: Any) -> list[Trade]:
    """Trades over four hours with ties, all sides, and rows that are not trades."""
    chance = random.Random(5)
    found = [
        Trade(
            START + chance.randrange(240) * MINUTE + chance.choice([0, 0, 1, 59_999_999]),
            chance.choice([0.0, None]) if chance.random() < 0.05 else chance.uniform(90, 110),
            chance.expovariate(1),
            side=chance.choice(["buy", "sell", "unknown", None]),
            symbol=chance.choice(["BTC-USDT", "ETH-USDT", None]),
        )
        for _ in range(count)
    ]
    # Every symbol has trades of both sides in its first minute, so that a test can change each sum there.
    sides = [
        Trade(START, 100.0, 2.0, side=s, symbol=m) for m in ("BTC-USDT", "ETH-USDT") for s in ("buy", "sell")
    ]
    return [Trade(**{**vars(t), **changes}) for t in [*sides, *found, Trade(END, 5.0), Trade(START - 1, 7.0)]]


def edited(table: pa.Table, column: str, change: Callable[[Any], Any], row: int = 1) -> pa.Table:
    """The table with one value changed."""
    values = table[column].to_pylist()
    values[row] = change(values[row])
    index = table.column_names.index(column)
    return table.set_column(
        index, table.schema.field(column), pa.array(values, table.schema.field(column).type)
    )


def nudged(value: Any) -> Any:
    """The same value with a slight error: one part in a billion is too small to be seen, this one is not."""
    if isinstance(value, float):
        return value * (1 + 1e-8)
    return value + (timedelta(microseconds=1) if not isinstance(value, int) else 1)


class TestTicks:
    """K1: partials of one file against those of another engine."""

    @staticmethod
    def compare(
        folder: Path, rows: list[Trade], found: pa.Table, seam_window_seconds: int = 300, **options: Any
    ) -> list[dict[str, Any]]:
        numeric = all(t.id is not None for t in rows)
        file = ComparedFile(folder / "ticks.parquet", found, **{"numeric_ids": numeric, **options})
        [differing] = mismatches_with_ticks([file], day=DAY, seam_window_seconds=seam_window_seconds)
        return differing

    def test_of_several_files_each_is_compared_by_its_own_ids_and_units(self, tmp_path: Path) -> None:
        contracts = {"BTC-USDT": (Contract(100.0, inverse=True),)}
        plain, ids = trades(), numbered(trades())
        random.Random(1).shuffle(ids)
        twice = [*ids, *ids[:7]]
        cases: list[tuple[list[Trade], dict[str, Any], dict[str, Any]]] = [
            (plain, {}, {}),
            (ids, {}, {}),
            (plain, {"contracts": contracts}, {"contracts": contracts}),
            (twice, {"left_out": range(len(ids), len(twice))}, {"repeats": True}),
        ]
        files = []
        for number, (rows, made_with, options) in enumerate(cases):
            folder = tmp_path / str(number)
            folder.mkdir()
            found = partials_of(folder, rows, **made_with)
            files.append(ComparedFile(folder / "ticks.parquet", found, rows is not plain, **options))
        assert mismatches_with_ticks(files, day=DAY, seam_window_seconds=300) == [[], [], [], []]
        wrong = [*files[:3], replace(files[3], partials=edited(files[3].partials, "high", nudged))]
        differing = mismatches_with_ticks(wrong, day=DAY, seam_window_seconds=300)
        assert differing[:3] == [[], [], []]
        assert [row["differs"] for row in differing[3]] == ["high"]
        swapped = [replace(files[1], partials=files[2].partials), *files[2:]]
        assert mismatches_with_ticks(swapped, day=DAY, seam_window_seconds=300)[0] != []

    @pytest.mark.parametrize("ids", [False, True])
    def test_two_engines_agree(self, ids: bool, tmp_path: Path) -> None:
        rows = numbered(trades()) if ids else trades()
        if ids:
            random.Random(1).shuffle(rows)
        found = partials_of(tmp_path, rows)
        assert found.num_rows > 100
        assert self.compare(tmp_path, rows, found) == []

    @pytest.mark.parametrize("rows_of_a_batch", [1, 2, 7])
    @pytest.mark.parametrize("ids", [False, True])
    def test_the_ends_of_batches_change_nothing(
        self, ids: bool, rows_of_a_batch: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A minute goes on in the next batch; so do the ties at its ends and the rows that are left out."""
        rows = [replace(t, us=t.us // MINUTE * MINUTE) for t in trades()]
        if ids:
            rows = numbered(rows)
            random.Random(1).shuffle(rows)
            rows += rows[:9]
        left_out = range(len(rows) - 9, len(rows)) if ids else ()
        found = partials_of(tmp_path, rows, left_out=left_out)
        monkeypatch.setattr(recomputed, "BATCH_ROWS", rows_of_a_batch)
        assert self.compare(tmp_path, rows, found, repeats=ids) == []
        assert self.compare(tmp_path, rows, edited(found, "open", nudged), repeats=ids)
        if ids:
            assert self.compare(tmp_path, rows, found)

    @pytest.mark.parametrize("column", [*EXACT, *SUMS])
    def test_a_column_that_is_wrong_in_one_bucket_is_named(self, column: str, tmp_path: Path) -> None:
        rows = trades()
        found = partials_of(tmp_path, rows)
        bucket = found.slice(1, 1).to_pylist()[0]
        assert self.compare(tmp_path, rows, edited(found, column, nudged)) == [
            {"symbol": bucket["symbol"], "open_time": bucket["open_time"], "differs": column}
        ]

    @pytest.mark.parametrize("column", SUMS)
    def test_rounding_of_a_sum_is_no_mismatch(self, column: str, tmp_path: Path) -> None:
        rows = trades()
        found = partials_of(tmp_path, rows)
        for apart in (1 + 1e-12, 1 - 1e-12, 1 + 9e-10):
            near = edited(found, column, apart.__mul__)
            assert self.compare(tmp_path, rows, near) == []
        assert self.compare(tmp_path, rows, edited(found, column, (1 + 1.1e-9).__mul__))

    @pytest.mark.parametrize("column", ["open", "high", "low", "close"])
    def test_prices_have_no_tolerance(self, column: str, tmp_path: Path) -> None:
        rows = trades()
        found = partials_of(tmp_path, rows)
        assert self.compare(tmp_path, rows, edited(found, column, lambda v: v * (1 + 1e-12)))

    def test_a_missing_and_an_extra_bucket_are_found(self, tmp_path: Path) -> None:
        rows = trades()
        found = partials_of(tmp_path, rows)
        shorter = pa.concat_tables([found.slice(0, 1), found.slice(2)])
        assert len(self.compare(tmp_path, rows, shorter)) == 1
        fewer = [t for t in rows if t.us // MINUTE != START // MINUTE or t.symbol != "ETH-USDT"]
        partials_of(tmp_path, fewer)
        differing = self.compare(tmp_path, fewer, found)
        assert [(d["symbol"], d["differs"].split()) for d in differing] == [("ETH-USDT", [*EXACT, *SUMS])]

    def test_no_more_are_listed_than_help(self, tmp_path: Path) -> None:
        rows = trades()
        found = partials_of(tmp_path, rows)
        assert found.num_rows > LIMIT
        assert len(self.compare(tmp_path, rows, found.slice(0, 0))) == LIMIT

    @pytest.mark.parametrize(
        "of_symbol",
        [
            (Contract(0.01),),
            (Contract(100.0, inverse=True),),
            (Contract(10.0), Contract(100.0, since_us=START + 30 * MINUTE + 7)),
            (Contract(None),),
            (Contract(None), Contract(2.0, since_us=START + 30 * MINUTE + 7)),
        ],
    )
    def test_contracts_are_computed_twice_too(self, of_symbol: Contracts, tmp_path: Path) -> None:
        rows, contracts = trades(), {"ETH-USDT": of_symbol}
        found = partials_of(tmp_path, rows, contracts=contracts)
        assert self.compare(tmp_path, rows, found, contracts=contracts) == []
        differing = self.compare(tmp_path, rows, found)
        assert {d["symbol"] for d in differing} == {"ETH-USDT"}

    @pytest.mark.parametrize("name", ["{}", "a-{}"])
    def test_repeated_trades_are_left_out_by_both(self, name: str, tmp_path: Path) -> None:
        once = [replace(t, id=name.format(t.id)) for t in numbered(trades())]
        rows = [*once, *once[3:20], once[0], replace(once[1], price=77.0)]
        numeric = name == "{}"
        again = repeated_rows(write_ticks(tmp_path / "twice.parquet", rows)).tolist()
        assert again == list(range(len(once), len(once) + 18))
        found = partials_of(tmp_path, rows, left_out=again, numeric_ids=numeric)
        compare = partial(self.compare, tmp_path, rows, repeats=True, numeric_ids=numeric)
        assert compare(found) == []
        for broken in ([], again[:-1], again[1:], [0, *again]):
            assert compare(partials_of(tmp_path, rows, left_out=broken, numeric_ids=numeric))

    def test_of_equal_rows_the_first_counts(self, tmp_path: Path) -> None:
        """A third row of the same time is between the two rows of a trade: row order breaks the tie."""
        one, other = Trade(START, 100.0, id="a"), Trade(START, 101.0, id="b")
        rows = [one, other, one]
        again = repeated_rows(write_ticks(tmp_path / "twice.parquet", rows)).tolist()
        found = partials_of(tmp_path, rows, left_out=again, numeric_ids=False)
        assert (found["open"].to_pylist(), found["close"].to_pylist()) == ([100.0], [101.0])
        assert self.compare(tmp_path, rows, found, repeats=True, numeric_ids=False) == []
        later = partials_of(tmp_path, rows, left_out=[0], numeric_ids=False)
        assert self.compare(tmp_path, rows, later, repeats=True, numeric_ids=False)

    @pytest.mark.parametrize("us", [START, START + 60_000_000 - 1], ids=["first", "last"])
    def test_the_widest_ids_break_ties(self, us: int, tmp_path: Path) -> None:
        """Test both ends of a minute, where the integer that orders ids is widest."""
        ids = (0, (1 << 63) - 1, -(1 << 63) + 1, 5)
        rows = [Trade(us, price, id=str(n)) for price, n in zip((1.0, 2.0, 3.0, 4.0), ids, strict=True)]
        found = partials_of(tmp_path, rows, numeric_ids=True)
        assert (found["open"].to_pylist(), found["close"].to_pylist()) == ([3.0], [2.0])
        assert self.compare(tmp_path, rows, found) == []
        by_rows = partials_of(tmp_path, rows, numeric_ids=False)
        assert [row["differs"] for row in self.compare(tmp_path, rows, by_rows)] == ["open close"]

    @pytest.mark.parametrize("row_group_rows", [7, 1 << 20])
    def test_trades_of_the_day_before_are_left_out_by_both(self, row_group_rows: int, tmp_path: Path) -> None:
        rows = [replace(t, side=None if n % 3 else "buy") for n, t in enumerate(numbered(trades()))]
        ticks = write_ticks(tmp_path / "ours.parquet", rows, row_group_rows=row_group_rows)
        theirs = [*rows[:9], replace(rows[9], amount=77.0)]
        before = write_ticks(tmp_path / "before.parquet", theirs, row_group_rows=row_group_rows)
        between = (min(t.us for t in rows), max(t.us for t in rows))
        shared = rows_of_both(ticks, before, between).tolist()
        assert shared == list(range(9))
        assert rows_of_both(ticks, before, (END, END)).tolist() == []
        found = partials_of(tmp_path, rows, left_out=shared)
        others = (OtherFile(before, between, ("BTCUSDT", "BTCUSDT")),)
        assert self.compare(tmp_path, rows, found, others=others) == []
        assert self.compare(tmp_path, rows, found)
        assert self.compare(tmp_path, rows, partials_of(tmp_path, rows), others=others)

    @pytest.mark.parametrize("seam", [0, 90, 300])
    def test_both_cut_the_seam_at_the_same_place(self, seam: int, tmp_path: Path) -> None:
        rows = [Trade(edge + n * MINUTE // 2) for edge in (START, END) for n in range(-14, 14)]
        found = partials_of(tmp_path, rows, seam=seam)
        assert self.compare(tmp_path, rows, found, seam_window_seconds=seam) == []

    def test_a_file_without_trades_agrees_with_no_partials(self, tmp_path: Path) -> None:
        for rows in ([], [Trade(START, price=None)]):
            assert self.compare(tmp_path, rows, partials_of(tmp_path, rows), numeric_ids=False) == []

    @pytest.mark.parametrize("value", [float("nan"), float("inf")])
    def test_values_that_are_no_numbers_are_no_trades_for_either(self, value: float, tmp_path: Path) -> None:
        rows = [Trade(START), Trade(START, price=value), Trade(START + MINUTE, amount=value)]
        assert self.compare(tmp_path, rows, partials_of(tmp_path, rows)) == []


@pytest.fixture(scope="module")
def candles(tmp_path_factory: pytest.TempPathFactory) -> pa.Table:
    """A day at four timeframes."""
    partials = partials_of(tmp_path_factory.mktemp("ticks"), trades())
    return day_of_candles(DAY, [partials], TIMEFRAMES)


class TestTimeframes:
    """K2: larger timeframes against the base candles."""

    def row_of(self, candles: pa.Table, timeframe: str) -> int:
        return int(pc.index(candles["timeframe"], timeframe).as_py())

    def test_a_roll_up_agrees(self, candles: pa.Table) -> None:
        assert mismatches_between_timeframes(pl.DataFrame(candles), TIMEFRAMES) == []

    @pytest.mark.parametrize("timeframe", ["5m", "1h", "1d"])
    @pytest.mark.parametrize("column", [*EXACT, *SUMS])
    def test_a_column_that_is_wrong_in_one_candle_is_named(
        self, column: str, timeframe: str, candles: pa.Table
    ) -> None:
        wrong = edited(candles, column, nudged, self.row_of(candles, timeframe))
        found = mismatches_between_timeframes(pl.DataFrame(wrong), TIMEFRAMES)
        assert [(d["timeframe"], d["symbol"], d["differs"]) for d in found] == [
            (timeframe, "BTC-USDT", column)
        ]

    @pytest.mark.parametrize("column", SUMS)
    def test_rounding_of_a_sum_is_no_mismatch(self, column: str, candles: pa.Table) -> None:
        near = edited(candles, column, lambda v: v * (1 + 1e-12), self.row_of(candles, "1h"))
        assert mismatches_between_timeframes(pl.DataFrame(near), TIMEFRAMES) == []

    def test_a_base_candle_that_is_wrong_shows_in_every_larger_one(self, candles: pa.Table) -> None:
        wrong = edited(candles, "trade_count", nudged, self.row_of(candles, "1m"))
        found = mismatches_between_timeframes(pl.DataFrame(wrong), TIMEFRAMES)
        assert [d["timeframe"] for d in found] == ["5m", "1h", "1d"]

    def test_a_missing_candle_is_found(self, candles: pa.Table) -> None:
        row = self.row_of(candles, "1d")
        shorter = pa.concat_tables([candles.slice(0, row), candles.slice(row + 1)])
        found = mismatches_between_timeframes(pl.DataFrame(shorter), TIMEFRAMES)
        assert [(d["timeframe"], d["symbol"]) for d in found] == [("1d", "BTC-USDT")]

    def test_a_day_without_candles_agrees(self, candles: pa.Table) -> None:
        assert mismatches_between_timeframes(pl.DataFrame(candles.slice(0, 0)), TIMEFRAMES) == []

    def test_the_base_timeframe_alone_has_nothing_to_compare(self, candles: pa.Table) -> None:
        assert mismatches_between_timeframes(pl.DataFrame(candles), ("1m",)) == []
