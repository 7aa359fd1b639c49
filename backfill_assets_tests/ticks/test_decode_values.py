"""Every value of a line arrives as written: the fast parser, the reference parser and plain Python agree."""

from __future__ import annotations

import csv
import gzip
import io
import struct
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from backfill_assets.columns import arrow_schema
from backfill_assets.feeds import DATA_TYPES, Feed
from backfill_assets.tardis.columns import CsvField, csv_fields, csv_header, tick_columns

PLAIN_NUMBERS = st.builds(
    lambda digits, point: f"{digits / 10**point:.{point}f}", st.integers(0, 10**14), st.integers(0, 9)
)
ODD_NUMBERS = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.sampled_from(
        ["9.9e-7", "1e+21", "-0.000001", "0.30000000000000004", "123456789012345", "1234567890123456",
         "5.", ".5", "0", "-0", "00.10", "1E5", "9007199254740993",
         "0.1234567890123456789", "99999999999999999999"]
    ),
)  # fmt: skip
IDS = st.one_of(
    st.integers(0, 10**19).map(str),
    st.sampled_from(["", "0", "007", "ccc3c1fa-212c-e8b0-1706-9b9c4f3d5ecf", "1234567890", "12345678",
                     "123456789a", "ü1", "-5", "999999999999999999", "1000000000000000000"]),
)  # fmt: skip
TIMES = st.integers(1_704_067_200_000_000, 1_704_153_599_999_999).map(str)
ODD_TIMES = st.one_of(TIMES, st.sampled_from(["0", "1704067200000", "253370764799999999"]))


def cells(field: CsvField, odd: bool) -> st.SearchStrategy[str]:
    required = field.csv in ("timestamp", "local_timestamp")
    if field.csv == "exchange":
        return st.sampled_from(["binance", "binance", "other"])
    if field.csv == "symbol":
        return st.sampled_from(["BTCUSDT", "BTCUSDT", "ETHUSDT", "BTC/€", "X"])
    if field.kind == "time":
        times = ODD_TIMES if odd else TIMES
        return times if required else st.one_of(times, st.just(""))
    if field.kind == "number":
        return (
            st.one_of(PLAIN_NUMBERS, st.just(""), ODD_NUMBERS)
            if odd
            else st.one_of(PLAIN_NUMBERS, st.just(""))
        )
    if field.words:
        return st.sampled_from([*field.words, ""] if odd else field.words)
    return IDS if odd else st.integers(1, 10**11).map(str)


@st.composite
def bodies(draw: st.DrawFn, data_type: str) -> str:
    odd = draw(st.booleans())
    line = st.tuples(*(cells(field, odd) for field in csv_fields(data_type))).map(",".join)
    end = draw(st.sampled_from(["\n", "\r\n"])) if odd else "\n"
    text = "".join(one + end for one in draw(st.lists(line, max_size=12)))
    return text.removesuffix(end) if draw(st.booleans()) else text


def plain_python(data_type: str, body: str) -> dict[str, list[Any]]:
    """The stored columns by the CSV module, int and float."""
    fields = csv_fields(data_type)
    columns: dict[str, list[Any]] = {field.column.name: [] for field in fields}
    for row in csv.reader(io.StringIO(body)):
        for field, cell in zip(fields, row, strict=True):
            value: Any = cell or None
            if cell and field.kind == "time":
                value = int(cell)
            elif cell and field.kind == "number":
                value = struct.pack("<d", float(cell))
            elif cell and field.kind == "flag":
                value = cell == "true"
            columns[field.column.name].append(value)
    return columns


def stored(table: pa.Table, data_type: str) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {}
    for field in csv_fields(data_type):
        column = table.column(field.column.name)
        if field.kind == "time":
            column = column.cast(pa.int64())
        values = column.to_pylist()
        if field.kind == "number":
            values = [None if v is None else struct.pack("<d", v) for v in values]
        found[field.column.name] = values
    return found


@pytest.mark.parametrize("data_type", DATA_TYPES)
def test_fast_careful_and_plain_python_agree_on_every_value(data_type: str, decode_body: Any) -> None:
    @settings(max_examples=8 if "25" in data_type else 40, deadline=None, database=None, derandomize=True,
              suppress_health_check=list(HealthCheck))  # fmt: skip
    @given(body=bodies(data_type), block=st.integers(1, 400), group=st.integers(1, 8))
    def agree(body: str, block: int, group: int) -> None:
        options = {"row_group_rows": group}
        fast, table = decode_body(data_type, body, block_bytes=block, **options)
        careful, careful_table = decode_body(data_type, body, fast=False, **options)
        assert stored(table, data_type) == plain_python(data_type, body)
        assert fast.content == careful.content
        assert fast.profile == careful.profile
        assert table.column("row").to_pylist() == list(range(fast.rows))
        assert careful_table.num_rows == fast.rows

    agree()


@pytest.mark.parametrize("data_type", DATA_TYPES)
def test_the_stored_schema_is_the_documented_one(data_type: str, decode_body: Any) -> None:
    _, table = decode_body(data_type, "")
    assert table.schema.equals(arrow_schema(tick_columns(data_type)))
    assert table.num_rows == 0


