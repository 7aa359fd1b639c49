"""Candles made while a file is decoded equal those of the stored file bit for bit, or are not used."""

from __future__ import annotations

import gzip
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from backfill_assets.candles.trade_files import AcceptedFile, make_partials, read_partials
from backfill_assets.contracts import Contract
from backfill_assets.feeds import Feed
from backfill_assets.lake import paths
from backfill_assets.lake.manifests import load_manifest
from backfill_assets.quality.measures import TradesFile
from backfill_assets.tardis.columns import csv_header
from backfill_assets.ticks.decode import decode
from backfill_assets.ticks.fetch import candles_to_fill
from backfill_assets.ticks.partials import MinuteCandles, of_exchange, partial_candles, seam_window
from backfill_assets.ticks.profile import ProfileParameters
from backfill_assets_tests.candles.candle_lake import FEED, SETTINGS, bring, files, made, partials_of
from backfill_assets_tests.candles.candle_samples import (
    AFTER,
    BEFORE,
    DAY,
    END,
    MINUTE,
    START,
    Trade,
    numbered,
)
from backfill_assets_tests.quality.watched_stores import CountingStore

SYMBOLS = {"BTCUSDT": "BTC-USDT", "ETHUSDT": "ETH-USDT", "XETHUSDT": "ETH-USDT"}


def lines(seed: int, *, ids: bool) -> list[str]:
    """Rows of a group's file: ties, repeats, random order, seams, distant days, rows that are not trades."""
    chance = random.Random(seed)
    found = []
    for number in range(700):
        minute = chance.choice([-9, -5, -1, 0, 1, 2, 700, 1439, 1440, 1444, 1445, 90_000])
        time_us = START + minute * MINUTE + chance.choice([0, 0, 1, 59_999_999])
        symbol = chance.choice([*SYMBOLS, "UNKNOWN"])
        name = str(chance.randrange(500)) if ids else chance.choice(["", "a-7", str(number)])
        side = chance.choice(["buy", "sell", "unknown", ""])
        price = chance.choice(["", "0", "9.9e-7", f"{chance.uniform(90, 110):.{number % 9}f}"])
        amount = chance.choice(["", "1e30", "-1", f"{chance.expovariate(1):.8f}"])
        found.append(f"binance,{symbol},{time_us},{START + number},{name},{side},{price},{amount}")
        if chance.random() < 0.1:
            found.append(found[chance.randrange(len(found))])
    return found


@pytest.mark.parametrize("way", [{}, {"block_bytes": 997}, {"row_group_rows": 3}, {"fast": False}])
@pytest.mark.parametrize("ids", [True, False])
def test_the_candles_of_the_pass_are_those_of_the_file(
    ids: bool, way: dict[str, Any], tmp_path: Path
) -> None:
    source, target = tmp_path / "SPOT.csv.gz", tmp_path / "ticks.parquet"
    source.write_bytes(gzip.compress("\n".join([csv_header("trades"), *lines(3, ids=ids), ""]).encode()))
    candles = MinuteCandles(by_id=ids, window=seam_window(DAY, 300))
    decode(
        source,
        target,
        feed=Feed("binance", "trades", "SPOT"),
        day=DAY,
        symbols=SYMBOLS,
        parameters=ProfileParameters(),
        candles=candles,
        **way,
    )
    of_pass = of_exchange("binance", candles.table())
    of_file = partial_candles(target, exchange="binance", day=DAY, seam_window_seconds=300, numeric_ids=ids)
    assert of_pass.num_rows > 10
    assert of_pass.equals(of_file)


def trades(start: int = START, first: int = 100, count: int = 200) -> list[tuple[int, Trade]]:
    """Rows of a whole day, in order."""
    rows = (Trade(start + n * 7 * MINUTE, 100 + n % 7, 1 + n / 3) for n in range(count))
    return [(t.us, t) for t in numbered(rows, first)]


@pytest.fixture
def store(tmp_path: Path) -> CountingStore:
    return CountingStore(tmp_path / "lake")


def accepted(store: CountingStore, rows: list[tuple[int, Trade]] | None = None) -> AcceptedFile:
    """A file that was stored together with its candles."""
    bring(store, DAY, rows or trades(), candles=True)
    [file] = files(store, DAY)
    assert file.decoded is not None
    store.opened.clear()
    return file


