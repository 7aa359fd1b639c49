"""Promises of ``TardisClient.fetch``, against a scripted server on loopback."""

from __future__ import annotations

import contextlib
import logging
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from backfill_assets.failures import FeedAbsent, PermanentFailure, SettingsError, TransientFailure
from backfill_assets.feeds import Feed
from backfill_assets.tardis import client as client_module
from backfill_assets.tardis.attempts import AccessRefused, RunRefused, dataset_url
from backfill_assets.tardis.client import Download, TardisClient

DAY = "2024-01-02"
BTC, ETH = Feed("binance", "trades", "BTCUSDT"), Feed("binance", "trades", "ETHUSDT")


def path_of(feed: Feed, day: str = DAY) -> str:
    return (
        dataset_url("", feed, day)
        .replace("https://datasets.tardis.dev", "/v1/datasets")
        .replace("/v1/datasets/v1/", "/v1/datasets/")
    )


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Short waits between attempts; the vendor's own client would wait 2 seconds at least."""
    monkeypatch.setattr(client_module, "FIRST_WAIT_SECONDS", 0.02)


def leftovers(directory: Path) -> list[Path]:
    return [path for path in directory.rglob("*") if path.is_file()]


@pytest.fixture
def left_threads() -> Callable[[], list[str]]:
    """Names of the client's threads that were not there when the test began."""
    before = set(threading.enumerate())

    def left() -> list[str]:
        started = [t for t in threading.enumerate() if t not in before]
        return [t.name for t in started if t.name.startswith(("tardis", "asyncio"))]

    return left


def test_each_feed_arrives_with_its_file_url_and_size(
    vendor, answer, tardis_settings, tmp_path, left_threads
):
    files = dict(TardisClient(tardis_settings()).fetch([BTC, ETH], DAY, tmp_path / "new"))
    assert set(files) == {BTC, ETH}
    download = files[BTC]
    assert isinstance(download, Download)
    assert download.url == f"{vendor.url}{path_of(BTC)}"
    assert download.path.read_bytes() == answer().body
    assert download.bytes == len(answer().body)
    assert sorted(vendor.paths) == [path_of(BTC), path_of(ETH)]
    assert set(vendor.keys) == {"Bearer a-key"}
    assert left_threads() == []


def test_a_symbol_is_percent_encoded_as_the_vendor_does(vendor, tardis_settings, tmp_path):
    feed = Feed("x", "trades", "A B+C_Ü")
    [(_, download)] = TardisClient(tardis_settings()).fetch([feed], DAY, tmp_path)
    assert isinstance(download, Download)
    assert vendor.url + vendor.paths[0] == download.url


def test_results_come_in_order_of_completion(vendor, answer, tardis_settings, tmp_path):
    vendor.scripts[path_of(BTC)] = [answer(delay=0.5)]
    assert [feed for feed, _ in TardisClient(tardis_settings()).fetch([BTC, ETH], DAY, tmp_path)] == [
        ETH,
        BTC,
    ]


@pytest.mark.parametrize("concurrency", [1, 3])
def test_never_more_requests_at_once_than_concurrency(vendor, answer, tardis_settings, tmp_path, concurrency):
    feeds = [Feed("binance", "trades", f"S{i}") for i in range(9)]
    vendor.scripts.update({path_of(feed): [answer(delay=0.1)] for feed in feeds})
    assert len(list(TardisClient(tardis_settings(concurrency=concurrency)).fetch(feeds, DAY, tmp_path))) == 9
    assert vendor.most_at_once == concurrency


def test_an_earlier_file_is_never_taken_for_a_fresh_one(vendor, answer, tardis_settings, tmp_path):
    client = TardisClient(tardis_settings())
    [(_, first)] = client.fetch([BTC], DAY, tmp_path)
    first.path.write_bytes(b"stale")
    [(_, second)] = client.fetch([BTC], DAY, tmp_path)
    assert second.path.read_bytes() == answer().body
    assert len(vendor.paths) == 2


