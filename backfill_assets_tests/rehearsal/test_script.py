"""The script posts one message after every rehearsal, and ends with its exit code."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from backfill_assets_tests.alerts.listener import Listener, listening

SCRIPT = Path(__file__).parents[2] / "scripts" / "run_daily_backfill_test.sh"
DAY = "2024-01-02"

pytestmark = [
    pytest.mark.story,
    pytest.mark.timeout(300),
    pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl"),
]


def run(folder: Path, people: Listener, environment: str, options: str) -> tuple[int, str]:
    """Exit code, and the message that was posted."""
    before = len(people.got)
    variables = {
        **os.environ,
        "LOG_DIR": str(folder / "logs"),
        "SLACK_WEBHOOK_URL": f"http://{people.address}/services/T/B/secret",
        "REHEARSE_OPTIONS": options,
    }
    done = subprocess.run(
        [SCRIPT, DAY, environment], env=variables, cwd=folder, capture_output=True, text=True, timeout=280
    )
    assert len(people.got) == before + 1
    path, body = people.got[-1]
    assert path == "/services/T/B/secret"
    assert "services/T/B" not in done.stdout + done.stderr
    for log in (folder / "logs").rglob("*.log"):
        assert "services/T/B" not in log.read_text()
    return done.returncode, body["text"]


def test_a_good_one_a_wrong_one_and_an_early_end_are_three_messages(tmp_path: Path) -> None:
    with listening() as people:
        code, text = run(tmp_path, people, "local", "--scenario normal")
        assert (code, text.split(".")[0]) == (0, f"Rehearsal of {DAY} (local): all promises kept")
        assert list((tmp_path / "logs").rglob("junit.xml"))

        code, text = run(tmp_path, people, "local", "--scenario no-such<!channel>")
        assert code == 2
        assert text.startswith(f"Rehearsal of {DAY} (local) failed while rehearsing (exit code 2):\n")
        assert "no-such&lt;!channel&gt;" in text

        code, text = run(tmp_path, people, "nowhere", "")
        assert code == 1
        assert "failed while trying the environment with doctor (exit code 1)" in text
        assert "unknown environment" in text


def test_without_a_webhook_nothing_is_posted_and_the_log_is_named(tmp_path: Path) -> None:
    variables = {name: value for name, value in os.environ.items() if name != "SLACK_WEBHOOK_URL"}
    done = subprocess.run(
        [SCRIPT, DAY, "nowhere"],
        env={**variables, "LOG_DIR": str(tmp_path)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 1
    log = Path(done.stdout.rpartition("Log: ")[2].strip())
    assert "unknown environment" in log.read_text()
