"""Trades of one file become partial candles: which trades count, and in which order."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from backfill_assets.candles.merge import day_of_candles
from backfill_assets.contracts import Contract
from backfill_assets.ticks import partials
from backfill_assets.ticks.repeats import repeated_rows
from backfill_assets.ticks.schemas import PARTIAL_SCHEMA
from backfill_assets_tests.candles.candle_samples import (
    DAY,
    END,
    MINUTE,
    SECOND,
    START,
    Trade,
    numbered,
    partials_of,
    write_ticks,
)


def one(table: pa.Table) -> dict[str, Any]:
    """The only partial candle."""
    rows: list[dict[str, Any]] = table.to_pylist()
    assert len(rows) == 1
    return rows[0]


def total(row: dict[str, Any], name: str) -> float:
    return float(row[name] + row[f"{name}_error"])


def at(us: int) -> datetime:
    return datetime.fromtimestamp(us // SECOND, tz=UTC).replace(microsecond=us % SECOND)


def test_a_minute_of_trades_is_one_row_with_all_its_parts(tmp_path: Path) -> None:
    trades = [
        Trade(START, 100.0, 1.0, side="buy"),
        Trade(START + SECOND, 103.0, 2.0, side="sell"),
        Trade(START + 2 * SECOND, 98.0, 3.0, side="unknown"),
        Trade(START + MINUTE - 1, 101.0, 0.5, side=None),
    ]
    table = partials_of(tmp_path, numbered(trades, 7))
    assert table.schema.equals(PARTIAL_SCHEMA)
    row = one(table)
    assert [row[c] for c in ("exchange", "symbol", "open_time")] == ["binance", "BTC-USDT", at(START)]
    assert [row[c] for c in ("open", "high", "low", "close")] == [100.0, 103.0, 98.0, 101.0]
    assert (row["trade_count"], row["open_id"], row["close_id"]) == (4, 7, 10)
    assert (row["first_trade_time"], row["last_trade_time"]) == (at(START), at(START + MINUTE - 1))
    assert total(row, "volume") == 6.5
    assert total(row, "quote_volume") == 100 + 206 + 294 + 50.5
    assert (total(row, "buy_volume"), total(row, "sell_volume")) == (1.0, 2.0)


@pytest.mark.parametrize(
    "broken",
    [
        {"price": None},
        {"price": 0.0},
        {"price": -1.0},
        {"price": math.nan},
        {"price": math.inf},
        {"amount": None},
        {"amount": 0.0},
        {"amount": -1.0},
        {"amount": math.nan},
        {"amount": math.inf},
        {"symbol": None},
    ],
)
def test_rows_that_are_no_trades_never_enter_a_candle(broken: dict[str, Any], tmp_path: Path) -> None:
    trades = [Trade(START + 1, 100.0), Trade(**{"us": START, **broken}), Trade(**{"us": START + 2, **broken})]
    row = one(partials_of(tmp_path, trades))
    assert (row["trade_count"], row["first_trade_time"], row["last_trade_time"]) == (
        1,
        at(START + 1),
        at(START + 1),
    )
    assert (row["open"], row["high"], row["low"], row["close"], total(row, "volume")) == (
        100.0,
        100.0,
        100.0,
        100.0,
        1.0,
    )


def test_the_smallest_price_and_amount_are_a_trade(tmp_path: Path) -> None:
    row = one(partials_of(tmp_path, [Trade(START, 1e-18, 1e-18), Trade(START, 9e-19, 1.0)]))
    assert (row["low"], row["trade_count"]) == (1e-18, 1)


@pytest.mark.parametrize("trades", [[], [Trade(START, price=None)], [Trade(START, symbol=None)]])
def test_a_file_without_trades_gives_a_table_without_rows(trades: list[Trade], tmp_path: Path) -> None:
    table = partials_of(tmp_path, trades)
    assert (table.num_rows, table.schema) == (0, PARTIAL_SCHEMA)


@pytest.mark.parametrize(
    ("seam", "offset", "kept"),
    [
        (300, -1, True),
        (300, -5 * MINUTE, True),
        (300, -5 * MINUTE - 1, False),
        (0, -1, False),
        (0, 0, True),
        # The seam is a whole number of minutes, because only whole buckets can be merged.
        (90, -2 * MINUTE, True),
        (90, -2 * MINUTE - 1, False),
    ],
)
def test_trades_within_the_seam_count_for_the_neighbour_and_others_are_misplaced(
    seam: int, offset: int, kept: bool, tmp_path: Path
) -> None:
    assert partials_of(tmp_path, [Trade(START + offset)], seam=seam).num_rows == kept
    assert partials_of(tmp_path, [Trade(END - 1 - offset)], seam=seam).num_rows == kept


def test_a_file_gives_the_neighbours_minutes_under_their_own_time(tmp_path: Path) -> None:
    table = partials_of(tmp_path, [Trade(START), Trade(START - 1), Trade(END), Trade(END - 1)])
    assert table["open_time"].to_pylist() == [at(START - MINUTE), at(START), at(END - MINUTE), at(END)]


@pytest.mark.parametrize(
    ("trades", "first", "last"),
    [
        # Time orders trades, not row number.
        ([Trade(START + 2, 3.0), Trade(START, 1.0), Trade(START + 1, 2.0)], 1.0, 3.0),
        # Without ids, row number breaks equal times.
        ([Trade(START, 1.0), Trade(START, 2.0), Trade(START, 3.0)], 1.0, 3.0),
        # With ids, numeric id breaks equal times.
        ([Trade(START, 1.0, id="10"), Trade(START, 2.0, id="9"), Trade(START, 3.0, id="100")], 2.0, 3.0),
        # Row number breaks equal ids.
        ([Trade(START, 1.0, id="5"), Trade(START, 2.0, id="5")], 1.0, 2.0),
        # Time comes before the id.
        ([Trade(START, 1.0, id="9"), Trade(START + 1, 2.0, id="8")], 1.0, 2.0),
        # If one row has no numeric id, row numbers decide.
        ([Trade(START, 1.0, id="10"), Trade(START, 2.0, id="9"), Trade(START, 3.0)], 1.0, 3.0),
    ],
)
def test_open_and_close_are_first_and_last_by_time_then_id_then_row(
    trades: list[Trade], first: float, last: float, tmp_path: Path
) -> None:
    row = one(partials_of(tmp_path, trades))
    assert (row["open"], row["close"]) == (first, last)


def test_symbols_of_a_grouped_file_are_kept_apart_and_sorted(tmp_path: Path) -> None:
    trades = [
        Trade(START + n * MINUTE, float(n + 1), symbol=symbol)
        for symbol in ("XRP-USDT", "ADA-USDT", "ETH-USDT")
        for n in (2, 0, 1)
    ]
    table = partials_of(tmp_path, [*trades, Trade(START, 9.0, symbol=None)])
    assert table["symbol"].to_pylist() == [s for s in ("ADA-USDT", "ETH-USDT", "XRP-USDT") for _ in range(3)]
    assert table["open"].to_pylist() == [1.0, 2.0, 3.0] * 3


@pytest.mark.parametrize("batch_rows", [1, 2, 3, 1000])
def test_the_size_of_batches_changes_no_bit(
    batch_rows: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trades = [
        Trade(
            START + (n * 7919 % 300) * SECOND,
            0.1 * (n % 13 + 1),
            0.3 / (n + 1),
            symbol=("XRP-USDT", "ADA-USDT", None)[n % 3] if n > 40 else "XRP-USDT",
            side=("buy", "sell", None)[n % 2 + (n > 50)],
        )
        for n in range(100)
    ]
    whole = partials_of(tmp_path, numbered(trades))
    monkeypatch.setattr(partials, "BATCH_ROWS", batch_rows)
    assert partials_of(tmp_path, numbered(trades)).equals(whole)
    assert whole.num_rows == 10


@pytest.mark.parametrize("amounts", [(1e16, 1.0, 1.0, 1.0, 1.0), (1.0, 1e16, 1.0, 1.0, 1.0)])
def test_sums_keep_what_plain_addition_loses(amounts: tuple[float, ...], tmp_path: Path) -> None:
    trades = [Trade(START, 1.0, amount) for amount in amounts]
    row = one(partials_of(tmp_path, trades))
    assert sum(amounts[:2]) == 1e16, "plain floats lose each of the ones"
    assert (row["volume"], row["volume_error"]) == (1e16, 4.0)
    candles = day_of_candles(DAY, [partials_of(tmp_path, trades)] * 2, ("1m", "1d"))
    assert candles["volume"].to_pylist() == [2e16 + 8] * 2


class TestContracts:
    TRADES = (Trade(START, 100.0, 3.0, side="buy"), Trade(START + 1, 200.0, 6.0, side="sell"))

    def test_amounts_of_spot_are_base_units(self, tmp_path: Path) -> None:
        row = one(partials_of(tmp_path, self.TRADES, contracts={"BTC-USDT": (Contract(),)}))
        assert (total(row, "volume"), total(row, "quote_volume")) == (9.0, 1500.0)

    def test_a_multiplier_makes_contracts_into_base_units(self, tmp_path: Path) -> None:
        row = one(partials_of(tmp_path, self.TRADES, contracts={"BTC-USDT": (Contract(0.5),)}))
        assert (total(row, "volume"), total(row, "quote_volume")) == (4.5, 750.0)
        assert (total(row, "buy_volume"), total(row, "sell_volume")) == (1.5, 3.0)

    def test_inverse_contracts_have_a_harmonic_vwap(self, tmp_path: Path) -> None:
        """300 and 600 USD of contracts at 100 and 200 are 3 BTC each; 900 USD for 6 BTC is 150."""
        contracts = {"BTC-USDT": (Contract(100.0, inverse=True),)}
        row = one(partials_of(tmp_path, self.TRADES, contracts=contracts))
        assert (total(row, "volume"), total(row, "quote_volume")) == (6.0, 900.0)
        assert total(row, "quote_volume") / total(row, "volume") == 9 / (3 / 100 + 6 / 200)
        assert (total(row, "buy_volume"), total(row, "sell_volume")) == (3.0, 3.0)

    def test_a_contract_is_that_of_its_own_symbol(self, tmp_path: Path) -> None:
        trades = [Trade(START, 100.0, 3.0, symbol=s) for s in ("B-USD", "A-USD")]
        table = partials_of(
            tmp_path, trades, contracts={"B-USD": (Contract(10.0),), "X-USD": (Contract(7.0),)}
        )
        assert table["volume"].to_pylist() == [3.0, 30.0]


@pytest.mark.parametrize("batch_rows", [1, 2, 3, 500_000])
def test_rows_that_count_elsewhere_are_left_out_and_no_others(
    batch_rows: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(partials, "BATCH_ROWS", batch_rows)
    trades = numbered([Trade(START + n, float(n + 1)) for n in range(5)], 10)
    row = one(partials_of(tmp_path, trades, left_out=(0, 2, 4)))
    assert (row["trade_count"], row["open"], row["close"]) == (2, 2.0, 4.0)
    nothing = partials_of(tmp_path, trades, left_out=range(5))
    assert nothing.num_rows == 0


@pytest.mark.parametrize("row_group_rows", [3, 1 << 20])
@pytest.mark.parametrize("name", [str, "a-{}".format])
def test_a_row_repeats_an_earlier_one_of_its_symbol_with_the_same_payload(
    name: Callable[[int], str], row_group_rows: int, tmp_path: Path
) -> None:
    one_trade = Trade(START, 100.0, 1.0, id=name(7))
    others = [
        *(replace(one_trade, **change) for change in (
            {"us": START + 1}, {"price": 101.0}, {"amount": 2.0}, {"side": "sell"}, {"side": None},
            {"price": None}, {"symbol": "ETH-USDT"}, {"id": name(8)}, {"id": name(77)},
        )),
        *(replace(one_trade, id=id) for id in (None, None, "", "")),
    ]  # fmt: skip
    rows = [one_trade, *others, one_trade, *others[:9], one_trade]
    found = repeated_rows(write_ticks(tmp_path / "ticks.parquet", rows, row_group_rows=row_group_rows))
    assert found.tolist() == [14, *range(15, 24), 24]
