"""A command runs with the stand-in behind it, and ends as it would alone."""

from __future__ import annotations

import gzip
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from backfill_assets.failures import PermanentFailure
from backfill_assets.standins.run import run_with_standins, serve_standins
from backfill_assets.standins.tardis import TardisStandin

FETCH = """
import json, os, sys, urllib.request
url = os.environ["BACKFILL_STANDIN_URL"]
assert json.load(urllib.request.urlopen(url + "/v1/exchanges/kraken"))["id"] == "kraken"
open(sys.argv[1], "w").write(url)
"""
#: Prints when it is ready, and ends with 7 after an interrupt or an orderly termination.
PATIENT = """
import signal, sys, time
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, lambda number, frame: sys.exit(number))
print("ready", flush=True)
time.sleep(60)
"""


@contextmanager
def started(code: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def next_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline()


def running(command: list[str]) -> str:
    imports = "import sys; from backfill_assets.standins.run import run_with_standins"
    return f"{imports}; sys.exit(run_with_standins({command!r}))"


def test_the_command_reaches_the_stand_in_which_ends_with_it(tmp_path: Path) -> None:
    assert run_with_standins([sys.executable, "-c", FETCH, str(tmp_path / "url")]) == 0
    url = (tmp_path / "url").read_text()
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+", url)
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(url)
    assert "BACKFILL_STANDIN_URL" not in os.environ


def test_only_a_stand_in_of_own_files_is_found_by_settings_of_own_files(tmp_path: Path) -> None:
    file = tmp_path / "files" / "kraken_trades_2025-11-10_XBT-USDT.csv.gz"
    file.parent.mkdir()
    file.write_bytes(gzip.compress(b""))
    ask = "import os, sys; open(sys.argv[1], 'w').write(os.environ.get('BACKFILL_DATASETS_URL', 'not set'))"
    command = [sys.executable, "-c", ask, str(tmp_path / "url")]
    assert run_with_standins(command) == 0
    assert (tmp_path / "url").read_text() == "not set"
    assert run_with_standins(command, datasets_dir=file.parent) == 0
    assert (tmp_path / "url").read_text().startswith("http://127.0.0.1:")


@pytest.mark.parametrize("code", [0, 1, 3])
def test_the_exit_code_is_the_commands(code: int) -> None:
    assert run_with_standins([sys.executable, "-c", f"raise SystemExit({code})"]) == code


def test_a_command_ended_by_a_signal_gives_128_and_its_number() -> None:
    code = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    assert run_with_standins([sys.executable, "-c", code]) == 128 + signal.SIGKILL


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_are_handed_on_and_the_commands_end_is_awaited(number: signal.Signals) -> None:
    with started(running([sys.executable, "-c", PATIENT])) as process:
        assert next_line(process) == "ready\n"
        process.send_signal(number)
        assert process.wait(timeout=20) == number


def test_a_command_that_does_not_exist_is_a_plain_failure() -> None:
    with pytest.raises(PermanentFailure) as failure:
        run_with_standins(["no-such-command-here", "--help"])
    message = "cannot run 'no-such-command-here': No such file or directory; check its spelling and PATH"
    assert str(failure.value) == message


def test_no_command_is_a_plain_failure() -> None:
    with pytest.raises(PermanentFailure, match="backfill-assets standins -- COMMAND"):
        run_with_standins([])


def test_a_taken_port_and_a_missing_directory_are_plain_failures(tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    command = [sys.executable, "-c", f"open({str(marker)!r}, 'w')"]
    with TardisStandin() as standin:
        with pytest.raises(PermanentFailure, match=f"port {standin.port} is in use"):
            run_with_standins(command, port=standin.port)
        with pytest.raises(PermanentFailure, match=f"port {standin.port} is in use"):
            serve_standins(standin.port, None)
    with pytest.raises(PermanentFailure, match="there is no directory"):
        run_with_standins(command, datasets_dir=tmp_path / "nowhere")
    assert not marker.exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_without_a_command_it_serves_until_interrupted(number: signal.Signals) -> None:
    with started("from backfill_assets.standins.run import serve_standins; serve_standins()") as process:
        url = re.findall(r"http://127\.0\.0\.1:\d+", next_line(process))[0]
        assert next_line(process) == f"export BACKFILL_STANDIN_URL={url}\n"
        with urllib.request.urlopen(f"{url}/v1/exchanges/binance") as answer:
            assert answer.status == 200
        process.send_signal(number)
        started_waiting = time.monotonic()
        assert process.wait(timeout=20) == 0
        assert time.monotonic() - started_waiting < 10
