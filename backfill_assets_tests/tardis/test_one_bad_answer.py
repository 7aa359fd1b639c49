"""Wrong answers of every kind for one feed, at a real socket: it fails with a reason, the others arrive."""

from __future__ import annotations

import asyncio
import gzip
import json
import logging
import socket
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import tardis_dev

from backfill_assets.days import utc_now
from backfill_assets.failures import PermanentFailure, TransientFailure
from backfill_assets.feeds import Feed
from backfill_assets.lake import documents, paths
from backfill_assets.lake.local import LocalStore
from backfill_assets.lake.manifests import DayRecord, ExpectedSymbols, load_manifest
from backfill_assets.quality.settle import settle
from backfill_assets.settings import (
    DuckDBWarehouse,
    LakeSettings,
    Settings,
    TardisSettings,
    UniverseEntry,
)
from backfill_assets.tardis import attempts
from backfill_assets.tardis.client import Download, TardisClient
from backfill_assets.ticks.assets import _insist
from backfill_assets.ticks.fetch import FetchReport, fetch_day
from backfill_assets_tests.tardis.raw_vendor import RawVendor, Script, http

DAY = "2024-01-02"
BAD, GOOD = Feed("binance", "trades", "BTCUSDT"), Feed("kraken", "trades", "ETH-USDT")
KEY = "TD.planted-key_that+must/not=leak"
HEADER = b"exchange,symbol,timestamp,local_timestamp,id,side,price,amount\n"
ROW = b"kraken,ETH/USDT,1704153600000000,1704153600000000,1,buy,2300.5,1\n"
FILE = gzip.compress(HEADER + ROW, mtime=0)


def path_of(feed: Feed) -> str:
    return f"/v1/datasets/{feed.exchange}/trades/2024/01/02/{feed.dataset_symbol}.csv.gz"


BAD_PATH, GOOD_PATH = path_of(BAD), path_of(GOOD)
ECHO = f"your key {KEY} is odd".encode()


def error(status: int, *headers: str, **body: object) -> bytes:
    return http(status, json.dumps(body).encode(), *headers)


def redirect(to: str, status: int = 302) -> bytes:
    return http(status, b"", f"Location: {to}")