def test_symbols_are_canonical_where_known_and_counted_where_not(decode_body: Any) -> None:
    body = (
        "binance,BTCUSDT,1704067200000000,1704067200000001,1,buy,1,1\n"
        "binance,XYZ,1704067200000000,1704067200000001,2,buy,1,1\n"
        "kraken,BTCUSDT,1704067200000000,1704067200000001,3,buy,1,1\n"
    )
    decoded, table = decode_body("trades", body)
    assert table.column("symbol").to_pylist() == ["BTC-USDT", None, "BTC-USDT"]
    assert table.column("dataset_symbol").to_pylist() == ["BTCUSDT", "XYZ", "BTCUSDT"]
    assert table.column("exchange").to_pylist() == ["binance", "binance", "kraken"]
    assert decoded.profile.unknown_symbol_rows == 1
    assert decoded.profile.wrong_exchange_rows == 1
    assert {str(d) for d in table.column("date").to_pylist()} == {"2024-01-01"}


def test_many_symbols_in_a_grouped_file_are_told_apart(decode_body: Any) -> None:
    names = [f"SYM{n}USDT" for n in range(300)]
    lines = [
        f"binance,{names[n * 7 % 300]},{1704067200000000 + n},{1704067200000000 + n},{n},buy,1.5,2\n"
        for n in range(2000)
    ]
    decoded, table = decode_body(
        "trades",
        "".join(lines),
        feed=Feed("binance", "trades", "SPOT"),
        symbols={n: n[:-4] + "-USDT" for n in names},
    )
    assert table.column("dataset_symbol").to_pylist() == [names[n * 7 % 300] for n in range(2000)]
    assert [s.dataset_symbol for s in decoded.profile.symbols] == sorted(names)
    assert sum(s.rows for s in decoded.profile.symbols) == 2000


@pytest.mark.parametrize("data_type", ["trades", "book_snapshot_5", "options_chain"])
def test_block_and_thread_boundaries_leave_the_bytes_alone(data_type: str, decode_body: Any) -> None:
    numbers = ",".join("1.25" for _ in csv_fields(data_type)[4:])
    tail = {"trades": "77,sell,1.25,0.5", "book_snapshot_5": numbers}.get(
        data_type,
        "put,9875,1591689600000000," + ",".join(["0.5"] * 10) + ",SYN.BTC," + ",".join(["-0.5"] * 6),
    )
    body = "".join(
        f"binance,BTCUSDT,{1704067200000000 + n},{1704067200000005 + n},{tail}\n" for n in range(3000)
    )
    runs = [
        decode_body(data_type, body, block_bytes=size, row_group_rows=700)[0]
        for size in (1, 64, 999, 1 << 20)
    ]
    assert runs == [runs[0]] * 4
    assert runs[0].rows == sum(found.rows for found in runs[0].totals) == 3000


def test_several_gzip_members_are_one_file(decode_body: Any) -> None:
    line = "binance,BTCUSDT,1704067200000000,1704067200000001,1,buy,1,1\n"
    content = gzip.compress((csv_header("trades") + "\n" + line[:20]).encode()) + gzip.compress(
        line[20:].encode()
    )
    assert decode_body("trades", content, raw=True)[0].rows == 1


@pytest.mark.parametrize(
    "content", [b"", (csv_header("trades") + "\n").encode(), csv_header("trades").encode()]
)
def test_an_empty_day_is_a_file_without_rows(content: bytes, decode_body: Any) -> None:
    decoded, table = decode_body("trades", gzip.compress(content), raw=True)
    assert (decoded.rows, table.num_rows, decoded.profile.symbols) == (0, 0, ())
    assert decoded.profile.has_header is bool(content)
    assert decoded.profile.first_timestamp_us is None


def test_long_ids_start_a_new_row_group_and_lose_nothing(decode_body: Any) -> None:
    ids = [f"{n:0>300000}x" for n in range(70)]
    body = "".join(f"binance,BTCUSDT,1704067200000000,1704067200000001,{i},buy,1,1\n" for i in ids)
    fast, table = decode_body("trades", body)
    assert table.column("id").to_pylist() == ids
    assert fast.content == decode_body("trades", body, fast=False)[0].content


def test_real_samples_of_six_types_agree_with_plain_python(real_data: Path, decode_body: Any) -> None:
    samples = sorted((real_data / "samples").glob("*.csv"))
    assert len(samples) == 6
    for sample in samples:
        data_type = next(t for t in sorted(DATA_TYPES, key=len, reverse=True) if t in sample.name)
        header, body = sample.read_text().split("\n", 1)
        assert header == csv_header(data_type)
        _, table = decode_body(data_type, body)
        assert stored(table, data_type) == plain_python(data_type, body)


def test_real_trade_files_agree_with_plain_python(real_data: Path, decode_body: Any) -> None:
    files = sorted((real_data / "tardis" / "datasets" / "v1").rglob("*.csv.gz"))
    assert len(files) == 5
    for file in files:
        body = gzip.decompress(file.read_bytes()).decode().split("\n", 1)[1]
        decoded, table = decode_body("trades", file.read_bytes(), raw=True)
        assert stored(table, "trades") == plain_python("trades", body)
        assert decoded.raw_bytes == file.stat().st_size
