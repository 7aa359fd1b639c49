"""The rows of the instruments table, and the schema that judges them."""

from __future__ import annotations

import json
import os
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pytest
from pandera.errors import SchemaErrors

from backfill_assets.columns import arrow_schema
from backfill_assets.days import time_us
from backfill_assets.feeds import ExpectedFeed, Feed
from backfill_assets.instruments.rows import expected_names, instrument_rows
from backfill_assets.instruments.schemas import INSTRUMENT_COLUMNS, instrument_schema
from backfill_assets.tardis.metadata import Instrument, InstrumentList

DAY = "2024-01-02"
BTC = {
    "id": "XBT/USDT",
    "datasetId": "XBT-USDT",
    "exchange": "kraken",
    "baseCurrency": "XBT",
    "quoteCurrency": "USDT",
    "type": "spot",
    "active": False,
    "availableSince": "2019-06-04T00:00:00.000Z",
    "availableTo": "2026-07-10T00:00:00.000Z",
    "priceIncrement": 0.1,
    "amountIncrement": 1e-8,
    "minTradeAmount": 0.0001,
    "makerFee": 0.0016,
    "takerFee": 0.0026,
}
ETH = {**BTC, "id": "ETH/USDT", "datasetId": "ETH-USDT", "baseCurrency": "ETH"}
FEED = ExpectedFeed(Feed("kraken", "trades", "XBT-USDT"), (("XBT/USDT", "BTC-USDT"),))


def table(*wire: dict[str, Any], day: str = DAY, expected: tuple[ExpectedFeed, ...] = (FEED,)) -> pa.Table:
    instruments = tuple(Instrument.model_validate(w) for w in wire)
    listed = InstrumentList(source="instruments", instruments=instruments)
    return instrument_rows("kraken", day, listed, expected_names("kraken", expected))


def test_a_row_holds_what_the_vendor_says_and_what_the_day_expects():
    [row] = table(BTC).to_pylist()
    assert row == {
        **dict.fromkeys(column.name for column in INSTRUMENT_COLUMNS),
        "date": date(2024, 1, 2),
        "exchange": "kraken",
        "symbol": "BTC-USDT",
        "dataset_symbol": "XBT-USDT",
        "instrument_id": "XBT/USDT",
        "base_currency": "XBT",
        "quote_currency": "USDT",
        "type": "spot",
        "active": True,
        "available_since": datetime(2019, 6, 4, tzinfo=UTC),
        "available_to": datetime(2026, 7, 10, tzinfo=UTC),
        "price_increment": 0.1,
        "amount_increment": 1e-8,
        "min_trade_amount": 0.0001,
        "maker_fee": 0.0016,
        "taker_fee": 0.0026,
        "expected": True,
        "source": "instruments",
    }


@pytest.mark.parametrize("kind", ["perpetual", "spot"])
def test_an_instrument_without_currencies_has_the_symbol_of_its_candles(kind):
    unknown = {
        **BTC,
        "id": "QQ1",
        "datasetId": "QQ1",
        "baseCurrency": None,
        "quoteCurrency": None,
        "type": kind,
    }
    [row] = table(unknown).to_pylist()
    assert row["symbol"] == "QQ1"


def test_rows_are_in_one_order_whatever_the_vendors():
    assert table(BTC, ETH).equals(table(ETH, BTC))
    assert table(BTC, ETH).column("dataset_symbol").to_pylist() == ["ETH-USDT", "XBT-USDT"]


def test_a_day_without_instruments_is_an_empty_table_with_all_columns():
    assert table().schema == arrow_schema(INSTRUMENT_COLUMNS)
    assert table().num_rows == 0


@pytest.mark.parametrize(
    ("day", "rows"), [("2019-06-03", 0), ("2019-06-04", 1), ("2026-07-09", 1), ("2026-07-10", 0)]
)
def test_only_instruments_listed_on_the_day_have_a_row(day, rows):
    assert table(BTC, day=day).num_rows == rows


def test_values_are_those_at_the_start_of_the_day():
    changed = {**BTC, "changes": [{"until": "2024-01-02T04:00:00.000Z", "priceIncrement": 0.5}]}
    assert table(changed, day="2024-01-02").column("price_increment").to_pylist() == [0.5]
    assert table(changed, day="2024-01-03").column("price_increment").to_pylist() == [0.1]


@pytest.mark.parametrize(
    ("until", "start", "end"),
    [
        ("2024-01-02T04:00:00.000Z", 0.5, 0.1),
        ("2024-01-02T23:59:59.999Z", 0.5, 0.1),
        ("2024-01-03T00:00:00.000Z", 0.5, None),
        ("2024-01-02T00:00:00.000Z", 0.1, None),
    ],
)
def test_a_tick_size_that_changes_during_the_day_is_there_with_the_one_before(until, start, end):
    changed = table({**BTC, "changes": [{"until": until, "priceIncrement": 0.5}]}, day="2024-01-02")
    assert changed.column("price_increment").to_pylist() == [start]
    assert changed.column("price_increment_end").to_pylist() == [end]


@pytest.mark.parametrize(
    ("until", "multipliers"),
    [
        ("2024-01-01T22:59:59.000Z", None),
        ("2024-01-01T23:58:00.000Z", [10.0, 100.0]),
        ("2024-01-02T12:00:00.000Z", [10.0, 100.0]),
        ("2024-01-03T00:00:00.000Z", [10.0, 100.0]),
        ("2024-01-03T01:00:01.000Z", None),
    ],
)
def test_terms_of_a_contract_that_change_near_the_day_are_there_by_time(until, multipliers):
    swap = {**ETH, "type": "perpetual", "inverse": False, "contractMultiplier": 100}
    changed = table({**swap, "changes": [{"until": until, "contractMultiplier": 10, "priceIncrement": 1}]})
    (found,) = changed.column("contract_changes").to_pylist()
    stretches = json.loads(found) if found else None
    assert (stretches and [s["contract_multiplier"] for s in stretches]) == multipliers
    if stretches:
        assert stretches[1] == {
            "since_us": time_us(datetime.fromisoformat(until)),
            "contract_multiplier": 100.0,
        }


