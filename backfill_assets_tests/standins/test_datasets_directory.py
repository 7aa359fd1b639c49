"""The server can serve real files from a directory, and derives the metadata from their names."""

from __future__ import annotations

import asyncio
import gzip
import json
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import tardis_dev

from backfill_assets.failures import FeedAbsent, PermanentFailure
from backfill_assets.feeds import Feed
from backfill_assets.settings import TardisSettings
from backfill_assets.standins.directory import DatasetsDirectory, kind_of
from backfill_assets.standins.faults import Fault, dataset_path
from backfill_assets.standins.sources import INVALID_SYMBOL, NOT_ON_THAT_DAY, NoDatasetError
from backfill_assets.standins.tardis import TardisStandin
from backfill_assets.tardis.client import TardisClient

FILES = [
    "binance/trades/2019/10/11/XRPETH.csv.gz",
    "binance/trades/2019/10/13/XRPETH.csv.gz",
    "binance/trades/2019/10/10/OLDUSDT.csv.gz",
    "binance/quotes/2019/10/12/XRPETH.csv.gz",
    "binance/trades/2019/10/13/SPOT.csv.gz",
    "binance-futures/trades/2024/08/08/ETHUSDT.csv.gz",
    "coinbase/trades/2023/09/05/BTC-USD.csv.gz",
]


@pytest.fixture
def datasets(tmp_path: Path) -> Path:
    for name in FILES:
        path = tmp_path / "datasets" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(gzip.compress(name.encode()))
    (tmp_path / "datasets" / "README.md").write_text("not a data set")
    return tmp_path / "datasets"


def details(standin: TardisStandin, exchange: str) -> dict[str, object]:
    answer: dict[str, object] = asyncio.run(
        tardis_dev.get_exchange_details_async(exchange, endpoint=f"{standin.url}/v1")
    )["datasets"]
    return answer


def test_files_are_served_as_they_are_and_without_a_key(datasets: Path, tmp_path: Path) -> None:
    with TardisStandin(datasets_dir=datasets) as standin:
        asyncio.run(
            tardis_dev.download_datasets_async(
                exchange="binance",
                data_types=["trades"],
                symbols=["xrpeth"],
                from_date="2019-10-11",
                to_date="2019-10-12",
                download_dir=str(tmp_path / "down"),
                endpoint=f"{standin.url}/v1/datasets",
            )
        )
    [file] = (tmp_path / "down").iterdir()
    assert file.read_bytes() == (datasets / FILES[0]).read_bytes()


def test_the_directory_may_begin_with_the_version_of_the_url(datasets: Path, tmp_path: Path) -> None:
    (tmp_path / "downloaded").mkdir()
    datasets.rename(tmp_path / "downloaded" / "v1")
    served = DatasetsDirectory(tmp_path / "downloaded")
    assert served.exchanges == ("binance", "binance-futures", "coinbase")
    feed = Feed.parse("binance/trades/XRPETH")
    assert served.dataset(feed, "2019-10-11") == tmp_path / "downloaded" / "v1" / FILES[0]


def test_key_rules_hold_when_asked_for(datasets: Path) -> None:
    path = dataset_path(Feed.parse("binance/trades/XRPETH"), "2019-10-11")
    with (
        TardisStandin(datasets_dir=datasets, require_keys=True) as standin,
        pytest.raises(urllib.error.HTTPError, match="401"),
    ):
        urllib.request.urlopen(standin.url + path)


def test_metadata_is_derived_from_the_files(datasets: Path) -> None:
    with TardisStandin(datasets_dir=datasets) as standin:
        found = details(standin, "binance")
    assert found["exportedUntil"] == "2019-10-14T00:00:00.000Z"
    assert found["symbols"] == [
        {
            "id": "OLDUSDT",
            "type": "spot",
            "dataTypes": ["trades"],
            "availableSince": "2019-10-10T00:00:00.000Z",
        },
        {
            "id": "XRPETH",
            "type": "spot",
            "dataTypes": ["trades", "quotes"],
            "availableSince": "2019-10-11T00:00:00.000Z",
        },
        {
            "id": "SPOT",
            "type": "spot",
            "dataTypes": ["trades"],
            "availableSince": "2019-10-13T00:00:00.000Z",
        },
    ]


