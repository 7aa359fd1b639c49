"""The daily backfill by components and from end to end: real runs of a day against stand-ins."""

from __future__ import annotations

import gzip
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pytest

from backfill_assets.feeds import Feed
from backfill_assets.lake.listing import load_instruments, read_table
from backfill_assets.lake.store import open_store
from backfill_assets.rehearsal.scenarios import SCENARIOS, play
from backfill_assets.rehearsal.stage import Stage, undisturbed
from backfill_assets.settings import BigQueryWarehouse, LakeSettings
from backfill_assets.standins.faults import Fault, dataset_path
from backfill_assets.warehouse.catalog import CANDLES, COVERAGE, INSTRUMENTS, QUALITY, TICKS
from backfill_assets.warehouse.protocol import open_warehouse
from backfill_assets.warehouse.publisher import Publisher
from backfill_assets_tests.daily_backfill.conftest import (
    Backfilled,
    exchanges,
    new_house,
    rows_before,
    rows_of,
)
from backfill_assets_tests.daily_backfill.volumes import unexpected

pytestmark = [pytest.mark.story, pytest.mark.timeout(900), pytest.mark.xdist_group("daily_backfill")]

#: The vendor's trades by minute; rows with the same id and payload are one trade.
TRADES = """
SELECT exchange, symbol, timestamp // 60000000 AS minute, max(price), min(price), count(*)
FROM (
    SELECT DISTINCT exchange, symbol, timestamp, id, side, price, amount,
        CASE WHEN id IS NULL THEN row_number() OVER () END
    FROM read_csv(?, header = true, types = {'id': 'VARCHAR'})
)
WHERE price > 0 AND amount > 0 AND make_timestamp(timestamp)::DATE = ?::DATE
GROUP BY ALL
"""
CANDLES_OF_MINUTES = """
SELECT exchange, symbol, epoch_us(open_time) // 60000000, high, low, trade_count
FROM read_parquet(?) WHERE timeframe = '1m'
"""
TOTALS = """
SELECT timeframe, exchange, symbol, sum(trade_count), max(high), min(low), round(sum(volume), 6)
FROM read_parquet(?) GROUP BY ALL
"""


def test_download_brings_every_row_of_every_file_over_faults(backfilled: Backfilled) -> None:
    house, day = backfilled.house, backfilled.day
    assert backfilled.run.code == 0, backfilled.run.text[-2_000:]
    paths = [request.path for request in house.standin.requests]
    for feed in backfilled.faulty:
        assert paths.count(dataset_path(feed, day)) > 1, f"{feed} is asked for again"
    counted = {f.feed: f.accepted.rows for f in backfilled.found.feeds if f.accepted}
    for feed in house.feeds(day):
        assert counted[feed] == rows_of(house.file(feed, day)), feed
    assert house.trades(day) == house.served(day)
    assert house.files_with_secrets() == []


def test_instruments_are_those_that_the_vendor_lists_on_the_day(backfilled: Backfilled) -> None:
    house, day = backfilled.house, backfilled.day
    assert backfilled.found.settled.instruments == 1, "each expected symbol has exactly one instrument"
    for exchange in exchanges(backfilled):
        manifest = load_instruments(house.store, exchange, day)
        assert manifest is not None, exchange
        rows = read_table(house.store, manifest).to_pylist()
        assert {row["date"].isoformat() for row in rows} == {day}
        answers = house.standin.source.instruments(exchange)
        if answers is not None:
            began = {a["datasetId"] for a in answers if a["availableSince"][:10] <= day}
            ended = {
                a["datasetId"] for a in answers if a.get("availableTo", "9999")[:19] <= f"{day}T00:00:00"
            }
            assert {row["dataset_symbol"] for row in rows} == began - ended


def test_candles_are_those_of_the_vendors_trades(backfilled: Backfilled, tmp_path: Path) -> None:
    """DuckDB reads the vendor's own files: highs, lows and trades of every minute of the spot markets."""
    house, day = backfilled.house, backfilled.day
    days = [day, *(backfilled.replay.beside if backfilled.replay else ())]
    files = []
    for d in days:
        for feed in house.feeds(d):
            if is_spot(backfilled, feed):
                files.append(tmp_path / f"{len(files)}.csv")
                files[-1].write_bytes(gzip.decompress(house.file(feed, d)))
    if not files:
        pytest.skip("the day has no spot markets")
    with duckdb.connect() as connection:
        expected = connection.execute(TRADES, [[str(file) for file in files if file.stat().st_size], day])
        wanted_rows = expected.fetchall()
        names = dict(market_names(backfilled))
        file = backfilled.house.warehouse / "candles" / f"{day}.parquet"
        found = connection.execute(CANDLES_OF_MINUTES, [str(file)]).fetchall()
    wanted = {(e, names[e, s], minute): (high, low, count) for e, s, minute, high, low, count in wanted_rows}
    markets = {key[:2] for key in wanted}
    have = {row[:3]: row[3:] for row in found if row[:2] in markets}
    assert wanted
    assert have == wanted


