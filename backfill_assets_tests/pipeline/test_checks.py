"""Every asset check can go red, and stays green on a near miss.

A damage is a function that does to a healthy, finished day the same as a bug or an accident; the checks
then run in Dagster on the result. A check of the definitions without a damage here, or without a near miss,
fails the suite.
"""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import sqlite3
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pyarrow.parquet as pq
import pytest
import yaml

from backfill_assets.candles.coverage import coverage_rows
from backfill_assets.candles.query import read_made
from backfill_assets.definitions import build_definitions, defs
from backfill_assets.feeds import Feed
from backfill_assets.lake import documents, paths
from backfill_assets.lake.listing import load_instruments, read_instruments, store_instruments
from backfill_assets.lake.manifests import (
    DayRecord,
    load_manifest,
    update_manifest,
)
from backfill_assets.lake.tables import store_table
from backfill_assets.quality.bucket_states import codes_of, decode, encode, states_of
from backfill_assets.quality.measures import DataFile, DayMeasures, load_measures
from backfill_assets.standins import faults
from backfill_assets.standins.faults import Fault
from backfill_assets.standins.listings import Listing
from backfill_assets.standins.market import Market
from backfill_assets.standins.tardis import TardisStandin
from backfill_assets.warehouse import ledger

DAY = "2024-01-02"
BTC = "binance/trades/BTCUSDT"
ETH = "binance/trades/ETHUSDT"
KRAKEN = "kraken/trades/XBT-USDT"
GRAPH = defs.resolve_asset_graph()
ALL_CHECKS = {key.to_user_string(): key for key in GRAPH.asset_check_keys}
BLOCKING = sorted(name for name, key in ALL_CHECKS.items() if GRAPH.get_check_spec(key).blocking)
ERROR, WARN = dg.AssetCheckSeverity.ERROR, dg.AssetCheckSeverity.WARN

Lines = list[str]


@dataclass(frozen=True)
class Red:
    """A damage, the severity that it deserves, and the words of the check from which a person finds it."""

    damage: Callable[[Any], object]
    severity: dg.AssetCheckSeverity
    says: tuple[str, ...]


REDS: dict[str, list[Red]] = defaultdict(list)
NEAR_MISSES: dict[str, list[Callable[[Any], object]]] = defaultdict(list)


def turns_red(check: str, *says: str, severity: dg.AssetCheckSeverity = ERROR):
    def register(damage):
        REDS[check].append(Red(damage, severity, says))
        return damage

    return register


def stays_green(*checks: str):
    def register(damage):
        for check in checks:
            NEAR_MISSES[check].append(damage)
        return damage

    return register


# --- tools for damages ------------------------------------------------------------------------------------


def change_instruments(pipeline, change, exchange="binance"):
    """Store other rows as if they came from the same answer of the vendor, so that a run keeps them."""
    table, former = (f(pipeline.store, exchange, DAY) for f in (read_instruments, load_instruments))
    frame = change(pl.DataFrame(table))
    inputs = former.inputs if former else ""
    store_instruments(pipeline.store, exchange, DAY, frame.to_arrow(), "instruments", inputs=inputs)


def of(symbol):
    return pl.col("dataset_symbol") == symbol


def set_where(condition, **values):
    """A change of a frame: these columns where the condition is true."""
    return lambda frame: frame.with_columns(
        pl.when(condition)
        .then(value if isinstance(value, pl.Expr) else pl.lit(value))
        .otherwise(pl.col(name))
        .cast(frame.schema[name])
        .alias(name)
        for name, value in values.items()
    )


def change_ticks(pipeline, change, feed=BTC, **version):
    """Put another file in place of the newest one; the manifest names it and stays otherwise the same."""
    store, found = pipeline.store, Feed.parse(feed)
    old = load_manifest(store, found, DAY).newest
    with store.local_copy(paths.ticks_data(found, DAY, old.content)) as path:
        frame = pl.read_parquet(path)
    file = pipeline.folder / "damaged.parquet"
    pq.write_table(change(frame).to_arrow(), file, compression="gzip", row_group_size=500)
    content = hashlib.sha256(file.read_bytes()).hexdigest()
    store.put_file(file, paths.ticks_data(found, DAY, content))
    facts = {"content": content, "bytes": file.stat().st_size, "stored": None}
    new = old.model_copy(update={**facts, **version})
    update_manifest(store, found, DAY, lambda m: m.model_copy(update={"versions": (new,)}))
    pipeline.run(DAY, select=["ticks"])


def change_profile(pipeline, change, feed=BTC):
    def changed(manifest):
        new = manifest.newest.model_copy(update={"profile": change(dict(manifest.newest.profile))})
        return manifest.model_copy(update={"versions": (new,)})

    update_manifest(pipeline.store, Feed.parse(feed), DAY, changed)
    pipeline.run(DAY, select=["ticks"])


def change_partials(pipeline, change, feed=BTC):
    """Put other partial candles in place of the computed ones, and make the day's candles of them."""
    store, found = pipeline.store, Feed.parse(feed)
    old = load_measures(store, DAY).files[feed]
    with store.local_copy(paths.partials_data(found, DAY, old.partials.content)) as path:
        table = pq.read_table(path)
    frame = change(pl.DataFrame(table).sort("open_time"))
    file = pipeline.folder / "damaged.parquet"
    pq.write_table(frame.to_arrow().cast(table.schema), file)
    content = hashlib.sha256(file.read_bytes()).hexdigest()
    store.put_file(file, paths.partials_data(found, DAY, content))
    new = DataFile(content=content, rows=frame.height, bytes=file.stat().st_size)
    change_measures(
        pipeline,
        lambda m: {"files": {**m.files, feed: m.files[feed].model_copy(update={"partials": new})}},
    )
    pipeline.run(DAY, select=["candles"])