@pytest.mark.parametrize("status", [429, 500, 503, 408])
@pytest.mark.usefixtures("quick")
def test_a_passing_refusal_is_asked_again(vendor, answer, tardis_settings, tmp_path, status):
    vendor.scripts[path_of(BTC)] = [answer.error(status, 0), answer.error(status, 0), answer()]
    began = time.monotonic()
    [(_, result)] = TardisClient(tardis_settings()).fetch([BTC], DAY, tmp_path)
    assert isinstance(result, Download)
    assert vendor.paths == [path_of(BTC)] * 3  # The official client's own ?retryAttempt=1 is never sent.
    assert time.monotonic() - began < 10


@pytest.mark.usefixtures("quick")
def test_a_body_shorter_than_announced_is_fetched_again_whole(vendor, answer, tardis_settings, tmp_path):
    vendor.scripts[path_of(BTC)] = [answer(cut=True), answer()]
    [(_, result)] = TardisClient(tardis_settings()).fetch([BTC], DAY, tmp_path)
    assert result.path.read_bytes() == answer().body
    assert leftovers(tmp_path) == [result.path]


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("body", [b"", b"<html>sign in</html>"])
def test_an_answer_that_is_no_gzip_file_is_asked_again(vendor, answer, tardis_settings, tmp_path, body):
    vendor.scripts[path_of(BTC)] = [answer(body=body), answer()]
    [(_, result)] = TardisClient(tardis_settings()).fetch([BTC], DAY, tmp_path)
    assert result.path.read_bytes() == answer().body


@pytest.mark.usefixtures("quick")
def test_the_same_page_instead_of_a_file_for_the_whole_budget_is_a_failure_for_good(
    vendor, answer, tardis_settings, tmp_path
):
    vendor.scripts[path_of(BTC)] = [answer(body=b"<html>sign in</html>")]
    client = TardisClient(tardis_settings(retry_budget_seconds=5))
    [(_, result)] = client.fetch([BTC], DAY, tmp_path)
    assert isinstance(result, PermanentFailure)
    assert len(vendor.paths) > 1
    assert re.search(r"not a gzip file; the same bytes came \d+ times: look at that address", str(result))


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("between", ["another page", "an error"])
def test_pages_that_change_and_errors_between_them_may_pass(
    vendor, answer, tardis_settings, tmp_path, between
):
    page = answer(body=b"<html>sign in</html>")
    other = answer(body=b"<html>back soon</html>") if between == "another page" else answer.error(500, 0)
    vendor.scripts[path_of(BTC)] = [page, other, page]
    client = TardisClient(tardis_settings(retry_budget_seconds=5))
    [(_, result)] = client.fetch([BTC], DAY, tmp_path)
    assert isinstance(result, TransientFailure)
    assert len(vendor.paths) > 2


@pytest.mark.usefixtures("quick")
def test_one_page_without_a_budget_may_pass(vendor, answer, tardis_settings, tmp_path):
    vendor.scripts[path_of(BTC)] = [answer(body=b"<html>sign in</html>")]
    [(_, result)] = TardisClient(tardis_settings(retry_budget_seconds=0)).fetch([BTC], DAY, tmp_path)
    assert isinstance(result, TransientFailure)


@pytest.mark.usefixtures("quick")
def test_retry_after_is_waited_for(vendor, answer, tardis_settings, tmp_path):
    vendor.scripts[path_of(BTC)] = [answer.error(429, 0, headers={"Retry-After": "1"}), answer()]
    began = time.monotonic()
    [(_, result)] = TardisClient(tardis_settings()).fetch([BTC], DAY, tmp_path)
    assert isinstance(result, Download)
    assert 1 <= time.monotonic() - began < 10


@pytest.mark.usefixtures("quick")
def test_a_key_in_use_elsewhere_is_waited_for(vendor, answer, tardis_settings, tmp_path):
    vendor.scripts[path_of(BTC)] = [answer.error(403, 274, retryAfterSeconds=1), answer()]
    began = time.monotonic()
    [(_, result)] = TardisClient(tardis_settings()).fetch([BTC], DAY, tmp_path)
    assert isinstance(result, Download)
    assert 1 <= time.monotonic() - began < 10


