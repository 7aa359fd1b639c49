"""``backfill-assets serve`` as a process: it serves until a person ends it."""

from __future__ import annotations

import signal
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from backfill_assets_tests.cli.conftest import Desk


@pytest.mark.parametrize("more", [(), ("--with-ui",)], ids=["alone", "with_ui"])
def test_an_interrupt_ends_the_server_well_and_without_a_word(
    desk: Desk, dagster_home: Path, more: tuple[str, ...]
) -> None:
    process = desk.set(DAGSTER_HOME=str(dagster_home)).start("serve", "--port", "0", *more)
    assert process.stdout is not None
    try:
        lines = iter(process.stdout.readline, "")
        page = next(line for line in lines if line.startswith("Page: ")).removeprefix("Page: ").strip()
        assert any(line.startswith("No token is set") for line in lines)
        wait_until_it_answers(f"{page}healthz")
        process.send_signal(signal.SIGINT)
        rest, _ = process.communicate(timeout=60)
        # The code server of Dagster's UI logs its own end.
        said = [line for line in rest.splitlines() if "dagster.code_server" not in line]
        assert (process.returncode, said) == (0, [])
    finally:
        process.kill()


def wait_until_it_answers(url: str) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            urllib.request.urlopen(url, timeout=60).close()
        except urllib.error.URLError:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        else:
            return