def change_measures(pipeline, change):
    """Change the document of the day's candles; ``change`` returns the fields."""

    def changed(measures):
        return measures.model_copy(update=change(measures))

    documents.update(pipeline.store, paths.measures(DAY), DayMeasures, changed)


def fetch_changed(pipeline, changes):
    """Serve other lines for these feeds, of which the lake has none yet."""
    for feed, change in changes.items():
        shutil.rmtree(pipeline.folder / "lake" / paths.ticks_prefix(Feed.parse(feed), DAY))
        if change is None:
            pipeline.with_fault(feed, DAY, Fault(always=faults.not_found()))
            for known in (paths.settled_day(DAY), paths.measures(DAY)):
                (pipeline.folder / "lake" / known).unlink(missing_ok=True)
        else:
            pipeline.serve_changed(feed, DAY, change)
    assert pipeline.run(DAY, select=["ticks"]).get_asset_materialization_events()


def cells(change, rows=slice(1000, 1001)):
    """A change of the lines of a file: ``change`` edits the list of cells of some rows."""

    def changed(lines: Lines) -> Lines:
        edited = [line.split(",") for line in lines[rows]]
        for row in edited:
            change(row)
        return [*lines[: rows.start], *(",".join(row) for row in edited), *lines[rows.stop :]]

    return changed


TIME, ARRIVED, PRICE, AMOUNT = 2, 3, 6, 7


def put(column, value):
    def change(row):
        row[column] = value

    return change


def change_partition(pipeline, table, change):
    """Change the warehouse past the publisher."""
    file = pipeline.folder / "warehouse" / table / f"{DAY}.parquet"
    schema = pq.read_schema(file)
    pq.write_table(change(pl.read_parquet(file)).to_arrow().cast(schema), file)


def first_row(**values):
    return lambda frame: set_where(pl.int_range(pl.len()) == 0, **values)(frame)


def without_first_row(frame):
    return frame.tail(-1)


def reversed_rows(frame):
    return frame.reverse()


# --- instruments ------------------------------------------------------------------------------------------


@turns_red("instruments:schema", "BTCUSDT")
@turns_red("instruments:expected_symbols", BTC, "8 of 9", severity=WARN)
def an_instrument_is_listed_twice(pipeline):
    change_instruments(pipeline, lambda frame: pl.concat([frame, frame.filter(of("BTCUSDT"))]))


@turns_red("instruments:schema", "price_increment", "binance BTCUSDT")
def an_increment_is_zero(pipeline):
    change_instruments(pipeline, set_where(of("BTCUSDT"), price_increment=0.0))


@turns_red("instruments:schema", "available_on_the_day", "BTCUSDT")
def an_instrument_ended_as_the_day_began(pipeline):
    change_instruments(pipeline, set_where(of("BTCUSDT"), available_to=datetime(2024, 1, 2, tzinfo=UTC)))


@turns_red("instruments:schema", "warrant", "binance BTCUSDT")
def an_instrument_is_of_no_known_kind(pipeline):
    change_instruments(pipeline, set_where(of("BTCUSDT"), type="warrant"))


@turns_red("instruments:schema", "active", "binance BTCUSDT")
def a_required_cell_is_null(pipeline):
    change_instruments(pipeline, set_where(of("BTCUSDT"), active=None))


@turns_red("instruments:schema", "taker_fee", "binance")
def a_column_of_one_exchange_is_missing(pipeline):
    change_instruments(pipeline, lambda frame: frame.drop("taker_fee"))


@turns_red("instruments:schema", "listing", "binance")
def a_column_of_one_exchange_is_text(pipeline):
    change_instruments(pipeline, lambda frame: frame.with_columns(pl.col("listing").cast(pl.String)))


@turns_red("instruments:schema", "kraken BTC")
def an_exchange_that_lists_no_expected_symbol_has_a_bad_row(pipeline):
    def without_kraken(record):
        feeds = tuple(feed for feed in record.expected if not feed.feed.startswith("kraken/"))
        return record.model_copy(update={"expected": feeds, "not_listed": ("kraken/trades/BTC-USDT",)})

    documents.update(pipeline.store, paths.day_record(DAY), DayRecord, without_kraken)
    change_instruments(
        pipeline, set_where(of("XBT-USDT"), dataset_symbol="BTC", amount_increment=-1.0), "kraken"
    )


@turns_red("instruments:expected_symbols", ETH, "8 of 9", severity=WARN)
def an_instrument_is_gone(pipeline):
    change_instruments(pipeline, lambda frame: frame.remove(of("ETHUSDT")))


@turns_red("instruments:expected_symbols", KRAKEN, "6 of 9", severity=WARN)
def the_instruments_of_an_exchange_are_gone(pipeline):
    shutil.rmtree(pipeline.folder / "lake" / paths.instruments_prefix("kraken", DAY))


@stays_green("instruments:schema", "instruments:expected_symbols")
def increments_are_unknown_and_a_fee_is_a_rebate(pipeline):
    change_instruments(
        pipeline, set_where(of("BTCUSDT"), price_increment=None, amount_increment=None, maker_fee=-1e-4)
    )


@stays_green("instruments:schema", "instruments:expected_symbols")
def an_instrument_lives_a_microsecond_of_the_day(pipeline):
    last = datetime(2024, 1, 2, 23, 59, 59, 999999, tzinfo=UTC)
    change_instruments(pipeline, set_where(of("BTCUSDT"), available_since=last, available_to=None))
    first = datetime(2024, 1, 2, 0, 0, 0, 1, tzinfo=UTC)
    change_instruments(pipeline, set_where(of("ETHUSDT"), available_to=first))


@stays_green("instruments:expected_symbols")
def an_instrument_that_nobody_expects_is_gone(pipeline):
    change_instruments(pipeline, lambda frame: frame.filter("expected"))