def test_the_vendors_answers_beside_the_files_are_served_and_nothing_is_invented_without_them(
    datasets: Path,
) -> None:
    since = {"availableSince": "2020-01-01T00:00:00.000Z"}
    kind = {"exchange": "binance-futures", "type": "perpetual", "priceIncrement": 0.01}
    listed = [{"id": "ETHUSDT", **kind, **since}, {"id": "an entry of another kind"}]
    symbols = [{"id": "BTC-USD", "type": "spot", **since}]
    exchange = {"id": "coinbase", "enabled": False, "datasets": {"symbols": symbols}}
    for name, answer in (("instruments/binance-futures", listed), ("exchanges/coinbase", exchange)):
        path = datasets / f"{name}.json"
        path.parent.mkdir()
        path.write_text(json.dumps(answer))
    with TardisStandin(datasets_dir=datasets) as standin:

        def asked(path: str) -> object:
            with urllib.request.urlopen(f"{standin.url}/v1/{path}") as answer:
                return json.load(answer)

        assert asked("instruments/binance-futures") == listed
        assert asked("exchanges/coinbase") == exchange
        assert asked("instruments/binance-futures/ETHUSDT") == listed[0]
        with pytest.raises(urllib.error.HTTPError, match="404"):
            asked("instruments/binance-futures/BTCUSDT")
        with pytest.raises(urllib.error.HTTPError, match="403"):
            asked("instruments/binance")


@pytest.mark.parametrize("path", ["instruments/binance", "exchanges/binance"])
def test_metadata_that_break_while_the_server_runs_are_refused_by_file_and_not_asked_for_again(
    datasets: Path, path: str
) -> None:
    with TardisStandin(datasets_dir=datasets) as standin:
        (datasets / path).parent.mkdir()
        (datasets / f"{path}.json").write_text("{}")
        settings = TardisSettings(api_endpoint=f"{standin.url}/v1", api_key="", retry_budget_seconds=60)
        client = TardisClient(settings)
        ask = client.instruments if path.startswith("instruments") else client.exchange_details
        with pytest.raises(PermanentFailure, match=rf"^{datasets / path}\.json .*: save the vendor's answer"):
            ask("binance")
        assert [request.status for request in standin.requests] == [422]


def test_a_file_that_is_no_gzip_file_is_refused_by_its_name_and_not_asked_for_again(
    datasets: Path, tmp_path: Path
) -> None:
    (datasets / FILES[0]).write_bytes(b"exchange,symbol")
    with TardisStandin(datasets_dir=datasets) as standin:
        endpoint = f"{standin.url}/v1/datasets"
        client = TardisClient(TardisSettings(datasets_endpoint=endpoint, retry_budget_seconds=60))
        feeds = [Feed.parse("binance/trades/XRPETH"), Feed.parse("binance/quotes/XRPETH")]
        found = dict(client.fetch(feeds, "2019-10-11", tmp_path / "downloads"))
        assert {str(feed): (type(why), str(why)) for feed, why in found.items()} == {
            "binance/trades/XRPETH": (
                PermanentFailure,
                f"{datasets / FILES[0]} is not a gzip file: download it again, or gzip it",
            ),
            "binance/quotes/XRPETH": (
                FeedAbsent,
                "data set binance/quotes/XRPETH is not available for 2019-10-11",
            ),
        }
        assert len(standin.requests) == 2


@pytest.mark.parametrize(
    ("text", "said"), [("<html>", "is not JSON"), ('{"error": 1}', "does not hold a list of instruments")]
)
def test_metadata_that_are_none_are_named(datasets: Path, text: str, said: str) -> None:
    (datasets / "instruments").mkdir()
    (datasets / "instruments/binance.json").write_text(text)
    with pytest.raises(PermanentFailure, match=f"binance.json {said}.*: save the vendor's answer there"):
        DatasetsDirectory(datasets).instruments("binance")


def test_files_as_the_vendors_client_names_them_are_served(datasets: Path) -> None:
    flat = datasets / "kraken_incremental_book_L2_2025-11-10_XBT-USDT.csv.gz"
    flat.write_bytes(gzip.compress(b"exchange,symbol,timestamp\nkraken,XBT/USDT,1\n"))
    (datasets / "binance" / flat.name).write_bytes(b"not in the top of the directory")
    served = DatasetsDirectory(datasets)
    assert served.exchanges == ("binance", "binance-futures", "coinbase", "kraken")
    assert served.dataset(Feed.parse("kraken/incremental_book_L2/XBT-USDT"), "2025-11-10") == flat
    [listing] = served.listings("kraken")
    assert (listing.native_id, listing.base, listing.quote, listing.since) == (
        "XBT/USDT", "XBT", "USDT", "2025-11-10",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("exchange", "symbol", "kind"),
    [
        ("binance", "BTCUSDT", "spot"),
        ("okex", "BTC-USDT", "spot"),
        ("binance-futures", "BTCUSDT", "perpetual"),
        ("binance-delivery", "BTCUSD_PERP", "perpetual"),
        ("binance-delivery", "BTCUSD_210326", "future"),
        ("bybit", "BTCUSDT", "perpetual"),
        ("bybit", "BTCUSDT-SPOT", "spot"),
        ("bitmex", "XBTUSD", "perpetual"),
        ("bitmex", "XBTZ21", "future"),
        ("deribit", "BTC-PERPETUAL", "perpetual"),
        ("deribit", "BTC-28JUN24", "future"),
        ("deribit", "BTC-28JUN24-60000-C", "option"),
        ("okex-options", "BTC-USD-240628-60000-P", "option"),
        ("deribit", "BTC_USDC", "spot"),
        ("deribit", "BTC_USDC-PERPETUAL", "perpetual"),
        ("bitmex", "XBT_USDT", "spot"),
        ("phemex", "BTCUSD", "perpetual"),
        ("delta", "BTCUSD", "perpetual"),
        ("dydx-v4", "BTC-USD", "perpetual"),
        ("coinflex", "BTC-USD-SWAP-LIN", "perpetual"),
        ("ftx", "BTC-PERP", "perpetual"),
        ("ftx", "BTC-USD", "spot"),
        ("woo-x", "PERP_BTC_USDT", "perpetual"),
        ("woo-x", "SPOT_BTC_USDT", "spot"),
        ("bitflyer", "FX_BTC_JPY", "perpetual"),
        ("bitflyer", "BTC_JPY", "spot"),
        ("coinbase", "PERP-USD", "spot"),
        ("upbit", "BTC-PERP", "spot"),
    ],
)
def test_the_kind_is_guessed_by_venue_and_name(exchange: str, symbol: str, kind: str) -> None:
    assert kind_of(exchange, symbol) == kind


