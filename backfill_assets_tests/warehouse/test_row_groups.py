"""Parquet files are joined by their row groups: footers survive, every reader reads the joined file."""

from __future__ import annotations

import io
import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from backfill_assets.failures import PermanentFailure
from backfill_assets.warehouse.catalog import TICKS
from backfill_assets.warehouse.parquet import COPIED_ROWS, concatenate
from backfill_assets.warehouse.protocol import LoadFile
from backfill_assets.warehouse.row_groups import footer_bytes, join, read_footer

pytestmark = pytest.mark.timeout(120)

TRADES, DAY = TICKS["trades"], "2024-01-01"


def trades(count: int, symbol: str, day: str = DAY) -> pa.Table:
    """Trades of one symbol."""
    start = datetime.fromisoformat(day).replace(tzinfo=UTC)
    step = timedelta(days=1) / (count + 1)
    times = [start + n * step for n in range(count)]
    columns = {
        "date": [start.date()] * count,
        "exchange": ["binance"] * count,
        "symbol": [symbol if n % 7 else None for n in range(count)],
        "dataset_symbol": [symbol] * count,
        "timestamp": times,
        "local_timestamp": times,
        "row": range(count),
        "id": [str(n) for n in range(count)],
        "side": [("buy", "sell", None)[n % 3] for n in range(count)],
        "price": [100 + n % 50 / 8 for n in range(count)],
        "amount": [n % 11 / 4 for n in range(count)],
    }
    return pa.table(columns, schema=TRADES.schema)


def written(path: Path, rows: pa.Table, times: str = "DELTA_BINARY_PACKED") -> LoadFile:
    """The rows as the lake writes them, with the times in this encoding."""
    delta = {"row": "DELTA_BINARY_PACKED", "timestamp": times, "local_timestamp": times}
    pq.write_table(
        rows,
        path,
        row_group_size=20_000,
        compression="zstd",
        use_dictionary=[name for name in rows.schema.names if name not in delta],
        column_encoding=delta,
        store_schema=False,
        write_statistics=["timestamp"],
    )
    return LoadFile(uri=None, path=path, rows=rows.num_rows)


def encodings(path: Path) -> set[str]:
    """Return the encodings of the column ``timestamp`` in all row groups."""
    found = pq.read_metadata(path)
    column = TRADES.schema.get_field_index("timestamp")
    return {e for n in range(found.num_row_groups) for e in found.row_group(n).column(column).encodings}


def wide(rows: int, first: int) -> pa.Table:
    """More columns than a short list has, and nested types."""
    nested = {
        "list": [[1, 2], [], None] * rows,
        "struct": [{"a": 1, "b": "x"}, None, {"a": None, "b": "y"}] * rows,
        "map": pa.array([[("k", 1)], [], None] * rows, pa.map_(pa.string(), pa.int64())),
        "decimal": pa.array([None, 1, 2] * rows, pa.decimal128(20, 4)),
        "flag": [True, False, None] * rows,
    }
    return pa.table(nested | {f"c{n}": list(range(first, first + 3 * rows)) for n in range(20)})


def by_pyarrow(rows: int, **options: Any) -> Callable[[int], bytes]:
    def made(first: int) -> bytes:
        sink = io.BytesIO()
        pq.write_table(wide(rows, first), sink, row_group_size=7, **options)
        return sink.getvalue()

    return made


def by_polars(first: int) -> bytes:
    sink = io.BytesIO()
    pl.DataFrame({"a": range(first, first + 100), "b": ["x", None] * 50}).write_parquet(
        sink, row_group_size=20
    )
    return sink.getvalue()


def by_duckdb(folder: Path) -> bytes:
    file = folder / "duckdb.parquet"
    with duckdb.connect() as connection:
        connection.execute(
            f"COPY (SELECT i, i::VARCHAR AS t FROM range(9999) r(i)) TO '{file}' (ROW_GROUP_SIZE 2048)"
        )
    return file.read_bytes()


