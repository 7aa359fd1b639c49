"""``backfill-assets run``: days in one process, one line for each, and exit codes that a script can trust."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest
import yaml

from backfill_assets.feeds import Feed
from backfill_assets.settings import ENVIRONMENTS
from backfill_assets.standins import faults
from backfill_assets.standins.faults import Fault

FIRST, SECOND, THIRD = "2024-01-01", "2024-01-02", "2024-01-03"


def test_days_are_run_one_after_the_other_and_told_in_a_line_each(desk, standin, dagster_home, monkeypatch):
    desk.set(BACKFILL_STANDIN_URL=standin.url, DAGSTER_HOME=str(dagster_home))
    answer = desk.run("run", "--date", FIRST, "--end", SECOND)
    assert (answer.code, answer.err) == (0, "")
    lines = answer.out.splitlines()
    assert re.fullmatch(rf"{FIRST} published  9 feeds fetched, 5 partitions loaded in [\d.]+ s\.", lines[0])
    # The second day brings trades that belong to the first.
    assert re.fullmatch(
        rf"{SECOND} published  9 feeds fetched, \d+ partitions loaded in [\d.]+ s\.", lines[1]
    )
    assert re.fullmatch(r"2 days: 2 published in \d+ s", lines[2])
    monkeypatch.setenv("DAGSTER_HOME", str(dagster_home))
    with dg.DagsterInstance.get() as instance:
        runs = instance.get_runs()
    assert [(run.status, run.tags["dagster/partition"]) for run in runs] == [
        (dg.DagsterRunStatus.SUCCESS, SECOND),
        (dg.DagsterRunStatus.SUCCESS, FIRST),
    ]

    again = desk.run("run", "--date", FIRST)
    assert again.code == 0
    assert "Nothing was done twice: 9 feeds were already in the lake" in again.out
    assert len(again.out.splitlines()) == 1


def test_a_held_day_and_a_degraded_one_stop_no_other_and_show_the_command_that_mends(desk, standin):
    gone = Fault(always=faults.not_found())
    feeds = [f"{e}/trades/{s}-USDT" for e, s in (("kraken", "XBT"), ("kraken", "ETH"), ("kraken", "ADA"))]
    feeds += [f"coinbase/trades/{s}-USDT" for s in ("BTC", "ETH", "ADA")]
    for feed in feeds:
        standin.faults.put_dataset(Feed.parse(feed), FIRST, gone)
    standin.faults.put_dataset(Feed.parse(feeds[0]), SECOND, gone)
    answer = desk.set(BACKFILL_STANDIN_URL=standin.url).run("run", "--date", FIRST, "--end", THIRD)
    assert answer.code == 1
    assert [line.split()[:2] for line in answer.out.splitlines() if line.startswith("2024")] == [
        [FIRST, "held"],
        [SECOND, "degraded"],
        [THIRD, "published"],
    ]
    assert f"--partition {FIRST}" in answer.out
    assert f"--partition {SECOND}" in answer.out
    assert "3 days: 1 held, 1 degraded, 1 published in" in answer.out


def test_degraded_days_are_in_the_tables_so_the_exit_code_is_0(desk, standin):
    standin.faults.put_dataset(Feed.parse("kraken/trades/XBT-USDT"), FIRST, Fault(always=faults.not_found()))
    answer = desk.set(BACKFILL_STANDIN_URL=standin.url).run("run", "--date", FIRST)
    assert answer.code == 0
    assert answer.out.startswith(f"{FIRST} degraded")


@pytest.fixture
def laptop(desk, tmp_path, standin):
    """The shipped environment ``tardis`` with the stand-in's address; no variable is set."""
    content = yaml.safe_load((ENVIRONMENTS / "tardis.yaml").read_text())
    assert "tardis" not in content
    endpoint = f"{standin.url}/v1"
    content["tardis"] = {"datasets_endpoint": f"{endpoint}/datasets", "api_endpoint": endpoint}
    content["universe"] = [{"exchanges": ["binance"], "symbols": ["BTC-USDT"]}]
    file = tmp_path / "tardis.yaml"
    file.write_text(yaml.safe_dump(content))
    return desk.set(BACKFILL_ENV=str(file))


def settings_of(laptop):
    return yaml.safe_load(Path(laptop.environment["BACKFILL_ENV"]).read_text())


