"""The report's advice, copied from the page and followed to the letter, makes the day whole."""

from __future__ import annotations

import gzip
import html
import os
import re
import shlex
from pathlib import Path

import pytest

from backfill_assets.feeds import Feed
from backfill_assets.standins import faults
from backfill_assets.standins.faults import Fault
from backfill_assets.standins.tardis import TardisStandin
from backfill_assets_tests.cli.conftest import SCRIPTS, Desk

pytestmark = [pytest.mark.story, pytest.mark.timeout(500)]

DAY = "2024-01-02"
MISSING, BROKEN = Feed("kraken", "trades", "XBT-USDT"), Feed("binance", "trades", "BTCUSDT")
RUN = ("launch", "-m", "backfill_assets.definitions", "--job", "day", "--partition", DAY)


def advised(page: str) -> list[str]:
    """The commands that the report of a day prints, in their order."""
    return [html.unescape(found) for found in re.findall(r'<pre class="command"[^>]*>(.*?)</pre>', page)]


@pytest.fixture
def page(desk: Desk, standin: TardisStandin, dagster_home: Path) -> Path:
    """The report of a day that lacks one file, and 500 ids of another file."""
    standin.faults.put_dataset(MISSING, DAY, Fault(always=faults.not_found()))
    body = standin.source.dataset(BROKEN, DAY)
    assert isinstance(body, bytes)
    lines = gzip.decompress(body).splitlines(keepends=True)
    standin.faults.put_dataset(BROKEN, DAY, Fault(body=gzip.compress(b"".join(lines[:500] + lines[1000:]))))
    path = f"{SCRIPTS}:{os.environ['PATH']}"
    desk.set(BACKFILL_STANDIN_URL=standin.url, DAGSTER_HOME=str(dagster_home), PATH=path)
    assert desk.run(*RUN, program="dg").code == 0
    return desk.folder / "data" / "lake" / "reports" / f"{DAY}.html"


def follow(desk: Desk, command: str) -> str:
    """Run the command as a shell would split it."""
    program, *words = shlex.split(command)
    answer = desk.run(*words, program=program)
    assert answer.code == 0, answer.out + answer.err
    return answer.out


def test_a_degraded_day_is_published_after_its_advice(desk: Desk, standin: TardisStandin, page: Path) -> None:
    again, refresh, heal, approve = advised(page.read_text())
    assert "1 of 1 to run, 1 lacking a file" in desk.run("plan", "--start", DAY, "--end", DAY).out
    standin.faults.clear()
    follow(desk, again)
    assert "1 of 9 feeds is left out" in page.read_text()
    assert [refresh, heal, approve] == advised(page.read_text())
    follow(desk, refresh)
    assert "The day is good: all 9 feeds are in the tables." in page.read_text()
    assert advised(page.read_text()) == []
    assert desk.run(*shlex.split(approve)[1:]).error.startswith(
        "nothing is pending of binance/trades/BTCUSDT"
    )


def test_a_feed_that_is_good_as_it_is_counts_after_its_advice(desk: Desk, page: Path) -> None:
    _, _, heal, approve = advised(page.read_text())
    told = follow(desk, approve)
    assert told.startswith(f"{BROKEN} of {DAY}: approved and accepted (")
    follow(desk, told.rpartition("publish it: ")[2].strip())
    # The run also asks for the missing file, which its stand-in has.
    assert "left out, the others are published" not in page.read_text()
    assert "<b>approved</b>" in page.read_text()
    # The approved feed still lacks ids, which its exchange may have.
    assert advised(page.read_text()) == [heal]
