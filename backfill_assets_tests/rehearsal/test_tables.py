"""Tables are compared market by market: missing rows, different rows, and rows that may be missing."""

from __future__ import annotations

import gzip

import duckdb
import pytest

from backfill_assets.rehearsal.tables import (
    Content,
    Group,
    differences,
    partial_markets,
    served_trades,
    wrong,
)

DAY = "2024-01-02"
ONE, OTHER = Content(3, 111), Content(3, 222)


def contents(**tables: Content) -> dict[Group, Content]:
    return {Group(table, DAY, "kraken", "BTC-USDT"): content for table, content in tables.items()}


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (contents(trades=ONE), []),
        (contents(trades=OTHER), ["trades 2024-01-02 kraken BTC-USDT: other rows"]),
        ({}, ["trades 2024-01-02 kraken BTC-USDT: missing"]),
        (contents(trades=ONE, quality=ONE), ["quality 2024-01-02 kraken BTC-USDT: unexpected"]),
    ],
)
def test_every_difference_is_named(found, said) -> None:
    assert differences(contents(trades=ONE), found) == said


@pytest.mark.parametrize(
    ("found", "tables"),
    [
        ({}, []),
        (contents(trades=ONE, candles=ONE, coverage=ONE, quality=OTHER), []),
        (contents(coverage=OTHER, quality=OTHER), []),
        (contents(trades=ONE, coverage=OTHER), ["coverage"]),
        (contents(candles=OTHER), ["candles"]),
        (contents(trades=OTHER), ["trades"]),
    ],
)
def test_a_missing_market_is_not_wrong_and_other_market_data_is(found, tables) -> None:
    whole = contents(trades=ONE, candles=ONE, coverage=ONE, quality=ONE)
    assert [said.split()[0] for said in wrong(whole, found)] == tables


@pytest.mark.parametrize(
    ("state", "until", "is_partial"),
    [
        ("traded_partial", 60, True),
        ("traded_partial", 30, True),
        ("traded", 60, False),
        ("traded", 30, False),
    ],
)
def test_candles_without_published_trades_may_be_others_where_none_is_called_whole(
    state, until, is_partial, tmp_path
) -> None:
    market = "'kraken' AS exchange, 'BTC-USDT' AS symbol, '1m' AS timeframe"
    rows = {
        "candles": f"SELECT {market}, unnest([0, 60]) AS open_time",
        "coverage": f"SELECT {market}, '{state}' AS state, 0 AS first_open_time, {until} AS last_open_time",
    }
    for table, query in rows.items():
        (tmp_path / table).mkdir()
        duckdb.sql(f"COPY ({query}) TO '{tmp_path / table / DAY}.parquet'")
    partial = partial_markets(tmp_path, DAY)
    assert partial == ({("kraken", "BTC-USDT")} if is_partial else set())
    whole = contents(trades=ONE, candles=ONE)
    assert bool(wrong(whole, contents(candles=OTHER), partial)) != is_partial
    assert wrong(whole, contents(trades=ONE, candles=OTHER), partial)


def test_the_vendors_rows_are_told_apart_by_every_column_that_is_published() -> None:
    header = "exchange,symbol,timestamp,local_timestamp,id,side,price,amount\n"
    row = ["kraken", "XBT/USDT", "1704153600000000", "1704153600000001", "7", "buy", "42000.5", "0.1"]

    def served(*rows: list[str]) -> Content:
        lines = "".join(",".join(cells) + "\n" for cells in rows)
        return served_trades([gzip.compress((header + lines).encode())])["kraken", "XBT/USDT"]

    assert served(row) == served(row)
    assert served(row, row).rows == 2
    for column, other in ((2, "1704153600000002"), (4, "8"), (5, "sell"), (6, "42000.6"), (7, "0.2")):
        assert served(row) != served([*row[:column], other, *row[column + 1 :]])