def test_a_file_added_while_the_server_runs_is_served_at_once_and_listed_soon(datasets: Path) -> None:
    with TardisStandin(datasets_dir=datasets) as standin:
        added = datasets / "binance/trades/2019/10/14/XRPETH.csv.gz"
        added.parent.mkdir(parents=True)
        added.write_bytes(gzip.compress(b""))
        assert standin.source.dataset(Feed.parse("binance/trades/XRPETH"), "2019-10-14") == added
        deadline = time.monotonic() + 30
        while details(standin, "binance")["exportedUntil"] != "2019-10-15T00:00:00.000Z":
            assert time.monotonic() < deadline, "the added file is not listed"


def test_faults_work_on_files_too(datasets: Path) -> None:
    feed = Feed.parse("binance/trades/XRPETH")
    with TardisStandin(datasets_dir=datasets) as standin:
        standin.faults.put_dataset(feed, "2019-10-11", Fault(cut_body_at=10))
        with urllib.request.urlopen(standin.url + dataset_path(feed, "2019-10-11")) as answer:
            assert answer.read() == (datasets / FILES[0]).read_bytes()[:10]


@pytest.mark.parametrize(
    ("feed", "day", "code"),
    [
        ("binance/trades/XRPETH", "2019-10-12", NOT_ON_THAT_DAY),
        ("binance/trades/BTCUSDT", "2019-10-12", INVALID_SYMBOL),
        ("kraken/trades/XRPEUR", "2019-10-12", INVALID_SYMBOL),
    ],
)
def test_a_missing_file_is_refused_with_the_vendors_code(
    datasets: Path, feed: str, day: str, code: int
) -> None:
    with pytest.raises(NoDatasetError) as refused:
        DatasetsDirectory(datasets).dataset(Feed.parse(feed), day)
    assert refused.value.code == code


@pytest.mark.parametrize("symbol", ["..%2f..%2fsecret", "..", "%2e%2e%2fsecret"])
def test_no_file_outside_the_directory_is_served(datasets: Path, symbol: str) -> None:
    (datasets / "binance/trades/2019/10/secret.csv.gz").write_bytes(b"secret")
    with (
        TardisStandin(datasets_dir=datasets) as standin,
        pytest.raises(urllib.error.HTTPError, match=r"40[04]"),
    ):
        urllib.request.urlopen(f"{standin.url}/v1/datasets/binance/trades/2019/10/11/{symbol}.csv.gz")


def test_a_directory_that_is_missing_or_empty_is_a_plain_failure(tmp_path: Path) -> None:
    with pytest.raises(PermanentFailure, match=r"there is no directory .*nowhere: give one that holds"):
        TardisStandin(datasets_dir=tmp_path / "nowhere")
    with pytest.raises(
        PermanentFailure, match="holds no data sets: its files must lie at EXCHANGE/DATA_TYPE"
    ):
        TardisStandin(datasets_dir=tmp_path)


def test_the_listings_of_all_symbols_take_one_walk_through_the_directory(datasets: Path) -> None:
    walks: list[None] = []

    class Counted(DatasetsDirectory):
        def paths(self) -> Iterator[Path]:
            walks.append(None)
            return super().paths()

    for n in range(20):
        (datasets / f"kraken_trades_2024-01-01_S{n}-USD.csv.gz").write_bytes(gzip.compress(b""))
    served = Counted(datasets)
    walks.clear()
    assert len(served.listings("kraken")) == 20
    assert len(walks) <= 1