FOOTERS = {
    "pyarrow": by_pyarrow(9),
    "pyarrow, with an index of pages": by_pyarrow(9, write_page_index=True),
    "pyarrow, with checksums, sorted": by_pyarrow(
        9, write_page_checksum=True, sorting_columns=[pq.SortingColumn(5)]
    ),
    "pyarrow, without statistics": by_pyarrow(9, write_statistics=False, store_schema=False),
    "pyarrow, no rows": by_pyarrow(0),
    "polars": by_polars,
}


@pytest.mark.parametrize("writer", [*FOOTERS, "DuckDB"])
def test_a_footer_of_any_writer_is_the_same_after_reading_and_writing(writer: str, tmp_path: Path) -> None:
    made = by_duckdb(tmp_path) if writer == "DuckDB" else FOOTERS[writer](0)
    file = tmp_path / "file.parquet"
    file.write_bytes(made)
    with file.open("rb") as opened:
        footer, end = read_footer(opened)
    assert footer_bytes(footer) == made[end:-8]


def pages_of(path: Path) -> list[Any]:
    """The rows that DuckDB reads by the offsets of each chunk."""
    with duckdb.connect() as connection:
        return connection.execute("SELECT * FROM read_parquet($1)", [str(path)]).fetchall()


@pytest.mark.parametrize("writer", FOOTERS)
def test_joined_files_have_the_rows_of_all_in_their_order(writer: str, tmp_path: Path) -> None:
    parts = [tmp_path / f"{n}.parquet" for n in range(3)]
    for number, part in enumerate(parts):
        part.write_bytes(FOOTERS[writer](1000 * number))
    join(parts, tmp_path / "joined.parquet")
    whole = pa.concat_tables(pq.read_table(part) for part in parts)
    joined = pq.ParquetFile(tmp_path / "joined.parquet")
    assert joined.read().equals(whole)
    assert joined.metadata.num_rows == whole.num_rows
    assert pages_of(tmp_path / "joined.parquet") == [row for part in parts for row in pages_of(part)]
    groups = [joined.metadata.row_group(n) for n in range(joined.num_row_groups)]
    assert [joined.read_row_group(n).num_rows for n in range(len(groups))] == [g.num_rows for g in groups]


def test_large_files_are_copied_and_small_ones_encoded_behind_them(tmp_path: Path) -> None:
    large = [trades(COPIED_ROWS, "BTC"), trades(COPIED_ROWS + 1, "ETH")]
    small = [trades(10, "XRP"), trades(20, "LTC")]
    files = [
        written(tmp_path / f"{n}.parquet", rows)
        for n, rows in enumerate((small[0], large[0], small[1], large[1]))
    ]
    target = tmp_path / "partition.parquet"
    assert concatenate(TRADES, DAY, files, target) == 2 * COPIED_ROWS + 31
    assert pq.read_table(target).equals(pa.concat_tables([*large, *small]))
    assert pq.ParquetFile(target).num_row_groups == 3 + 3 + 1
    for copied in (files[1], files[3]):
        assert copied.path is not None
        with copied.path.open("rb") as source:
            _, end = read_footer(source)
        assert copied.path.read_bytes()[4:end] in target.read_bytes()
    assert encodings(target) == {"DELTA_BINARY_PACKED", "RLE"}


def test_a_copied_partition_is_read_right_by_every_reader(tmp_path: Path) -> None:
    rows = [trades(COPIED_ROWS, "BTC"), trades(COPIED_ROWS, "ETH"), trades(200, "XRP")]
    files = [written(tmp_path / f"{n}.parquet", part) for n, part in enumerate(rows)]
    target = tmp_path / "partition.parquet"
    concatenate(TRADES, DAY, files, target)
    whole = pa.concat_tables(rows)
    assert pl.read_parquet(target).to_arrow().cast(TRADES.schema).equals(whole)
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        found = connection.sql("SELECT * FROM read_parquet($1)", params=[str(target)]).to_arrow_table()
    assert found.cast(TRADES.schema).equals(whole)
    frame = pd.read_parquet(target, engine="pyarrow")
    for name in ("timestamp", "local_timestamp"):
        micros = pd.to_datetime(frame[name], utc=True).astype("datetime64[us, UTC]").astype("int64").tolist()
        assert micros == whole[name].cast(pa.int64()).to_pylist(), name
    assert frame["id"].tolist() == whole["id"].to_pylist()
    assert frame["price"].tolist() == whole["price"].to_pylist()


