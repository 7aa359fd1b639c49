"""The rate limit over processes: leases in SQLite and Postgres, lost leases, and a database that is away."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from backfill_assets.rehearsal.postgres import binaries, restartable_server
from backfill_assets.tardis import leases as leases_module
from backfill_assets.tardis import pacing
from backfill_assets.tardis.leases import LEASE_SECONDS, SQLITE_FILE, Lease, Leases, Sent
from backfill_assets.tardis.pacing import LeasedPace, Pace, shared_pace
from backfill_assets_tests.tardis.conftest import ScriptedVendor

needs_postgres = pytest.mark.skipif(binaries() is None, reason="Postgres is not installed")
WINDOW = 60.0
#: Fetches files as a run does, all at the same time.
ASK = """
import sys, tempfile
from pathlib import Path
from backfill_assets.feeds import Feed
from backfill_assets.settings import TardisSettings
from backfill_assets.tardis.client import Download, TardisClient
url, limit, name, files = sys.argv[1:]
settings = TardisSettings(datasets_endpoint=url, api_key="k", requests_per_minute=int(limit))
feeds = [Feed("binance", "trades", f"S{name}-{n}") for n in range(int(files))]
with tempfile.TemporaryDirectory() as folder:
    found = [result for _, result in TardisClient(settings).fetch(feeds, "2024-01-02", Path(folder))]
assert all(isinstance(result, Download) for result in found), found
print(sum(result.paced_seconds for result in found))
"""

#: The same without an end, with leases of a second that count for six.
ASK_ON = """
from backfill_assets.tardis import leases
leases.LEASE_SECONDS, leases.COUNTED_SECONDS = 1.0, 6.0
import itertools
for turn in itertools.count():
    feeds = [Feed("binance", "trades", f"S{name}-{turn}-{n}") for n in range(int(files))]
    with tempfile.TemporaryDirectory() as folder:
        assert all(isinstance(f, Download) for _, f in TardisClient(settings).fetch(feeds, DAY, Path(folder)))
"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "home"
    folder.mkdir()
    monkeypatch.setenv("DAGSTER_HOME", str(folder))
    monkeypatch.delenv("DAGSTER_POSTGRES_URL", raising=False)
    return folder


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The database's time, as the first element."""
    now = [1_000_000.0]
    monkeypatch.setattr(leases_module, "_clock", lambda _: now[0])
    return now


def most_in_a_window(moments: list[float], window: float = WINDOW) -> int:
    ordered = sorted(moments)
    return max(sum(first <= each < first + window for each in ordered) for first in ordered)


# --- processes ---------------------------------------------------------------------------------------------


def eight_processes(vendor: ScriptedVendor, limit: int, files: int, home: str, postgres: str = "") -> float:
    """Let eight processes fetch so many files each at once; returns the sum of their waits."""
    variables = {k: v for k, v in os.environ.items() if k not in ("DAGSTER_HOME", "DAGSTER_POSTGRES_URL")}
    variables |= {"DAGSTER_HOME": home} if home else {}
    variables |= {"DAGSTER_POSTGRES_URL": postgres} if postgres else {}
    words = [sys.executable, "-c", ASK, vendor.url, str(limit)]
    running = [
        subprocess.Popen([*words, str(n), str(files)], env=variables, stdout=subprocess.PIPE, text=True)
        for n in range(8)
    ]
    try:
        answers = [process.communicate(timeout=280)[0] for process in running]
    finally:
        for process in running:
            process.kill()
    assert [process.returncode for process in running] == [0] * 8
    return sum(float(answer) for answer in answers)


