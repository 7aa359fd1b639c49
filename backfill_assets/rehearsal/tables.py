"""Published tables by their content, and the content that they should have by the vendor's files.

DuckDB reads the vendor's files straight from their CSV, so a bug in the pipeline's decoder does not affect
the comparison.
"""

from __future__ import annotations

import gzip
import io
import shutil
import tempfile
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import NamedTuple


class Group(NamedTuple):
    """Rows of one market in one partition of a table."""

    table: str
    day: str
    exchange: str
    symbol: str


class Content(NamedTuple):
    """Number of rows, and the sum of their hashes over all columns."""

    rows: int
    hashes: int


Contents = dict[Group, Content]
#: Exchange and symbol as in the rows of the vendor's files.
MarketName = tuple[str, str]
_TRADE = "hash(id, side, price, amount, {timestamp})"
_COLUMNS = (
    "{exchange: VARCHAR, symbol: VARCHAR, timestamp: BIGINT, local_timestamp: BIGINT, "
    "id: VARCHAR, side: VARCHAR, price: DOUBLE, amount: DOUBLE}"
)


def published(warehouse: Path, days: Iterable[str]) -> Contents:
    """Rows of every published partition of the days, by market."""
    import duckdb

    found: Contents = {}
    with duckdb.connect() as connection:
        for day in days:
            for file in sorted(warehouse.glob(f"[!.]*/{day}.parquet")):
                rows = connection.execute(
                    "SELECT exchange, symbol, count(*), sum(hash(t)) FROM read_parquet(?) t GROUP BY ALL",
                    [str(file)],
                ).fetchall()
                for exchange, symbol, count, hashes in rows:
                    found[Group(file.parent.name, day, exchange, symbol)] = Content(count, int(hashes))
    return found


def published_trades(warehouse: Path, day: str) -> dict[MarketName, Content]:
    """Rows of the table of trades by market, reduced to columns that the vendor's file also has."""
    import duckdb

    file = warehouse / "trades" / f"{day}.parquet"
    if not file.exists():
        return {}
    trade = _TRADE.format(timestamp="epoch_us(timestamp)")
    with duckdb.connect() as connection:
        rows = connection.execute(
            f"SELECT exchange, dataset_symbol, count(*), sum({trade}) FROM read_parquet(?) GROUP BY ALL",
            [str(file)],
        ).fetchall()
    return {(exchange, symbol): Content(count, int(hashes)) for exchange, symbol, count, hashes in rows}


def served_trades(files: Iterable[bytes]) -> dict[MarketName, Content]:
    """Rows of trades by market in the vendor's files (csv.gz)."""
    import duckdb

    found: dict[MarketName, Content] = {}
    trade = _TRADE.format(timestamp="timestamp")
    query = (
        f"SELECT exchange, symbol, count(*), sum({trade}) FROM "
        f"read_csv(?, header = true, auto_detect = false, delim = ',', columns = {_COLUMNS}) GROUP BY ALL"
    )
    with duckdb.connect() as connection, tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "served.csv"
        for content in files:
            # DuckDB does not read the mark of generated files in the header of the archive.
            with gzip.open(io.BytesIO(content)) as packed, file.open("wb") as unpacked:
                shutil.copyfileobj(packed, unpacked)
            for exchange, symbol, count, hashes in connection.execute(query, [str(file)]).fetchall():
                found[exchange, symbol] = Content(count, int(hashes))
    return found


def differences(expected: Mapping[Group, Content], found: Mapping[Group, Content]) -> list[str]:
    """Describe groups that are missing, unexpected or have other rows."""
    said = []
    for group in sorted(expected.keys() | found.keys()):
        want, have = expected.get(group), found.get(group)
        if want != have:
            words = "missing" if have is None else "unexpected" if want is None else "other rows"
            said.append(f"{group.table} {group.day} {group.exchange} {group.symbol}: {words}")
    return said


def partial_markets(warehouse: Path, day: str) -> set[MarketName]:
    """Exchange and symbol of the markets for which the coverage calls no candle whole.

    The coverage calls their candles partial, or does not have a market whose exchange has not answered.
    """
    import duckdb

    candles, coverage = (warehouse / table / f"{day}.parquet" for table in ("candles", "coverage"))
    if not (candles.exists() and coverage.exists()):
        return set()
    with duckdb.connect() as connection:
        rows = connection.execute(
            "SELECT candles.exchange, candles.symbol FROM read_parquet(?) candles "
            "LEFT JOIN read_parquet(?) coverage ON candles.exchange = coverage.exchange "
            "AND candles.symbol = coverage.symbol AND candles.timeframe = coverage.timeframe "
            "AND candles.open_time BETWEEN coverage.first_open_time AND coverage.last_open_time "
            "GROUP BY ALL HAVING bool_and(coalesce(coverage.state, 'traded_partial') = 'traded_partial')",
            [str(candles), str(coverage)],
        ).fetchall()
    return set(rows)


def wrong(
    expected: Mapping[Group, Content],
    found: Mapping[Group, Content],
    partial: Collection[MarketName] = (),
) -> list[str]:
    """Describe market data that differs from that of an undisturbed run.

    A market without published trades may be missing; its coverage then says that it is lost.

    Parameters
    ----------
    partial
        Markets that may have candles without published trades, made from files of the days beside it.
    """
    traded = {group[1:] for group in found if group.table == "trades"}
    of_others = {group[1:] for group in found if group[2:] in partial} - traded
    return [
        f"{group.table} {group.day} {group.exchange} {group.symbol}: {content.rows} other rows"
        for group, content in sorted(found.items())
        if (
            group.table == "trades"
            or (group.table == "candles" and group[1:] not in of_others)
            or (group.table == "coverage" and group[1:] in traded)
        )
        and expected.get(group) != content
    ]
