"""The server keeps the contract, and the vendor's own client works against it."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import http.client
import json
import socket
import threading
import time
import urllib.error
from contextlib import suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path

import pytest
import tardis_dev

from backfill_assets.failures import PermanentFailure
from backfill_assets.feeds import Feed
from backfill_assets.standins.catalogue import KRAKEN_RENAME, SILENT_DAY
from backfill_assets.standins.faults import (
    Fault,
    dataset_path,
    key_used_elsewhere,
    not_available,
    not_found,
    server_error,
    too_many_requests,
    unavailable,
)
from backfill_assets.standins.market import Market
from backfill_assets.standins.tardis import CSV_ONLY_KEY, TardisStandin

FREE_DAY, PAID_DAY = "2024-01-01", "2024-01-02"
ADA = Feed.parse("kraken/trades/ADA-USDT")
KEY = "standin-key"


class Answer:
    def __init__(self, response: http.client.HTTPResponse) -> None:
        self.status = response.status
        self.headers = response.headers
        self.body = response.read()

    @property
    def json(self) -> dict[str, object]:
        answer: dict[str, object] = json.loads(self.body)
        return answer


def ask(
    standin: TardisStandin, path: str, *, method: str = "GET", key: str | None = KEY, **headers: str
) -> Answer:
    connection = http.client.HTTPConnection("127.0.0.1", standin.port, timeout=20)
    if key is not None:
        headers["Authorization"] = f"Bearer {key}"
    try:
        connection.request(method, path, headers=headers)
        return Answer(connection.getresponse())
    finally:
        connection.close()


def download(
    standin: TardisStandin, folder: Path, *, to: str = "2024-01-03", symbol: str = "ADA/USDT"
) -> None:
    asyncio.run(
        tardis_dev.download_datasets_async(
            exchange="kraken",
            data_types=["trades"],
            symbols=[symbol],
            from_date=PAID_DAY,
            to_date=to,
            api_key=KEY,
            download_dir=str(folder),
            endpoint=f"{standin.url}/v1/datasets",
        )
    )


def test_the_vendors_client_downloads_a_range(standin: TardisStandin, market: Market, tmp_path: Path) -> None:
    download(standin, tmp_path, to="2024-01-05")
    for day in ("2024-01-02", "2024-01-03", "2024-01-04"):
        file = tmp_path / f"kraken_trades_{day}_ADA-USDT.csv.gz"
        assert file.read_bytes() == market.dataset(ADA, day)
    assert {request.status for request in standin.requests} == {200}


def test_the_vendors_client_reads_exchange_details(standin: TardisStandin) -> None:
    details = asyncio.run(tardis_dev.get_exchange_details_async("kraken", endpoint=f"{standin.url}/v1"))
    assert details["incidentReports"] == []
    assert details["datasets"]["exportedUntil"] == "2024-02-10T00:00:00.000Z"
    listed = {symbol["id"]: symbol for symbol in details["datasets"]["symbols"]}
    assert listed["XBT-USDT"]["availableTo"] == listed["BTC-USDT"]["availableSince"]
    assert listed["XBT-USDT"]["availableTo"] == f"{KRAKEN_RENAME}T00:00:00.000Z"
    assert "availableTo" not in listed["BTC-USDT"]
    assert listed["SPOT"]["dataTypes"] == ["trades"]
    assert {symbol["id"] for symbol in details["availableSymbols"]} >= {"XBT/USDT", "BTC/USDT", "ADA/USDT"}


def test_the_vendors_client_reads_instruments(standin: TardisStandin) -> None:
    everything = asyncio.run(
        tardis_dev.get_instrument_info_async(["binance", "kraken"], api_key=KEY, endpoint=f"{standin.url}/v1")
    )
    assert isinstance(everything, list)
    required = [
        "id",
        "exchange",
        "baseCurrency",
        "quoteCurrency",
        "type",
        "active",
        "availableSince",
        "priceIncrement",
        "amountIncrement",
        "minTradeAmount",
        "makerFee",
        "takerFee",
    ]
    assert all(field in instrument for instrument in everything for field in required)
    ada = next(i for i in everything if i["id"] == "adausdt")
    assert ada["datasetId"] == "ADAUSDT"
    assert ada["priceIncrement"] == 1e-4
    assert ada["changes"] == [{"until": "2023-02-01T00:00:00.000Z", "priceIncrement": 1e-5}]
    assert {i["baseCurrency"] for i in everything if "XBT" in i["id"]} == {"BTC"}


def test_instruments_can_be_filtered_and_asked_for_by_id(standin: TardisStandin) -> None:
    endpoint = f"{standin.url}/v1"
    wanted = {"type": "perpetual", "baseCurrency": ["BTC", "ADA"]}
    found = asyncio.run(
        tardis_dev.get_instrument_info_async("binance-futures", filter=wanted, api_key=KEY, endpoint=endpoint)
    )
    assert [instrument["id"] for instrument in found] == ["btcusdt"]
    one = asyncio.run(
        tardis_dev.get_instrument_info_async("kraken", symbol="ADA/USDT", api_key=KEY, endpoint=endpoint)
    )
    assert isinstance(one, dict)
    assert one["datasetId"] == "ADA-USDT"
    assert ask(standin, "/v1/instruments/kraken?filter={").status == 400
    assert ask(standin, "/v1/instruments/kraken/NO-USDT").status == 404


@pytest.mark.parametrize(
    ("key", "day", "status"),
    [
        (KEY, PAID_DAY, 200),
        (CSV_ONLY_KEY, PAID_DAY, 200),
        (None, PAID_DAY, 401),
        ("somebody-else", PAID_DAY, 401),
        (None, FREE_DAY, 200),
        ("somebody-else", FREE_DAY, 200),
    ],
)
def test_only_the_first_of_each_month_is_free(
    standin: TardisStandin, key: str | None, day: str, status: int
) -> None:
    assert ask(standin, dataset_path(ADA, day), key=key).status == status


@pytest.mark.parametrize(("key", "status"), [(KEY, 200), (CSV_ONLY_KEY, 403), (None, 401), ("wrong", 401)])
def test_instruments_need_a_key_of_a_higher_plan(
    standin: TardisStandin, key: str | None, status: int
) -> None:
    assert ask(standin, "/v1/instruments/binance", key=key).status == status
    assert ask(standin, "/v1/exchanges/binance", key=None).status == 200


def test_free_files_carry_their_md5_and_others_do_not(standin: TardisStandin) -> None:
    free = ask(standin, dataset_path(ADA, FREE_DAY), key=None)
    assert free.headers["x-md5"] == hashlib.md5(free.body, usedforsecurity=False).hexdigest()
    assert "x-md5" not in ask(standin, dataset_path(ADA, PAID_DAY)).headers


def test_head_and_range_are_refused(standin: TardisStandin) -> None:
    path = dataset_path(ADA, FREE_DAY)
    head = ask(standin, path, method="HEAD")
    assert (head.status, head.body) == (404, b"")
    assert ask(standin, path, Range="bytes=100-").status == 403


def test_a_silent_day_is_an_empty_file(standin: TardisStandin) -> None:
    answer = ask(standin, dataset_path(Feed.parse("coinbase/trades/SOL-USDT"), SILENT_DAY))
    assert answer.status == 200
    assert gzip.decompress(answer.body) == b""


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/v1/datasets/kraken/trades/2024/01/02/XRPEUR.csv.gz", 400, 300),
        ("/v1/datasets/kraken/trades/2024/01/02/ADA%2FUSDT.csv.gz", 400, 300),
        ("/v1/datasets/kraken/trades/2024/01/02/BTC-USDT.csv.gz", 400, 140),
        ("/v1/datasets/kraken/trades/2018/01/02/ADA-USDT.csv.gz", 400, 140),
        ("/v1/datasets/kraken/quotes/2024/01/02/SPOT.csv.gz", 400, 140),
        ("/v1/datasets/kraken/trades/2024/13/01/ADA-USDT.csv.gz", 400, 100),
        ("/v1/datasets/kraken/trades/2024/01/02/ADA-USDT.csv", 404, 404),
        ("/v1/exchanges/nowhere", 404, 404),
        ("/v2/anything", 404, 404),
    ],
)
def test_refusals_have_the_contracts_status_and_code(
    standin: TardisStandin, path: str, status: int, code: int
) -> None:
    answer = ask(standin, path)
    assert answer.status == status
    assert answer.json["code"] == code
    assert answer.json["message"]


@pytest.mark.parametrize(("hour", "status"), [(5, 400), (6, 200)])
def test_a_day_is_there_from_six_in_the_morning_of_the_next(market: Market, hour: int, status: int) -> None:
    now = datetime(2024, 1, 3, hour, 59, tzinfo=UTC)
    with TardisStandin(market, clock=lambda: now) as standin:
        answer = ask(standin, dataset_path(ADA, "2024-01-02"))
        assert answer.status == status
        exported = json.loads(ask(standin, "/v1/exchanges/kraken").body)["datasets"]["exportedUntil"]
        assert (exported >= "2024-01-03T00:00:00.000Z") == (status == 200)
        assert ask(standin, dataset_path(ADA, "2024-01-01")).status == 200


def test_exports_and_incidents_can_be_stated(standin: TardisStandin) -> None:
    incident = {"from": "2024-01-02T03:00:00.000Z", "to": "2024-01-02T03:05:00.000Z", "status": "resolved"}
    standin.faults.exported_until["kraken"] = "2024-01-02"
    standin.faults.incidents["kraken"] = [incident]
    details = json.loads(ask(standin, "/v1/exchanges/kraken").body)
    assert details["datasets"]["exportedUntil"] == "2024-01-02T00:00:00.000Z"
    assert details["incidentReports"] == [incident]
    assert ask(standin, dataset_path(ADA, PAID_DAY)).json["code"] == 140
    standin.faults.clear()
    assert ask(standin, dataset_path(ADA, PAID_DAY)).status == 200


def test_refusals_come_one_by_one_and_then_the_truth(standin: TardisStandin) -> None:
    refusals = (too_many_requests(7), server_error(), unavailable(), key_used_elsewhere())
    standin.faults.put_dataset(ADA, PAID_DAY, Fault(refusals=refusals))
    answers = [ask(standin, dataset_path(ADA, PAID_DAY)) for _ in range(5)]
    assert [answer.status for answer in answers] == [429, 500, 503, 403, 200]
    assert answers[0].headers["Retry-After"] == "7"
    assert answers[3].json == {
        "code": 274,
        "message": "API key is being used from another IP address",
        "retryAfterSeconds": 900,
    }
    assert [request.status for request in standin.requests] == [429, 500, 503, 403, 200]


def test_a_moment_to_come_back_is_in_the_header_alone(standin: TardisStandin) -> None:
    standin.faults.put_dataset(ADA, PAID_DAY, Fault(always=too_many_requests(100, as_date=True)))
    answer = ask(standin, dataset_path(ADA, PAID_DAY))
    moment = parsedate_to_datetime(answer.headers["Retry-After"])
    assert 90 < (moment - datetime.now(UTC)).total_seconds() <= 100
    assert set(answer.json) == {"code", "message"}


def test_a_body_can_drip_and_a_redirect_can_pass(standin: TardisStandin, market: Market) -> None:
    path = dataset_path(ADA, PAID_DAY)
    standin.faults.put(path, Fault(drip_seconds=0.3, times=1))
    started = time.perf_counter()
    assert ask(standin, path).body == market.dataset(ADA, PAID_DAY)
    assert time.perf_counter() - started >= 0.3
    standin.faults.put(path, Fault(redirect_to=path, times=2))
    assert [ask(standin, path).status for _ in range(3)] == [302, 302, 200]


def test_metadata_can_be_replaced_by_a_gzip(standin: TardisStandin) -> None:
    standin.faults.put("/v1/exchanges/kraken", Fault(body=gzip.compress(b"{}")))
    answer = ask(standin, "/v1/exchanges/kraken")
    assert (gzip.decompress(answer.body), answer.headers["Content-Encoding"]) == (b"{}", "gzip")
    assert "Content-Encoding" not in ask(standin, "/v1/exchanges/binance").headers


def test_the_log_tells_which_requests_came_with_a_key_and_when(standin: TardisStandin) -> None:
    ask(standin, dataset_path(ADA, PAID_DAY))
    ask(standin, "/v1/exchanges/kraken", key=None)
    first, second = standin.requests
    assert (first.has_key, second.has_key) == (True, False)
    assert first.at < second.at


def test_the_vendors_client_retries_after_429(standin: TardisStandin, tmp_path: Path) -> None:
    standin.faults.put_dataset(ADA, PAID_DAY, Fault(refusals=(too_many_requests(1),)))
    download(standin, tmp_path)
    assert [request.status for request in standin.requests] == [429, 200]


@pytest.mark.parametrize("refusal", [not_available(), not_found(), key_used_elsewhere()])
def test_the_vendors_client_gives_up_at_once_on_the_permanent(
    standin: TardisStandin, tmp_path: Path, refusal: object
) -> None:
    standin.faults.put_dataset(ADA, PAID_DAY, Fault(always=refusal))  # type: ignore[arg-type]
    with pytest.raises(urllib.error.HTTPError):
        download(standin, tmp_path)
    assert len(standin.requests) == 1
    assert not list(tmp_path.iterdir())


def test_a_fault_concerns_its_own_path_only(standin: TardisStandin) -> None:
    standin.faults.put_dataset(ADA, PAID_DAY, Fault(always=server_error()))
    standin.faults.put("/v1/exchanges/kraken", Fault(refusals=(unavailable(),)))
    assert ask(standin, dataset_path(ADA, "2024-01-03")).status == 200
    assert ask(standin, "/v1/exchanges/binance").status == 200
    assert ask(standin, "/v1/exchanges/kraken").status == 503
    assert ask(standin, dataset_path(ADA, PAID_DAY)).status == 500
    standin.faults.clear(dataset_path(ADA, PAID_DAY))
    assert ask(standin, dataset_path(ADA, PAID_DAY)).status == 200


def test_bytes_can_be_replaced(standin: TardisStandin) -> None:
    standin.faults.put_dataset(ADA, PAID_DAY, Fault(body=b"not gzip"))
    assert ask(standin, dataset_path(ADA, PAID_DAY)).body == b"not gzip"


def test_a_body_can_be_shorter_than_it_was(standin: TardisStandin, market: Market) -> None:
    standin.faults.put_dataset(ADA, PAID_DAY, Fault(cut_body_at=1_000, cuts=1))
    assert ask(standin, dataset_path(ADA, PAID_DAY)).body == market.dataset(ADA, PAID_DAY)[:1_000]
    assert ask(standin, dataset_path(ADA, PAID_DAY)).body == market.dataset(ADA, PAID_DAY)


def test_the_vendors_client_survives_a_connection_that_breaks(
    standin: TardisStandin, market: Market, tmp_path: Path
) -> None:
    standin.faults.put_dataset(ADA, PAID_DAY, Fault(cut_connection_at=1_000, cuts=1))
    with pytest.raises(http.client.IncompleteRead):
        ask(standin, dataset_path(ADA, PAID_DAY))
    standin.faults.put_dataset(ADA, PAID_DAY, Fault(cut_connection_at=1_000, cuts=1))
    download(standin, tmp_path)
    [file] = tmp_path.iterdir()
    assert file.read_bytes() == market.dataset(ADA, PAID_DAY)


def test_the_vendors_client_follows_a_redirect(
    standin: TardisStandin, market: Market, tmp_path: Path
) -> None:
    path = dataset_path(ADA, PAID_DAY)
    standin.faults.put(path, Fault(redirect_to=f"/storage{path}"))
    download(standin, tmp_path)
    [file] = tmp_path.iterdir()
    assert file.read_bytes() == market.dataset(ADA, PAID_DAY)
    assert [(r.path, r.status) for r in standin.requests] == [(path, 302), (f"/storage{path}", 200)]


def test_an_answer_can_be_slow(standin: TardisStandin) -> None:
    standin.faults.put_dataset(ADA, PAID_DAY, Fault(delay_seconds=0.3))
    started = time.perf_counter()
    assert ask(standin, dataset_path(ADA, PAID_DAY)).status == 200
    assert time.perf_counter() - started >= 0.3


def test_a_slow_answer_with_other_bytes_can_be_given_to_the_first_requests_only(
    standin: TardisStandin, market: Market
) -> None:
    standin.faults.put_dataset(ADA, PAID_DAY, Fault(body=b"other", delay_seconds=0.3, times=2))
    path = dataset_path(ADA, PAID_DAY)
    assert [ask(standin, path).body for _ in range(2)] == [b"other", b"other"]
    started = time.perf_counter()
    whole = market.dataset(ADA, PAID_DAY)
    assert ask(standin, path).body == whole
    assert time.perf_counter() - started < 0.3
    assert [request.bytes for request in standin.requests] == [5, 5, len(whole)]


def test_an_answer_about_metadata_can_be_replaced(standin: TardisStandin) -> None:
    standin.faults.put("/v1/instruments/kraken", Fault(body=b"[[]]"))
    assert ask(standin, "/v1/instruments/kraken").body == b"[[]]"
    assert ask(standin, "/v1/instruments/binance").json != [[]]


def test_requests_are_answered_at_the_same_time_and_counted(standin: TardisStandin) -> None:
    for exchange in ("binance", "kraken", "coinbase"):
        standin.faults.put(f"/v1/exchanges/{exchange}", Fault(delay_seconds=0.5))
    threads = [
        threading.Thread(target=ask, args=(standin, f"/v1/exchanges/{exchange}"))
        for exchange in ("binance", "kraken", "coinbase")
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert standin.most_at_once == 3
    assert len(standin.requests) == 3
    standin.forget_requests()
    assert standin.requests == []


def test_a_connection_serves_many_requests(standin: TardisStandin) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", standin.port, timeout=20)
    for path in ("/v1/exchanges/kraken", "/nothing", "/v1/exchanges/binance"):
        connection.request("GET", path)
        connection.getresponse().read()
    assert [request.status for request in standin.requests] == [200, 404, 200]
    connection.close()


def test_after_the_stop_nobody_is_served_and_nobody_waits(market: Market) -> None:
    standin = TardisStandin(market)
    with standin:
        port = standin.port
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        connection.request("GET", "/v1/exchanges/kraken")
        connection.getresponse().read()
        standin.faults.put("/v1/exchanges/binance", Fault(delay_seconds=60))
        slow = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        slow.request("GET", "/v1/exchanges/binance")
        while not standin.counting.now:
            time.sleep(0.01)
        started = time.perf_counter()
    assert time.perf_counter() - started < 5
    while standin.counting.now and time.perf_counter() - started < 5:
        time.sleep(0.01)
    assert standin.counting.now == 0, "a delayed answer is given up"
    with suppress(ConnectionError):
        connection.request("GET", "/v1/exchanges/kraken")
    with pytest.raises((ConnectionError, http.client.HTTPException)):
        connection.getresponse()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=5)
    with TardisStandin(market, port=port) as again:
        assert ask(again, "/v1/exchanges/kraken").status == 200


def test_a_port_in_use_is_a_plain_failure_and_the_first_server_goes_on(
    standin: TardisStandin, market: Market
) -> None:
    message = f"port {standin.port} is in use on 127.0.0.1: choose another with --port, or 0 for a free one"
    with pytest.raises(PermanentFailure) as failure, TardisStandin(market, port=standin.port):
        pass
    assert str(failure.value) == message
    assert ask(standin, "/v1/exchanges/kraken").status == 200


def test_a_port_that_does_not_exist_is_a_plain_failure(market: Market) -> None:
    standin = TardisStandin(market, port=70_000)
    with pytest.raises(PermanentFailure, match="port 70000 cannot be used"):
        standin.__enter__()


class CountingMarket(Market):
    """Counts the generated files."""

    made = 0

    def _generate(self, feed: Feed, day: str) -> bytes:
        self.made += 1
        return super()._generate(feed, day)


def test_a_file_that_many_ask_for_at_once_is_made_once() -> None:
    market = CountingMarket()
    answers: list[bytes] = []

    def fetch() -> None:
        answers.append(ask(standin, dataset_path(ADA, FREE_DAY)).body)

    with TardisStandin(market) as standin:
        threads = [threading.Thread(target=fetch) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(answers) == 8
    assert len(set(answers)) == 1
    assert market.made == 1