@pytest.fixture
def asked(vendor: ScriptedVendor, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The times of requests at the server."""
    moments: list[float] = []
    begin = vendor.begin

    def noted(path: str, key: str | None) -> object:
        moments.append(time.monotonic())
        return begin(path, key)

    monkeypatch.setattr(vendor, "begin", noted)
    return moments


@pytest.mark.story
@pytest.mark.timeout(300)
@pytest.mark.parametrize("kind", ["sqlite", pytest.param("postgres", marks=needs_postgres)])
def test_eight_processes_together_ask_no_more_often_than_the_limit(
    kind: str, vendor: ScriptedVendor, asked: list[float], home: Path
) -> None:
    if kind == "sqlite":
        waited = eight_processes(vendor, 80, 15, str(home))
    else:
        with restartable_server() as server:
            waited = eight_processes(vendor, 80, 15, "", server.url)
    assert len(asked) == 8 * 15
    assert 40 < most_in_a_window(asked) <= 80
    # Forty files had to wait for the next minute.
    assert waited > 40 * 30


@pytest.mark.story
@pytest.mark.timeout(200)
def test_none_of_eight_processes_starves_and_a_killed_one_costs_its_lease(
    vendor: ScriptedVendor, asked: list[float], home: Path
) -> None:
    limit, window, watched = 48, 4.0, 24.0
    script = f"DAY = '2024-01-02'{ASK.split('feeds =')[0]}{ASK_ON}"
    words = [sys.executable, "-c", script, vendor.url, str(limit)]
    running = [subprocess.Popen([*words, str(n), "12"], env=dict(os.environ)) for n in range(8)]

    def counts(since: int) -> list[int]:
        return [sum(f"/S{n}-" in path.upper() for path in vendor.paths[since:]) for n in range(8)]

    try:
        while not all(counts(0)):
            time.sleep(0.1)
        killed = max(range(8), key=counts(0).__getitem__)
        running[killed].send_signal(signal.SIGKILL)
        first = len(vendor.paths)
        time.sleep(watched)
        alive = [n for n in range(8) if n != killed]
        assert [running[n].poll() for n in alive] == [None] * 7
    finally:
        for process in running:
            process.kill()
            process.wait()
    sent = counts(first)
    assert most_in_a_window(asked, window) <= limit
    assert sent[killed] <= 1, "at most what was on its way"
    assert min(sent[n] for n in alive) >= limit // pacing.LARGEST_SHARE, "each had a lease"
    # In six seconds as many as the limit allows, minus the requests that the killed one had leased.
    assert sum(sent) > 0.7 * limit * watched / 6


def test_without_records_each_process_has_the_limit_for_itself(
    vendor: ScriptedVendor, asked: list[float]
) -> None:
    assert eight_processes(vendor, 80, 15, "") == 0
    assert most_in_a_window(asked) == 8 * 15


def test_a_day_of_nine_files_takes_one_lease(
    vendor: ScriptedVendor, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    renew, asked = Leases.renew, []
    monkeypatch.setattr(Leases, "renew", lambda *arguments: asked.append(arguments) or renew(*arguments))

    async def nine() -> list[float]:
        pace = shared_pace(1000, "one.example")
        return list(await asyncio.gather(*(pace.start() for _ in range(9))))

    assert max(asyncio.run(nine())) < 5
    assert len(asked) == 1
    assert (home / SQLITE_FILE).exists()


def test_a_fork_takes_leases_of_its_own(home: Path) -> None:
    before = shared_pace(1000, "fork.example")
    reader, writer = os.pipe()
    if (child := os.fork()) == 0:
        is_other = shared_pace(1000, "fork.example") is not before
        os.write(writer, b"other" if is_other else b"same")
        os._exit(0)
    os.waitpid(child, 0)
    assert os.read(reader, 10) == b"other"
    assert shared_pace(1000, "fork.example") is before


# --- leases ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
def test_no_window_holds_more_than_the_limit_whatever_processes_do(
    seed: int, home: Path, clock: list[float]
) -> None:
    dice, limit = random.Random(seed), dice_limit(seed)
    store, sent_at = Leases("any.example"), []
    held: dict[str, tuple[Lease, float, int]] = {}
    for _ in range(300):
        clock[0] += dice.choice([0, 0.01, 0.5, 2, 7])
        name = f"p{dice.randrange(4)}"
        lease, until, used = held.get(name, (Lease("", 0, 0, 1), 0.0, 0))
        if dice.random() < 0.1:
            held.pop(name, None)  # killed: its lease is never given back
        elif used < lease.requests and clock[0] < until:
            sent_at.append(clock[0])
            held[name] = (lease, until, used + 1)
        else:
            lease = store.renew(name, limit, dice.randint(1, 5), Sent(lease.name, used))
            held[name] = (lease, clock[0] + LEASE_SECONDS, 0)
            assert lease.requests or lease.wait_seconds > 0
    assert limit // 2 < most_in_a_window(sent_at) <= limit


def dice_limit(seed: int) -> int:
    return (3, 5, 8, 13, 21)[seed]


def test_a_request_that_was_not_sent_is_given_back_and_a_killed_processs_lease_runs_out(
    home: Path, clock: list[float]
) -> None:
    store = Leases("any.example")
    first = store.renew("a", 10, 10, Sent())
    assert first.requests == 10
    assert store.renew("b", 10, 1, Sent()).requests == 0
    second = store.renew("a", 10, 4, Sent(first.name, of_lease=6))
    assert second.requests == 4
    refused = store.renew("b", 10, 1, Sent())
    assert (refused.requests, refused.processes) == (0, 2)
    clock[0] += refused.wait_seconds + 0.1
    assert store.renew("b", 10, 10, Sent()).requests == 6
    clock[0] += LEASE_SECONDS + 1
    assert store.renew("b", 10, 10, Sent()).requests == 4


def test_sources_do_not_share_a_limit(home: Path, clock: list[float]) -> None:
    assert Leases("a.example").renew("a", 5, 5, Sent()).requests == 5
    assert Leases("b.example").renew("a", 5, 5, Sent()).requests == 5
    assert Leases("a.example").renew("b", 5, 5, Sent()).requests == 0


def test_a_clock_that_steps_back_delays_nobody_for_longer_than_a_window(
    home: Path, clock: list[float]
) -> None:
    store = Leases("any.example")
    assert store.renew("a", 5, 5, Sent()).requests == 5
    clock[0] -= 86_400
    refused = store.renew("b", 5, 5, Sent())
    assert refused.requests == 0
    assert refused.wait_seconds <= leases_module.COUNTED_SECONDS + LEASE_SECONDS
    clock[0] += refused.wait_seconds + 0.1
    assert store.renew("b", 5, 5, Sent()).requests == 5


# --- away --------------------------------------------------------------------------------------------------


@pytest.fixture
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pacing, "AWAY_SECONDS", 0.1)
    monkeypatch.setattr(pacing, "WINDOW_SECONDS", 1.5)
    monkeypatch.setattr(leases_module, "LOCK_SECONDS", 0.1)


@pytest.fixture
def busy(home: Path) -> Iterator[sqlite3.Connection]:
    """A connection that locks the SQLite file for all others."""
    connection = sqlite3.connect(home / SQLITE_FILE, isolation_level=None)
    yield connection
    connection.close()


def starts(pace: LeasedPace, count: int) -> list[float]:
    """The waits of so many simultaneous starts."""

    async def all_of_them() -> list[float]:
        return list(await asyncio.gather(*(pace.start() for _ in range(count))))

    return asyncio.run(all_of_them())


def test_a_process_that_never_met_the_database_takes_its_share_at_once(
    home: Path, busy: sqlite3.Connection, brief: None, caplog: pytest.LogCaptureFixture
) -> None:
    busy.execute("BEGIN EXCLUSIVE")
    pace = LeasedPace(40, Leases("any.example"))
    with caplog.at_level(logging.WARNING):
        assert max(starts(pace, 10)) < 1.5
    assert "database is locked): this process sends 10 of 40 a minute" in caplog.text
    # The share is spent; the rest waits for the window to pass.
    assert starts(pace, 1)[0] > 0.2
    assert caplog.text.count("is not shared") == 1


def test_a_process_with_a_lease_lets_a_window_pass_and_tells_what_it_sent_when_the_database_is_back(
    home: Path, busy: sqlite3.Connection, brief: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    others, pace = Leases("any.example"), LeasedPace(40, Leases("any.example"))
    others.renew("other", 40, 1, Sent())
    assert max(starts(pace, 3)) < 1
    # The last lease is of two requests: twice as many as wait.
    monkeypatch.setattr(pacing, "LEASED_REQUESTS", 1)
    busy.execute("BEGIN EXCLUSIVE")
    pace._left = 0
    assert min(starts(pace, 4)) >= 1.4
    assert pace._share is not None
    busy.execute("ROLLBACK")
    time.sleep(0.2)
    monkeypatch.setattr(pacing.Pace, "take", lambda _: False)
    assert max(starts(pace, 1)) < 1
    assert pace._share is None
    counted = sqlite3.connect(home / SQLITE_FILE).execute(
        "SELECT process, sum(requests) FROM backfill_assets_tardis_leases GROUP BY process"
    )
    assert {process == "other": requests for process, requests in counted} == {True: 1, False: 3 + 4 + 2}


def test_records_that_are_not_there_leave_the_limit_to_the_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DAGSTER_POSTGRES_URL", raising=False)
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "nowhere"))
    assert isinstance(shared_pace(7, "any.example"), Pace)
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.story
@needs_postgres
@pytest.mark.timeout(120)
def test_postgres_that_goes_away_and_comes_back_fails_no_start(
    brief: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases_module, "LOCK_SECONDS", 3)
    with restartable_server() as server:
        monkeypatch.setenv("DAGSTER_POSTGRES_URL", server.url)
        pace = LeasedPace(1000, Leases("any.example"))
        assert len(starts(pace, 30)) == 30
        server.stop()
        pace._left = 0
        assert len(starts(pace, 5)) == 5
        assert pace._share is not None
        server.start()
        monkeypatch.setattr(pacing.Pace, "take", lambda _: False)
        assert len(starts(pace, 5)) == 5
        assert pace._share is None
