"""``backfill-assets standins -- COMMAND``: the command's exit code, with the stand-in in its environment."""

from __future__ import annotations

import re
import signal
import urllib.error
import urllib.request

import psutil
import pytest


@pytest.mark.parametrize("code", [0, 1, 7])
def test_the_exit_code_is_the_commands(desk, python, code):
    assert desk.run("standins", "--", python, "-c", f"raise SystemExit({code})").code == code


def test_the_command_finds_the_stand_in_in_its_environment_and_its_options_are_its_own(desk, python):
    script = (
        "import json, os, sys, urllib.request as r; "
        "print(json.load(r.urlopen(os.environ['BACKFILL_STANDIN_URL'] + '/v1/exchanges/kraken'))['id'], "
        "os.environ['MINE'], sys.argv[1:])"
    )
    answer = desk.set(MINE="kept").run("standins", "--", python, "-c", script, "--port", "-x", "--", "y")
    assert (answer.code, answer.out) == (0, "kraken kept ['--port', '-x', '--', 'y']\n")


def test_the_local_environment_without_stand_ins_says_how_to_have_them(desk):
    answer = desk.run("doctor")
    assert answer.code == 1
    remedy = (
        "environment variable BACKFILL_STANDIN_URL is not set: the local environment reads the Tardis "
        "stand-in; run your command as 'backfill-assets standins -- COMMAND'"
    )
    for exchange in ("binance", "coinbase", "kraken"):
        assert f"FAIL  Tardis {exchange}: {remedy}\n" in answer.out


def test_an_interrupt_ends_the_command_too(desk, python):
    script = "import time; print('ready', flush=True); time.sleep(120)"
    process = desk.start("standins", "--", python, "-c", script)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    [child] = psutil.Process(process.pid).children()
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=30) != 0
    assert not child.is_running()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_alone_it_says_how_to_use_it_and_serves_until_it_is_stopped(desk, number):
    process = desk.start("standins")
    assert process.stdout is not None
    first, second = process.stdout.readline(), process.stdout.readline()
    url = re.findall(r"http://127\.0\.0\.1:\d+", first)[0]
    assert second == f"export BACKFILL_STANDIN_URL={url}\n"
    with urllib.request.urlopen(f"{url}/v1/exchanges/binance", timeout=30) as answer:
        assert answer.status == 200
    process.send_signal(number)
    assert process.wait(timeout=30) == 0
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(url, timeout=5)