@pytest.mark.story
def test_on_a_laptop_days_and_records_are_kept_without_any_export(laptop, standin):
    answer = laptop.run("run", "--date", FIRST)
    assert (answer.code, answer.err) == (0, "")
    assert answer.out.startswith(f"{FIRST} published")
    folder = laptop.folder / "data" / "tardis"
    assert laptop.left == ["data"]
    assert sorted(path.name for path in folder.iterdir()) == ["dagster", "lake", "warehouse"]
    # The link points into another folder of the package, as after a new installation.
    (folder / "dagster" / "dagster.yaml").unlink()
    (folder / "dagster" / "dagster.yaml").symlink_to(folder / "gone.yaml")
    doctor = laptop.run("doctor")
    assert (doctor.code, doctor.out.splitlines()[-1]) == (0, "ok    Dagster storage: 1 runs in SQLite")
    assert laptop.run("recent").code == 0

    asked = len(standin.requests)
    refused = laptop.run("run", "--date", FIRST, "--end", "2024-01-03")
    assert (refused.code, refused.error) == (
        2,
        "Tardis requires an API key for 2024-01-02 and 1 more day: set TARDIS_API_KEY "
        "(only the first day of each month is free)",
    )
    assert len(standin.requests) == asked
    laptop.set(TARDIS_API_KEY=standin.api_key)
    assert laptop.run("run", "--date", SECOND).out.startswith(f"{SECOND} published")
    # Once the day is in the lake, the run needs no file of the vendor.
    laptop.environment.pop("TARDIS_API_KEY")
    assert laptop.run("run", "--date", SECOND).out.startswith(f"{SECOND} published  0 feeds fetched")


def test_a_home_that_cannot_be_made_is_named_with_the_setting(laptop):
    (laptop.folder / "data").mkdir()
    (laptop.folder / "data" / "tardis").write_text("in the way")
    answer = laptop.run("recent")
    assert answer.code == 1
    assert answer.error == (
        f"{laptop.folder}/data/tardis/dagster: Not a directory; set dagster_home in the settings, "
        "or DAGSTER_HOME, to another folder"
    )


def test_days_that_cannot_be_run_are_refused_before_anything_runs(desk, standin):
    desk.set(BACKFILL_STANDIN_URL=standin.url)
    for arguments, said in (
        (("--date", SECOND, "--end", FIRST), "swap them"),
        (("--date", "2099-01-01"), "2099-01-01 cannot be run: days go from"),
        (("--date", "yesterday"), "yesterday"),
    ):
        answer = desk.run("run", *arguments)
        assert answer.code == 2
        assert said in answer.error
    assert desk.left == []


def test_a_vendor_that_does_not_answer_is_told_before_the_run_tries_for_minutes(laptop, closed_port):
    file = laptop.folder / "away.yaml"
    content = settings_of(laptop)
    away = f"http://127.0.0.1:{closed_port}/v1"
    content["tardis"] = {"datasets_endpoint": away, "api_endpoint": away, "retry_budget_seconds": 1_500}
    file.write_text(yaml.safe_dump(content))
    process = laptop.set(BACKFILL_ENV=str(file)).start("run", "--date", FIRST)
    first = line = process.stdout.readline()
    while line and "trying again in" not in line:
        line = process.stdout.readline()
    # A terminal interrupts every process of the group.
    os.killpg(process.pid, signal.SIGINT)
    said, _ = process.communicate(timeout=60)
    assert first.startswith(f"cannot reach {away}/exchanges/binance: Cannot connect to host")
    assert first.endswith("; the run tries 3 times for up to 25 min each, and Ctrl-C ends it\n")
    assert process.returncode == 130
    assert "Traceback" not in said
    kept = "earlier days and fetched files are kept, and the same command goes on from there"
    assert said.splitlines()[-1] == f"{FIRST} interrupted  {kept}"


DROPS_THE_FIRST = """
import os, signal, time
from backfill_assets import local_runs

def drop(*_):
    signal.signal(signal.SIGINT, signal.default_int_handler)

signal.signal(signal.SIGINT, drop)
local_runs._SECONDS_TO_END = 0.1
try:
    with local_runs.interrupting_until_ended():
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(60)
except KeyboardInterrupt:
    print("ended")
with local_runs.interrupting_until_ended():
    time.sleep(0.5)
print("not interrupted")
"""


def test_an_interrupt_that_is_dropped_comes_again_until_the_run_has_ended():
    words = [sys.executable, "-c", DROPS_THE_FIRST]
    done = subprocess.run(words, capture_output=True, text=True, timeout=50, check=True)
    assert done.stdout == "ended\nnot interrupted\n"


def test_a_lake_that_cannot_be_written_is_named_with_the_cause(laptop):
    content = settings_of(laptop)
    content["lake"] = {"uri": "/proc/nothing/lake"}
    (laptop.folder / "proc.yaml").write_text(yaml.safe_dump(content))
    answer = laptop.set(BACKFILL_ENV=str(laptop.folder / "proc.yaml")).run("run", "--date", FIRST)
    assert answer.code == 1
    assert "FileNotFoundError: [Errno 2] No such file or directory: '/proc/nothing'" in answer.out
    assert "DagsterExecutionStepExecutionError" not in answer.out
    doctor = laptop.run("doctor")
    assert (
        "FAIL  lake: /proc/nothing: No such file or directory: choose another place, or give this user access"
        in doctor.out
    )


def test_settings_that_need_a_stand_in_refuse_all_days_at_once(desk):
    answer = desk.run("run", "--date", FIRST, "--end", THIRD)
    assert answer.code == 1
    assert answer.error.startswith("environment variable BACKFILL_STANDIN_URL is not set")
    assert (answer.out, len(answer.err.splitlines())) == ("", 1)
