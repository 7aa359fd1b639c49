"""The file of numbers by minute: only comparisons open it; its loss is told and takes nothing else out."""

from __future__ import annotations

import gzip
from base64 import b64encode
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest

from backfill_assets.feeds import Feed
from backfill_assets.lake import paths
from backfill_assets.lake.evidence import BesideTrades
from backfill_assets.lake.manifests import FeedManifest, Version, load_manifest, update_manifest
from backfill_assets.quality.minute_numbers import read_numbers, store_numbers
from backfill_assets.quality.profiles import MinuteNumbers
from backfill_assets.quality.settle import settle
from backfill_assets.quality.settled import SettledDay
from backfill_assets.standins.market import Market
from backfill_assets.tardis.columns import csv_header
from backfill_assets_tests.quality.filed_days import FiledDays
from backfill_assets_tests.quality.watched_stores import CountingStore

DAY: Final = "2024-01-02"
NAMES: Final = {"BTCUSDT": "BTC-USDT"}
QUOTES: Final = Feed.parse("binance/quotes/BTCUSDT")
SNAPSHOTS: Final = Feed.parse("binance/book_snapshot_5/BTCUSDT")
BOOKS: Final = (QUOTES, SNAPSHOTS)
PERPETUALS: Final = {"BTCUSDT": "BTC-USDT-PERP"}
TICKER: Final = Feed.parse("binance-futures/derivative_ticker/BTCUSDT")
LIQUIDATIONS: Final = Feed.parse("binance-futures/liquidations/BTCUSDT")
TRADES: Final = Feed.parse("binance-futures/trades/BTCUSDT")
MARKET: Final = Market(seed=5, rows={("binance", "BTC-USDT"): 300, ("binance-futures", "BTC-USDT"): 300})


@pytest.fixture
def lake(tmp_path: Path) -> FiledDays:
    made = FiledDays(tmp_path)
    made.store = CountingStore(tmp_path / "lake")
    return made


def bring(lake: FiledDays, *feeds: Feed) -> None:
    for feed in feeds:
        names = NAMES if feed.exchange == "binance" else PERPETUALS
        lake.bring(feed, DAY, MARKET.dataset(feed, DAY), names)


def newest(lake: FiledDays, feed: Feed) -> Version:
    found = load_manifest(lake.store, feed, DAY).newest
    assert found is not None
    return found


def numbers_of(lake: FiledDays, feed: Feed) -> MinuteNumbers:
    """The numbers of the feed's only symbol."""
    version = newest(lake, feed)
    [found] = read_numbers(lake.store, DAY, [(feed, version)])[feed, version.content] or ()
    return found


def beside(lake: FiledDays, feed: Feed) -> BesideTrades:
    return load_manifest(lake.store, feed, DAY).beside_trades[newest(lake, feed).content]


def forget_inputs(lake: FiledDays, *feeds: Feed) -> None:
    """Let the next comparison find that the files have changed."""

    def change(manifest: FeedManifest) -> FeedManifest:
        former = {
            content: found.model_copy(update={"inputs": "other"})
            for content, found in manifest.beside_trades.items()
        }
        return manifest.model_copy(update={"beside_trades": former})

    for feed in feeds:
        update_manifest(lake.store, feed, DAY, change)


def former_layout(lake: FiledDays, feed: Feed) -> None:
    """Let the profile have the numbers, and the manifest no file, as in an earlier layout."""
    packed = {name: b64encode(data).decode() for name, data in numbers_of(lake, feed).packed.items()}
    names = {"dataset_symbol": "BTCUSDT", "symbol": "BTC-USDT"}
    inline: dict[str, Any] = {"bands": [{**names, "bands": packed}]}
    if feed in BOOKS:
        [tops] = newest(lake, feed).profile["tops"]
        path = packed.pop("path")
        inline = {"tops": [{**tops, "digests": packed, "path": path}]}

    def change(manifest: FeedManifest) -> FeedManifest:
        [version] = manifest.versions
        former = {"profile": {**version.profile, **inline}, "minute_numbers": None}
        return manifest.model_copy(update={"versions": (version.model_copy(update=former),)})

    update_manifest(lake.store, feed, DAY, change)


