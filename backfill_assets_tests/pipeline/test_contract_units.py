"""One instrument of each kind through the whole pipeline, compared with volumes computed by hand.

Every file has one trade a minute, all alike, so each minute's candle is the volume of one trade.
"""

from __future__ import annotations

import gzip
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import duckdb
import polars as pl
import pytest

import backfill_assets as ba
from backfill_assets.candles.notional import notional_usd
from backfill_assets.days import MICROSECONDS_PER_MINUTE, shift, start_us
from backfill_assets.feeds import Feed
from backfill_assets.frames.output import FORMATS, table_text
from backfill_assets.standins.csvtext import EMPTY_FILE
from backfill_assets.standins.listings import Listing
from backfill_assets.standins.metadata import instrument
from backfill_assets.standins.sources import DatasetGroup
from backfill_assets.standins.tardis import CSV_ONLY_KEY, TardisStandin
from backfill_assets.tardis.columns import csv_header

DAY: Final = "2024-01-05"
NOON: Final = "2024-01-05T12:00:00.000Z"
MINUTES: Final = 1440


@dataclass(frozen=True)
class Kind:
    """An instrument, one trade of it, and the trade's worth; None if it cannot be known."""

    exchange: str
    id: str
    type: str
    base: str
    quote: str
    price: float
    amount: float
    volume: float | None
    quote_volume: float | None
    units: tuple[str | None, str | None]
    details: Mapping[str, Any] = field(default_factory=dict)
    #: The amount of the trades of the afternoon, if it differs.
    later: float | None = None

    @property
    def symbol(self) -> str:
        """The symbol of its candles."""
        pair = f"{self.base}-{self.quote}"
        return {"spot": pair, "perpetual": f"{pair}-PERP"}.get(self.type, self.id)


def kind(exchange: str, name: str, pair: str, trade: str, worth: str, **details: Any) -> Kind:
    """``trade`` is ``amount @ price``, ``worth`` is ``volume UNIT = quote_volume UNIT``."""
    base, quote = pair.split("-")
    of = details.pop("type", "perpetual")
    amount, price = (float(part) for part in trade.split(" @ "))
    if worth == "unknown":
        return Kind(exchange, name, of, base, quote, price, amount, None, None, ("contracts", quote), details)
    (volume, unit), (notional, in_) = (side.split() for side in worth.split(" = "))
    found = (float(volume), float(notional), (unit, in_))
    return Kind(exchange, name, of, base, quote, price, amount, *found, details)


def contract(multiplier: float, *, inverse: bool, **more: Any) -> dict[str, Any]:
    return {"contractMultiplier": multiplier, "inverse": inverse, **more}


#: Contracts as the instruments endpoint describes them.
KINDS: Final = (
    kind("binance", "BTCUSDT", "BTC-USDT", "0.5 @ 40000", "0.5 BTC = 20000 USDT", type="spot"),
    kind("binance-futures", "BTCUSDT", "BTC-USDT", "0.5 @ 40000", "0.5 BTC = 20000 USDT",
         **contract(1, inverse=False)),
    kind("binance-delivery", "BTCUSD_PERP", "BTC-USD", "8 @ 40000", "0.02 BTC = 800 USD",
         **contract(100, inverse=True)),
    kind("binance-delivery", "ETHUSD_240329", "ETH-USD", "8 @ 2000", "0.04 ETH = 80 USD", type="future",
         **contract(10, inverse=True)),
    kind("bybit", "BTCUSD", "BTC-USD", "800 @ 40000", "0.02 BTC = 800 USD", **contract(1, inverse=True)),
    # The venue's own notional: homeNotional 0.046899, foreignNotional 180.
    kind("bitmex", "XBTUSD", "BTC-USD", "180 @ 3838", "0.046899426784783744 BTC = 180 USD",
         **contract(1, inverse=True)),
    kind("bitmex", "XBTUSDT", "BTC-USDT", "1000 @ 51377", "0.001 BTC = 51.377 USDT",
         **contract(1e-6, inverse=False)),
    # homeNotional 0.0585 ETH for 0.0018116 BTC: at 58,513 USD for a BTC, which no row of the file says.
    kind("bitmex", "ETHUSD", "ETH-USD", "1 @ 1811.6", "unknown",
         **contract(1e-6, inverse=False, quanto=True, settlementCurrency="BTC")),
    # homeNotional 70.418 UNI for 0.00219 BTC: at 32,154 USD for a BTC, 3,110 satoshi for a USDT.
    kind("bitmex", "UNIUSDT", "UNI-USDT", "219 @ 20", "unknown",
         **contract(1e-5, inverse=False, quanto=True, settlementCurrency="XBt")),
    # Called quanto by the vendor, but settled in the currency in which it is quoted.
    kind("bitmex", "SOLUSDT", "SOL-USDT", "30 @ 100", "0.003 SOL = 0.3 USDT",
         **contract(1e-4, inverse=False, quanto=True, settlementCurrency="USDT")),
    kind("deribit", "BTC-PERPETUAL", "BTC-USD", "800 @ 40000", "0.02 BTC = 800 USD",
         **contract(1, inverse=True)),
    kind("deribit", "BTC-28JUN24-50000-C", "BTC-BTC", "0.5 @ 0.05", "0.5 BTC = 0.025 BTC", type="option",
         strikePrice=50000, optionType="call", expiry="2024-06-28T08:00:00.000Z",
         **contract(1, inverse=True, contractType="call_option")),
    kind("deribit", "SOL_USDC-28JUN24-100-C", "SOL-USDC", "5 @ 2.5", "5 SOL = 12.5 USDC", type="option",
         strikePrice=100, optionType="call", expiry="2024-06-28T08:00:00.000Z",
         **contract(1, inverse=False, contractType="call_option")),
    kind("okex-swap", "BTC-USDT-SWAP", "BTC-USDT", "5 @ 40000", "0.05 BTC = 2000 USDT",
         **contract(0.01, inverse=False)),
    kind("huobi-dm-swap", "BTC-USD", "BTC-USD", "8 @ 40000", "0.02 BTC = 800 USD",
         **contract(100, inverse=True)),
    kind("cryptofacilities", "PI_XBTUSD", "BTC-USD", "800 @ 40000", "0.02 BTC = 800 USD",
         **contract(1, inverse=True)),
    kind("cryptofacilities", "PF_ETHUSD", "ETH-USD", "0.5 @ 2000", "0.5 ETH = 1000 USD",
         **contract(1, inverse=False)),
)  # fmt: skip