def ticks_opened(store: CountingStore) -> int:
    return sum(count for path, count in store.opened.items() if path.startswith("ticks/"))


def computed(store: CountingStore, file: AcceptedFile) -> TradesFile:
    return make_partials(store, replace(file, decoded=None))


def test_candles_take_those_of_the_pass_and_read_no_ticks(store: CountingStore) -> None:
    file = accepted(store)
    taken = make_partials(store, file)
    assert ticks_opened(store) == 0
    assert taken == computed(store, file)
    assert ticks_opened(store) == 1


def test_a_day_has_the_same_candles_either_way(tmp_path: Path) -> None:
    contents = set()
    for candles in (True, False):
        store = CountingStore(tmp_path / str(candles))
        bring(store, DAY, trades(), candles=candles)
        table = made(store, DAY)
        assert ticks_opened(store) == 1 if candles else 2, "the comparison reads the ticks in any case"
        contents.add((partials_of(store, DAY).partials.content, table.num_rows))
    assert len(contents) == 1


@pytest.mark.parametrize("harm", ["gone", "cut", "other bytes"])
def test_candles_that_are_lost_or_damaged_are_made_of_the_file(harm: str, store: CountingStore) -> None:
    file = accepted(store)
    assert file.decoded is not None
    whole = file.decoded.file
    place = Path(store.uri) / paths.partials_data(FEED, DAY, whole.content)
    data = place.read_bytes()
    if harm == "gone":
        place.unlink()
    else:
        place.write_bytes(data[:-1] if harm == "cut" else bytes([data[0] ^ 1]) + data[1:])
    made(store, DAY)
    assert partials_of(store, DAY).partials == whole
    assert place.read_bytes() == data


@pytest.mark.parametrize(
    "change",
    [
        {"seam_window_seconds": 60},
        {"numeric_ids": False},
        {"contracts": {"BTC-USDT": (Contract(100.0, inverse=True),)}},
        {"contracts": {"BTC-USDT": (Contract(), Contract(2.0, since_us=START + MINUTE))}},
        {"contracts": {"BTC-USDT": (Contract(None),)}},
        {"left_out": ("BTCUSDT",)},
    ],
    ids=str,
)
def test_candles_that_rest_on_anything_else_are_made_of_the_file(
    change: dict[str, Any], store: CountingStore
) -> None:
    early = [(START, t) for _, t in trades(START - 200_000_000, 99, 1)]
    same_time = [(START, replace(t, id="98", price=99.9)) for _, t in early]
    file = replace(accepted(store, [*early, *same_time, *trades()]), **change)
    found = make_partials(store, file)
    assert ticks_opened(store) > 0
    assert found == computed(store, file)
    assert file.decoded is not None
    assert found.partials.content != file.decoded.file.content


def test_repeated_trades_count_once_all_the_same(store: CountingStore) -> None:
    rows = trades()
    file = accepted(store, [*rows, *((END - 1, t) for _, t in rows[:5])])
    assert file.repeats
    found = make_partials(store, file)
    assert found == computed(store, file)
    assert found.partials.rows == 200


def test_trades_of_the_day_before_count_there_only(store: CountingStore) -> None:
    last = Trade(END - 1, 5.0, id="300")
    accepted(store, [*trades(), (END - 1, last)])
    bring(store, AFTER, [(END, last), *trades(END, 301)], candles=True)
    [file] = files(store, AFTER)
    assert file.overlaps
    found = make_partials(store, file)
    assert found == computed(store, file)
    partials = read_partials(store, AFTER, [(FEED, found.partials)])
    assert partials["first_trade_time"].cast("int64")[0].as_py() == END


def test_ids_that_are_no_order_after_all_leave_no_candles(store: CountingStore) -> None:
    """A law says that ids are in order, and one row breaks it: row numbers alone break ties."""
    rows = [(at, replace(t, id="a-1") if n == 150 else t) for n, (at, t) in enumerate(trades())]
    bring(store, DAY, rows, candles=True)
    version = load_manifest(store, FEED, DAY).newest
    assert version is not None
    assert version.candles is None


def test_only_trades_have_candles() -> None:
    laws, parameters = SETTINGS.thresholds.id_laws, ProfileParameters()
    assert candles_to_fill(Feed("binance", "quotes", "BTCUSDT"), BEFORE, parameters, laws) is None
