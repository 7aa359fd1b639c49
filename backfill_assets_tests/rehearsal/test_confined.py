"""A memory limit of the kernel counts only if it kills; the manager of cgroups here is a stand-in."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from backfill_assets.rehearsal.confined import confinement
from backfill_assets.rehearsal.model import Promise, ScenarioResult
from backfill_assets.rehearsal.scenarios import Scenario, limited_run, play
from backfill_assets.rehearsal.stage import Stage, Undisturbed

DAY = "2024-01-02"
#: Takes the place of systemd-run: the command runs in its process, and a child kills it above the limit.
LIMITS = """
import os, signal, sys, time
[limit] = [int(w.split("=")[1][:-1]) for w in sys.argv if w.startswith("MemoryMax=")]
command, watched = sys.argv[sys.argv.index("--") + 1 :], os.getpid()
def resident(pid):
    try:
        return int(open(f"/proc/{pid}/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE") >> 20
    except OSError:
        return None
if os.fork() == 0:
    if os.fork() == 0:
        os.close(1), os.close(2)
        while (taken := resident(watched)) is not None and os.getppid():
            if taken > limit:
                os.kill(watched, signal.SIGKILL)
                break
            if open(f"/proc/{watched}/stat").read().split()[2] == "Z":
                break
            time.sleep(0.005)
    os._exit(0)
os.wait()
os.execvp(command[0], command)
"""
LETS_PASS = 'import os, sys; c = sys.argv[sys.argv.index("--") + 1 :]; os.execvp(c[0], c)'
REFUSES = 'import sys; sys.exit("System has not been booted with systemd as init system")'


@pytest.fixture
def manager(tmp_path, monkeypatch):
    """Put a program in the place of systemd-run."""

    def put(code: str) -> None:
        folder = tmp_path / "bin"
        folder.mkdir(exist_ok=True)
        script = folder / "systemd-run"
        script.write_text(f"#!{sys.executable}\n{code}")
        script.chmod(0o755)
        monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.defpath}")

    return put


@pytest.mark.parametrize(
    ("code", "why"),
    [
        (REFUSES, "systemd-run cannot set a limit: System has not been booted with systemd as init system"),
        (LETS_PASS, "a limit of 100 MB did not stop a command that took 400 MB"),
    ],
)
def test_a_limit_that_is_refused_or_has_no_effect_is_none(code, why, manager) -> None:
    manager(code)
    assert confinement(1_000).why_not == why
    assert confinement(1_000).words == ()


def test_without_the_manager_there_is_no_limit(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert confinement(1_000).why_not == "there is no command systemd-run"


def test_a_limit_that_kills_is_one_and_spares_who_stays_below_it(manager) -> None:
    manager(LIMITS)
    found = confinement(200)
    assert (found.why_not, found.words[-1]) == ("", "--")
    for megabytes, code in ((20, 0), (600, -9)):
        take = f"import time; taken = b'x' * ({megabytes} << 20); time.sleep(0.2)"
        done = subprocess.run([*found.words, sys.executable, "-c", take], check=False)
        assert done.returncode == code


def limited(folder: Path, limit_mb: int) -> ScenarioResult:
    def runs(stage: Stage) -> None:
        """It runs below a limit."""
        with stage.house() as house:
            limited_run(stage, house, limit_mb)

    stage = Stage("runs", folder / str(limit_mb), DAY, Undisturbed({}, 18, 1_000_000))
    return play(Scenario("runs", runs), stage, folder / "logs")


@pytest.mark.parametrize(
    ("code", "limit_mb", "state"),
    [(LETS_PASS, 1_000, "not run"), (LIMITS, 1_000, "kept"), (LIMITS, 30, "broken")],
)
def test_a_run_below_a_limit_is_kept_only_where_the_limit_is_real(
    code, limit_mb, state, manager, tmp_path
) -> None:
    manager(code)
    assert limited(tmp_path, limit_mb).state(Promise.CONTAINED) == state