@stays_green("instruments:schema")
def two_exchanges_have_an_instrument_of_the_same_name(pipeline):
    change_instruments(pipeline, set_where(of("BTCUSDT"), dataset_symbol="BTC-USDT"))


# --- ticks ------------------------------------------------------------------------------------------------


def no_rows(lines: Lines) -> Lines:
    return lines[:0]


@turns_red("ticks:schema", "manifest_counts_the_rows_of_the_file", BTC)
def a_file_lost_its_last_row(pipeline):
    change_ticks(pipeline, lambda frame: frame.head(-1))


@turns_red("ticks:schema", "profile_counts_the_rows_of_the_file", BTC)
def a_profile_is_that_of_another_file(pipeline):
    rows = load_manifest(pipeline.store, Feed.parse(BTC), DAY).newest.rows
    change_ticks(pipeline, lambda frame: frame.head(-1), rows=rows - 1)


@turns_red("ticks:schema", "symbols_add_up_to_the_file", BTC)
def a_symbol_was_counted_twice(pipeline):
    change_profile(pipeline, lambda p: {**p, "symbols": p["symbols"] * 2})


@turns_red("ticks:schema", "minutes_add_up_to_the_valid_rows", BTC)
def a_minute_was_counted_twice(pipeline):
    def twice(profile):
        (symbol,) = profile["symbols"]
        minutes = [2 * n for n in symbol["minute_rows"]]
        return {**profile, "symbols": [{**symbol, "minute_rows": minutes}]}

    change_profile(pipeline, twice)


@turns_red("ticks:schema", "columns_are_those_of_the_data_type", BTC)
def a_file_lost_a_column(pipeline):
    change_ticks(pipeline, lambda frame: frame.drop("side"))


@turns_red("ticks:schema", "columns_are_those_of_the_data_type", BTC)
def a_column_became_text(pipeline):
    change_ticks(pipeline, lambda frame: frame.with_columns(pl.col("price").cast(pl.String)))


@stays_green("ticks:schema", "ticks:completeness", "ticks:quality")
def a_file_was_encoded_in_another_way(pipeline):
    change_ticks(pipeline, lambda frame: frame)


@stays_green("ticks:schema")
def a_file_has_no_rows(pipeline):
    fetch_changed(pipeline, {BTC: no_rows})


@turns_red("ticks:completeness", BTC, "missing", "404", severity=ERROR)
def a_feed_is_missing(pipeline):
    fetch_changed(pipeline, {BTC: None})


def without_one_of_a_burst(lines: Lines) -> Lines:
    times = [int(line.split(",")[ARRIVED]) for line in lines]
    within = min(range(1, len(lines) - 1), key=lambda i: times[i + 1] - times[i - 1])
    return lines[:within] + lines[within + 1 :]


@turns_red("ticks:completeness", BTC, "degraded", "1 of 9", severity=WARN)
def one_id_is_missing(pipeline):
    fetch_changed(pipeline, {BTC: without_one_of_a_burst})


def silent(minutes):
    """Remove the rows that arrived within so many minutes from noon on."""

    def change(lines: Lines) -> Lines:
        noon = int(datetime(2024, 1, 2, 12, tzinfo=UTC).timestamp() * 1e6)
        quiet = range(noon, noon + minutes * 60_000_000)
        return [line for line in lines if int(line.split(",")[ARRIVED]) not in quiet]

    return change


@turns_red("ticks:completeness", KRAKEN, "1 of 9", severity=WARN)
def a_feed_without_ids_is_silent_for_an_hour(pipeline):
    fetch_changed(pipeline, {KRAKEN: silent(minutes=60)})


@turns_red("ticks:completeness", "no evidence", ETH, severity=ERROR)
def an_empty_file_proves_nothing(pipeline):
    fetch_changed(pipeline, {ETH: no_rows})


@stays_green("ticks:completeness")
def a_feed_without_ids_has_its_highest_score(pipeline):
    fetch_changed(pipeline, {KRAKEN: silent(minutes=10)})
    verdict = next(f.verdict for f in pipeline.settled(DAY).feeds if str(f.feed) == KRAKEN)
    assert verdict.completeness == 0.99


@stays_green("ticks:completeness", "ticks:quality")
def a_block_of_rows_was_sent_again(pipeline):
    def again(lines: Lines) -> Lines:
        arrived = lines[1009].split(",")[ARRIVED]
        repeated = [line.split(",") for line in lines[1000:1010]]
        for row in repeated:
            row[ARRIVED] = arrived
        return [*lines[:1010], *(",".join(row) for row in repeated), *lines[1010:]]

    fetch_changed(pipeline, {BTC: again})


@turns_red("ticks:quality", BTC, "1 of 9", severity=WARN)
def one_price_is_zero(pipeline):
    fetch_changed(pipeline, {BTC: cells(put(PRICE, "0"))})


@turns_red("ticks:quality", BTC, "1 of 9", severity=WARN)
def eight_amounts_of_one_feed_are_negative(pipeline):
    fetch_changed(pipeline, {BTC: cells(put(AMOUNT, "-1"), slice(1000, 1008))})


@turns_red("ticks:quality", BTC, ETH, "2 of 9", severity=ERROR)
def nine_prices_of_two_feeds_are_zero(pipeline):
    zero = cells(put(PRICE, "0"), slice(1000, 1009))
    fetch_changed(pipeline, {BTC: zero, ETH: zero})


@turns_red("ticks:quality", BTC, "same_id_other_payload", severity=WARN)
def an_id_comes_again_with_another_price(pipeline):
    def again(lines: Lines) -> Lines:
        (other,) = cells(put(PRICE, "1"), slice(0, 1))([lines[1000]])
        return [*lines[:1001], other, *lines[1001:]]

    fetch_changed(pipeline, {BTC: again})


@turns_red("ticks:quality", BTC, "rows of a symbol that is not this feed's", severity=WARN)
def a_row_is_another_symbols(pipeline):
    fetch_changed(pipeline, {BTC: cells(put(1, "ETHUSDT"))})