def test_plain_times_of_an_earlier_layout_are_copied_as_they_are(tmp_path: Path) -> None:
    rows = trades(COPIED_ROWS, "BTC")
    encoded = ("PLAIN", "DELTA_BINARY_PACKED")
    files = [written(tmp_path / f"{times}.parquet", rows, times=times) for times in encoded]
    concatenate(TRADES, DAY, files, tmp_path / "partition.parquet")
    assert encodings(tmp_path / "partition.parquet") == {"PLAIN", "RLE", "DELTA_BINARY_PACKED"}
    assert pq.read_table(tmp_path / "partition.parquet").equals(pa.concat_tables([rows, rows]))


def test_a_large_file_without_a_nullable_column_is_encoded_with_nulls(tmp_path: Path) -> None:
    rows = trades(COPIED_ROWS, "BTC")
    file = written(tmp_path / "old.parquet", rows.drop_columns("side"))
    concatenate(TRADES, DAY, [file], tmp_path / "partition.parquet")
    assert pq.read_table(tmp_path / "partition.parquet")["side"].null_count == COPIED_ROWS


def test_a_large_file_with_a_row_of_another_day_is_refused(tmp_path: Path) -> None:
    rows = pa.concat_tables([trades(COPIED_ROWS, "BTC"), trades(1, "BTC", "2024-01-02")])
    with pytest.raises(PermanentFailure, match="has rows of 2024-01-02, but the partition is 2024-01-01"):
        concatenate(TRADES, DAY, [written(tmp_path / "a.parquet", rows)], tmp_path / "partition.parquet")


def test_a_large_file_with_other_rows_than_the_lake_says_is_refused(tmp_path: Path) -> None:
    file = written(tmp_path / "a.parquet", trades(COPIED_ROWS + 5, "BTC"))
    wrong = LoadFile(uri=None, path=file.path, rows=COPIED_ROWS)
    with pytest.raises(
        PermanentFailure, match=f"holds {COPIED_ROWS + 5} rows, but the lake says {COPIED_ROWS}"
    ):
        concatenate(TRADES, DAY, [wrong], tmp_path / "partition.parquet")


def test_a_large_file_that_is_cut_is_refused(tmp_path: Path) -> None:
    file = written(tmp_path / "a.parquet", trades(COPIED_ROWS, "BTC"))
    assert file.path is not None
    file.path.write_bytes(file.path.read_bytes()[:-40])
    with pytest.raises(PermanentFailure, match="cannot be read as Parquet"):
        concatenate(TRADES, DAY, [file], tmp_path / "partition.parquet")


def test_files_of_two_schemas_are_not_joined(tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": [1]}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"a": ["1"]}), tmp_path / "b.parquet")
    with pytest.raises(PermanentFailure, match=r"b\.parquet: has another schema than .*a\.parquet"):
        join([tmp_path / "a.parquet", tmp_path / "b.parquet"], tmp_path / "joined.parquet")


@pytest.mark.parametrize("content", [b"", b"PAR1", b"PAR1PAR1", b"x" * 100, b"PAR1" + b"\xff" * 20 + b"PAR1"])
def test_what_is_no_parquet_file_is_refused_by_its_name(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(content)
    with pytest.raises(PermanentFailure, match=r"a\.parquet: has (no|a damaged) footer"):
        join([tmp_path / "a.parquet"], tmp_path / "joined.parquet")


def test_a_damaged_footer_is_refused_or_read_but_never_runs_away(tmp_path: Path) -> None:
    good = FOOTERS["pyarrow"](0)
    size = int.from_bytes(good[-8:-4], "little")
    chance = random.Random(7)
    refused = 0
    for _ in range(2_000):
        bad = bytearray(good)
        for _ in range(chance.choice((1, 1, 2, 8))):
            bad[chance.randrange(len(good) - 8 - size, len(good) - 8)] = chance.randrange(256)
        file = io.BytesIO(bad)
        file.name = "bad"
        try:
            read_footer(file)
        except PermanentFailure:
            refused += 1
    assert 200 < refused < 2_000
