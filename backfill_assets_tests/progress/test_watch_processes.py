"""Daemon, service and runs as real processes: who is told of a held day and a dead daemon, and how often."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from urllib.error import HTTPError

import pytest

from backfill_assets.feeds import Feed
from backfill_assets.standins.faults import Fault
from backfill_assets.standins.market import Market
from backfill_assets.standins.tardis import TardisStandin
from backfill_assets_tests.alerts.listener import listening
from backfill_assets_tests.progress.rig import (
    EXCHANGES,
    QUICK_SERVICE,
    REPOSITORY,
    SYMBOLS,
    Rig,
    running_rig,
    take_away_feeds,
)

pytestmark = [pytest.mark.story, pytest.mark.timeout(900)]
DAY = "2024-01-02"
FEED = Feed("binance", "trades", "BTCUSDT")


def command(rig: Rig, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "backfill_assets.cli", *words],
        cwd=REPOSITORY,
        env=rig.environment,
        capture_output=True,
        text=True,
        timeout=120,
    )


def is_ready(rig: Rig) -> bool:
    try:
        return bool(rig.ask("/readyz") == "ready\n")
    except HTTPError:
        return False


def corrected(market: Market) -> bytes:
    """The feed's file with the taker on the other side of one trade."""
    header, first, *others = gzip.decompress(market.dataset(FEED, DAY)).splitlines(keepends=True)
    other = (b",buy,", b",sell,") if b",buy," in first else (b",sell,", b",buy,")
    return gzip.compress(b"".join([header, first.replace(*other), *others]))


def test_a_held_day_and_a_dead_daemon_are_told_once_each_and_so_are_their_ends(tmp_path: Path) -> None:
    rows = {(exchange, symbol): 500 for exchange in EXCHANGES for symbol in SYMBOLS}
    market = Market(rows=rows)
    with (
        listening() as people,
        TardisStandin(market, clock=lambda: datetime(2024, 2, 10, tzinfo=UTC)) as standin,
        running_rig(
            tmp_path,
            standin,
            service=QUICK_SERVICE,
            SLACK_WEBHOOK_URL=people.url,
        ) as rig,
    ):
        # A service that looks before the daemon's first sign reports that, and then its end.
        rig.wait(
            lambda: (
                is_ready(rig)
                and not rig.ask("/api/v1/incidents")["incidents"]
                and len(people.texts) == 2 * sum("ended: daemon" in text for text in people.texts)
            )
        )
        people.got.clear()
        sent = command(rig, "alerts", "test")
        assert (sent.returncode, sent.stdout) == (0, "sent to JSON (number 1)\n")
        assert people.texts[0].startswith("[local] test of backfill-assets")

        take_away_feeds(standin, DAY)
        job = rig.ask("/api/v1/backfill", {"start": DAY, "end": DAY})["job_id"]
        rig.wait_for(job, "failed")
        rig.wait(lambda: len(people.texts) > 1)
        assert f"backfill failed: {job}" in people.texts[1]
        assert f"{DAY} to {DAY}: 1 held" in people.texts[1]

        rig.kill("daemon")
        rig.wait(lambda: len(people.texts) > 2)
        assert "[local] daemon gives no sign of life" in people.texts[2]
        shown = json.loads(command(rig, "incidents", "--open", "--json").stdout)["incidents"]
        assert [incident["rule"] for incident in shown] == ["backfill_failed", "daemon_lost"]
        assert [i["rule"] for i in rig.ask("/api/v1/incidents")["incidents"]] == [i["rule"] for i in shown]
        assert "2 open incidents, the oldest for" in rig.ask("/")
        assert 'backfill_incidents_open{rule="daemon_lost"} 1.0' in rig.ask("/metrics")

        people.status = 500
        standin.faults.clear()
        rig.start_daemon()
        rig.ask(f"/api/v1/backfill/{job}/retry", {})
        rig.wait_for(job, "succeeded")
        rig.wait(lambda: "did not take the message" in rig.ask("/readyz"))
        assert "backfill_alerts_failing 1.0" in rig.ask("/metrics")
        people.status = 200
        rig.wait(lambda: rig.ask("/readyz") == "ready\n" and not rig.ask("/api/v1/incidents")["incidents"])
        ended = [line for text in people.texts[3:] for line in text.split("\n") if "Ended after" in line]
        assert sorted(line.partition(": ")[2] for line in ended) == [
            f"backfill failed: {job}",
            "daemon gives no sign of life",
        ]
        assert command(rig, "incidents", "--open").stdout == "no open incident\n"
        assert "ended after" in command(rig, "incidents").stdout

        standin.faults.put_dataset(FEED, DAY, Fault(body=corrected(market)))
        again = {"exchanges": [FEED.exchange], "symbols": ["BTC-USDT"], "refresh": True}
        rig.wait_for(rig.ask("/api/v1/backfill", {"start": DAY, "end": DAY, **again})["job_id"], "succeeded")
        rig.wait(lambda: any(f"vendor replaced a file: {DAY} {FEED}" in text for text in people.texts))
        shown = json.loads(command(rig, "incidents", "--open", "--json").stdout)["incidents"]
        assert [incident["rule"] for incident in shown] == ["feed_restated"]
    for log in tmp_path.glob("*.log"):
        assert people.address not in log.read_text(), log
