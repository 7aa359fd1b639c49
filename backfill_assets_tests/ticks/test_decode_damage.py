"""Damage that a new download repairs is told from damage in the content, to line and column."""

from __future__ import annotations

import gzip
import hashlib
import re
from typing import Any

import pytest

from backfill_assets.failures import CorruptFeed, TransientFailure
from backfill_assets.tardis.columns import csv_header

GOOD = "binance,BTCUSDT,1704067200000000,1704067200000001,1,buy,1.5,2\n"
BODY = (csv_header("trades") + "\n" + GOOD * 5000).encode()


def _broken_checksum() -> bytes:
    content = bytearray(gzip.compress(BODY))
    content[-8] ^= 1
    return bytes(content)


def _flipped_byte() -> bytes:
    content = bytearray(gzip.compress(BODY))
    content[len(content) // 2] ^= 0xFF
    return bytes(content)


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", id="no byte"),
        pytest.param(gzip.compress(BODY)[:-20], id="truncated"),
        pytest.param(gzip.compress(BODY)[:-3], id="truncated in the trailer"),
        pytest.param(gzip.compress(BODY)[:5], id="truncated in the gzip header"),
        pytest.param(_broken_checksum(), id="wrong checksum"),
        pytest.param(_flipped_byte(), id="flipped byte"),
        pytest.param(b"<html>busy</html>", id="no gzip"),
        pytest.param(gzip.compress(BODY) + b"garbage", id="garbage behind"),
    ],
)
def test_a_damaged_body_asks_for_another_download(content: bytes, decode_body: Any) -> None:
    with pytest.raises(TransientFailure, match="download it again"):
        decode_body("trades", content, raw=True)


def test_a_whole_body_is_not_taken_for_a_damaged_one(decode_body: Any) -> None:
    content = gzip.compress(BODY)
    decoded, _ = decode_body("trades", content, raw=True)
    assert decoded.rows == 5000
    assert decoded.raw_sha256 == hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize(
    ("line", "column"),
    [
        ("binance,BTCUSDT,1704067200000000,1704067200000001,1,buy,1.5x,2", "price"),
        ("binance,BTCUSDT,1704067200000000,1704067200000001,1,buy,NaN,2", "price"),
        ("binance,BTCUSDT,1704067200000000,1704067200000001,1,buy,1e999,2", "price"),
        ("binance,BTCUSDT,1704067200000000,1704067200000001,1,buy,+1,2", "price"),
        ("binance,BTCUSDT,1704067200000000,1704067200000001,1,buy,-,2", "price"),
        ("binance,BTCUSDT,1704067200000000,1704067200000001,1,buy,1_0,2", "price"),
        ("binance,BTCUSDT,1704067200000000,1704067200000001,1,buy,1.5, 2", "amount"),
        ("binance,BTCUSDT,1704067200000000,1704067200000001,1,buy,1.5,2..1", "amount"),
        ("binance,BTCUSDT,1704067200000000,1704067200000001,1,buy,1.5,2,3", "amount"),
        ("binance,BTCUSDT,1704067200000000,1704067200000001,1,buy,1.5", "price"),
        ("binance,BTCUSDT,1704067200000000,1704067200000001,1,Buy,1.5,2", "side"),
        ("binance,BTCUSDT,1704067200000000,1704067200000001,1,buyer,1.5,2", "side"),
        ("binance,BTCUSDT,17040672000000.0,1704067200000001,1,buy,1.5,2", "timestamp"),
        ("binance,BTCUSDT,,1704067200000001,1,buy,1.5,2", "timestamp"),
        ("binance,BTCUSDT,1704067200000000,-1,1,buy,1.5,2", "local_timestamp"),
        ("binance,BTCUSDT,1704067200000000,1704067200000000000000,1,buy,1.5,2", "local_timestamp"),
        ("binance,,1704067200000000,1704067200000001,1,buy,1.5,2", "symbol"),
        (",BTCUSDT,1704067200000000,1704067200000001,1,buy,1.5,2", "exchange"),
        ('binance,"BTC,USDT",1704067200000000,1704067200000001,1,buy,1.5,2', "symbol"),
        ("binance", "exchange"),
        ("", "exchange"),
    ],
)
def test_a_bad_line_is_named_with_its_number_and_column(
    line: str, column: str, fast: bool, decode_body: Any
) -> None:
    with pytest.raises(CorruptFeed) as caught:
        decode_body("trades", GOOD * 11 + line + "\n" + GOOD, fast=fast, row_group_rows=5, block_bytes=200)
    message = str(caught.value)
    assert re.search(rf"BTCUSDT\.csv\.gz\): line 13, column {column}: ", message), message
    assert "\n" not in message


def test_a_cell_that_is_not_utf8_is_named(decode_body: Any) -> None:
    with pytest.raises(CorruptFeed, match=r"line 3, column id: .*not UTF-8"):
        decode_body("trades", GOOD.encode() + GOOD.encode().replace(b",1,buy", b",\xff,buy"))


@pytest.mark.parametrize("fast", [True, False])
def test_words_of_another_column_are_refused(fast: bool, decode_body: Any) -> None:
    line = "deribit,X,1704067200000000,1704067200000001,{},{},6421.5,18640\n"
    decode_body("incremental_book_L2", line.format("true", "ask"), fast=fast)
    with pytest.raises(CorruptFeed, match="column side: 'buy' is none of bid, ask"):
        decode_body("incremental_book_L2", line.format("true", "buy"), fast=fast)
    with pytest.raises(CorruptFeed, match="column is_snapshot: '1' is none of false, true"):
        decode_body("incremental_book_L2", line.format("1", "ask"), fast=fast)


def test_another_header_is_refused_with_the_first_wrong_column(decode_body: Any) -> None:
    header = csv_header("trades").replace("side,price", "price,side")
    with pytest.raises(CorruptFeed, match="line 1, column side: the header is"):
        decode_body("trades", header + "\n" + GOOD, header=False)
    with pytest.raises(CorruptFeed, match="line 1, column exchange"):
        decode_body("trades", GOOD, header=False)


def test_a_header_with_carriage_return_is_the_header(decode_body: Any) -> None:
    assert decode_body("trades", csv_header("trades") + "\r\n" + GOOD, header=False)[0].rows == 1


def test_an_endless_line_is_refused_without_reading_it_whole(decode_body: Any) -> None:
    with pytest.raises(CorruptFeed, match="longer than"):
        decode_body("trades", b"x" * (1 << 26), block_bytes=1 << 12)


def test_a_failed_decode_leaves_the_earlier_file_alone(tmp_path: Any) -> None:
    from backfill_assets.feeds import Feed
    from backfill_assets.ticks.decode import decode
    from backfill_assets.ticks.profile import ProfileParameters

    source, target = tmp_path / "a.csv.gz", tmp_path / "a.parquet"
    target.write_bytes(b"earlier")
    source.write_bytes(gzip.compress(BODY)[:-20])
    with pytest.raises(TransientFailure):
        decode(
            source,
            target,
            feed=Feed("binance", "trades", "X"),
            day="2024-01-01",
            symbols={},
            parameters=ProfileParameters(),
        )
    assert target.read_bytes() == b"earlier"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.csv.gz", "a.parquet"]