def test_longer_candles_add_up_to_the_minutes(backfilled: Backfilled) -> None:
    file = backfilled.house.warehouse / "candles" / f"{backfilled.day}.parquet"
    with duckdb.connect() as connection:
        rows = connection.execute(TOTALS, [str(file)]).fetchall()
    by_market: dict[tuple[str, str], dict[str, tuple[Any, ...]]] = {}
    for timeframe, exchange, symbol, *totals in rows:
        by_market.setdefault((exchange, symbol), {})[timeframe] = tuple(totals)
    assert by_market
    for market, found in by_market.items():
        assert set(found.values()) == {found["1m"]}, market


def test_bigquery_upload_puts_exactly_the_lakes_rows_there_once(
    backfilled: Backfilled, bigquery: tuple[BigQueryWarehouse, Any], tmp_path: Path
) -> None:
    where, client = bigquery
    day, lake = backfilled.day, tmp_path / "lake"
    # The copy gets no publications: those of the day belong to the embedded warehouse.
    shutil.copytree(backfilled.house.lake, lake, ignore=shutil.ignore_patterns("publications"))
    settings = backfilled.house.settings.model_copy(update={"warehouse": where})
    warehouse = open_warehouse(where)
    publisher = Publisher(open_store(LakeSettings(uri=str(lake))), warehouse, settings)
    ticks = [
        table
        for table in TICKS.values()
        if any(f.feed.data_type == table.name for f in backfilled.found.feeds)
    ]
    published = backfilled.house.published(day)
    for table in (INSTRUMENTS, *ticks, CANDLES, COVERAGE, QUALITY):
        [first, *_] = publisher.publish(table, day)
        [again, *_] = publisher.publish(table, day)
        assert (first.publication.state, again.publication.state) == ("published", "skipped"), table.name
        rows = next(
            iter(client.query(f"SELECT count(*) FROM `daily.{table.name}` WHERE date = '{day}'").result())
        )
        assert rows[0] == sum(c.rows for group, c in published.items() if group.table == table.name), (
            table.name
        )
    warehouse.close()


def test_validation_lets_every_feed_of_an_expected_volume_pass(
    backfilled: Backfilled, record_property: Any
) -> None:
    history = backfilled.house.settings.thresholds.history
    before, compared = rows_before(backfilled), 0
    for feed in backfilled.found.feeds:
        assert feed.verdict.outcome == "publish", f"{feed.feed}: {'; '.join(feed.verdict.reasons)}"
        usual = feed.verdict.context.usual_rows
        said = unexpected(feed.verdict.rows, before=before.get(feed.feed), usual=usual, history=history)
        assert said == [], feed.feed
        compared += before.get(feed.feed) is not None and (usual is not None or backfilled.replay is not None)
    record_property("feeds", len(backfilled.found.feeds))
    record_property("feeds_compared", compared)
    if backfilled.replay is None:
        assert compared == len(backfilled.found.feeds)


def test_validation_leaves_a_thinned_file_out(backfilled: Backfilled, tmp_path: Path) -> None:
    """Serve every tenth row of one file: fewer than expected, so the feed does not pass unnoticed."""
    day = backfilled.day
    with new_house(backfilled.replay, backfilled.environment, tmp_path / "house") as house:
        feed = house.feeds(day)[0]
        header, *lines = gzip.decompress(house.file(feed, day)).splitlines(keepends=True)
        thin = gzip.compress(b"".join([header, *lines[::10]]))
        house.standin.faults.put_dataset(feed, day, Fault(body=thin))
        house.run(day)
        state = house.state(day)
        told = {notable.feed: notable.reasons for notable in state.notable}
        assert told.get(str(feed)) or state.outcome != "published"
    full = rows_of(backfilled.house.file(feed, day))
    history = backfilled.house.settings.thresholds.history
    assert unexpected(len(lines[::10]), before=full, usual=None, history=history)


def test_from_end_to_end_the_day_ends_in_its_tables(
    backfilled: Backfilled, tmp_path: Path, record_property: Any
) -> None:
    day, replay = backfilled.day, backfilled.replay
    given = backfilled.environment
    compared = undisturbed(tmp_path / "undisturbed", day, replay, given)
    stage = Stage("normal", tmp_path / "normal", day, compared, replay=replay, environment=given)
    found = play(SCENARIOS["normal"], stage, tmp_path / "logs")
    for name in ("seconds", "peak_mb", "rows", "retries"):
        record_property(name, getattr(found.measured, name))
    assert [outcome.line for outcome in found.outcomes if outcome.kept is not True] == []
    assert found.outcomes


def is_spot(backfilled: Backfilled, feed: Feed) -> bool:
    """Whether the feed's amounts are in its base currency."""
    settled = backfilled.found.settled.feed(feed)
    return settled is not None and not settled.contracts and not feed.is_grouped


def market_names(backfilled: Backfilled) -> Iterator[tuple[tuple[str, str], str]]:
    """Exchange and symbol as the vendor's rows have them, with the canonical symbol."""
    for found in backfilled.found.feeds:
        for own, canonical in found.symbols:
            yield (found.feed.exchange, own), canonical