#: By the exchange's details alone: the same worth if the venue tells it, and none if it does not.
BY_DETAILS: Final = (
    kind("binance", "BTCUSDT", "BTC-USDT", "0.5 @ 40000", "0.5 BTC = 20000 USDT", type="spot"),
    kind("binance-futures", "BTCUSDT", "BTC-USDT", "0.5 @ 40000", "0.5 BTC = 20000 USDT"),
    kind("binance-delivery", "BTCUSD_PERP", "BTC-USD", "8 @ 40000", "0.02 BTC = 800 USD"),
    kind("binance-delivery", "ETHUSD_PERP", "ETH-USD", "8 @ 2000", "0.04 ETH = 80 USD"),
    kind("bybit", "BTCUSD", "BTC-USD", "800 @ 40000", "0.02 BTC = 800 USD"),
    kind("bybit", "BTCUSDT", "BTC-USDT", "0.5 @ 40000", "0.5 BTC = 20000 USDT"),
    kind("bitmex", "ETHUSD", "ETH-USD", "1 @ 1811.6", "unknown"),
    kind("upbit", "KRW-BTC", "BTC-KRW", "0.5 @ 60000000", "0.5 BTC = 30000000 KRW", type="spot"),
    kind("okex-swap", "BTC-USDT-SWAP", "BTC-USDT", "5 @ 40000", "unknown"),
    kind("huobi-dm-swap", "BTC-USD", "BTC-USD", "8 @ 40000", "0.02 BTC = 800 USD"),
    kind("huobi-dm-swap", "ETH-USD", "ETH-USD", "8 @ 2000", "0.04 ETH = 80 USD"),
    kind("cryptofacilities", "PI_XBTUSD", "BTC-USD", "800 @ 40000", "0.02 BTC = 800 USD"),
    kind("cryptofacilities", "PF_ETHUSD", "ETH-USD", "0.5 @ 2000", "0.5 ETH = 1000 USD"),
)


