"""A file made of stored ticks is decoded to the same bytes again, for every data type."""

from __future__ import annotations

import gzip
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from backfill_assets.feeds import DATA_TYPES, Feed
from backfill_assets.rehearsal.encode import encode
from backfill_assets.tardis.columns import CsvField, csv_fields, csv_header
from backfill_assets.tardis.generated import GZIP_HEADER, is_generated
from backfill_assets.ticks.decode import Decoded, decode
from backfill_assets.ticks.profile import ProfileParameters

DAY, START_US, DAY_US = "2024-02-29", 1_709_164_800_000_000, 86_400_000_000
NUMBERS = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.sampled_from(["0", "-0", "8531.5", "9.9e-7", "1e+21", "1e22", "0.1", "123456789012345678", "5e-324"]),
    st.decimals(min_value=0, max_value=10**9, places=8).map(lambda number: f"{number:f}"),
)
TEXTS = st.text(
    st.characters(exclude_characters='",', exclude_categories=("C", "Z")), min_size=1, max_size=20
)


def cells(field: CsvField) -> st.SearchStrategy[str]:
    """Cells of a column as the vendor may write them."""
    if field.csv in ("exchange", "symbol"):
        return st.just("binance" if field.csv == "exchange" else "BTCUSDT")
    kinds: dict[str, st.SearchStrategy[str]] = {
        "time": st.integers(START_US, START_US + DAY_US - 1).map(str),
        "number": NUMBERS,
        "text": TEXTS,
        "id": st.one_of(st.integers(0, 10**20).map(str), TEXTS),
    }
    found = st.sampled_from(field.words) if field.words else kinds[field.kind]
    return (
        found if field.csv.endswith("timestamp") and field.column.required else st.one_of(st.just(""), found)
    )


def bodies(data_type: str) -> st.SearchStrategy[str]:
    lines = st.tuples(*map(cells, csv_fields(data_type))).map(",".join)
    return st.lists(lines, max_size=8).map(lambda found: "".join(f"{line}\n" for line in found))


def decoded(source: Path, target: Path, data_type: str) -> Decoded:
    feed = Feed("binance", data_type, "BTCUSDT")
    symbols = {"BTCUSDT": "BTC-USDT"}
    return decode(source, target, feed=feed, day=DAY, symbols=symbols, parameters=ProfileParameters())


def goes_round(data_type: str, content: bytes, change: Callable[[bytes], bytes] = lambda made: made) -> bool:
    """Whether decoding, encoding and decoding again gives the bytes of the first decoding."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "vendor.csv.gz").write_bytes(content)
        first = decoded(folder / "vendor.csv.gz", folder / "first.parquet", data_type)
        again = folder / "again.csv.gz"
        encode(folder / "first.parquet", again, data_type, generated=is_generated(folder / "vendor.csv.gz"))
        assert is_generated(again) == content.startswith(GZIP_HEADER)
        again.write_bytes(gzip.compress(change(gzip.decompress(again.read_bytes()))))
        second = decoded(again, folder / "second.parquet", data_type)
        return (first.content, first.profile) == (second.content, second.profile)


@pytest.mark.parametrize("data_type", DATA_TYPES)
def test_decoding_what_was_encoded_gives_the_same_bytes(data_type) -> None:
    @settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(bodies(data_type))
    def check(body: str) -> None:
        header = f"{csv_header(data_type)}\n" if body else ""
        assert goes_round(data_type, gzip.compress((header + body).encode()))

    check()


def test_a_digit_of_another_price_gives_other_bytes() -> None:
    body = f"{csv_header('trades')}\nbinance,BTCUSDT,{START_US},{START_US},7,buy,42000.5,0.1\n"
    content = gzip.compress(body.encode())
    assert goes_round("trades", content)
    assert not goes_round("trades", content, lambda made: made.replace(b"42000.5", b"42000.50000000001"))


def test_files_of_more_rows_than_a_batch_and_empty_ones_go_round(monkeypatch) -> None:
    monkeypatch.setattr("backfill_assets.rehearsal.encode._BATCH_ROWS", 1_000)
    lines = [f"binance,BTCUSDT,{START_US + n},{START_US + n},{n},buy,{n / 7},1\n" for n in range(3_500)]
    assert goes_round("trades", gzip.compress((f"{csv_header('trades')}\n" + "".join(lines)).encode()))
    assert goes_round("trades", gzip.compress(b""))


def test_generated_files_say_so_again(generated_trades: bytes) -> None:
    assert generated_trades.startswith(GZIP_HEADER)
    assert goes_round("trades", generated_trades)


@pytest.fixture
def generated_trades() -> Any:
    from backfill_assets.rehearsal.house import rehearsal_market

    return rehearsal_market().dataset(Feed("binance", "trades", "BTCUSDT"), DAY)
