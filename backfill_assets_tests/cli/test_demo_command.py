"""``backfill-assets demo``: a day through real Dagster, shown in a table; a second demo repeats no work."""

from __future__ import annotations

import gzip
import re
import signal
import time
from pathlib import Path

import dagster as dg
import psutil
import pytest

from backfill_assets.feeds import Feed
from backfill_assets.standins import faults
from backfill_assets.standins.faults import Fault
from backfill_assets.standins.tardis import TardisStandin

DAY = "2024-01-01"
FEEDS = [
    *(f"binance/trades/{symbol}" for symbol in ("ADAUSDT", "BTCUSDT", "ETHUSDT")),
    *(f"coinbase/trades/{symbol}-USDT" for symbol in ("ADA", "BTC", "ETH")),
    *(f"kraken/trades/{symbol}-USDT" for symbol in ("ADA", "ETH", "XBT")),
]


def downloads(standin) -> int:
    return sum("/datasets/" in request.path for request in standin.requests)


def test_a_day_is_run_and_told_what_to_look_at_works_and_nothing_is_done_twice(desk, standin):
    desk.set(BACKFILL_STANDIN_URL=standin.url)
    first = desk.run("demo")
    assert (first.code, first.err) == (0, "")
    assert first.out.startswith(
        "Generated prices: they come from a stand-in for Tardis, not from a market.\n"
    )
    assert f"{DAY}: published" in first.out
    rows = re.findall(
        r"^(\S+/trades/\S+) +([\d,]+) +([\d,]+) +([\d.]+) \S+ +(\w+) +(\w+)", first.out, re.MULTILINE
    )
    assert [row[0] for row in rows] == FEEDS
    assert {row[4:] for row in rows} == {("publish", "yes")}
    assert all(int(row[1].replace(",", "")) > 1000 for row in rows)
    assert re.search(r"9 feeds fetched, 5 partitions loaded in [\d.]+ s\.", first.out)
    look = [line.strip() for line in first.out[first.out.index("Look at next:") :].splitlines()[1:]]
    assert len(look) == 4
    assert desk.left == ["data"]
    assert downloads(standin) == 9

    second = desk.run("demo")
    assert (second.code, second.err) == (0, "")
    assert "Nothing was done twice: 9 feeds were already in the lake, 5 partitions already" in second.out
    assert [line for line in second.out.splitlines() if "/trades/" in line] == [
        line for line in first.out.splitlines() if "/trades/" in line
    ]
    assert downloads(standin) == 9

    page = next(line for line in look if line.endswith("# the page of the day, for a browser"))
    assert Path(page.split("  #")[0]).read_text().startswith("<!doctype html>")
    # The environment is not active: the lines name its programs by their paths.
    candles = next(line for line in look if " candles --date" in line)
    assert len(desk.run("-c", candles, program="/bin/sh").out.splitlines()) == 25
    query = next(line for line in look if "python -c" in line)
    assert "completeness" in desk.run("-c", query, program="/bin/sh").out
    desk.environment["PATH"] = f"{desk.command()[0].rpartition('/')[0]}:{desk.environment['PATH']}"
    active = desk.run("demo").out
    assert f"  backfill-assets candles --date {DAY}" in active
    assert '  python -c "' in active


def test_files_of_a_persons_own_are_not_called_generated(desk, standin, tmp_path):
    feed = Feed("binance", "trades", "BTCUSDT")
    file = tmp_path / "own" / feed.exchange / feed.data_type / DAY.replace("-", "/") / "BTCUSDT.csv.gz"
    file.parent.mkdir(parents=True)
    file.write_bytes(gzip.compress(gzip.decompress(standin.source.dataset(feed, DAY))))
    with TardisStandin(datasets_dir=tmp_path / "own") as own:
        answer = desk.set(BACKFILL_STANDIN_URL=own.url).run("demo")
    assert "through Dagster" in answer.out
    assert "Generated" not in answer.out


def test_a_stand_in_that_does_not_answer_is_told_in_one_line(desk, closed_port):
    answer = desk.set(BACKFILL_STANDIN_URL=f"http://127.0.0.1:{closed_port}").run("demo")
    assert answer.code == 1
    assert "the Tardis stand-in does not answer" in answer.error


def test_a_held_day_is_told_with_its_reason_and_exit_code_1(desk, standin):
    for feed in FEEDS[:5]:
        standin.faults.put_dataset(Feed.parse(feed), DAY, Fault(always=faults.not_found()))
    answer = desk.set(BACKFILL_STANDIN_URL=standin.url).run("demo")
    assert answer.code == 1
    assert f"{DAY}: held" in answer.out
    assert "held, nothing is published" in answer.out
    assert "The run failed; the day is held." in answer.out


def test_an_interrupt_ends_a_running_demo_and_its_run(desk, standin, dagster_home, monkeypatch):
    desk.set(BACKFILL_STANDIN_URL=standin.url, DAGSTER_HOME=str(dagster_home))
    for feed in FEEDS:
        standin.faults.put_dataset(Feed.parse(feed), DAY, Fault(delay_seconds=120))
    process = desk.start("demo")
    deadline = time.monotonic() + 90
    while standin.counting.now < len(FEEDS) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert standin.counting.now == len(FEEDS), "the demo is waiting for its files"
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in out
    assert "Interrupted." in out
    assert "The run failed" not in out
    monkeypatch.setenv("DAGSTER_HOME", str(dagster_home))
    with dg.DagsterInstance.get() as instance:
        [run] = instance.get_runs()
    assert run.status in (dg.DagsterRunStatus.CANCELED, dg.DagsterRunStatus.FAILURE)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_of_a_demo_with_a_stand_in_of_its_own_leaves_no_process(desk, number):
    process = desk.start("demo")
    deadline = time.monotonic() + 60
    children: list[psutil.Process] = []
    while not children and time.monotonic() < deadline:
        time.sleep(0.05)
        children = psutil.Process(process.pid).children(recursive=True)
    assert children
    time.sleep(1)
    process.send_signal(number)
    out, _ = process.communicate(timeout=60)
    assert process.returncode != 0
    assert "Traceback" not in out
    assert not any(child.is_running() for child in children)