@pytest.mark.parametrize(
    "refusal",
    [(429, 0, {"headers": {"Retry-After": "900"}}), (403, 274, {"retryAfterSeconds": 900})],
)
def test_a_wait_beyond_the_budget_is_handed_back_at_once(vendor, answer, tardis_settings, tmp_path, refusal):
    status, code, more = refusal
    vendor.scripts[path_of(BTC)] = [answer.error(status, code, **more)]
    began = time.monotonic()
    [(_, result)] = TardisClient(tardis_settings()).fetch([BTC], DAY, tmp_path)
    assert isinstance(result, TransientFailure)
    assert result.retry_after_seconds == 900
    assert "tardis.retry_budget_seconds (10)" in str(result)
    assert time.monotonic() - began < 10
    assert len(vendor.paths) == 1


@pytest.mark.usefixtures("quick")
def test_a_vendor_that_stays_down_costs_no_more_than_the_budget(vendor, answer, tardis_settings, tmp_path):
    vendor.scripts[path_of(BTC)] = [answer.error(503, 0, "maintenance")]
    began = time.monotonic()
    results = dict(TardisClient(tardis_settings(retry_budget_seconds=1)).fetch([BTC, ETH], DAY, tmp_path))
    assert time.monotonic() - began < 10
    assert isinstance(results[BTC], TransientFailure)
    assert "maintenance" in str(results[BTC])
    assert isinstance(results[ETH], Download)  # One bad feed blocks no other.


def test_no_budget_means_one_attempt(vendor, answer, tardis_settings, tmp_path):
    vendor.scripts[path_of(BTC)] = [answer.error(503, 0), answer()]
    [(_, result)] = TardisClient(tardis_settings(retry_budget_seconds=0)).fetch([BTC], DAY, tmp_path)
    assert isinstance(result, TransientFailure)
    assert len(vendor.paths) == 1


@pytest.mark.usefixtures("quick")
def test_an_attempt_that_hangs_is_cut_at_its_time_limit_and_repeated(
    vendor, answer, tardis_settings, tmp_path
):
    vendor.scripts[path_of(BTC)] = [answer(delay=8), answer()]
    began = time.monotonic()
    [(_, result)] = TardisClient(tardis_settings(timeout_seconds=0.5)).fetch([BTC], DAY, tmp_path)
    assert isinstance(result, Download)
    assert time.monotonic() - began < 7


def test_a_reason_that_the_vendor_stops_logging_still_ends_within_the_limits(
    vendor, answer, tardis_settings, tmp_path, caplog
):
    vendor.scripts[path_of(BTC)] = [answer.error(503, 0)]
    logger = logging.getLogger("tardis_dev._http")
    before = logger.level
    logger.setLevel(logging.INFO)
    try:
        began = time.monotonic()
        client = TardisClient(tardis_settings(timeout_seconds=0.5, retry_budget_seconds=1))
        [(_, result)] = client.fetch([BTC], DAY, tmp_path)
    finally:
        logger.setLevel(before)
    assert isinstance(result, TransientFailure)
    assert time.monotonic() - began < 10


@pytest.mark.parametrize("refusal", [(400, 300), (400, 140), (404, 0)])
def test_a_file_that_the_vendor_does_not_have_is_absent_and_asked_for_once(
    vendor, answer, tardis_settings, tmp_path, refusal
):
    vendor.scripts[path_of(BTC)] = [answer.error(*refusal, "There is no such thing")]
    results = dict(TardisClient(tardis_settings()).fetch([BTC, ETH], DAY, tmp_path))
    assert isinstance(results[BTC], FeedAbsent)
    assert "There is no such thing" in str(results[BTC])
    assert isinstance(results[ETH], Download)
    assert vendor.paths.count(path_of(BTC)) == 1