class Shelf:
    """A source of the stand-in: files of these kinds with one trade a minute, and more if a test adds any."""

    def __init__(self, kinds: tuple[Kind, ...]) -> None:
        self.kinds = kinds
        self.exchanges = tuple(sorted({k.exchange for k in kinds}))
        #: By file: rows (exchange's time, amount) before the others.
        self.early: dict[tuple[str, str], tuple[int, float]] = {}

    def listings(self, exchange: str) -> tuple[Listing, ...]:
        return tuple(
            Listing(
                exchange=exchange,
                native_id=k.id,
                dataset_symbol=k.id.upper(),
                column_symbol=k.id.upper(),
                base=k.base,
                quote=k.quote,
                type=k.type,
                since="2023-01-01",
                data_types=() if k.type == "option" else ("trades",),
                details=tuple(k.details.items()),
            )
            for k in self.kinds
            if k.exchange == exchange
        )

    def groups(self, exchange: str) -> tuple[DatasetGroup, ...]:
        has_options = any(k.exchange == exchange and k.type == "option" for k in self.kinds)
        return (DatasetGroup("OPTIONS", "option", ("trades",), "2023-01-01"),) if has_options else ()

    def instruments(self, exchange: str) -> list[dict[str, Any]]:
        return [instrument(listing) for listing in self.listings(exchange)]

    def exchange_details(self, exchange: str) -> None:
        del exchange

    def last_day(self, exchange: str) -> None:
        del exchange

    def dataset(self, feed: Feed, day: str) -> bytes:
        grouped = feed.dataset_symbol == "OPTIONS"
        kinds = [
            k
            for k in self.kinds
            if k.exchange == feed.exchange
            and (k.type == "option" if grouped else k.id.upper() == feed.dataset_symbol)
        ]
        lines = []
        for k in kinds:
            start = start_us(day)
            rows = [
                (
                    start + minute * MICROSECONDS_PER_MINUTE + 1000,
                    k.amount if minute < 720 else k.later or k.amount,
                )
                for minute in range(MINUTES)
            ]
            if (k.id, day) in self.early:
                rows.insert(0, self.early[k.id, day])
            lines += [
                (max(us, start), f"{k.exchange},{k.id.upper()},{us},{max(us, start)},,buy,{k.price!r},{a!r}")
                for us, a in rows
            ]
        text = "\n".join([csv_header("trades"), *(line for _, line in sorted(lines)), ""])
        return gzip.compress(text.encode(), 1, mtime=0) if lines else EMPTY_FILE


@pytest.fixture
def make_day(make_pipeline, tmp_path: Path) -> Iterator[Any]:
    """Makes a pipeline of these kinds; its key covers the instruments endpoint or not."""
    standins = []

    def make(kinds: tuple[Kind, ...], *, by_details: bool = False) -> Any:
        standin = TardisStandin(Shelf(kinds), clock=lambda: datetime(2024, 1, 10, 12, tzinfo=UTC))  # type: ignore[arg-type]
        standins.append(standin)
        standin.__enter__()
        universe = [
            {"exchanges": [k.exchange], "symbols": [k.symbol], "instrument_types": [k.type]}
            for k in kinds
            if k.type != "option"
        ]
        if any(k.type == "option" for k in kinds):
            universe.append({"exchanges": ["deribit"], "symbols": ["OPTIONS"]})
        tardis = {
            "datasets_endpoint": f"{standin.url}/v1/datasets",
            "api_endpoint": f"{standin.url}/v1",
            "api_key": CSV_ONLY_KEY if by_details else "standin-key",
            "retry_budget_seconds": 0,
        }
        return make_pipeline(standin, universe=universe, tardis=tardis)

    yield make
    for standin in standins:
        standin.__exit__(None, None, None)


def candles_of(pipeline: Any, k: Kind, timeframe: str = "1m", day: str = DAY) -> pl.DataFrame:
    return pipeline.table("candles", day).filter(exchange=k.exchange, symbol=k.symbol, timeframe=timeframe)


def worth_of(pipeline: Any, k: Kind) -> dict[str, Any]:
    """The volumes of each minute's candle, the same for all minutes, with those of the day."""
    found = candles_of(pipeline, k)
    assert found.height == MINUTES
    columns = ["volume", "quote_volume", "vwap", "buy_volume", "sell_volume", "volume_unit", "quote_unit"]
    (row,) = found.select(columns).unique().to_dicts()
    (day,) = candles_of(pipeline, k, "1d").to_dicts()
    return {**row, "volume_of_day": day["volume"], "quote_volume_of_day": day["quote_volume"]}


def expected_of(k: Kind) -> dict[str, Any]:
    known = k.volume is not None
    return {
        "volume": k.volume,
        "quote_volume": k.quote_volume,
        "vwap": k.price if known else None,
        "buy_volume": k.volume,
        "sell_volume": 0.0 if known else None,
        "volume_unit": k.units[0],
        "quote_unit": k.units[1],
        "volume_of_day": k.volume * MINUTES if k.volume is not None else None,
        "quote_volume_of_day": k.quote_volume * MINUTES if k.quote_volume is not None else None,
    }


