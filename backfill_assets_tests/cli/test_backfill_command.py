"""``backfill``, ``status``, ``recent``, ``cancel``, ``retry`` as processes, beside a daemon and no server."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from backfill_assets.standins.market import Market
from backfill_assets.standins.tardis import TardisStandin
from backfill_assets_tests.cli.conftest import REPOSITORY, Desk
from backfill_assets_tests.command_forks import CommandForks
from backfill_assets_tests.progress.rig import EXCHANGES, SYMBOLS, Rig, take_away_feeds

pytestmark = [pytest.mark.story, pytest.mark.timeout(500)]

GOOD, BAD = "2024-01-01", "2024-01-02"
ASKED = ("backfill", "--start", GOOD, "--end", BAD, "--reason", "a test", "--request-id", "one")


class Office:
    """A desk with a daemon beside it; six of nine feeds of ``BAD`` are missing."""

    def __init__(self, desk: Desk, standin: TardisStandin) -> None:
        self.desk = desk
        self.standin = standin


@pytest.fixture(scope="module")
def office(tmp_path_factory: pytest.TempPathFactory, forks: CommandForks) -> Iterator[Office]:
    home = tmp_path_factory.mktemp("home")
    (home / "dagster.yaml").symlink_to(REPOSITORY / "dagster.yaml")
    folder = tmp_path_factory.mktemp("desk")
    rows = {(exchange, symbol): 2_000 for exchange in EXCHANGES for symbol in SYMBOLS}
    with TardisStandin(Market(rows=rows), clock=lambda: datetime(2024, 2, 10, 12, tzinfo=UTC)) as standin:
        desk = Desk(folder, forks).set(
            DAGSTER_HOME=str(home), BACKFILL_DATA=str(home / "data"), BACKFILL_STANDIN_URL=standin.url
        )
        take_away_feeds(standin, BAD)
        rig = Rig(home, desk.environment, standin)
        rig.start_daemon()
        try:
            yield Office(desk, standin)
        finally:
            rig.kill("daemon")


@pytest.fixture(scope="module")
def held(office: Office) -> str:
    """A job whose second day is held, started and watched to its end."""
    answer = office.desk.run(*ASKED, "--wait")
    assert answer.code == 1, answer.err
    lines = answer.out.splitlines()
    job_id, _, words = lines[0].partition(": ")
    assert words == "2024-01-01 to 2024-01-02, 2 days"
    assert f"{GOOD} ✓ published" in lines
    assert any(line.startswith(f"{BAD} × held: ") for line in lines)
    assert lines[-1] == (
        f"{job_id} failed: 1 of 2 days: {BAD} held; backfill-assets retry {job_id} runs them again"
    )
    return job_id


def test_a_waiting_backfill_tells_each_day_and_ends_with_the_outcome(office: Office, held: str) -> None:
    again = office.desk.run(*ASKED)
    assert again.code == 0
    assert again.out.startswith(
        f"{held}: 2024-01-01 to 2024-01-02, 2 days; made before by this request_id, now "
    )


def test_a_backfill_without_a_daemon_says_that_no_day_will_run(
    desk: Desk, dagster_home: Path, standin: TardisStandin
) -> None:
    answer = desk.set(DAGSTER_HOME=str(dagster_home), BACKFILL_STANDIN_URL=standin.url).run(*ASKED)
    assert answer.code == 0
    assert answer.err == (
        "! no Dagster daemon has run yet: run 'dagster-daemon run -m backfill_assets.definitions' "
        "on the same DAGSTER_HOME or database\n"
    )


def test_status_and_recent_tell_it_to_people_and_to_programs(office: Office, held: str) -> None:
    answer = office.desk.run("status", held)
    assert answer.code == 0
    lines = answer.out.splitlines()
    assert lines[0] == f"{held}  2024-01-01 to 2024-01-02  × failed, 100 %"
    assert "  days     1 published, 1 held" in lines
    assert "  reason   a test" in lines
    [at] = [at for at, line in enumerate(lines) if line.startswith(f"  {BAD} × held: ")]
    assert lines[at + 1].startswith("    try first: backfill-assets standins -- dg launch ")
    status = json.loads(office.desk.run("status", held, "--json").out)
    assert [day["state"] for day in status["days"]] == ["published", "held"]
    recent = office.desk.run("recent", "--state", "failed")
    assert held in recent.out
    assert "1 published, 1 held" in recent.out
    jobs = json.loads(office.desk.run("recent", "--json", "--limit", "1").out)["jobs"]
    assert len(jobs) == 1
    assert "no backfill yet" in office.desk.run("recent", "--state", "canceled").out


def test_an_interrupt_ends_the_watching_alone_and_the_job_is_cancelled_by_its_id(
    office: Office, held: str
) -> None:
    process = office.desk.start("backfill", "--start", "2024-01-10", "--end", "2024-01-17", "--wait")
    assert process.stdout is not None
    job_id = process.stdout.readline().partition(":")[0]
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        state = json.loads(office.desk.run("status", job_id, "--json").out)["state"]
        if state == "running":
            break
        time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    rest, _ = process.communicate(timeout=60)
    assert process.returncode == 130, rest
    assert f"{job_id} goes on without this command: backfill-assets status {job_id} watches it" in rest
    assert "Traceback" not in rest
    assert json.loads(office.desk.run("status", job_id, "--json").out)["state"] == "running"
    answer = office.desk.run("cancel", job_id)
    assert (answer.code, answer.out) == (0, f"{job_id} is canceling\n")
    while json.loads(office.desk.run("status", job_id, "--json").out)["state"] != "canceled":
        assert time.monotonic() < deadline + 120
        time.sleep(0.5)
    assert office.desk.run("cancel", job_id).out == f"{job_id} is canceled\n"


def test_a_retry_that_heals_the_day_ends_well(office: Office, held: str) -> None:
    office.standin.faults.clear()
    answer = office.desk.run("retry", held, "--wait")
    assert answer.code == 0, answer.out + answer.err
    assert answer.out.splitlines()[0] == f"{held} is queued, attempt 2"
    assert answer.out.splitlines()[-1] == f"{held} succeeded: 2 published"
    assert "nothing to retry" in office.desk.run("retry", held).error
    assert "nothing to cancel" in office.desk.run("cancel", held).error


def test_mistakes_are_told_in_one_line(office: Office) -> None:
    run = office.desk.run
    for command in ("status", "cancel", "retry"):
        assert "there is no job 'nosuchjb'" in run(command, "nosuchjb").error
    unknown = run("backfill", "--start", GOOD, "--end", GOOD, "--exchanges", "mtgox")
    assert "is not an exchange" in unknown.error
    assert "before it starts" in run("backfill", "--start", BAD, "--end", GOOD).error
    assert "request id: " in run("backfill", "--start", GOOD, "--end", GOOD, "--request-id", "a b").error
    assert run("backfill", "--start", GOOD).code == 2


def test_without_dagster_home_each_command_says_what_to_set(desk: Desk, tmp_path: Path) -> None:
    assert desk.run("recent").error.endswith('export DAGSTER_HOME="$PWD/.home"')
    assert "DAGSTER_HOME is not set" in desk.run("backfill", "--start", GOOD, "--end", GOOD).error
    assert desk.left == []


def test_recent_into_a_pipe_is_one_line_per_job_however_narrow(desk: Desk, dagster_home: Path) -> None:
    desk.set(DAGSTER_HOME=str(dagster_home), COLUMNS="40")
    reason = "a reason that goes on " * 5
    started = desk.run("backfill", "--start", GOOD, "--end", BAD, "--reason", reason)
    job_id = started.out.partition(":")[0]
    heading, line = desk.run("recent").out.splitlines()
    assert heading.split() == ["job", "days", "state", "%", "outcome", "started", "reason"]
    assert line.startswith(f"{job_id}  {GOOD} to {BAD}  ")
    assert reason.strip() in line