def file_of(lake: FiledDays, feed: Feed) -> str:
    numbers = newest(lake, feed).minute_numbers
    assert numbers is not None
    return paths.partials_data(feed, DAY, numbers.content)


def on_disk(lake: FiledDays, feed: Feed) -> Path:
    return lake.folder / "lake" / file_of(lake, feed)


def opened(lake: FiledDays) -> dict[str, int]:
    """How often each file of minutes was opened since the last call."""
    assert isinstance(lake.store, CountingStore)
    found = {path: n for path, n in lake.store.opened.items() if path.startswith("partials/")}
    lake.store.opened.clear()
    return found


def settled(lake: FiledDays) -> SettledDay:
    return settle(lake.store, DAY, lake.settings.thresholds)


def lines_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Lines of the log since the last call that name a file whose minutes are not compared."""
    found = [
        record.getMessage() for record in caplog.records if "minutes are compared" in record.getMessage()
    ]
    caplog.clear()
    return found


def lose(file: Path) -> None:
    file.unlink()


def flip(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


def test_a_manifest_names_the_file_and_has_no_numbers(lake: FiledDays) -> None:
    bring(lake, *BOOKS, TICKER, LIQUIDATIONS)
    for feed in (*BOOKS, TICKER, LIQUIDATIONS):
        stored = lake.store.read(paths.ticks_manifest(feed, DAY))
        assert stored is not None
        assert len(stored.data) < 10_000
        symbol = numbers_of(lake, feed)
        assert (symbol.dataset_symbol, symbol.symbol) == (
            "BTCUSDT",
            "BTC-USDT" if feed in BOOKS else "BTC-USDT-PERP",
        )
        assert min(map(len, symbol.packed.values())) > 0
    names = {feed: sorted(numbers_of(lake, feed).packed) for feed in (*BOOKS, TICKER, LIQUIDATIONS)}
    assert names == {
        QUOTES: ["1", "path"],
        SNAPSHOTS: ["1", "5", "path"],
        TICKER: ["index_price", "last_price", "mark_price"],
        LIQUIDATIONS: ["price"],
    }


def test_the_same_rows_give_the_same_bytes_and_a_file_without_numbers_is_not_written(lake: FiledDays) -> None:
    bring(lake, TICKER, TRADES)
    numbers = [
        one.model_copy(update={"dataset_symbol": name})
        for one in [numbers_of(lake, TICKER)]
        for name in ("AUSDT", "BTCUSDT")
    ]
    first = store_numbers(lake.store, TICKER, DAY, numbers)
    turned = [one.model_copy(update={"packed": dict(reversed(one.packed.items()))}) for one in numbers]
    assert first == store_numbers(lake.store, TICKER, DAY, turned)
    assert first is not None
    assert first.rows == 6
    assert store_numbers(lake.store, TICKER, DAY, ()) is None
    assert newest(lake, TRADES).minute_numbers is None
    empty = gzip.compress(f"{csv_header('derivative_ticker')}\n".encode(), mtime=0)
    lake.bring(TICKER, DAY, empty, PERPETUALS)
    assert newest(lake, TICKER).minute_numbers is None


def test_without_a_comparison_the_file_is_not_opened_and_with_one_it_is_opened_once(lake: FiledDays) -> None:
    bring(lake, QUOTES, TICKER)
    assert lake.compare_with_trades(DAY) == 1
    settled(lake)
    assert opened(lake) == {}, "no feed of the same book, and no trades"
    bring(lake, SNAPSHOTS)
    settled(lake)
    assert opened(lake) == {file_of(lake, feed): 1 for feed in BOOKS}
    settled(lake)
    assert opened(lake) == {}, "the day has not changed"
    bring(lake, TRADES, LIQUIDATIONS)
    assert lake.compare_with_trades(DAY) == 2
    found = opened(lake)
    assert {path: found.pop(path) for path in (file_of(lake, TICKER), file_of(lake, LIQUIDATIONS))} == {
        file_of(lake, TICKER): 1,
        file_of(lake, LIQUIDATIONS): 1,
    }
    assert [*found.values()] == [1], "the candles of the trades"
    assert lake.compare_with_trades(DAY) == 0
    assert opened(lake) == {}


@pytest.mark.parametrize("harm", [lose, flip])
def test_a_book_that_lost_its_file_is_told_in_a_line_and_compared_when_the_file_is_back(
    harm: Callable[[Path], None], lake: FiledDays, caplog: pytest.LogCaptureFixture
) -> None:
    bring(lake, *BOOKS)
    before = settled(lake)
    assert all(feed.verdict.context.agreements for feed in before.feeds)
    file = on_disk(lake, SNAPSHOTS)
    whole = file.read_bytes()
    harm(file)
    bring(lake, TICKER)
    lost = settled(lake)
    [line] = lines_of(caplog)
    assert file.name in line
    assert "verify --date 2024-01-02 --mend" in line
    assert not any(feed.verdict.context.agreements for feed in lost.feeds)
    outcomes = {feed.feed: feed.verdict.outcome for feed in before.feeds}
    assert {feed.feed: feed.verdict.outcome for feed in lost.feeds if feed.feed in BOOKS} == outcomes
    assert lost.scores.completeness is not None
    file.write_bytes(whole)
    again = settled(lake)
    assert [feed.verdict for feed in again.feeds if feed.feed in BOOKS] == [f.verdict for f in before.feeds]
    assert lines_of(caplog) == []


@pytest.mark.parametrize("harm", [lose, flip])
def test_a_ticker_that_lost_its_file_keeps_its_comparison_and_takes_no_other_feed_out(
    harm: Callable[[Path], None], lake: FiledDays, caplog: pytest.LogCaptureFixture
) -> None:
    bring(lake, TRADES, TICKER, LIQUIDATIONS)
    assert lake.compare_with_trades(DAY) == 2
    before = {feed: beside(lake, feed) for feed in (TICKER, LIQUIDATIONS)}
    file = on_disk(lake, TICKER)
    whole = file.read_bytes()
    harm(file)
    forget_inputs(lake, TICKER, LIQUIDATIONS)
    assert [lake.compare_with_trades(DAY) for _ in range(2)] == [2, 1]
    assert len(lines_of(caplog)) == 2, "one line for each time"
    assert beside(lake, TICKER) == before[TICKER].model_copy(update={"inputs": ""})
    assert beside(lake, LIQUIDATIONS) == before[LIQUIDATIONS]
    file.write_bytes(whole)
    assert [lake.compare_with_trades(DAY) for _ in range(2)] == [1, 0]
    assert {feed: beside(lake, feed) for feed in before} == before


def test_a_manifest_with_its_numbers_inline_is_read_and_keeps_its_comparisons(lake: FiledDays) -> None:
    bring(lake, TRADES, TICKER, *BOOKS)
    lake.compare_with_trades(DAY)
    before, verdicts = beside(lake, TICKER), {feed.feed: feed.verdict for feed in settled(lake).feeds}
    assert before.prices
    for feed in (TICKER, *BOOKS):
        former_layout(lake, feed)
    forget_inputs(lake, TICKER)
    lake.compare_with_trades(DAY)
    now = settled(lake)
    assert beside(lake, TICKER).prices == before.prices
    assert {feed.feed: feed.verdict.outcome for feed in now.feeds} == {
        feed: verdict.outcome for feed, verdict in verdicts.items()
    }


def test_a_ticker_that_lost_its_file_before_a_comparison_is_published_and_says_so(lake: FiledDays) -> None:
    bring(lake, TRADES, TICKER)
    on_disk(lake, TICKER).unlink()
    assert lake.compare_with_trades(DAY) == 1
    verdict = lake.settled(TICKER, DAY).verdict
    assert verdict.outcome == "publish"
    assert "prices are not compared with trades: the day has lost a file of minutes" in verdict.warnings
