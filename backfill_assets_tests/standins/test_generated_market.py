"""The generated market is deterministic, follows the contract's columns, and has the quirks of real days."""

from __future__ import annotations

import gzip
import hashlib
import re
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import polars as pl
import pytest

from backfill_assets.days import end_us, shift, start_us
from backfill_assets.feeds import DATA_TYPES, Feed
from backfill_assets.standins.catalogue import CATALOGUE, KRAKEN_RENAME, SILENT_DAY
from backfill_assets.standins.csvtext import COLUMNS, EMPTY_FILE, js_number
from backfill_assets.standins.market import Market
from backfill_assets.standins.prices import reference_path
from backfill_assets.standins.sources import INVALID_SYMBOL, NOT_ON_THAT_DAY, NoDatasetError
from backfill_assets.standins.trades import NO_ID, SIDES

DAY = "2024-01-02"
STREAMS = [(stream.exchange, stream.canonical) for stream in CATALOGUE]
ReadFile = Callable[[bytes], pl.DataFrame]


def feed_of(market: Market, exchange: str, symbol: str, day: str = DAY, data_type: str = "trades") -> Feed:
    listing = market.stream(exchange, symbol).listing_on(day)
    assert listing is not None
    return Feed(exchange, data_type, listing.dataset_symbol)


def numbers(frame: pl.DataFrame, *columns: str) -> pl.DataFrame:
    return frame.with_columns(pl.col(*columns).cast(pl.Float64))


def test_another_process_makes_the_same_bytes(market: Market) -> None:
    code = (
        "import hashlib; from backfill_assets.standins.market import Market; "
        "from backfill_assets.feeds import Feed; "
        f"print(hashlib.sha256(Market().dataset(Feed.parse('kraken/trades/ADA-USDT'), '{DAY}')).hexdigest())"
    )
    there = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    here = market.dataset(Feed.parse("kraken/trades/ADA-USDT"), DAY)
    assert there.strip() == hashlib.sha256(here).hexdigest()


def test_a_file_does_not_depend_on_what_was_asked_before(market: Market) -> None:
    feed = Feed.parse("coinbase/trades/ETH-USDT")
    for day in (shift(DAY, 1), shift(DAY, -1)):
        market.dataset(feed, day)
    assert market.dataset(feed, DAY) == Market().dataset(feed, DAY)


def test_another_seed_is_another_market(market: Market) -> None:
    feed = Feed.parse("kraken/trades/ADA-USDT")
    assert Market(seed=2).dataset(feed, DAY) != market.dataset(feed, DAY)


def test_the_gzip_header_carries_no_time(market: Market) -> None:
    assert market.dataset(Feed.parse("kraken/trades/ADA-USDT"), DAY)[4:8] == b"\0\0\0\0"


@pytest.mark.parametrize(("exchange", "symbol"), STREAMS)
def test_rows_lie_in_their_files_day_by_arrival_and_never_go_back(
    market: Market, exchange: str, symbol: str
) -> None:
    rows = market.trades(exchange, symbol, DAY, DAY)
    assert rows.local_timestamp_us[0] >= start_us(DAY)
    assert rows.local_timestamp_us[-1] < end_us(DAY)
    assert (np.diff(rows.local_timestamp_us) >= 0).all()
    assert (rows.timestamp_us <= rows.local_timestamp_us).all()


@pytest.mark.parametrize(("exchange", "symbol"), STREAMS)
def test_every_file_begins_with_trades_of_the_day_before(market: Market, exchange: str, symbol: str) -> None:
    for day in ("2023-12-31", "2024-01-01", "2024-02-29"):
        early = market.trades(exchange, symbol, day, day).timestamp_us < start_us(day)
        assert 3 <= early.sum() <= 6
        assert early[: early.sum()].all()


@pytest.mark.parametrize(
    ("exchange", "symbol", "first_day"),
    [(exchange, "BTC-USDT", "2024-01-30") for exchange in ("binance", "coinbase")]
    + [("kraken", "BTC-USDT", KRAKEN_RENAME), ("coinbase", "SOL-USDT", "2024-01-03")],
)
def test_ids_run_on_over_midnight_without_a_hole(
    market: Market, exchange: str, symbol: str, first_day: str
) -> None:
    ids = market.trades(exchange, symbol, first_day, shift(first_day, 3)).id
    assert (np.diff(ids) == 1).all()