@stays_green("ticks:quality")
def the_capture_clock_runs_behind_by_more_than_a_second(pipeline):
    def ahead(row):
        row[TIME] = str(int(row[ARRIVED]) + 1_200_000)

    fetch_changed(pipeline, {BTC: cells(ahead, slice(0, 3500))})


# --- candles ----------------------------------------------------------------------------------------------

BUCKET = pl.int_range(pl.len())
NOTHING_BUT_THE_EDGES = pl.col("open_time").is_in(
    [datetime(2024, 1, 2, tzinfo=UTC), datetime(2024, 1, 2, 23, 59, tzinfo=UTC)]
)


@turns_red("candles:schema", "open_time_is_aligned_to_the_timeframe")
def a_bucket_begins_half_a_minute_late(pipeline):
    late = pl.col("open_time") + pl.duration(seconds=30)
    change_partials(pipeline, set_where(BUCKET == 100, open_time=late))


@turns_red("candles:schema", "open_time_is_aligned_to_the_timeframe")
def a_bucket_begins_a_microsecond_late(pipeline):
    late = pl.col("open_time") + pl.duration(microseconds=1)
    change_partials(pipeline, set_where(BUCKET == 100, open_time=late))


@stays_green("candles:schema")
def all_trades_lie_in_the_first_and_last_minute(pipeline):
    def edges(frame):
        return frame.with_columns(
            pl.when(BUCKET == 0)
            .then(datetime(2024, 1, 2, tzinfo=UTC))
            .otherwise(datetime(2024, 1, 2, 23, 59, tzinfo=UTC))
            .cast(frame.schema["open_time"])
            .alias("open_time")
        )

    change_partials(pipeline, edges)


@turns_red("candles:ohlc", "high_is_highest")
def a_high_is_below_its_open(pipeline):
    change_partials(pipeline, set_where(BUCKET == 100, high=pl.col("open") * 0.999))


@turns_red("candles:ohlc", "low_is_lowest")
def a_low_is_above_its_close(pipeline):
    change_partials(pipeline, set_where(BUCKET == 100, low=pl.col("close") * 1.001))


@turns_red("candles:ohlc", "buys_and_sells_within_volume")
def a_buy_was_counted_as_a_sell_too(pipeline):
    change_partials(
        pipeline,
        set_where(BUCKET == 100, buy_volume=pl.col("volume"), sell_volume=pl.col("volume")),
    )


@turns_red("candles:ohlc", "values_are_finite")
@turns_red("candles:match_ticks", BTC, "volume")
def a_sum_is_not_a_number(pipeline):
    change_partials(pipeline, set_where(BUCKET == 100, volume=float("nan")))


@turns_red("candles:ohlc", "values_are_finite")
@turns_red("candles:match_ticks", BTC, "quote_volume")
def a_sum_is_infinite(pipeline):
    change_partials(pipeline, set_where(BUCKET == 100, quote_volume=float("inf")))


@turns_red("candles:ohlc", "first_trade_not_before_open_time")
def a_trade_is_in_the_bucket_after_its_own(pipeline):
    early = pl.col("open_time") - pl.duration(microseconds=1)
    change_partials(pipeline, set_where(BUCKET == 100, first_trade_time=early))


def one_price(quote):
    """A bucket whose trades all had one price; ``quote`` derives its quote volume from the right one."""
    price = pl.col("open")
    return set_where(
        BUCKET == 100,
        high=price,
        low=price,
        close=price,
        quote_volume=pl.col("volume") * price * quote,
        quote_volume_error=0.0,
        volume_error=0.0,
    )


@turns_red("candles:ohlc", "vwap_within_low_and_high")
def a_vwap_is_above_the_only_price(pipeline):
    change_partials(pipeline, one_price(1 + 1e-8))


@stays_green("candles:ohlc")
def a_vwap_is_above_the_only_price_by_rounding(pipeline):
    change_partials(pipeline, one_price(1 + 1e-12))


@turns_red("candles:match_ticks", BTC, "1 buckets differ", "trade_count")
def a_bucket_was_lost(pipeline):
    change_partials(pipeline, lambda frame: frame.filter(BUCKET != 100))


@turns_red("candles:match_ticks", BTC, "1 buckets differ", "high")
@turns_red("candles:consistency", BTC, "0.888889", "1 of 9")
def a_high_is_one_tick_off(pipeline):
    change_partials(pipeline, set_where(BUCKET == 100, high=pl.col("high") + 0.01))


@turns_red("candles:match_ticks", BTC, "1 buckets differ", "volume")
def a_sum_lost_a_millionth(pipeline):
    change_partials(pipeline, set_where(BUCKET == 100, volume=pl.col("volume") * (1 - 1e-6)))


@turns_red("candles:match_ticks", BTC, "last_trade_time")
def partials_were_made_from_an_older_file(pipeline):
    def older(frame):
        hour = datetime(2024, 1, 2, 1, tzinfo=UTC)
        return frame.filter(pl.col("open_time") < hour)

    change_partials(pipeline, older)


@stays_green("candles:match_ticks", "candles:ohlc", "candles:timeframes", "candles:consistency")
def a_sum_was_added_up_in_another_order(pipeline):
    sums = ("volume", "quote_volume", "buy_volume", "sell_volume")
    change_partials(pipeline, set_where(BUCKET >= 0, **{name: pl.col(name) * (1 + 1e-12) for name in sums}))


def last_trade_at(seconds):
    """Move the last trade of the hour's first bucket to so many seconds from noon."""
    noon = datetime(2024, 1, 2, 12, tzinfo=UTC)
    first = pl.col("open_time") == pl.col("open_time").filter(pl.col("open_time") >= noon).min()
    late = pl.col("open_time").dt.truncate("1h") + pl.duration(microseconds=round(seconds * 1e6))
    return set_where(first, last_trade_time=late, close=pl.col("high") + 1, high=pl.col("high") + 1)


