"""Volumes of contracts of unknown size are null, never 0, in every candle with such a trade."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pyarrow as pa
import pytest

from backfill_assets.candles.comparison import across_venues
from backfill_assets.candles.consistency import mismatches_between_timeframes
from backfill_assets.candles.merge import day_of_candles, rolled_up
from backfill_assets.candles.schemas import candle_schema, ohlc_schema
from backfill_assets.contracts import Contract, Contracts
from backfill_assets.quality.findings import failure_cases
from backfill_assets.quality.measures import TradesFile
from backfill_assets.quality.reference import ReferenceDirectory
from backfill_assets.references.compare import compare_market
from backfill_assets.references.conventions import OF_FILES
from backfill_assets.settings import ComparisonSettings
from backfill_assets.ticks.schemas import SUMS
from backfill_assets_tests.candles.candle_samples import DAY, MINUTE, START, Trade, partials_of

NULLED = (*SUMS, "vwap")
UNKNOWN: Contracts = (Contract(None, base="BTC", quote="USDT"),)
#: The size is known until half an hour of the day has passed.
IN_PART: Contracts = (Contract(), Contract(None, since_us=START + 30 * MINUTE))
TRADES = [Trade(START + n * MINUTE + 1, 100.0 + n % 3, 2.0) for n in range(90)]


def day(folder: Path, contracts: Contracts, timeframes: tuple[str, ...] = ("1m", "1h")) -> pa.Table:
    partials = partials_of(folder, TRADES, contracts={"BTC-USDT": contracts})
    return day_of_candles(DAY, [partials], timeframes)


def nulls(candles: pa.Table, timeframe: str) -> list[int]:
    """The number of null volumes, of five, candle by candle."""
    frame = pl.DataFrame(candles).filter(timeframe=timeframe)
    return frame.select(pl.sum_horizontal(pl.col(name).is_null() for name in NULLED)).to_series().to_list()


def test_volumes_are_null_together_where_a_contract_is_unknown(tmp_path: Path) -> None:
    assert nulls(day(tmp_path, UNKNOWN), "1m") == [5] * 90
    assert nulls(day(tmp_path, IN_PART), "1m") == [0] * 30 + [5] * 60
    assert nulls(day(tmp_path, IN_PART), "1h") == [5, 5]


def test_prices_times_and_counts_are_as_of_a_known_one(tmp_path: Path) -> None:
    kept = [name for name in day(tmp_path, UNKNOWN).column_names if name not in (*NULLED, "volume_unit")]
    assert day(tmp_path, UNKNOWN).select(kept).equals(day(tmp_path, (Contract(),)).select(kept))


def test_the_unit_is_contracts_exactly_there(tmp_path: Path) -> None:
    units = day(tmp_path, IN_PART)["volume_unit"].to_pylist()
    assert units == ["BTC"] * 30 + ["contracts"] * 60 + ["contracts"] * 2


@pytest.mark.parametrize("contracts", [UNKNOWN, IN_PART])
def test_candles_rolled_up_afterwards_are_the_same(contracts: Contracts, tmp_path: Path) -> None:
    whole = day(tmp_path, contracts, ("1m", "15m"))
    base = day(tmp_path, contracts, ("1m",))
    again = rolled_up(base, DAY, "15m")
    assert again.equals(whole.filter(pa.compute.field("timeframe") == "15m"))


@pytest.mark.parametrize("contracts", [UNKNOWN, IN_PART, (Contract(),)])
def test_the_schemas_hold_and_the_roll_up_agrees(contracts: Contracts, tmp_path: Path) -> None:
    frame = pl.DataFrame(day(tmp_path, contracts))
    assert failure_cases(candle_schema(), frame) == failure_cases(ohlc_schema(), frame) == []
    assert mismatches_between_timeframes(frame, ("1m", "1h")) == []


@pytest.mark.parametrize("lie", [pl.lit(0.0), pl.lit(7.0)])
@pytest.mark.parametrize("name", SUMS)
def test_a_number_in_place_of_a_null_is_found(name: str, lie: pl.Expr, tmp_path: Path) -> None:
    frame = pl.DataFrame(day(tmp_path, UNKNOWN))
    of_the_hour = pl.when(pl.col("timeframe") == "1h").then(lie).otherwise(pl.col(name)).alias(name)
    found = mismatches_between_timeframes(frame.with_columns(of_the_hour), ("1m", "1h"))
    assert [row["differs"] for row in found] == [name, name]
    checks = {case["check"] for case in failure_cases(ohlc_schema(), frame.with_columns(of_the_hour))}
    assert "volumes_are_null_together_and_only_of_contracts" in checks


def test_a_null_in_place_of_a_number_is_found(tmp_path: Path) -> None:
    frame = pl.DataFrame(day(tmp_path, (Contract(),)))
    without = frame.with_columns(pl.lit(None, pl.Float64).alias("volume"))
    checks = {case["check"] for case in failure_cases(ohlc_schema(), without)}
    assert checks == {"volumes_are_null_together_and_only_of_contracts"}


@pytest.mark.parametrize(("high", "share"), [(103.0, 0.0), (None, 1.0)])
def test_the_reference_is_held_against_prices_and_counts(
    high: float | None, share: float, tmp_path: Path
) -> None:
    ours = pl.DataFrame(day(tmp_path, UNKNOWN, ("1m",)))
    theirs = ours.with_columns(volume=pl.lit(5.0), high=pl.coalesce(pl.lit(high, pl.Float64), "high"))
    file = tmp_path / "binance" / "BTC-USDT" / f"{DAY}.parquet"
    file.parent.mkdir(parents=True)
    theirs.select("open_time", "open", "high", "low", "close", "volume", "trade_count").write_parquet(file)
    own = ReferenceDirectory(tmp_path).minutes("binance", "BTC-USDT", DAY)
    assert own is not None
    row = compare_market(ours, own, OF_FILES, ComparisonSettings())
    assert (row["minutes"], row["share"]) == (90, share)


def test_a_market_without_a_vwap_is_no_venue_to_compare_with(tmp_path: Path) -> None:
    known = pl.DataFrame(day(tmp_path, (Contract(),)))
    unknown = pl.DataFrame(day(tmp_path, UNKNOWN)).with_columns(exchange=pl.lit("kraken"))
    other = known.with_columns(exchange=pl.lit("coinbase"))
    assert across_venues(pl.concat([known, unknown]), 0.01) == []
    found = across_venues(pl.concat([known, unknown, other]), 0.01)
    assert [(row["exchange"], row["share"]) for row in found] == [("binance", 1.0), ("coinbase", 1.0)]


@pytest.mark.parametrize(
    ("without_volume", "mismatches", "consistency"),
    [(0, (), 1.0), (1, (), None), (0, ({"differs": "open"},), 0.0), (1, ({"differs": "open"},), 0.0)],
)
def test_agreement_without_volumes_is_no_consistency(
    without_volume: int, mismatches: tuple[dict[str, str], ...], consistency: float | None
) -> None:
    partials = {"content": "p", "rows": 1, "bytes": 1}
    file = TradesFile.model_validate(
        {
            "content": "c",
            "key": "k",
            "partials": partials,
            "compared": "p",
            "mismatches": mismatches,
            "without_volume": without_volume,
        }
    )
    assert file.consistency == consistency