def test_futures_ids_have_holes_of_at_most_five_and_zero_rows(market: Market) -> None:
    rows = market.trades("binance-futures", "BTC-USDT", DAY, shift(DAY, 2))
    steps = np.diff(rows.id)
    assert steps.min() == 1
    assert 2 <= steps.max() <= 6
    assert ((rows.price == 0) & (rows.amount == 0)).sum() == 6
    assert ((rows.price == 0) == (rows.amount == 0)).all()


def test_kraken_renames_bitcoin_and_gets_ids_on_the_same_day(market: Market, read_file: ReadFile) -> None:
    before = shift(KRAKEN_RENAME, -1)
    old = read_file(market.dataset(Feed.parse("kraken/trades/XBT-USDT"), before))
    new = read_file(market.dataset(Feed.parse("kraken/trades/BTC-USDT"), KRAKEN_RENAME))
    assert set(old["symbol"]) == {"XBT/USDT"}
    assert old["id"].null_count() == len(old)
    assert set(new["symbol"]) == {"BTC/USDT"}
    assert new["id"].null_count() == 0
    assert int(new["timestamp"][0]) < start_us(KRAKEN_RENAME), "the last trades as XBT arrive as BTC"
    for feed, day in (("XBT-USDT", KRAKEN_RENAME), ("BTC-USDT", before)):
        with pytest.raises(NoDatasetError) as refused:
            market.dataset(Feed("kraken", "trades", feed), day)
        assert refused.value.code == NOT_ON_THAT_DAY