@pytest.mark.parametrize("refusal", [(400, 999), (410, 0)])
def test_another_refusal_is_permanent_but_does_not_pass_for_absent(
    vendor, answer, tardis_settings, tmp_path, refusal
):
    vendor.scripts[path_of(BTC)] = [answer.error(*refusal)]
    [(_, result)] = TardisClient(tardis_settings()).fetch([BTC], DAY, tmp_path)
    assert isinstance(result, PermanentFailure)
    assert not isinstance(result, FeedAbsent)


def test_a_missing_key_fails_the_run_at_once_and_says_what_to_set(
    vendor, answer, tardis_settings, tmp_path, left_threads
):
    slow = [Feed("binance", "trades", f"S{i}") for i in range(5)]
    vendor.scripts.update({path_of(feed): [answer(delay=8)] for feed in slow})
    vendor.scripts[path_of(BTC)] = [answer.error(401, 0)]
    began = time.monotonic()
    with pytest.raises(RunRefused) as refused:
        list(TardisClient(tardis_settings(api_key="")).fetch([*slow, BTC], DAY, tmp_path))
    assert time.monotonic() - began < 7
    assert str(refused.value) == (
        "Tardis refuses 2024-01-02 without an API key: set TARDIS_API_KEY "
        "(only the first day of each month is free)"
    )
    assert leftovers(tmp_path) == []
    assert left_threads() == []


@pytest.mark.parametrize(
    ("status", "said"), [(401, "check TARDIS_API_KEY"), (403, "the plan of TARDIS_API_KEY")]
)
def test_a_refused_key_fails_the_feed_for_good_and_names_it(
    vendor, answer, tardis_settings, tmp_path, status, said
):
    vendor.scripts[path_of(BTC)] = [answer.error(status, 0)]
    results = dict(TardisClient(tardis_settings()).fetch([BTC, ETH], DAY, tmp_path))
    assert isinstance(results[BTC], AccessRefused)
    assert said in str(results[BTC])
    assert isinstance(results[ETH], Download)


def test_a_missing_variable_of_the_settings_fails_before_any_request(vendor, tardis_settings, tmp_path):
    client = TardisClient(tardis_settings(api_key="${NO_SUCH_KEY_VARIABLE}"))
    with pytest.raises(SettingsError, match="NO_SUCH_KEY_VARIABLE"):
        list(client.fetch([BTC], DAY, tmp_path))
    assert vendor.paths == []


@pytest.mark.usefixtures("quick")
def test_a_vendor_that_cannot_be_reached_is_named(tardis_settings, tmp_path):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"
        client = TardisClient(tardis_settings(datasets_endpoint=url, retry_budget_seconds=0.3))
        [(_, result)] = client.fetch([BTC], DAY, tmp_path)
    assert isinstance(result, TransientFailure)
    assert f"cannot reach {url}/binance/trades" in str(result)
    assert "\n" not in str(result)


@pytest.mark.usefixtures("quick")
def test_an_attempt_cut_short_by_the_budget_hides_no_reason(vendor, answer, tardis_settings, tmp_path):
    vendor.scripts[path_of(BTC)] = [answer.error(503, 0), answer(delay=3)]
    client = TardisClient(tardis_settings(retry_budget_seconds=0.5))
    [(_, result)] = client.fetch([BTC], DAY, tmp_path)
    assert isinstance(result, TransientFailure)
    assert "HTTP 503: no; gave up" in str(result)
    assert "gave up after 2 attempts" in str(result)
    assert "no complete answer" not in str(result)


@pytest.mark.usefixtures("quick")
def test_a_vendor_that_never_answers_in_time_is_said_so(vendor, answer, tardis_settings, tmp_path):
    vendor.scripts[path_of(BTC)] = [answer(delay=3)]
    client = TardisClient(tardis_settings(timeout_seconds=0.2, retry_budget_seconds=0))
    [(_, result)] = client.fetch([BTC], DAY, tmp_path)
    assert "no complete answer within 0.2 s" in str(result)