@turns_red("candles:timeframes", "1h", "close")
def a_trade_of_the_hours_end_was_counted_at_its_beginning(pipeline):
    change_partials(pipeline, last_trade_at(3599.999999))


@turns_red("candles:timeframes", "1h", "open", "2024-01-02 12:00:00")
def two_buckets_were_exchanged(pipeline):
    """Exchange the first two buckets of the hour from noon."""

    def exchange(frame):
        noon = frame["open_time"].search_sorted(datetime(2024, 1, 2, 12, tzinfo=UTC))
        first, second = frame["open_time"][noon], frame["open_time"][noon + 1]
        exchanged = pl.when(BUCKET.eq(noon)).then(second).otherwise(first)
        return set_where(BUCKET.is_between(noon, noon + 1), open_time=exchanged)(frame)

    change_partials(pipeline, exchange)


@stays_green("candles:timeframes")
def a_trade_lies_at_the_very_end_of_its_minute(pipeline):
    noon = datetime(2024, 1, 2, 12, tzinfo=UTC)
    first = pl.col("open_time") == pl.col("open_time").filter(pl.col("open_time") >= noon).min()
    end = pl.col("open_time") + pl.duration(microseconds=59_999_999)
    change_partials(pipeline, set_where(first, last_trade_time=end, close=pl.col("low")))


@stays_green("candles:timeframes")
def a_feed_traded_in_one_minute_only(pipeline):
    change_partials(pipeline, lambda frame: frame.filter(BUCKET == 100))


def times_all_prices(factor):
    columns = ("open", "high", "low", "close", "quote_volume")
    return set_where(BUCKET >= 0, **{name: pl.col(name) * factor for name in columns})


@turns_red("candles:venues", "of 9 markets", "binance", "BTC-USDT", severity=WARN)
def a_market_is_two_percent_off_the_other_venues(pipeline):
    change_partials(pipeline, times_all_prices(1.02))


@stays_green("candles:venues")
def a_market_is_half_a_percent_off_the_other_venues(pipeline):
    change_partials(pipeline, times_all_prices(1.005))


def a_perpetual_beside_the_spot_market(pipeline, factor):
    """Make the partial candles of ADA-USDT those of BTC-USDT's perpetual, at other prices."""
    feed = load_measures(pipeline.store, DAY).files[BTC]
    with pipeline.store.local_copy(paths.partials_data(Feed.parse(BTC), DAY, feed.partials.content)) as path:
        spot = pl.DataFrame(pq.read_table(path))
    perpetual = times_all_prices(factor)(spot.with_columns(symbol=pl.lit("BTC-USDT-PERP")))
    change_partials(pipeline, lambda _: perpetual, "binance/trades/ADAUSDT")


@turns_red("candles:symbols", "1 of 1 markets", "BTC-USDT-PERP", "spot BTC-USDT", severity=WARN)
def a_perpetual_is_two_percent_off_the_spot_markets(pipeline):
    a_perpetual_beside_the_spot_market(pipeline, 1.02)


@stays_green("candles:symbols")
def a_perpetual_is_half_a_percent_off_the_spot_markets(pipeline):
    a_perpetual_beside_the_spot_market(pipeline, 1.005)


def times_the_volumes_of_an_hour(factor):
    names = ("volume", "quote_volume", "buy_volume", "sell_volume")
    return set_where(BUCKET.is_between(720, 779), **{name: pl.col(name) * factor for name in names})


@turns_red("candles:volumes", "hours have more than 50 times", "BTC-USDT", severity=WARN)
def an_hour_has_a_hundred_times_its_volume(pipeline):
    change_partials(pipeline, times_the_volumes_of_an_hour(100))


@stays_green("candles:volumes")
def an_hour_has_ten_times_its_volume(pipeline):
    change_partials(pipeline, times_the_volumes_of_an_hour(10))


def compare_with(pipeline, change):
    """Write the exchange's own candles of BTC-USDT, the published ones changed, where the settings look."""
    own = pipeline.table("candles", DAY).filter(exchange="binance", symbol="BTC-USDT", timeframe="1m")
    file = pipeline.folder / "reference" / "binance" / "BTC-USDT" / f"{DAY}.parquet"
    file.parent.mkdir(parents=True)
    change(own).write_parquet(file)
    settings = yaml.safe_load(pipeline.file.read_text())
    reference = {"reference": str(pipeline.folder / "reference")}
    pipeline.file.write_text(yaml.safe_dump({**settings, "comparison": reference}))
    pipeline.run(DAY, select=["reference"])


@turns_red("reference:agreement", "1 of 1", "binance", "BTC-USDT", severity=WARN)
def the_exchange_has_other_highs_in_a_tenth_of_the_minutes(pipeline):
    compare_with(pipeline, set_where(BUCKET % 10 == 0, high=pl.col("high") + 0.01))


@stays_green("reference:agreement")
def the_exchange_rounds_its_volumes_and_has_another_high_in_a_minute(pipeline):
    rounded = set_where(BUCKET >= 0, volume=pl.col("volume") * (1 + 5e-7))
    other = set_where(BUCKET == 100, high=pl.col("high") + 0.01)
    compare_with(pipeline, lambda frame: other(rounded(frame)))


@turns_red("reference:agreement", "comparison.reference: there is no folder", severity=WARN)
def the_folder_of_the_exchanges_own_candles_is_not_there(pipeline):
    settings = yaml.safe_load(pipeline.file.read_text())
    reference = {"reference": str(pipeline.folder / "nowhere")}
    pipeline.file.write_text(yaml.safe_dump({**settings, "comparison": reference}))
    pipeline.run(DAY, select=["reference"])