def test_active_is_told_by_the_day_and_not_by_the_vendors_flag_of_today():
    ends_that_day = {**BTC, "availableTo": "2024-01-02T12:00:00.000Z"}
    assert table(ends_that_day).column("active").to_pylist() == [False]
    assert table(ends_that_day, day="2024-01-01").column("active").to_pylist() == [True]


def test_expected_follows_the_days_universe():
    group = ExpectedFeed(Feed("kraken", "trades", "SPOT"), (("ETH/USDT", "ETH-USDT"),))
    elsewhere = ExpectedFeed(Feed("coinbase", "trades", "XBT-USDT"), ())
    assert table(BTC, ETH, expected=(group,)).column("expected").to_pylist() == [True, False]
    assert table(BTC, ETH, expected=(elsewhere,)).column("expected").to_pylist() == [False, False]


def judge(frame: pl.DataFrame) -> list[str]:
    """Names of the checks that are red."""
    try:
        instrument_schema().validate(frame, lazy=True)
    except SchemaErrors as errors:
        return sorted(set(errors.failure_cases["check"].to_list()))
    return []


def frame(**changes: Any) -> pl.DataFrame:
    """Two good rows, the second with these values changed."""
    rows = table(BTC, {**ETH, "strikePrice": 5}).to_pylist()
    rows[1].update(changes)
    return pl.DataFrame(pl.from_arrow(pa.Table.from_pylist(rows, schema=arrow_schema(INSTRUMENT_COLUMNS))))


def test_good_rows_pass():
    assert judge(frame()) == []
    assert judge(pl.DataFrame(pl.from_arrow(table()))) == []


def test_one_symbol_twice_is_red():
    assert judge(frame(dataset_symbol="ETH-USDT")) == ["multiple_fields_uniqueness"]


def test_one_symbol_on_two_exchanges_is_not():
    assert judge(frame(dataset_symbol="ETH-USDT", exchange="coinbase")) == []


@pytest.mark.parametrize(
    "column", ["price_increment", "amount_increment", "contract_multiplier", "strike_price"]
)
@pytest.mark.parametrize(("value", "green"), [(0.0, False), (-0.1, False), (1e-12, True), (None, True)])
def test_increments_are_positive_where_present(column, value, green):
    assert (judge(frame(**{column: value})) == []) is green


@pytest.mark.parametrize(("value", "green"), [(-0.0001, True), (0.0, True)])
def test_a_rebate_is_a_fair_fee(value, green):
    assert (judge(frame(maker_fee=value)) == []) is green


@pytest.mark.parametrize(("value", "green"), [("swap", False), ("Spot", False), ("combo", True)])
def test_the_kind_is_known(value, green):
    assert (judge(frame(type=value)) == []) is green


@pytest.mark.parametrize(("value", "green"), [("guess", False), ("exchange_details", True)])
def test_the_source_is_known(value, green):
    assert (judge(frame(source=value)) == []) is green


@pytest.mark.parametrize(
    ("column", "value", "green"),
    [
        ("available_since", datetime(2024, 1, 3, tzinfo=UTC), False),
        ("available_since", datetime(2024, 1, 2, 23, 59, tzinfo=UTC), True),
        ("available_to", datetime(2024, 1, 2, tzinfo=UTC), False),
        ("available_to", datetime(2024, 1, 2, 0, 0, 1, tzinfo=UTC), True),
        ("available_to", None, True),
    ],
)
def test_a_row_is_available_on_its_date(column, value, green):
    assert judge(frame(**{column: value})) == ([] if green else ["available_on_the_day"])


@pytest.mark.parametrize(("column", "green"), [("instrument_id", False), ("base_currency", True)])
def test_required_cells_are_filled(column, green):
    values = [None, "x"]
    changed = frame().with_columns(pl.Series(column, values, dtype=pl.String))
    assert (judge(changed) == []) is green


def test_columns_are_exactly_those_described():
    assert judge(frame().drop("quanto")) != []
    assert judge(frame().with_columns(more=1)) != []
    assert judge(frame().with_columns(pl.col("expected").cast(pl.Int8))) != []


@pytest.mark.skipif(not os.environ.get("BACKFILL_REAL_DATA"), reason="BACKFILL_REAL_DATA is not set")
def test_real_answers_become_good_rows():
    files = sorted(Path(os.environ["BACKFILL_REAL_DATA"], "instruments").glob("instrument_*.json"))
    wires = [json.loads(file.read_text()) for file in files]
    assert len(wires) == 5
    for wire in wires:
        listed = InstrumentList(source="instruments", instruments=(Instrument.model_validate(wire),))
        rows = instrument_rows(wire["exchange"], "2025-02-01", listed, ())
        assert judge(pl.DataFrame(pl.from_arrow(rows))) == []
        [row] = rows.to_pylist()
        assert row["price_increment"] == wire["priceIncrement"]
        assert row["inverse"] == wire.get("inverse")
    [spot] = [wire for wire in wires if wire["type"] == "spot"]
    listed = InstrumentList(source="instruments", instruments=(Instrument.model_validate(spot),))
    assert instrument_rows("deribit", "2024-04-01", listed, ()).column("price_increment").to_pylist() == [
        0.01
    ]
