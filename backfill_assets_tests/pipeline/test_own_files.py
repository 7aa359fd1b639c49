"""A user's own files: genuine names, kinds and layouts, with the vendor's metadata beside them."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from backfill_assets.days import shift, start_us
from backfill_assets.lake.manifests import load_day_record
from backfill_assets.progress.plan import make_plan
from backfill_assets.progress.request import backfill_request
from backfill_assets.report.model import day_report
from backfill_assets.standins.tardis import TardisStandin
from backfill_assets_tests.pipeline.conftest import MakePipeline, Pipeline, checks_of

DAY = "2024-02-29"
COLUMNS = "exchange,symbol,timestamp,local_timestamp,id,side,price,amount"
#: Exchange, symbol as in the file, price.
Row = tuple[str, str, float]
Serve = Callable[..., Pipeline]


def every_second(markets: Sequence[Row], day: str = DAY, every: int = 1) -> bytes:
    """A file with a trade of amount 1 of each market in each second of the day."""
    lines = [COLUMNS]
    for second in range(0, 86_400, every):
        at = start_us(day) + second * 1_000_000
        lines += [
            f"{x},{symbol},{at},{at + 50_000},{second + 1},buy,{price},1" for x, symbol, price in markets
        ]
    return gzip.compress("\n".join([*lines, ""]).encode(), 1, mtime=0)


def listed(exchange: str, name: str, base: str, quote: str, kind: str, **more: Any) -> dict[str, Any]:
    since = {"availableSince": "2020-01-01T00:00:00Z"}
    currencies = {"baseCurrency": base, "quoteCurrency": quote}
    return {"id": name, "exchange": exchange, "type": kind, **since, **currencies, **more}


@pytest.fixture
def files(tmp_path: Path) -> Path:
    (tmp_path / "files" / "instruments").mkdir(parents=True)
    return tmp_path / "files"


@pytest.fixture
def serve(files: Path, make_pipeline: MakePipeline) -> Iterator[Serve]:
    running: list[TardisStandin] = []

    def start(*symbols: str, exchange: str, types: Sequence[str] = ("trades",), **more: Any) -> Pipeline:
        standin = TardisStandin(datasets_dir=files)
        standin.__enter__()
        running.append(standin)
        entry = {"exchanges": [exchange], "symbols": symbols, "data_types": types, **more}
        return make_pipeline(standin, name=f"pipeline{len(running)}", universe=[entry])

    yield start
    for standin in running:
        standin.__exit__(None, None, None)


def put(files: Path, exchange: str, symbol: str, content: bytes, day: str = DAY) -> None:
    path = files / exchange / "trades" / day.replace("-", "/") / f"{symbol}.csv.gz"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def instruments(files: Path, exchange: str, *answers: dict[str, Any]) -> None:
    (files / "instruments" / f"{exchange}.json").write_text(json.dumps(answers))


low, high, count = pl.col("low"), pl.col("high"), pl.col("trade_count")


def markets(pipeline: Pipeline, timeframe: str = "1m", day: str = DAY) -> dict[str, tuple[float, ...]]:
    """By symbol: candles, lowest and highest price, and the most trades in a candle."""
    candles = pipeline.table("candles", day).filter(timeframe=timeframe)
    return {
        str(symbol): (one.height, *one.select(low.min(), high.max(), count.max()).row(0))
        for (symbol,), one in candles.group_by("symbol")
    }


def bybit(files: Path) -> None:
    perpetual = listed("bybit", "BTCUSDT", "BTC", "USDT", "perpetual", inverse=False, contractMultiplier=1)
    instruments(files, "bybit", perpetual, listed("bybit", "BTCUSDT-SPOT", "BTC", "USDT", "spot"))


def test_spot_and_perpetual_of_one_pair_are_two_markets(files: Path, serve: Serve) -> None:
    bybit(files)
    put(files, "bybit", "SPOT", every_second([("bybit", "BTCUSDT-SPOT", 61_000.0)]))
    put(files, "bybit", "PERPETUALS", every_second([("bybit", "BTCUSDT", 61_100.0)]))
    pipeline = serve("SPOT", "PERPETUALS", exchange="bybit")
    assert pipeline.run(DAY).success
    assert markets(pipeline) == {
        "BTC-USDT": (1_440, 61_000.0, 61_000.0, 60),
        "BTC-USDT-PERP": (1_440, 61_100.0, 61_100.0, 60),
    }
    named = pipeline.table("instruments", DAY).select("dataset_symbol", "symbol").rows()
    assert sorted(named) == [("BTCUSDT", "BTC-USDT-PERP"), ("BTCUSDT-SPOT", "BTC-USDT")]


@pytest.mark.parametrize("first", [0, 1])
def test_a_group_that_lacks_a_symbol_which_was_busy_the_day_before_says_so(
    first: int, files: Path, serve: Serve
) -> None:
    """The venue has no law of ids, and the order in which the days run makes no difference."""
    terms = {"inverse": False, "contractMultiplier": 1}
    bases = ("BTC", "ETH", "NEW")
    perpetuals = [listed("bybit", f"{base}USDT", base, "USDT", "perpetual", **terms) for base in bases]
    instruments(files, "bybit", *perpetuals[:2], {**perpetuals[2], "availableSince": f"{DAY}T23:00:00Z"})
    btc, eth, new = (("bybit", f"{base}USDT", 61_000.0) for base in bases)
    after = shift(DAY, 1)
    put(files, "bybit", "PERPETUALS", every_second([btc], every=30))
    put(files, "bybit", "PERPETUALS", every_second([btc, eth, new], after, every=30), after)
    pipeline = serve("PERPETUALS", exchange="bybit")
    for day in ((DAY, after), (after, DAY))[first]:
        assert pipeline.run(day).success
    lacking, whole = (pipeline.settled(day).feeds[0].verdict for day in (DAY, after))
    assert (lacking.outcome, whole.outcome) == ("publish", "publish")
    said = [[w for w in verdict.warnings if "no row" in w] for verdict in (lacking, whole)]
    assert said == [["no row of ETHUSDT, of which a day beside has 100 rows or more"], []]


@pytest.mark.parametrize("symbols", [("PERPETUALS", "BTC-USDT"), ("BTC-USDT-PERP", "PERPETUALS")])
def test_a_pair_beside_its_group_counts_once(files: Path, serve: Serve, symbols: tuple[str, ...]) -> None:
    bybit(files)
    for symbol in ("PERPETUALS", "BTCUSDT"):
        put(files, "bybit", symbol, every_second([("bybit", "BTCUSDT", 61_100.0)]))
    pipeline = serve(*symbols, exchange="bybit", instrument_types=["perpetual"])
    assert pipeline.run(DAY).success
    assert markets(pipeline) == {"BTC-USDT-PERP": (1_440, 61_100.0, 61_100.0, 60)}
    assert pipeline.table("trades", DAY).height == 86_400
    request = backfill_request({"start": DAY, "end": DAY})
    assert make_plan(pipeline.store, pipeline.settings, request).days_good == 1


def test_a_group_that_comes_beside_a_file_that_is_recorded_adds_no_trade_of_it(
    files: Path, serve: Serve
) -> None:
    bybit(files)
    instruments(
        files, "bybit",
        listed("bybit", "BTCUSDT", "BTC", "USDT", "perpetual", inverse=False, contractMultiplier=1),
        listed("bybit", "ETHUSDT", "ETH", "USDT", "perpetual", inverse=False, contractMultiplier=1),
    )  # fmt: skip
    put(files, "bybit", "BTCUSDT", every_second([("bybit", "BTCUSDT", 61_100.0)]))
    both = [("bybit", "BTCUSDT", 61_100.0), ("bybit", "ETHUSDT", 3_000.0)]
    pipeline = serve("BTC-USDT-PERP", exchange="bybit")
    assert pipeline.run(DAY).success
    put(files, "bybit", "PERPETUALS", every_second(both))
    pipeline.file.write_text(pipeline.file.read_text().replace("- BTC-USDT-PERP", "- PERPETUALS"))
    assert pipeline.settings.universe[0].symbols == ("PERPETUALS",)
    assert pipeline.run(DAY).success
    record = load_day_record(pipeline.store, DAY)
    assert record is not None
    assert [e.feed.dataset_symbol for e in record.expected_feeds] == ["BTCUSDT", "PERPETUALS"]
    assert markets(pipeline) == {
        "BTC-USDT-PERP": (1_440, 61_100.0, 61_100.0, 60),
        "ETH-USDT-PERP": (1_440, 3_000.0, 3_000.0, 60),
    }


def linear(files: Path, *bases: str) -> None:
    more = {"inverse": False, "contractMultiplier": 1}
    instruments(files, "bybit", *(listed("bybit", f"{b}USDT", b, "USDT", "perpetual", **more) for b in bases))


def switch(pipeline: Pipeline, before: str, after: str) -> None:
    pipeline.file.write_text(pipeline.file.read_text().replace(f"- {before}", f"- {after}"))
    assert pipeline.settings.universe[0].symbols == (after,)


def rows_of(*markets: Row, day: str = DAY, every: int = 1) -> list[str]:
    return gzip.decompress(every_second(markets, day, every)).decode().splitlines()[1:]


def packed(rows: Sequence[str]) -> bytes:
    return gzip.compress("\n".join([COLUMNS, *rows, ""]).encode(), 1, mtime=0)


@pytest.mark.parametrize("count", [0, 1, 50_000, 86_400])
def test_a_file_that_counts_is_taken_out_by_no_group_whatever_that_has_of_its_symbol(
    count: int, files: Path, serve: Serve
) -> None:
    linear(files, "BTC", "ETH")
    put(files, "bybit", "BTCUSDT", every_second([("bybit", "BTCUSDT", 61_100.0)]))
    pipeline = serve("BTC-USDT-PERP", exchange="bybit")
    assert pipeline.run(DAY).success
    # The group has another price for the symbol.
    rows = [*rows_of(("bybit", "ETHUSDT", 3_000.0)), *rows_of(("bybit", "BTCUSDT", 9.0))[:count]]
    put(files, "bybit", "PERPETUALS", packed(sorted(rows, key=lambda line: line.split(",")[3])))
    switch(pipeline, "BTC-USDT-PERP", "PERPETUALS")
    result = pipeline.run(DAY)
    assert result.success
    assert markets(pipeline) == {
        "BTC-USDT-PERP": (1_440, 61_100.0, 61_100.0, 60),
        "ETH-USDT-PERP": (1_440, 3_000.0, 3_000.0, 60),
    }
    trades = pipeline.table("trades", DAY).group_by("symbol").agg(pl.len(), pl.col("price").min())
    assert sorted(trades.rows()) == [("BTC-USDT-PERP", 86_400, 61_100.0), ("ETH-USDT-PERP", 86_400, 3_000.0)]
    assert pipeline.table("quality", DAY)["consistency"].to_list() == [1.0, 1.0]
    failed = [name for name, check in checks_of(result).items() if not check.passed]
    assert [name for name in failed if "consistency" in name or name.startswith("bigquery")] == []
    before = (pipeline.folder / "warehouse" / "trades" / f"{DAY}.parquet").stat().st_mtime_ns
    assert pipeline.run(DAY).success
    assert (pipeline.folder / "warehouse" / "trades" / f"{DAY}.parquet").stat().st_mtime_ns == before


def test_a_group_of_one_symbol_is_no_copy_of_the_symbols_own_file(files: Path, serve: Serve) -> None:
    linear(files, "BTC")
    content = every_second([("bybit", "BTCUSDT", 61_100.0)])
    put(files, "bybit", "BTCUSDT", content)
    put(files, "bybit", "PERPETUALS", content)
    pipeline = serve("BTC-USDT-PERP", exchange="bybit")
    assert pipeline.run(DAY).success
    switch(pipeline, "BTC-USDT-PERP", "PERPETUALS")
    assert pipeline.run(DAY).success
    assert markets(pipeline) == {"BTC-USDT-PERP": (1_440, 61_100.0, 61_100.0, 60)}
    assert pipeline.table("trades", DAY).height == 86_400
    assert {*pipeline.table("quality", DAY)["verdict"]} == {"publish"}


@pytest.mark.parametrize("has_rows", [False, True])
def test_rows_of_other_data_types_stay_and_count_once(has_rows: bool, files: Path, serve: Serve) -> None:
    linear(files, "BTC", "ETH")

    def write(symbol: str, *markets: Row) -> None:
        path = files / "bybit" / "liquidations" / DAY.replace("-", "/") / f"{symbol}.csv.gz"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(every_second(markets, every=60))

    write("BTCUSDT", ("bybit", "BTCUSDT", 61_100.0))
    pipeline = serve("BTC-USDT-PERP", exchange="bybit", types=["liquidations"])
    pipeline.run(DAY)
    write("PERPETUALS", ("bybit", "ETHUSDT", 3_000.0), *([("bybit", "BTCUSDT", 9.0)] if has_rows else []))
    switch(pipeline, "BTC-USDT-PERP", "PERPETUALS")
    pipeline.run(DAY)
    rows = pipeline.table("liquidations", DAY).group_by("symbol").agg(pl.len(), pl.col("price").min())
    assert sorted(rows.rows()) == [("BTC-USDT-PERP", 1_440, 61_100.0), ("ETH-USDT-PERP", 1_440, 3_000.0)]


def test_trades_that_come_again_in_a_group_after_midnight_count_once(files: Path, serve: Serve) -> None:
    before = shift(DAY, -1)
    linear(files, "BTC", "ETH")
    put(files, "bybit", "BTCUSDT", every_second([("bybit", "BTCUSDT", 61_100.0)], before), before)
    pipeline = serve("BTC-USDT-PERP", exchange="bybit")
    assert pipeline.run(before).success
    again = []
    for line in rows_of(("bybit", "BTCUSDT", 61_100.0), day=before)[-5:]:
        cells = line.split(",")
        again.append(",".join([*cells[:3], str(start_us(DAY) + 1_000), *cells[4:]]))
    both = [("bybit", "BTCUSDT", 61_100.0), ("bybit", "ETHUSDT", 3_000.0)]
    put(files, "bybit", "PERPETUALS", packed([*again, *rows_of(*both)]))
    switch(pipeline, "BTC-USDT-PERP", "PERPETUALS")
    assert pipeline.run(DAY).success
    minute = pipeline.table("candles", before).filter(timeframe="1m").sort("open_time")[-1]
    assert minute["trade_count"].to_list() == [60]
    assert pipeline.table("candles", DAY).filter(timeframe="1d")["trade_count"].to_list() == [86_400] * 2


def test_a_market_that_shares_its_pair_from_now_on_keeps_its_name_in_the_file_that_counts(
    files: Path, serve: Serve
) -> None:
    linear(files, "BTC")
    put(files, "bybit", "BTCUSDT", every_second([("bybit", "BTCUSDT", 61_100.0)]))
    pipeline = serve("BTC-USDT-PERP", exchange="bybit")
    assert pipeline.run(DAY).success
    more = {"inverse": False, "contractMultiplier": 1}
    names = ("BTCUSDT", "BTCUSDTX")
    instruments(files, "bybit", *(listed("bybit", n, "BTC", "USDT", "perpetual", **more) for n in names))
    both = [("bybit", "BTCUSDT", 61_100.0), ("bybit", "BTCUSDTX", 61_200.0)]
    put(files, "bybit", "PERPETUALS", every_second(both))
    switch(pipeline, "BTC-USDT-PERP", "PERPETUALS")
    result = pipeline.run(DAY)
    assert {*markets(pipeline)} == {"BTC-USDT-PERP", "BTCUSDTX"}
    failed = [name for name, check in checks_of(result).items() if not check.passed]
    assert [name for name in failed if name.startswith("bigquery")] == []


@pytest.mark.parametrize("successor_since", ["12:00", "10:00"], ids=["one market", "two markets"])
def test_a_contract_of_a_group_holds_until_its_successor_is_listed(
    successor_since: str, files: Path, serve: Serve
) -> None:
    noon, since = f"{DAY}T12:00:00.000Z", f"{DAY}T{successor_since}:00.000Z"
    first, second = "ADA-USDT-SWAP", "ADA-USDT-SWAP-2"
    swap = {"base": "ADA", "quote": "USDT", "kind": "perpetual", "inverse": False}
    instruments(
        files, "okex-swap",
        listed("okex-swap", first, **swap, contractMultiplier=10, availableTo=noon),
        {**listed("okex-swap", second, **swap, contractMultiplier=100), "availableSince": since},
    )  # fmt: skip
    long = {"type": "perpetual", "dataTypes": ["trades"], "availableSince": "2020-01-01T00:00:00Z"}
    sets = [
        {**long, "id": first, "availableTo": noon},
        {**long, "id": second, "availableSince": since},
        {**long, "id": "PERPETUALS"},
    ]
    exported = {"exportedFrom": "2020-01-01T00:00:00Z", "exportedUntil": "2024-03-05T00:00:00Z"}
    answer = {
        "id": "okex-swap",
        "enabled": True,
        "availableSymbols": [],
        "datasets": {**exported, "symbols": sets},
    }
    (files / "exchanges").mkdir()
    (files / "exchanges" / "okex-swap.json").write_text(json.dumps(answer))
    halves = [rows_of(("okex-swap", name, 0.5), every=10) for name in (first, second)]
    put(files, "okex-swap", "PERPETUALS", packed([*halves[0][:4_320], *halves[1][4_320:]]))
    pipeline = serve("PERPETUALS", exchange="okex-swap")
    pipeline.run(DAY)
    candles = pipeline.table("candles", DAY).filter(timeframe="4h").sort("open_time", "symbol")
    assert candles["volume"].to_list() == [14_400.0] * 3 + [144_000.0] * 3


def test_a_market_that_is_named_anew_on_one_day_keeps_its_name_on_the_others(
    files: Path, serve: Serve
) -> None:
    """Each file begins with a trade of the minute before midnight."""
    before = shift(DAY, -1)
    linear(files, "BTC")
    for day in (before, DAY):
        late = f"bybit,BTCUSDT,{start_us(day) - 1_000_000},{start_us(day) + 5},,sell,70000,1"
        put(
            files,
            "bybit",
            "PERPETUALS",
            packed([late, *rows_of(("bybit", "BTCUSDT", 61_100.0), day=day)]),
            day,
        )
    pipeline = serve("PERPETUALS", exchange="bybit")
    for day in (before, DAY):
        assert pipeline.run(day).success
    assert markets(pipeline, day=before) == {"BTC-USDT-PERP": (1_440, 61_100.0, 70_000.0, 61)}
    more = {"inverse": False, "contractMultiplier": 1}
    names = ("BTCUSDT", "BTCUSDT_X")
    instruments(files, "bybit", *(listed("bybit", n, "BTC", "USDT", "perpetual", **more) for n in names))
    result = pipeline.run(DAY)
    assert result.success
    assert markets(pipeline, day=before) == {"BTC-USDT-PERP": (1_440, 61_100.0, 70_000.0, 61)}
    assert markets(pipeline) == {"BTCUSDT": (1_440, 61_100.0, 61_100.0, 60)}
    failed = [name for name, check in checks_of(result).items() if not check.passed]
    assert [name for name in failed if name.startswith("bigquery")] == []


def test_one_market_under_two_names_counts_once(files: Path, serve: Serve) -> None:
    """The day recorded the symbol before the instruments told its pair."""
    put(files, "bybit", "BTCUSDT", every_second([("bybit", "BTCUSDT", 61_100.0)]))
    pipeline = serve("BTCUSDT", exchange="bybit", instrument_types=["perpetual"])
    assert pipeline.run(DAY).success
    linear(files, "BTC")
    put(files, "bybit", "PERPETUALS", every_second([("bybit", "BTCUSDT", 61_100.0)]))
    switch(pipeline, "BTCUSDT", "PERPETUALS")
    pipeline.run(DAY)
    assert [count for *_, count in markets(pipeline).values()] == [60]
    assert pipeline.table("trades", DAY).height == 86_400


def test_a_market_that_is_named_anew_takes_its_candles_with_it(files: Path, serve: Serve) -> None:
    def quoted_in(currency: str) -> None:
        more = {"inverse": False, "contractMultiplier": 1}
        instruments(files, "bybit", listed("bybit", "BTCUSDT", "BTC", currency, "perpetual", **more))

    quoted_in("USD")
    put(files, "bybit", "PERPETUALS", every_second([("bybit", "BTCUSDT", 61_100.0)]))
    pipeline = serve("PERPETUALS", exchange="bybit")
    for currency in ("USD", "USDT"):
        quoted_in(currency)
        assert pipeline.run(DAY).success
        assert {*markets(pipeline)} == {f"BTC-{currency}-PERP"}
        assert {*pipeline.table("trades", DAY)["symbol"]} == {f"BTC-{currency}-PERP"}


def test_genuine_names_of_kraken_and_of_other_scripts_are_read(files: Path, serve: Serve) -> None:
    put(files, "kraken", "XBT-USDT", every_second([("kraken", "XBT/USDT", 61_000.0)], every=10))
    flat = files / f"kraken_trades_{DAY}_ETH-USDT.csv.gz"
    flat.write_bytes(every_second([("kraken", "ETH/USDT", 3_000.0)], every=10))
    pipeline = serve("BTC-USDT", "ETH-USDT", exchange="kraken")
    assert pipeline.run(DAY).success
    assert {name: found[0] for name, found in markets(pipeline).items()} == {
        "BTC-USDT": 1_440,
        "ETH-USDT": 1_440,
    }
    put(files, "gate-io", "币安人生-USDT", every_second([("gate-io", "币安人生-USDT", 0.25)], every=10))
    pipeline = serve("币安人生-USDT", exchange="gate-io")
    assert pipeline.run(DAY).success
    assert {*markets(pipeline)} == {"币安人生-USDT"}


def test_an_exchange_that_closed_is_not_listed_and_stops_no_other(files: Path, serve: Serve) -> None:
    put(files, "kraken", "XBT-USDT", every_second([("kraken", "XBT/USDT", 61_000.0)], every=10))
    put(files, "ftx", "BTC-USD", every_second([("ftx", "BTC/USD", 20_000.0)], "2022-11-11"), "2022-11-11")
    (files / "exchanges").mkdir()
    symbol = {
        "id": "BTC-USD",
        "type": "spot",
        "availableSince": "2019-08-01T00:00:00Z",
        "dataTypes": ["trades"],
    }
    closed = {
        "id": "ftx",
        "enabled": False,
        "availableSymbols": [{**symbol, "id": "BTC/USD"}],
        "datasets": {"exportedUntil": "2022-11-12T00:00:00Z", "symbols": [symbol]},
    }
    (files / "exchanges" / "ftx.json").write_text(json.dumps(closed))
    pipeline = serve("BTC-USDT", exchange="kraken")
    text = pipeline.file.read_text()
    pipeline.file.write_text(
        text.replace("universe:\n", "universe:\n- exchanges: [ftx]\n  symbols: [BTC-USD]\n")
    )
    result = pipeline.run(DAY)
    assert result.success
    assert {*markets(pipeline)} == {"BTC-USDT"}
    record = load_day_record(pipeline.store, DAY)
    assert record is not None
    assert (record.not_listed, record.awaiting_export) == (("ftx/trades/BTC-USD",), ())
    told = "ftx/trades/BTC-USD (listed from 2019-08-01 to 2022-11-12)"
    assert day_report(pipeline.store, pipeline.settings, DAY).not_listed == (told,)
    [listing] = [
        e.materialization.metadata["not_listed"].value
        for e in result.get_asset_materialization_events()
        if "not_listed" in e.materialization.metadata
    ]
    assert listing == [told]
    assert pipeline.run("2022-11-11").success