@stays_green("reference:agreement")
def the_exchanges_own_candles_are_of_another_day(pipeline):
    compare_with(pipeline, lambda frame: frame)
    folder = pipeline.folder / "reference" / "binance" / "BTC-USDT"
    (folder / f"{DAY}.parquet").rename(folder / "2023-01-01.parquet")
    pipeline.run(DAY, select=["reference"])


# --- warehouse --------------------------------------------------------------------------------------------

TABLE = {
    "instruments": "instruments",
    "ticks": "trades",
    "candles": "candles",
    "coverage": "coverage",
    "quality": "quality",
}


@turns_red("bigquery/instruments:equals_lake", "instruments", "in the warehouse")
def an_instrument_was_deleted_in_the_warehouse(pipeline):
    change_partition(pipeline, "instruments", without_first_row)


@turns_red("bigquery/instruments:equals_lake", "price_increment")
def an_increment_was_changed_in_the_warehouse(pipeline):
    change_partition(pipeline, "instruments", first_row(price_increment=0.5))


@turns_red("bigquery/ticks:equals_lake", "trades", "binance", "in the warehouse")
def a_trade_is_twice_in_the_warehouse(pipeline):
    change_partition(pipeline, "trades", lambda frame: pl.concat([frame, frame.head(1)]))


@turns_red("bigquery/ticks:equals_lake", "trades", "sum of amount")
def an_amount_was_changed_in_the_warehouse(pipeline):
    change_partition(pipeline, "trades", first_row(amount=pl.col("amount") + 0.01))


@turns_red("bigquery/ticks:equals_lake", "9 differences", "none in the warehouse")
def a_partition_was_deleted(pipeline):
    (pipeline.folder / "warehouse" / "trades" / f"{DAY}.parquet").unlink()


@turns_red("bigquery/ticks:equals_lake", "sum of row")
def one_trade_stands_in_for_another(pipeline):
    """Same number of rows, as after a load that lost one and repeated one."""
    change_partition(pipeline, "trades", lambda frame: pl.concat([frame.head(1), frame.head(1), frame[2:]]))


@turns_red("bigquery/ticks:equals_lake", "trades", "not readable as rows of trades")
def a_partition_is_cut_off(pipeline):
    file = pipeline.folder / "warehouse" / "trades" / f"{DAY}.parquet"
    file.write_bytes(file.read_bytes()[:-1000])


@turns_red("bigquery/candles:equals_lake", "1d", "in the warehouse")
def a_candle_was_deleted_in_the_warehouse(pipeline):
    change_partition(
        pipeline,
        "candles",
        lambda frame: frame.remove((pl.col("timeframe") == "1d") & (pl.col("exchange") == "binance")),
    )


@turns_red("bigquery/candles:equals_lake", "sum of volume")
def a_volume_in_the_warehouse_is_off_by_a_millionth(pipeline):
    change_partition(
        pipeline, "candles", set_where(pl.col("timeframe") == "1d", volume=pl.col("volume") * (1 + 1e-6))
    )


def change_coverage(pipeline, change, feed=BTC):
    """Put a file of other states in place of the computed one; no document describes its content."""
    store, measures = pipeline.store, load_measures(pipeline.store, DAY)
    ours = measures.minutes[feed]
    symbols = {
        name: encode(codes_of(change(list(states_of(decode(text)))))) for name, text in ours.symbols.items()
    }
    changed = ours.model_copy(update={"symbols": {n: text for n, text in symbols.items() if text}})
    minutes = {**measures.minutes, feed: changed}
    candles = pl.DataFrame(read_made(store, DAY, "candles"))
    timeframes = pipeline.settings.candles.timeframes
    rows = coverage_rows(DAY, minutes, candles, {}, timeframes, ())
    made = store_table(store, rows, lambda content: paths.made_data("coverage", DAY, content))
    change_measures(pipeline, lambda _: {"minutes": minutes, "coverage": made, "findings": None})


@turns_red("bigquery/coverage:whole_day", "runs_add_up_to_one_day", "binance BTC-USDT 1m")
def a_minute_was_lost_from_the_states(pipeline):
    change_coverage(pipeline, lambda states: states[:-1])


@turns_red("bigquery/coverage:whole_day", "each_run_begins_where_the_last_ended", "binance BTC-USDT 1d")
def a_minute_of_the_next_day_is_among_the_states(pipeline):
    change_coverage(pipeline, lambda states: [*states, "empty_unproven"])


@turns_red("bigquery/coverage:whole_day", "the_market_has_runs", "binance BTC-USDT 4h")
def a_market_has_no_states(pipeline):
    change_coverage(pipeline, lambda states: [])


@turns_red("bigquery/coverage:traded_buckets", "a_candle_is_in_a_traded_bucket", "binance BTC-USDT 1m")
def a_traded_minute_is_called_empty(pipeline):
    def without_the_first(states):
        first = states.index("traded")
        return [*states[:first], "empty_unproven", *states[first + 1 :]]

    change_coverage(pipeline, without_the_first)


@turns_red("bigquery/coverage:traded_buckets", "a_traded_bucket_has_a_candle", "binance BTC-USDT 1m")
def an_empty_minute_is_called_traded(pipeline):
    change_coverage(pipeline, lambda states: ["traded"] * len(states))


@turns_red("bigquery/coverage:schema", "greater_than(0)", "binance BTC-USDT 1m")
def the_price_before_an_empty_minute_is_zero(pipeline):
    change_partials(pipeline, set_where(BUCKET >= 0, close=0.0))


@turns_red("bigquery/coverage:equals_lake", "sum of buckets")
def a_run_of_the_warehouse_is_longer(pipeline):
    change_partition(pipeline, "coverage", first_row(buckets=pl.col("buckets") + 1))


@turns_red("bigquery/coverage:equals_lake", "none in the lake", "outage")
def a_state_was_changed_in_the_warehouse(pipeline):
    change_partition(pipeline, "coverage", first_row(state="outage"))


