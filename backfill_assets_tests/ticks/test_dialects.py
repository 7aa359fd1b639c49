"""Files with the same content in another form: empty last lines, byte order marks, quotes, more columns."""

from __future__ import annotations

from typing import Any

import pytest

from backfill_assets.failures import CorruptFeed
from backfill_assets.quality.rules import quality
from backfill_assets.tardis.columns import csv_header

LINES = [
    f"binance,{symbol},17040672{n:06}00,17040672{n:06}01,{n},{side},{n}.5,2"
    for n, (symbol, side) in enumerate([("BTCUSDT", "buy"), ("BTCUSDT", "sell"), ("ETHUSDT", "")] * 40)
]
HEADER = csv_header("trades")


def text(header: str = HEADER, lines: list[str] = LINES, end: str = "\n") -> str:
    return "\n".join([header, *lines]) + end


def quoted(line: str) -> str:
    return ",".join(f'"{cell}"' for cell in line.split(","))


SAME = {
    "an empty last line": text(end="\n\n"),
    "many empty last lines": text(end="\n" * 500),
    "an empty last line of two signs": text(end="\r\n\r\n"),
    "an empty last line without a newline": text(end="\n\r"),
    "a byte order mark": "\ufeff" + text(),
    "a byte order mark and a quoted header": "\ufeff" + text(quoted(HEADER)),
    "quoted cells": text(quoted(HEADER), [quoted(line) for line in LINES]),
    "quoted cells of Windows": text(quoted(HEADER), [quoted(line) for line in LINES]).replace("\n", "\r\n"),
    "some quoted cells": text(lines=[quoted(x) if n % 7 == 3 else x for n, x in enumerate(LINES)]),
    "quoted names": text(lines=[line.replace("binance", '"binance"') for line in LINES]),
    "all of it": "\ufeff" + text(quoted(HEADER), [quoted(x) for x in LINES], "\n\n").replace("\n", "\r\n"),
}
MORE = {
    "one more column": text(HEADER + ",fee", [f"{line},{n}" for n, line in enumerate(LINES)]),
    "one more column without a value": text(HEADER + ",fee", [f"{line}," for line in LINES]),
    "one more column, quoted": text(quoted(HEADER + ",fee"), [quoted(f"{x},a") for x in LINES]),
    "one more column with commas": text(HEADER + ",fee", [f'{line},"a,b"' for line in LINES]).replace(
        '"a,b"', "ab"
    ),
    "one more column of Windows": text(HEADER + ",fee", [f"{x},1" for x in LINES], "\n\n").replace(
        "\n", "\r\n"
    ),
}


@pytest.mark.parametrize("block_bytes", [1 << 22, 300], ids=["one block", "many blocks"])
@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize("dialect", SAME)
def test_another_way_of_writing_gives_the_same_file(dialect, fast, block_bytes, decode_body: Any):
    plain, _ = decode_body("trades", text(), header=False)
    read, _ = decode_body("trades", SAME[dialect], header=False, fast=fast, block_bytes=block_bytes)
    assert (read.content, read.profile) == (plain.content, plain.profile)


@pytest.mark.parametrize("block_bytes", [1 << 22, 300], ids=["one block", "many blocks"])
@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize("dialect", MORE)
def test_more_columns_at_the_end_are_left_out_and_named(dialect, fast, block_bytes, decode_body: Any):
    plain, _ = decode_body("trades", text(), header=False)
    read, _ = decode_body("trades", MORE[dialect], header=False, fast=fast, block_bytes=block_bytes)
    assert read.content == plain.content
    assert read.profile.unknown_columns == ("fee",)
    assert [w for w in quality(plain.profile).warnings if "columns" in w] == []
    [warning] = [w for w in quality(read.profile).warnings if "columns" in w]
    assert "fee" in warning


def test_a_plain_file_has_no_unknown_columns(decode_body: Any):
    assert decode_body("trades", text(), header=False)[0].profile.unknown_columns == ()


@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize(
    ("body", "said"),
    [
        (text(lines=[*LINES[:3], "", *LINES[3:]]), "line 5, column exchange: the line is empty"),
        (text(lines=[*LINES[:3], 'binance,"BTC,USDT",1,1,1,buy,1,1']), "line 5, column symbol"),
        (text(lines=[*LINES[:3], 'binance,BTCUSDT,1,1,"a ""b""",buy,1,1']), "line 5, column id"),
        (text(lines=[*LINES[:3], 'binance,BTCUSDT,1,1,"a,buy,1,1']), "line 5, column id"),
        (text(lines=[*LINES[:3], LINES[3] + ",7"]), "line 5, column amount: the line has 9 columns"),
        (text(HEADER + ",fee", [x + ",1" for x in LINES[:3]] + LINES[3:]), "line 5, column amount"),
        (text(HEADER + ",fee", [x + ",1" for x in LINES[:3]] + [LINES[3] + ",1,2"]), "line 5, column amount"),
        (text(HEADER.replace("price", "cost")), "line 1, column price"),
        (text("fee," + HEADER), "line 1, column exchange"),
        (text(HEADER.removesuffix(",amount")), "line 1, column amount"),
    ],
)
def test_what_has_no_plain_form_is_refused_by_its_line(body, said, fast, decode_body: Any):
    for block_bytes in (1 << 22, 300):
        with pytest.raises(CorruptFeed, match=said) as refused:
            decode_body("trades", body, header=False, fast=fast, block_bytes=block_bytes)
        assert str(refused.value).isprintable()


@pytest.mark.parametrize("data_type", ["book_snapshot_5", "derivative_ticker", "options_chain", "quotes"])
def test_every_data_type_may_have_more_columns(data_type, decode_body: Any):
    header = csv_header(data_type)
    cells = ["deribit", "BTCUSDT", "1704067200000000", "1704067200000001"]
    line = ",".join(cells + [""] * (header.count(",") - 3))
    plain, _ = decode_body(data_type, f"{header}\n{line}\n", header=False)
    read, _ = decode_body(data_type, f"{header},new one,\x07\n{line},1,2\n", header=False)
    assert read.content == plain.content
    assert read.profile.unknown_columns == ("new one", "\\u0007")
