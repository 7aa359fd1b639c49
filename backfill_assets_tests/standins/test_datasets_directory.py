"""The server can serve real files from a directory, and derives the metadata from their names."""

from __future__ import annotations

import asyncio
import gzip
import urllib.error
import urllib.request
from pathlib import Path

import pytest
import tardis_dev

from backfill_assets.failures import PermanentFailure
from backfill_assets.feeds import Feed
from backfill_assets.standins.directory import DatasetsDirectory, pair
from backfill_assets.standins.faults import Fault, dataset_path
from backfill_assets.standins.sources import INVALID_SYMBOL, NOT_ON_THAT_DAY, NoDatasetError
from backfill_assets.standins.tardis import TardisStandin

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
        instruments = asyncio.run(
            tardis_dev.get_instrument_info_async("binance-futures", endpoint=f"{standin.url}/v1")
        )
    assert found["exportedUntil"] == "2019-10-14T00:00:00.000Z"
    assert found["symbols"] == [
        {
            "id": "OLDUSDT",
            "type": "spot",
            "dataTypes": ["trades"],
            "availableSince": "2019-10-10T00:00:00.000Z",
            "availableTo": "2019-10-11T00:00:00.000Z",
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
    [perpetual] = instruments
    assert (perpetual["type"], perpetual["baseCurrency"], perpetual["quoteCurrency"]) == (
        "perpetual",
        "ETH",
        "USDT",
    )
    assert perpetual["priceIncrement"] == 1e-8


def test_a_file_added_while_the_server_runs_is_listed(datasets: Path) -> None:
    with TardisStandin(datasets_dir=datasets) as standin:
        added = datasets / "binance/trades/2019/10/14/XRPETH.csv.gz"
        added.parent.mkdir(parents=True)
        added.write_bytes(gzip.compress(b""))
        assert details(standin, "binance")["exportedUntil"] == "2019-10-15T00:00:00.000Z"


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


@pytest.mark.parametrize(
    ("symbol", "expected"),
    [
        ("BTC-USD", ("BTC", "USD")),
        ("XRPETH", ("XRP", "ETH")),
        ("ETHUSDT", ("ETH", "USDT")),
        ("XBT-USDT", ("BTC", "USDT")),
        ("ETHBTC", ("ETH", "BTC")),
        ("BTCFDUSD", ("BTC", "FDUSD")),
        ("ADA-PERP", ("ADA-PERP", "")),
        ("BTC", ("BTC", "")),
    ],
)
def test_base_and_quote_are_guessed_from_the_name(symbol: str, expected: tuple[str, str]) -> None:
    assert pair(symbol) == expected


def test_a_directory_that_is_missing_or_empty_is_a_plain_failure(tmp_path: Path) -> None:
    with pytest.raises(PermanentFailure, match=r"there is no directory .*nowhere: give one with --datasets"):
        TardisStandin(datasets_dir=tmp_path / "nowhere")
    with pytest.raises(
        PermanentFailure, match="holds no data sets: its files must lie at EXCHANGE/DATA_TYPE"
    ):
        TardisStandin(datasets_dir=tmp_path)