@stays_green("bigquery/coverage:whole_day", "bigquery/coverage:traded_buckets", "bigquery/coverage:schema")
def every_minute_without_trades_is_lost_and_those_with_are_partial(pipeline):
    def lossy(states):
        return ["traded_partial" if s.startswith("traded") else "missing" for s in states]

    change_coverage(pipeline, lossy)


@turns_red("bigquery/quality:equals_lake", "binance/trades/ADAUSDT", "none in the warehouse")
def a_feed_has_no_quality_row_in_the_warehouse(pipeline):
    change_partition(pipeline, "quality", without_first_row)


@turns_red("bigquery/quality:equals_lake", "sum of rows")
def a_row_count_was_changed_in_the_warehouse(pipeline):
    change_partition(pipeline, "quality", first_row(rows=pl.col("rows") + 1))


@turns_red("bigquery/quality:equals_lake", "binance/trades/ADAUSDT/quarantine", "none in the lake")
def a_verdict_was_changed_in_the_warehouse(pipeline):
    change_partition(pipeline, "quality", first_row(verdict=pl.lit("quarantine")))


@turns_red("bigquery/quality:equals_lake", "sum of completeness")
def a_score_was_changed_in_the_warehouse(pipeline):
    change_partition(pipeline, "quality", first_row(completeness=pl.lit(0.5)))


def last_published(pipeline, moment: str) -> None:
    """Set the moment at which all tables of the day were published."""
    for table in ("instruments", "candles", "coverage", "quality"):
        entry = ledger.entry(pipeline.store, table, DAY)
        published = entry.published.model_copy(update={"published_at": datetime.fromisoformat(moment)})
        changed = entry.model_copy(update={"published": published})
        documents.update(
            pipeline.store, paths.publication(table, DAY), ledger.Entry, lambda _, new=changed: new
        )


@turns_red("bigquery/quality:on_time", "61 minutes after 09:00 UTC", severity=WARN)
def the_day_was_published_after_ten(pipeline):
    last_published(pipeline, "2024-01-03T10:01:00+00:00")


@turns_red("bigquery/quality:on_time", "not in all tables", severity=WARN)
def a_table_was_never_published(pipeline):
    file = Path(pipeline.store.uri) / paths.publication("coverage", DAY)
    file.unlink()


@stays_green("bigquery/quality:on_time")
def the_day_was_published_just_before_ten(pipeline):
    last_published(pipeline, "2024-01-03T10:00:00+00:00")


@stays_green("bigquery/quality:on_time")
def the_day_was_published_by_a_backfill(pipeline):
    last_published(pipeline, "2024-01-04T09:00:01+00:00")


@stays_green(*(f"bigquery/{name}:equals_lake" for name in TABLE))
def the_partitions_were_copied_from_another_disk(pipeline):
    for table in TABLE.values():
        file = pipeline.folder / "warehouse" / table / f"{DAY}.parquet"
        shutil.copyfile(file, file.with_suffix(".copy"))
        file.with_suffix(".copy").rename(file)


@turns_red("bigquery/ticks:equals_lake", "rows are not those that were published")
def a_side_was_turned_in_the_warehouse(pipeline):
    change_partition(pipeline, "trades", first_row(side=pl.lit("unknown")))


@turns_red("bigquery/candles:equals_lake", "rows are not those that were published")
def two_highs_were_swapped_in_the_warehouse(pipeline):
    swapped = pl.col("high").gather([1, 0]).append(pl.col("high").slice(2))
    change_partition(pipeline, "candles", lambda frame: frame.with_columns(high=swapped))


# --- the OHLCV table ---------------------------------------------------------------------------------------


def change_ohlcv(pipeline, statement):
    """Write the day's candles to a database of services, and change them there."""
    database = pipeline.folder / "services.db"
    settings = yaml.safe_load(pipeline.file.read_text())
    pipeline.file.write_text(yaml.safe_dump({**settings, "ohlcv": {"url": f"sqlite:///{database}"}}))
    assert pipeline.run(DAY, select=["ohlcv"]).success
    with contextlib.closing(sqlite3.connect(database)) as connection, connection:
        assert connection.execute(statement).rowcount > 0


@turns_red("ohlcv:equals_lake", "binance/BTC-USDT")
def a_candle_was_deleted_for_the_services(pipeline):
    market = "exchange = 'binance' and symbol = 'BTC-USDT' and timeframe = '1d'"
    change_ohlcv(pipeline, f"delete from ohlcv where {market}")


@turns_red("ohlcv:equals_lake", "sum of volume")
def a_volume_was_changed_for_the_services(pipeline):
    change_ohlcv(pipeline, "update ohlcv set volume = volume * 2 where timeframe = '1h'")


@turns_red("ohlcv:equals_lake", "rows are not those that were published")
def two_closes_were_changed_for_the_services(pipeline):
    market = "exchange = 'binance' and symbol = 'BTC-USDT' and timeframe = '1m'"
    first, last = (f"(select {end}(open_time) from ohlcv where {market})" for end in ("min", "max"))
    other = f"close + case when open_time = {first} then 1 else -1 end"
    change_ohlcv(
        pipeline, f"update ohlcv set close = {other} where {market} and open_time in ({first}, {last})"
    )


@stays_green("ohlcv:equals_lake")
def the_services_have_other_times_of_writing(pipeline):
    change_ohlcv(pipeline, "update ohlcv set updated_at = updated_at")


# --- the tests --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def healthy(tmp_path_factory) -> Path:
    """The folder of a finished day's lake and warehouse, to be copied."""
    return tmp_path_factory.mktemp("healthy")


