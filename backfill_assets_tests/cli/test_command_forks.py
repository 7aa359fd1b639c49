"""A command in a fork behaves as a command that a user starts: same input, same output."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from backfill_assets_tests.command_forks import CommandForks, starts_otherwise

TELLS = """
import os, sys, threading, time, atexit
print(sys.argv, os.getcwd(), sys.path[0], os.environ.get("MINE"), os.environ.get("HOME"), __name__)
print("said", file=sys.stderr)
atexit.register(print, "at the end")
threading.Thread(target=lambda: (time.sleep(0.2), print("by a thread"))).start()
"""
ENDS = {
    "by itself": "",
    "with a code": "raise SystemExit(7)",
    "without one": "import sys; sys.exit()",
    "with words": "raise SystemExit('no such day')",
    "by an error": "{}['key']",
    "in a signal": "import os, signal; os.kill(os.getpid(), signal.SIGUSR1)",
}


def both(forks: CommandForks, script: Path, *words: str) -> list[tuple[int, bytes, list[bytes]]]:
    """Exit code, output and the ends of the error lines, from a fork and from a new process."""
    environment = {**os.environ, "MINE": "kept"}
    del environment["HOME"]
    forked = forks.run([str(script), *words], script.parent, environment)
    real = subprocess.run(
        [sys.executable, str(script), *words], cwd=script.parent, env=environment, capture_output=True
    )
    return [(done.returncode, done.stdout, done.stderr.splitlines()[-1:]) for done in (forked, real)]


def test_a_fork_has_arguments_folder_variables_streams_threads_and_exit_functions(
    forks: CommandForks, tmp_path: Path
) -> None:
    script = tmp_path / "script"
    script.write_text(TELLS)
    forked, real = both(forks, script, "--one", "2")
    assert forked == real
    assert forked[1].splitlines()[1:] == [b"by a thread", b"at the end"]


@pytest.mark.parametrize("end", ENDS)
def test_a_fork_ends_like_a_process(forks: CommandForks, tmp_path: Path, end: str) -> None:
    script = tmp_path / "script"
    script.write_text(ENDS[end])
    forked, real = both(forks, script)
    assert forked == real


def test_variables_that_an_interpreter_reads_at_its_start_ask_for_a_real_one() -> None:
    assert not starts_otherwise({**os.environ, "DAGSTER_HOME": "/tmp", "BACKFILL_ENV": "local"})
    assert starts_otherwise({**os.environ, "PYTHONIOENCODING": "ascii"})
    assert starts_otherwise({**os.environ, "LC_ALL": "C" if os.environ.get("LC_ALL") != "C" else "POSIX"})