def test_real_days_quirks_are_there(market: Market) -> None:
    binance = market.trades("binance", "BTC-USDT", DAY, DAY)
    assert (binance.timestamp_us % 1_000 == 0).all(), "milliseconds"
    assert (np.diff(binance.timestamp_us) < 0).sum() >= 2, "late rows"
    assert (np.diff(binance.timestamp_us) == 0).sum() > len(binance) / 4, "sweeps"
    kraken = market.trades("kraken", "ADA-USDT", DAY, DAY)
    assert {SIDES[code] for code in set(kraken.side)} == {"buy", "sell", "unknown"}
    assert (kraken.id == NO_ID).all()
    minutes = np.unique((kraken.timestamp_us - start_us(DAY)) // 60_000_000)
    assert 350 < 1440 - len(minutes) < 500, "more minutes are quiet than chance alone leaves (about 310)"
    traded = np.unique((binance.timestamp_us - start_us(DAY)) // 60_000_000)
    assert 3 <= 1440 - len(traded[traded >= 0]) <= 5, "a busy pair is quiet for a few minutes"
    assert {SIDES[code] for code in set(binance.side)} == {"buy", "sell"}


def test_prices_agree_across_venues(market: Market) -> None:
    for symbol in ("BTC-USDT", "ETH-USDT", "ADA-USDT"):
        means = {}
        for exchange in ("binance", "coinbase", "kraken"):
            rows = market.trades(exchange, symbol, DAY, DAY)
            minute = (rows.timestamp_us - start_us(DAY)) // 60_000_000
            frame = pl.DataFrame({"minute": minute, "price": rows.price, "amount": rows.amount})
            vwap = (pl.col("price") * pl.col("amount")).sum() / pl.col("amount").sum()
            means[exchange] = frame.group_by("minute").agg(vwap.alias(exchange))
        joined = means["binance"].join(means["coinbase"], on="minute").join(means["kraken"], on="minute")
        for exchange in ("coinbase", "kraken"):
            off = (joined[exchange] / joined["binance"] - 1).abs()
            assert (off < 2e-3).sum() > 0.95 * len(off)


def test_the_reference_goes_on_where_the_day_before_ended() -> None:
    for day in ("2023-12-31", "2024-02-28"):
        assert reference_path(1, "BTC", day)[-1] == pytest.approx(reference_path(1, "BTC", shift(day, 1))[0])


@pytest.mark.parametrize(("exchange", "symbol"), STREAMS)
def test_the_arrays_are_the_files_numbers(
    market: Market, read_file: ReadFile, exchange: str, symbol: str
) -> None:
    rows = market.trades(exchange, symbol, DAY, DAY)
    file = read_file(market.dataset(feed_of(market, exchange, symbol), DAY))
    assert file.columns == [
        "exchange",
        "symbol",
        "timestamp",
        "local_timestamp",
        "id",
        "side",
        "price",
        "amount",
    ]
    assert file["timestamp"].cast(pl.Int64).to_list() == rows.timestamp_us.tolist()
    assert file["local_timestamp"].cast(pl.Int64).to_list() == rows.local_timestamp_us.tolist()
    assert file["id"].cast(pl.Int64).fill_null(NO_ID).to_list() == rows.id.tolist()
    assert file["side"].to_list() == [SIDES[code] for code in rows.side]
    assert file["price"].cast(pl.Float64).to_list() == rows.price.tolist()
    assert file["amount"].cast(pl.Float64).to_list() == rows.amount.tolist()


@pytest.mark.parametrize(("day", "decimals"), [("2023-01-31", 5), ("2023-02-01", 4)])
def test_prices_lie_on_the_grid_that_is_valid_on_the_day(market: Market, day: str, decimals: int) -> None:
    prices = market.trades("binance", "ADA-USDT", day, day).price
    digits = {len(f"{price}".partition(".")[2]) for price in prices}
    assert max(digits) == decimals


def test_a_listed_symbol_can_be_silent_for_a_day(market: Market) -> None:
    feed = Feed.parse("coinbase/trades/SOL-USDT")
    assert market.dataset(feed, SILENT_DAY) == EMPTY_FILE
    assert gzip.decompress(EMPTY_FILE) == b""
    assert len(market.dataset(feed, shift(SILENT_DAY, -1))) > 1_000
    assert len(market.dataset(feed, shift(SILENT_DAY, 1))) > 1_000


@pytest.mark.parametrize(
    ("units", "decimals", "text"),
    [
        (123, 0, "123"),
        (4_250_000, 2, "42500"),
        (4_250_010, 2, "42500.1"),
        (5, 2, "0.05"),
        (0, 3, "0"),
        (100, 8, "0.000001"),
        (99, 8, "9.9e-7"),
        (90, 8, "9e-7"),
        (1, 8, "1e-8"),
        (0, 8, "0"),
    ],
)
def test_numbers_look_as_javascript_prints_them(units: int, decimals: int, text: str) -> None:
    assert pl.DataFrame({"u": [units]}).select(js_number(pl.col("u"), decimals)).item() == text


def test_coinbase_has_dust_with_exponents(market: Market) -> None:
    text = gzip.decompress(market.dataset(Feed.parse("coinbase/trades/BTC-USDT"), DAY)).decode()
    assert re.search(r",\d(\.\d)?e-[78]$", text, re.MULTILINE)


def test_the_number_of_rows_can_be_set(read_file: ReadFile) -> None:
    market = Market(rows={("binance", "BTC-USDT"): 200_000})
    started = time.perf_counter()
    file = read_file(market.dataset(Feed.parse("binance/trades/BTCUSDT"), DAY))
    assert 150_000 < len(file) < 250_000
    assert (file["id"].cast(pl.Int64).diff().drop_nulls() == 1).all()
    assert time.perf_counter() - started < 20


def test_an_unknown_stream_cannot_be_set() -> None:
    with pytest.raises(KeyError, match="binance/BTC-EUR"):
        Market(rows={("binance", "BTC-EUR"): 1_000})


@pytest.mark.parametrize(
    ("exchange", "group", "symbols"),
    [
        ("binance", "SPOT", {"BTCUSDT", "ETHUSDT", "ADAUSDT", "SOLUSDT"}),
        ("kraken", "SPOT", {"XBT/USDT", "ETH/USDT", "ADA/USDT", "SOL/USDT"}),
        ("binance-futures", "PERPETUALS", {"BTCUSDT", "ETHUSDT"}),
    ],
)
def test_a_grouped_file_holds_the_rows_of_all_symbols_by_arrival(
    market: Market, read_file: ReadFile, exchange: str, group: str, symbols: set[str]
) -> None:
    file = read_file(market.dataset(Feed(exchange, "trades", group), DAY))
    assert set(file["symbol"]) == symbols
    assert file["local_timestamp"].cast(pl.Int64).is_sorted()
    for symbol in symbols:
        alone = read_file(market.dataset(Feed(exchange, "trades", symbol.replace("/", "-")), DAY))
        assert file.filter(pl.col("symbol") == symbol).equals(alone)


@pytest.mark.parametrize(
    ("feed", "day", "code"),
    [
        ("binance/trades/PERPETUALS", DAY, NOT_ON_THAT_DAY),
        ("binance/quotes/SPOT", DAY, NOT_ON_THAT_DAY),
        ("binance/trades/DOGEUSDT", DAY, INVALID_SYMBOL),
        ("kraken/trades/ADAUSDT", DAY, INVALID_SYMBOL),
        ("nowhere/trades/BTCUSDT", DAY, INVALID_SYMBOL),
        ("binance/candles/BTCUSDT", DAY, INVALID_SYMBOL),
        ("binance/liquidations/BTCUSDT", DAY, NOT_ON_THAT_DAY),
        ("binance/trades/SOLUSDT", "2021-06-16", NOT_ON_THAT_DAY),
    ],
)
def test_what_is_not_there_is_refused_with_the_vendors_code(
    market: Market, feed: str, day: str, code: int
) -> None:
    with pytest.raises(NoDatasetError) as refused:
        market.dataset(Feed.parse(feed), day)
    assert refused.value.code == code


def test_the_first_listed_day_begins_without_trades_of_the_day_before(market: Market) -> None:
    rows = market.trades("binance", "SOL-USDT", "2021-06-17", "2021-06-17")
    assert (rows.timestamp_us >= start_us("2021-06-17")).all()


OTHERS = [
    "binance/quotes/BTCUSDT",
    "binance/book_ticker/BTCUSDT",
    "coinbase/book_snapshot_5/ETH-USDT",
    "kraken/book_snapshot_25/ADA-USDT",
    "binance-futures/incremental_book_L2/BTCUSDT",
    "binance-futures/derivative_ticker/BTCUSDT",
    "binance-futures/liquidations/ETHUSDT",
    "deribit/options_chain/OPTIONS",
]


def test_every_data_type_is_served(market: Market) -> None:
    assert {Feed.parse(feed).data_type for feed in OTHERS} | {"trades"} == set(DATA_TYPES)


@pytest.mark.parametrize("name", OTHERS)
def test_other_data_types_have_their_columns_and_arrive_on_their_day(
    market: Market, read_file: ReadFile, name: str
) -> None:
    feed = Feed.parse(name)
    file = read_file(market.dataset(feed, DAY))
    assert tuple(file.columns) == COLUMNS[feed.data_type]
    assert len(file) > 50
    local = file["local_timestamp"].cast(pl.Int64)
    assert local.is_sorted()
    assert local[0] >= start_us(DAY)
    assert local[-1] < end_us(DAY)
    for column in file.columns:
        if re.search(r"price|amount|rate|interest|_iv$|^(delta|gamma|vega|theta|rho)$", column):
            file[column].cast(pl.Float64)


@pytest.mark.parametrize("name", OTHERS[:4])
def test_quotes_and_snapshots_are_not_crossed(market: Market, read_file: ReadFile, name: str) -> None:
    file = read_file(market.dataset(Feed.parse(name), DAY))
    prices = [column for column in file.columns if column.endswith("price")]
    file = numbers(file, *prices)
    if "ask_price" in prices:
        assert (file["ask_price"] > file["bid_price"]).all()
        return
    assert (file["asks[0].price"] > file["bids[0].price"]).all()
    for level in range(1, len(prices) // 2):
        assert (file[f"asks[{level}].price"] > file[f"asks[{level - 1}].price"]).all()
        assert (file[f"bids[{level}].price"] < file[f"bids[{level - 1}].price"]).all()


@pytest.mark.parametrize(
    "name", ["kraken/incremental_book_L2/ADA-USDT", "binance-futures/incremental_book_L2/BTCUSDT"]
)
def test_a_replayed_book_is_never_crossed_and_keeps_its_depth(
    market: Market, read_file: ReadFile, name: str
) -> None:
    file = read_file(market.dataset(Feed.parse(name), DAY))
    columns = ("local_timestamp", "is_snapshot", "side", "price", "amount")
    books: dict[str, dict[float, float]] = {"bid": {}, "ask": {}}
    rows = list(file.select(columns).iter_rows())
    was_snapshot, snapshots = False, 0
    for (arrival, is_snapshot, side, price, amount), following in pairwise([*rows, (None,) * 5]):
        if is_snapshot == "true" and not was_snapshot:
            books = {"bid": {}, "ask": {}}
            snapshots += 1
        was_snapshot = is_snapshot == "true"
        if float(amount) == 0:
            del books[side][float(price)]
        else:
            books[side][float(price)] = float(amount)
        if following[0] != arrival:
            assert max(books["bid"]) < min(books["ask"])
            assert len(books["bid"]) == len(books["ask"]) == 25
    assert snapshots < len(rows) / 200


def test_options_are_real_contracts_that_have_not_expired(market: Market, read_file: ReadFile) -> None:
    file = read_file(market.dataset(Feed.parse("deribit/options_chain/OPTIONS"), DAY))
    assert set(file["type"]) == {"call", "put"}
    assert file["expiration"].cast(pl.Int64).min() > end_us(DAY)  # type: ignore[operator]
    assert 0 < file["bid_price"].null_count() < len(file) / 2
    assert set(file["symbol"]) <= {listing.dataset_symbol for listing in market.listings("deribit")}