@pytest.fixture
def finished(healthy, make_pipeline, standin, checks_of):
    """A finished day for one test; the first test that uses it runs the day."""
    pipeline = make_pipeline(standin)
    if not (healthy / "lake").exists():
        result = pipeline.run(DAY)
        assert result.success
        assert all(check.passed for check in checks_of(result).values())
        for name in ("lake", "warehouse"):
            shutil.copytree(pipeline.folder / name, healthy / name)
    else:
        for name in ("lake", "warehouse"):
            shutil.copytree(healthy / name, pipeline.folder / name)
    return pipeline


def run_checks(pipeline, asset: dg.AssetKey) -> dg.ExecuteInProcessResult:
    """Run the checks of one asset, without the asset."""
    keys = [key for key in ALL_CHECKS.values() if key.asset_key == asset]
    job = dg.define_asset_job("checks", dg.AssetSelection.checks(*keys))
    built = dg.Definitions.merge(build_definitions(str(pipeline.file)), dg.Definitions(jobs=[job]))
    return built.resolve_job_def("checks").execute_in_process(
        run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
        instance=pipeline.instance,
        tags={"dagster/partition": DAY},
        raise_on_error=False,
    )


def told(check: dg.AssetCheckEvaluation) -> str:
    """All text of the check, in its description and in its tables."""
    records = [
        str(record.data)
        for value in check.metadata.values()
        if isinstance(value, dg.TableMetadataValue)
        for record in value.records
    ]
    return "\n".join([check.description or "", *records])


def cases(registered):
    return [
        pytest.param(name, case, id=f"{name} when {getattr(case, 'damage', case).__name__}")
        for name, found in registered.items()
        for case in found
    ]


def test_every_check_has_a_damage_that_turns_it_red_and_a_near_miss():
    assert set(REDS) == set(ALL_CHECKS)
    assert set(NEAR_MISSES) == set(ALL_CHECKS)


@pytest.mark.parametrize(("name", "red"), cases(REDS))
def test_a_damage_turns_the_check_red_and_is_named(finished, checks_of, name, red):
    red.damage(finished)
    check = checks_of(run_checks(finished, ALL_CHECKS[name].asset_key))[name]
    assert not check.passed
    assert check.partition == DAY
    assert check.severity == red.severity
    for words in red.says:
        assert words in told(check)


@pytest.mark.parametrize(("name", "near_miss"), cases(NEAR_MISSES))
def test_a_near_miss_leaves_the_check_green(finished, checks_of, name, near_miss):
    near_miss(finished)
    check = checks_of(run_checks(finished, ALL_CHECKS[name].asset_key))[name]
    assert check.passed, told(check)


@dataclass(frozen=True)
class Relisted:
    """The market with other listings."""

    market: Market
    change: Callable[[Listing], Listing]

    def listings(self, exchange: str) -> tuple[Listing, ...]:
        return tuple(self.change(listing) for listing in self.market.listings(exchange))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.market, name)


def relist(pipeline, symbol: str, change: Callable[[Listing], Listing]) -> None:
    """Let the vendor list one symbol differently from now on."""
    standin: TardisStandin = pipeline.standin
    standin.source = Relisted(
        standin.source, lambda listing: change(listing) if listing.dataset_symbol == symbol else listing
    )


DAMAGES_BEFORE_A_RUN = {
    "instruments:schema": an_increment_is_zero,
    "ticks:schema": a_file_lost_its_last_row,
    "candles:schema": a_bucket_begins_half_a_minute_late,
    "candles:ohlc": a_high_is_below_its_open,
    "candles:match_ticks": a_bucket_was_lost,
    "candles:timeframes": a_trade_of_the_hours_end_was_counted_at_its_beginning,
}


def downstream(asset: dg.AssetKey) -> set[dg.AssetKey]:
    children = GRAPH.get(asset).child_keys
    return set(children).union(*(downstream(child) for child in children))


def test_the_checks_that_stop_a_run_are_those_that_a_bug_of_ours_turns_red():
    assert sorted(DAMAGES_BEFORE_A_RUN) == BLOCKING


@pytest.mark.parametrize("name", BLOCKING)
def test_a_blocking_check_stops_what_is_downstream_and_nothing_else(finished, checks_of, name):
    shutil.rmtree(finished.folder / "warehouse")
    DAMAGES_BEFORE_A_RUN[name](finished)
    result = finished.run(DAY)
    assert not result.success
    assert not checks_of(result)[name].passed
    stopped = downstream(ALL_CHECKS[name].asset_key)
    assert dg.AssetKey(["bigquery", "candles"]) in stopped
    done = {event.asset_key for event in result.get_asset_materialization_events()}
    assert done == GRAPH.get_all_asset_keys() - stopped
    for key in stopped:
        if key.path[0] == "bigquery":
            assert finished.table(TABLE[key.path[1]], DAY).is_empty()


def test_a_check_that_does_not_block_lets_the_day_be_published(finished, checks_of):
    shutil.rmtree(finished.folder / "warehouse")
    relist(finished, "ETHUSDT", lambda listing: replace(listing, to=DAY))
    fetch_changed(finished, {BTC: cells(put(PRICE, "0"), slice(1000, 1009))})
    result = finished.run(DAY)
    assert result.success
    red = {name for name, check in checks_of(result).items() if not check.passed}
    assert red == {"instruments:expected_symbols", "ticks:quality"}
    assert finished.table("trades", DAY).height > 20_000


@pytest.mark.parametrize("name", TABLE)
def test_the_day_run_again_mends_the_warehouse(finished, checks_of, name):
    before = finished.partition_bytes(TABLE[name])
    change_partition(finished, TABLE[name], without_first_row)
    asset = dg.AssetKey(["bigquery", name])
    assert not checks_of(run_checks(finished, asset))[f"bigquery/{name}:equals_lake"].passed
    result = finished.run(DAY, select=[f"bigquery/{name}"])
    assert checks_of(result)[f"bigquery/{name}:equals_lake"].passed
    assert finished.partition_bytes(TABLE[name]) == before