def wrong(pipeline: Any, kinds: tuple[Kind, ...]) -> dict[str, Any]:
    """The differences by instrument: found and expected."""
    found = {}
    for k in kinds:
        worth, expected = worth_of(pipeline, k), expected_of(k)
        differing = {
            name: (worth[name], value)
            for name, value in expected.items()
            if worth[name] != (pytest.approx(value, rel=1e-12) if isinstance(value, float) else value)
        }
        if differing:
            found[f"{k.exchange}/{k.id}"] = differing
    return found


@pytest.mark.parametrize(("kinds", "by_details"), [(KINDS, False), (BY_DETAILS, True)])
def test_every_kind_of_instrument_has_the_volumes_that_its_contract_says(make_day, kinds, by_details):
    pipeline = make_day(kinds, by_details=by_details)
    assert pipeline.run(DAY).success
    assert wrong(pipeline, kinds) == {}
    day = pipeline.settled(DAY)
    unknown = {(k.exchange, k.id) for k in kinds if k.volume is None}
    for feed in day.feeds:
        is_unknown = (feed.feed.exchange, feed.feed.dataset_symbol) in unknown
        assert any("volumes are null" in w for w in feed.verdict.warnings) is is_unknown, feed.feed
    quality = pipeline.table("quality", DAY)
    scores = {(r["exchange"], r["dataset_symbol"]): r["consistency"] for r in quality.to_dicts()}
    assert {market for market, score in scores.items() if score is None} == unknown
    assert quality["day_consistency"].unique().to_list() == [1.0]
    assert quality["day_overall"].unique().to_list()[0] is not None


def test_readers_of_candles_take_volumes_that_are_unknown(make_day):
    known, unknown = BY_DETAILS[0], BY_DETAILS[6]
    pipeline = make_day((known, unknown), by_details=True)
    assert pipeline.run(DAY).success
    store = pipeline.store
    assert set(notional_usd(store, DAY)) == {"binance/BTC-USDT"}
    data = ba.open(pipeline.file, source="lake")
    two_hours = data.candles(unknown.exchange, unknown.symbol, "2h", DAY, on_gap="warn")
    rows = two_hours.to_polars()
    assert set(rows["volume_unit"]) == {"contracts"}
    assert rows["vwap"].null_count() == rows.height == 12
    assert len(table_text(rows).splitlines()) == 1 + 12
    for end in FORMATS:
        assert two_hours.write(pipeline.folder / f"two-hours.{end}") == 12
    filled = data.candles(unknown.exchange, unknown.symbol, "1h", DAY, fill=True, on_gap="warn").to_polars()
    assert filled["volume"].null_count() == 24
    with duckdb.connect(str(pipeline.folder / "warehouse" / "warehouse.duckdb"), read_only=True) as warehouse:
        query = "SELECT volume_unit, quote_unit, count(volume) FROM candles_filled GROUP BY ALL ORDER BY ALL"
        rows = warehouse.execute(query).fetchall()
    assert [row[:2] for row in rows] == [("BTC", "USDT"), ("contracts", "USD")]
    assert rows[1][2] == 0


ADA: Final = kind(
    "okex-swap", "ADA-USDT-SWAP", "ADA-USDT", "1 @ 0.5", "100 ADA = 50 USDT",
    **contract(10, inverse=False, changes=[{"until": NOON, "contractMultiplier": 100}]),
)  # fmt: skip


def test_a_multiplier_that_changes_at_noon_counts_by_time(make_day):
    pipeline = make_day((Kind(**{**vars(ADA), "later": 10.0}),))
    assert pipeline.run(DAY).success
    (day,) = candles_of(pipeline, ADA, "1d").to_dicts()
    assert (day["volume"], day["quote_volume"]) == (144_000.0, 72_000.0)
    assert candles_of(pipeline, ADA)["volume"].unique().to_list() == [100.0]
    assert pipeline.table("instruments", DAY)["contract_multiplier"].to_list() == [100.0]


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_a_trade_in_the_next_days_file_has_the_contract_of_its_own_time(make_day, order):
    changes = [{"until": "2024-01-06T00:00:00.000Z", "contractMultiplier": 100}]
    ada = Kind(**{**vars(ADA), "details": contract(10, inverse=False, changes=changes)})
    pipeline = make_day((ada,))
    days = (DAY, shift(DAY, 1))
    pipeline.standin.source.early[ada.id, days[1]] = (start_us(days[1]) - 100_000, 3.0)
    for n in order:
        assert pipeline.run(days[n]).success
    last = candles_of(pipeline, ada).sort("open_time")[-1].to_dicts()[0]
    assert (last["trade_count"], last["volume"]) == (2, 100.0 + 300.0)
    first = candles_of(pipeline, ada, day=days[1]).sort("open_time")[0].to_dicts()[0]
    assert (first["trade_count"], first["volume"]) == (1, 10.0)