@pytest.mark.parametrize("user", ["zoe:s3cr3t-word", "s3cr3t-word"])
def test_a_password_in_an_endpoint_beside_a_key_is_refused_before_anything_is_asked(
    vendor, tardis_settings, tmp_path, user
):
    named = {
        name: f"{vendor.url}{path}".replace("://", f"://{user}@")
        for name, path in (("datasets_endpoint", "/v1/datasets"), ("api_endpoint", "/v1"))
    }
    client = TardisClient(tardis_settings(**named))
    for name, ask in (
        ("datasets_endpoint", lambda: list(client.fetch([BTC], DAY, tmp_path))),
        ("api_endpoint", lambda: client.instruments("binance")),
    ):
        with pytest.raises(SettingsError, match=f"take name and password out of tardis.{name}") as refused:
            ask()
        assert "s3cr3t" not in str(refused.value)
    assert vendor.paths == []
    keyless = TardisClient(tardis_settings(**named, api_key=""))
    assert isinstance(dict(keyless.fetch([BTC], DAY, tmp_path))[BTC], Download)


def test_an_endpoint_that_is_no_url_fails_the_run(tardis_settings, tmp_path):
    with pytest.raises(SettingsError, match="datasets_endpoint is not an http"):
        list(TardisClient(tardis_settings(datasets_endpoint="nonsense")).fetch([BTC], DAY, tmp_path))


def test_a_file_system_that_takes_no_more_fails_the_run_and_is_named(vendor, tardis_settings, tmp_path):
    code = (
        "import pathlib, resource, signal\n"
        "from backfill_assets.tardis.client import TardisClient\n"
        "from backfill_assets.settings import TardisSettings\n"
        "from backfill_assets.feeds import Feed\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (10, 10))\n"
        f"c = TardisClient(TardisSettings(datasets_endpoint={vendor.url!r} + '/v1/datasets', api_key='k'))\n"
        f"list(c.fetch([Feed('binance', 'trades', 'BTCUSDT')], {DAY!r}, pathlib.Path({str(tmp_path)!r})))\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "RunRefused" in run.stderr
    assert "cannot keep the download" in run.stderr
    assert leftovers(tmp_path) == []


def test_closing_early_cancels_the_rest_and_leaves_nothing(
    vendor, answer, tardis_settings, tmp_path, left_threads
):
    slow = [Feed("binance", "trades", f"S{i}") for i in range(5)]
    vendor.scripts.update({path_of(feed): [answer(delay=8, cut=True)] for feed in slow})
    began = time.monotonic()
    results = TardisClient(tardis_settings()).fetch([BTC, ETH, *slow], DAY, tmp_path)
    with contextlib.closing(results):
        _, kept = next(results)
        time.sleep(0.3)
    assert time.monotonic() - began < 7
    assert leftovers(tmp_path) == [kept.path]
    assert [path.name for path in tmp_path.iterdir()] == [kept.path.parent.name]
    assert left_threads() == []


def test_a_fetch_works_inside_a_running_event_loop(vendor, tardis_settings, tmp_path):
    import asyncio

    async def inside() -> int:
        return len(list(TardisClient(tardis_settings()).fetch([BTC], DAY, tmp_path)))

    assert asyncio.run(inside()) == 1


def test_no_feeds_are_no_requests(vendor, tardis_settings, tmp_path):
    assert list(TardisClient(tardis_settings()).fetch([], DAY, tmp_path)) == []
    assert vendor.paths == []


@pytest.mark.parametrize(("level", "heard"), [(logging.INFO, False), (logging.DEBUG, True)])
def test_the_vendors_debug_messages_are_heard_only_where_asked_for(tardis_settings, tmp_path, level, heard):
    messages: list[str] = []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            messages.append(record.name)

    root, listener = logging.getLogger(), Listener()
    before = root.level
    root.addHandler(listener)
    root.setLevel(level)
    try:
        list(TardisClient(tardis_settings()).fetch([BTC], DAY, tmp_path))
    finally:
        root.removeHandler(listener)
        root.setLevel(before)
    assert any(name.startswith("tardis_dev") for name in messages) is heard
