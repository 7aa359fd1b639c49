"""Every path of the lake is where the design says, and no name from outside leads elsewhere."""

from collections.abc import Callable

import pytest

from backfill_assets.failures import PermanentFailure
from backfill_assets.feeds import Feed
from backfill_assets.lake import paths
from backfill_assets.lake.store import checked

FEED, DAY = Feed("binance", "trades", "BTCUSDT"), "2024-01-01"


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (paths.ticks_prefix(FEED, DAY), "ticks/binance/trades/BTCUSDT/2024-01-01/"),
        (paths.ticks_data(FEED, DAY, "abc"), "ticks/binance/trades/BTCUSDT/2024-01-01/abc.parquet"),
        (paths.ticks_manifest(FEED, DAY), "ticks/binance/trades/BTCUSDT/2024-01-01/manifest.json"),
        (paths.partials_data(FEED, DAY, "abc"), "partials/binance/trades/BTCUSDT/2024-01-01/abc.parquet"),
        (paths.made_prefix("candles", DAY), "candles/date=2024-01-01/"),
        (paths.made_data("coverage", DAY, "abc"), "coverage/date=2024-01-01/abc.parquet"),
        (paths.instruments_prefix("binance", DAY), "instruments/binance/2024-01-01/"),
        (paths.instruments_data("binance", DAY, "abc"), "instruments/binance/2024-01-01/abc.parquet"),
        (paths.instruments_manifest("binance", DAY), "instruments/binance/2024-01-01/manifest.json"),
        (paths.day_record(DAY), "days/2024-01-01.json"),
        (paths.settled_day(DAY), "settled/2024-01-01.json"),
        (paths.measures(DAY), "measures/2024-01-01.json"),
        (paths.publication("trades", DAY), "publications/trades/2024-01-01.json"),
        (paths.rejected(FEED, DAY, "abc"), "rejected/binance/trades/BTCUSDT/2024-01-01/abc.csv.gz"),
    ],
)
def test_each_thing_has_its_place(path: str, expected: str) -> None:
    assert path == expected


BAD_NAMES = [
    "",
    ".",
    "..",
    "a/b",
    "../x",
    "a\\b",
    "a b",
    "a\nb",
    "a\0b",
    "*",
    "a?",
    "a#b",
    "%2e",
    "[a]",
    "x" * 201,
]
GOOD_NAMES = [
    "BTC-USDT",
    ".BXBT",
    "..x",
    "BTC_CW",
    "PF_XBTUSD",
    "币安人生USDT",
    "$PAC-USD",
    "1000SHIBUSDT",
    "x" * 200,
]


@pytest.mark.parametrize("name", BAD_NAMES)
def test_a_name_that_could_lead_elsewhere_is_refused_in_every_place(name: str) -> None:
    makers: tuple[Callable[[], str], ...] = (
        lambda: paths.ticks_manifest(Feed(name, "trades", "BTCUSDT"), DAY),
        lambda: paths.ticks_manifest(Feed("binance", name, "BTCUSDT"), DAY),
        lambda: paths.partials_data(Feed("binance", "trades", name), DAY, "abc"),
        lambda: paths.ticks_data(FEED, DAY, name),
        lambda: paths.made_data("candles", DAY, name),
        lambda: paths.rejected(FEED, DAY, name),
        lambda: paths.instruments_data(name, DAY, "abc"),
        lambda: paths.instruments_data("binance", DAY, name),
        lambda: paths.publication(name, DAY),
    )
    for make in makers:
        with pytest.raises(PermanentFailure, match="cannot be a name in the lake"):
            make()


@pytest.mark.parametrize("name", GOOD_NAMES)
def test_names_that_venues_use_are_taken_and_stores_take_the_paths(name: str) -> None:
    path = paths.ticks_manifest(Feed("binance", "trades", name), DAY)
    assert checked(path).split("/")[3] == name


@pytest.mark.parametrize("day", ["", "2024-1-1", "20240101", "2024-02-30", "..", "2024-01-01/.."])
def test_what_is_no_day_is_refused(day: str) -> None:
    makers: tuple[Callable[[], str], ...] = (
        lambda: paths.day_record(day),
        lambda: paths.ticks_prefix(FEED, day),
        lambda: paths.settled_day(day),
    )
    for make in makers:
        with pytest.raises(PermanentFailure, match="is not a day"):
            make()