def chunked(*chunks: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n" + b"".join(chunks)


def reset(connection: socket.socket) -> None:
    """Break the connection with RST in the middle of the body."""
    connection.sendall(http(200, FILE[:10], length=len(FILE)))
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def trickle(before: bytes) -> Callable[[socket.socket], None]:
    """Send the beginning and then one byte now and then, for longer than an attempt may take."""

    def send(connection: socket.socket) -> None:
        connection.sendall(before)
        connection.settimeout(0.1)
        for _ in range(100):
            try:
                if not connection.recv(1):
                    return
            except TimeoutError:
                connection.sendall(b"x")

    return send


def statuses() -> Iterator[tuple[str, Script]]:
    for status in (201, 204, 206, 300, 304, 400, 401, 402, 403, 404, 405, 406, 407, 408, 409, 410, 413):
        yield f"status {status}", http(status, ECHO if status not in (204, 304) else b"")
    for status in (418, 421, 425, 429, 431, 451, 500, 501, 502, 503, 504, 507, 511, 520, 599, 999):
        yield f"status {status}", error(status, code=status, message=ECHO.decode())


DEEP = b"[" * 100_000
FAULTS: dict[str, Script] = {
    **dict(statuses()),
    "code 274 with an endless wait": error(403, code=274, retryAfterSeconds=10**309),
    "a wait of minus one second": error(429, code=429, retryAfterSeconds=-1),
    "a wait that is no number": http(429, b'{"code": 429, "retryAfterSeconds": NaN}'),
    "an infinite wait": http(429, b'{"code": 429, "retryAfterSeconds": 1e999}'),
    "a wait that is true": error(429, retryAfterSeconds=True),
    "a wait in words": error(429, retryAfterSeconds="soon"),
    "Retry-After with 310 digits": error(429, f"Retry-After: {'9' * 310}"),
    "Retry-After with 5000 digits": error(503, f"Retry-After: {'9' * 5000}"),
    "Retry-After in superscript": error(429, "Retry-After: \xb2"),
    "Retry-After in the past": error(429, "Retry-After: Wed, 21 Oct 2015 07:28:00 GMT"),
    "Retry-After that is no date": error(503, "Retry-After: Wed, 99 Oct 2015 99:28:00 GMT"),
    "Retry-After below zero": error(429, "Retry-After: -5"),
    "a deep error": http(500, DEEP),
    "a deep refusal": http(403, DEEP),
    "a deep message": http(400, b'{"message": ' + b"[" * 900 + b"]" * 900 + b"}"),
    "a code of 4000 digits": http(400, b'{"code": ' + b"9" * 4000 + b"}"),
    "a code that is a list": error(400, code=[300]),
    "a message of control signs": error(400, message="\x1b[2Jgone\r\n\r\nnext\x00"),
    "an error that is a list": http(400, b"[1, 2]"),
    "an error in a charset nobody knows": http(400, b"\xff\xfe", "Content-Type: text/html; charset=nope"),
    "an error in a charset that is no text": http(400, b"\xff", "Content-Type: text/html; charset=base64"),
    "an error in UTF-16": http(400, "böse".encode("utf-16"), "Content-Type: text/plain; charset=utf-16"),
    "an error said to be gzip": http(404, b"no gzip", "Content-Encoding: gzip"),
    "an error in a gzip bomb": http(404, gzip.compress(bytes(50 << 20), 9), "Content-Encoding: gzip"),
    "an error of 20 MB": http(400, b"x" * (20 << 20)),
    "an error cut off": http(500, b"half", length=10_000),
    "an error that never ends": trickle(http(500, b"", length=1 << 40)),
    "a redirect to a bad port": redirect("http://127.0.0.1:99999/x"),
    "a redirect to port 0": redirect("http://127.0.0.1:0/x"),
    "a redirect to a closed port": redirect("http://127.0.0.1:1/x"),
    "a redirect to a host that is none": redirect(f"http://{'a' * 300}.invalid/x"),
    "a redirect to a host in brackets": redirect("http://[::1/x"),
    "a redirect to no host": redirect("http:///x"),
    "a redirect to a file": redirect("file:///etc/passwd"),
    "a redirect to another scheme": redirect("gopher://127.0.0.1/x"),
    "a redirect to itself": redirect(BAD_PATH),
    "a redirect to the key": redirect(f"http://{KEY.replace('/', '%2F')}/x"),
    "a redirect without a place": http(302),
    "a redirect with bytes beyond ASCII": redirect("/\xff\xfe"),
    "a page of HTML": http(200, b"<html>sign in</html>", "Content-Type: text/html"),
    "an empty body": http(200),
    "one byte": http(200, b"\x1f"),
    "JSON in place of the file": http(200, b'{"error": "none"}', "Content-Type: application/json"),
    "a gzip cut off": http(200, FILE[:-9]),
    "a gzip with another checksum": http(200, FILE[:-8] + bytes(4) + FILE[-4:]),
    "a gzip header alone": http(200, FILE[:10]),
    "a gzip of a gzip": http(200, gzip.compress(FILE), "Content-Encoding: gzip"),
    "a gzip of HTML": http(200, gzip.compress(b"<html>" + ECHO + b"</html>\n")),
    "a gzip of zeros": http(200, gzip.compress(bytes(8 << 20), 9)),
    "a gzip of one endless line": http(200, gzip.compress(HEADER + b"a" * (16 << 20), 9)),
    "a body said to be Brotli": http(200, b"\x0b\x02\x80", "Content-Encoding: br"),
    "a deflated body": http(200, b"x\x9c\x03\x00\x00\x00\x00\x01", "Content-Encoding: deflate"),
    "a longer body announced": http(200, FILE, length=len(FILE) + 1000),
    "a negative length": http(200, FILE, length=-5),
    "a length in words": http(200, FILE, length="many"),
    "two lengths": http(200, FILE, "Content-Length: 3"),
    "a header of a megabyte": http(200, FILE, f"X-Long: {'x' * (1 << 20)}"),
    "a header without a colon": http(200, FILE, "nonsense"),
    "chunks of garbage": chunked(b"zz\r\nhello\r\n"),
    "a chunk cut off": chunked(b"ffff\r\n", FILE),
    "chunks without an end": chunked(b"5\r\n", FILE[:5], b"\r\n"),
    "no HTTP": b"SSH-2.0-OpenSSH_9.6\r\n",
    "nothing at all": b"",
    "half a status line": b"HTTP/1.1 2",
    "a broken connection": reset,
    "a body that trickles": trickle(http(200, FILE[:10], length=1 << 40)),
    "headers that trickle": trickle(b"HTTP/1.1 200 OK\r\nX-Slow: "),
    "no answer": trickle(b""),
}


@pytest.fixture
def bad_vendor() -> Iterator[RawVendor]:
    with RawVendor() as running:
        running.scripts[GOOD_PATH] = http(200, FILE)
        yield running


def settings_of(vendor: RawVendor, folder: Path, **tardis: object) -> Settings:
    return Settings(
        name="test",
        universe=(UniverseEntry(exchanges=("binance",), symbols=("BTC-USDT",)),),
        lake=LakeSettings(uri=str(folder / "lake")),
        warehouse=DuckDBWarehouse(kind="duckdb", folder=str(folder / "warehouse")),
        tardis=TardisSettings(
            **{
                "datasets_endpoint": f"{vendor.url}/v1/datasets",
                "api_endpoint": f"{vendor.url}/v1",
                "api_key": KEY,
                "timeout_seconds": 2,
                "retry_budget_seconds": 0,
                **tardis,
            }
        ),
    )


def fetched(settings: Settings, *feeds: Feed) -> FetchReport:
    record = DayRecord(
        day=DAY,
        expected=tuple(
            ExpectedSymbols(feed=str(f), symbols=((f.dataset_symbol, "BTC-USDT"),)) for f in feeds
        ),
        recorded_at=utc_now(),
    )
    store = LocalStore(Path(settings.lake.uri))
    return fetch_day(store, TardisClient(settings.tardis), record, settings)


def everything_in(folder: Path) -> bytes:
    return b"\n".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


def test_bad_answers_cost_their_own_feeds_and_their_reasons_are_kept(bad_vendor, tmp_path, caplog):
    feeds = {fault: Feed("binance", "trades", f"BAD{number}") for number, fault in enumerate(FAULTS)}
    for fault, feed in feeds.items():
        bad_vendor.scripts[path_of(feed)] = FAULTS[fault]
    bad_vendor.scripts[path_of(feeds["a redirect to itself"])] = redirect(
        path_of(feeds["a redirect to itself"])
    )
    settings = settings_of(bad_vendor, tmp_path)
    with caplog.at_level(logging.DEBUG):
        report = fetched(settings, *feeds.values(), GOOD)
    outcomes = {outcome.feed: outcome for outcome in report.outcomes}
    assert len(feeds) >= 69
    assert outcomes[GOOD].state == "fetched"
    states = {fault: outcomes[feed].state for fault, feed in feeds.items()}
    assert [f for f, state in states.items() if state not in ("failed", "absent", "rejected")] == []
    reasons = {fault: outcomes[feed].reason for fault, feed in feeds.items()}
    assert [f for f, text in reasons.items() if not text or not text.isprintable() or len(text) > 1500] == []
    store = LocalStore(tmp_path / "lake")
    assert {f: load_manifest(store, feed, DAY).why_missing for f, feed in feeds.items()} == reasons
    for file in (tmp_path / "lake" / "rejected").rglob("*.gz"):
        file.unlink()
    assert KEY.encode() not in everything_in(tmp_path) + caplog.text.encode()


@pytest.mark.parametrize("fault", ["status 401", "status 403"])
def test_a_key_that_is_refused_everywhere_ends_the_run_and_is_named(bad_vendor, tmp_path, fault):
    bad_vendor.scripts.update({BAD_PATH: FAULTS[fault], GOOD_PATH: FAULTS[fault]})
    report = fetched(settings_of(bad_vendor, tmp_path), BAD, GOOD)
    with pytest.raises(PermanentFailure, match="TARDIS_API_KEY"):
        _insist(report, DAY, last_try=False)


def test_a_key_that_is_refused_for_one_exchange_asks_for_no_other_try(bad_vendor, tmp_path):
    bad_vendor.scripts[BAD_PATH] = FAULTS["status 403"]
    _insist(fetched(settings_of(bad_vendor, tmp_path), BAD, GOOD), DAY, last_try=False)


def test_a_feed_that_may_come_asks_for_another_try(bad_vendor, tmp_path):
    bad_vendor.scripts[BAD_PATH] = FAULTS["status 500"]
    report = fetched(settings_of(bad_vendor, tmp_path), BAD, GOOD)
    with pytest.raises(TransientFailure, match="1 of 2 feeds"):
        _insist(report, DAY, last_try=False)
    _insist(report, DAY, last_try=True)


@pytest.mark.parametrize(("asked", "is_waited_for"), [("1700", True), ("1900", False), ("9" * 40, False)])
def test_a_wait_that_is_longer_than_a_step_may_wait_costs_that_feed_alone(
    bad_vendor, tmp_path, asked, is_waited_for
):
    bad_vendor.scripts[BAD_PATH] = error(429, f"Retry-After: {asked}", code=429)
    report = fetched(settings_of(bad_vendor, tmp_path), BAD, GOOD)
    if is_waited_for:
        with pytest.raises(TransientFailure) as failed:
            _insist(report, DAY, last_try=False)
        assert failed.value.retry_after_seconds == 1700
    else:
        _insist(report, DAY, last_try=False)
        bad_vendor.scripts[GOOD_PATH] = bad_vendor.scripts[BAD_PATH]
        report = fetched(settings_of(bad_vendor, tmp_path / "both"), BAD, GOOD)
        with pytest.raises(PermanentFailure, match="2 of 2 feeds"):
            _insist(report, DAY, last_try=False)


def test_a_damaged_file_that_comes_twice_with_the_same_bytes_asks_for_no_other_try(bad_vendor, tmp_path):
    bad_vendor.scripts[BAD_PATH] = FAULTS["a gzip cut off"]
    report = fetched(settings_of(bad_vendor, tmp_path), BAD, GOOD)
    [failed] = report.of("failed")
    assert failed.reason.endswith("the same bytes came again")
    assert len([1 for line, _ in bad_vendor.requests if BAD_PATH in line]) == 2
    _insist(report, DAY, last_try=False)


def test_a_file_that_is_damaged_in_another_way_each_time_asks_for_another_try(bad_vendor, tmp_path):
    sizes = iter((len(FILE) - 3, len(FILE) - 5))

    def cut(connection: socket.socket) -> None:
        connection.sendall(http(200, FILE[: next(sizes)]))

    bad_vendor.scripts[BAD_PATH] = cut
    with pytest.raises(TransientFailure, match="damaged gzip"):
        _insist(fetched(settings_of(bad_vendor, tmp_path), BAD, GOOD), DAY, last_try=False)


def test_a_redirect_loop_is_told_as_such(bad_vendor, tmp_path):
    bad_vendor.scripts[BAD_PATH] = redirect(BAD_PATH)
    [outcome] = fetched(settings_of(bad_vendor, tmp_path), BAD, GOOD).of("failed")
    assert "redirected 10 times without an answer" in outcome.reason
    assert outcome.is_passing


def test_the_key_does_not_travel_to_another_host(bad_vendor, tmp_path):
    with RawVendor() as elsewhere:
        elsewhere.scripts["/storage"] = http(200, FILE)
        bad_vendor.scripts[BAD_PATH] = redirect(f"{elsewhere.url}/storage")
        client = TardisClient(settings_of(bad_vendor, tmp_path).tardis)
        [(_, result)] = client.fetch([BAD], DAY, tmp_path)
        assert isinstance(result, Download)
        [(_, asked)] = elsewhere.requests
    assert KEY in bad_vendor.requests[0][1]
    assert KEY not in asked
    assert "authorization" not in asked.lower()


def test_the_vendors_client_works_for_others_in_the_same_process(bad_vendor):
    bad_vendor.scripts["/v1/exchanges/binance"] = http(200, b'{"id": "binance"}')
    endpoint = f"{bad_vendor.url}/v1"
    found = asyncio.run(tardis_dev.get_exchange_details_async("binance", endpoint=endpoint))
    assert found == {"id": "binance"}


def test_user_and_password_of_an_endpoint_are_stored_nowhere(bad_vendor, tmp_path, caplog):
    endpoint = f"{bad_vendor.url}/v1/datasets".replace("://", "://reader:planted-password@")
    bad_vendor.scripts[BAD_PATH] = http(500, b"nothing today")
    settings = settings_of(bad_vendor, tmp_path, datasets_endpoint=endpoint, api_key="")
    outcomes = {outcome.feed: outcome for outcome in fetched(settings, BAD, GOOD).outcomes}
    assert outcomes[GOOD].state == "fetched"
    assert "authorization: basic" in bad_vendor.requests[0][1].lower()
    assert b"planted-password" not in everything_in(tmp_path) + caplog.text.encode()
    assert "planted-password" not in outcomes[BAD].reason


@pytest.mark.parametrize("token", ["planted-path-token", "tkn-7"])
def test_the_token_in_the_path_of_an_endpoint_is_stored_nowhere(bad_vendor, tmp_path, caplog, token):
    said = f"no way to /{token}{BAD_PATH}" + (f", {token}?" if len(token) > 8 else "")
    bad_vendor.scripts[f"/{token}{BAD_PATH}"] = http(404, said.encode())
    bad_vendor.scripts[f"/{token}{GOOD_PATH}"] = http(200, FILE)
    bad_vendor.scripts[f"/{token}/v1/exchanges/binance"] = error(500, message=said)
    endpoints = {
        "datasets_endpoint": f"{bad_vendor.url}/{token}/v1/datasets",
        "api_endpoint": f"{bad_vendor.url}/{token}/v1",
    }
    settings = settings_of(bad_vendor, tmp_path, **endpoints)
    with caplog.at_level(logging.DEBUG):
        outcomes = {outcome.feed: outcome for outcome in fetched(settings, BAD, GOOD).outcomes}
    assert {feed: outcome.state for feed, outcome in outcomes.items()} == {BAD: "absent", GOOD: "fetched"}
    newest = load_manifest(LocalStore(tmp_path / "lake"), GOOD, DAY).newest
    assert newest is not None
    assert newest.source.url == f"{bad_vendor.url}/***{GOOD_PATH}"
    assert outcomes[BAD].reason.startswith(
        f"{bad_vendor.url}/***{BAD_PATH}: HTTP 404: no way to /***{BAD_PATH}"
    )
    with pytest.raises(TransientFailure, match=r"/\*\*\*/v1/exchanges/binance: HTTP 500") as refused:
        TardisClient(settings.tardis).exchange_details("binance")
    assert token not in str(refused.value)
    assert [path for path, _ in bad_vendor.requests if not path.startswith(f"/{token}/")] == []
    assert token.encode() not in everything_in(tmp_path) + caplog.text.encode()


def test_the_reason_is_in_the_verdict_and_leaves_with_the_file(bad_vendor, tmp_path):
    bad_vendor.scripts[BAD_PATH] = FAULTS["a gzip cut off"]
    settings, store = settings_of(bad_vendor, tmp_path), LocalStore(tmp_path / "lake")
    fetched(settings, BAD, GOOD)
    record = DayRecord(
        day=DAY,
        expected=(ExpectedSymbols(feed=str(BAD), symbols=(("BTCUSDT", "BTC-USDT"),)),),
        recorded_at=utc_now(),
    )
    documents.update(store, paths.day_record(DAY), DayRecord, lambda _: record)
    [feed] = settle(store, DAY, settings.thresholds).feeds
    [reason] = feed.verdict.reasons
    assert "damaged gzip after" in reason
    bad_vendor.scripts[BAD_PATH] = http(200, FILE)
    fetched(settings, BAD, GOOD)
    manifest = load_manifest(store, BAD, DAY)
    assert manifest.newest is not None
    assert manifest.failed is None


def test_an_error_of_700_megabytes_takes_the_memory_of_its_first_lines(bad_vendor, tmp_path):
    block = b"x" * (1 << 20)

    def flood(connection: socket.socket) -> None:
        connection.sendall(http(500, b"", length=700 << 20))
        for _ in range(700):
            connection.sendall(block)

    bad_vendor.scripts[BAD_PATH] = flood
    bad_vendor.scripts["/v1/exchanges/binance"] = flood
    peak = _peak_mb_of(
        f"from backfill_assets.tardis.client import TardisClient\n"
        f"from backfill_assets.settings import TardisSettings\n"
        f"from backfill_assets.feeds import Feed\n"
        f"from backfill_assets.failures import TransientFailure\n"
        f"from pathlib import Path\n"
        f"c = TardisClient(TardisSettings(datasets_endpoint={bad_vendor.url!r} + '/v1/datasets',\n"
        f"    api_endpoint={bad_vendor.url!r} + '/v1', api_key='k', retry_budget_seconds=0))\n"
        f"[(_, found)] = c.fetch([Feed('binance', 'trades', 'BTCUSDT')], {DAY!r}, Path({str(tmp_path)!r}))\n"
        f"assert isinstance(found, TransientFailure), found\n"
        f"try:\n    c.exchange_details('binance')\n"
        f"except TransientFailure:\n    pass\n"
        f"else:\n    raise AssertionError\n"
    )
    assert peak < 300


def _peak_mb_of(code: str) -> float:
    """The most memory that a process with this code used."""
    code += "print([x.split()[1] for x in open('/proc/self/status') if x.startswith('VmHWM')][0])\n"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    return float(run.stdout.splitlines()[-1]) / 1024


def test_metadata_without_an_end_is_refused_at_its_bound(bad_vendor, tmp_path, monkeypatch):
    monkeypatch.setattr(attempts, "METADATA_BYTES", 1 << 20)
    endless = gzip.compress(b"[" + b" " * (8 << 20) + b"]", 9)
    bad_vendor.scripts["/v1/instruments/binance"] = http(200, endless, "Content-Encoding: gzip")
    with pytest.raises(TransientFailure, match="longer than 1 MiB"):
        TardisClient(settings_of(bad_vendor, tmp_path).tardis).instruments("binance")


def test_metadata_of_more_values_than_any_venue_has_take_the_memory_of_their_text(bad_vendor, tmp_path):
    block = b"[],[]," * (1 << 17)
    packed = gzip.compress(b"[" + block * 100 + b"[]]", 1)
    bad_vendor.scripts["/v1/exchanges/binance"] = http(200, packed, "Content-Encoding: gzip")
    peak = _peak_mb_of(
        f"from backfill_assets.tardis.client import TardisClient\n"
        f"from backfill_assets.settings import TardisSettings\n"
        f"from backfill_assets.failures import TransientFailure\n"
        f"c = TardisClient(TardisSettings(api_endpoint={bad_vendor.url!r} + '/v1', retry_budget_seconds=0))\n"
        f"try:\n    c.exchange_details('binance')\n"
        f"except TransientFailure as failure:\n    assert 'more than 25,000,000 values' in str(failure)\n"
        f"else:\n    raise AssertionError\n"
    )
    assert peak < 500
